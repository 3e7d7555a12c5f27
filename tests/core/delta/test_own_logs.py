"""Logs that are read here, whole or from an earlier version on, beside delta-rs' own reading of the same log."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorbank.delta import (
    LevelChange,
    append_commit,
    commit_actions,
    creation_actions,
    metadata_action,
    read_version,
    write_checkpoint,
)
from tensorbank.delta.advanced_files import advanced_files
from tensorbank.delta.own_files import read_own_files
from tensorbank.delta.own_logs import advanced, read_own_log
from tensorbank.index_files import FINITE, IndexMirror, NewFile, statistics_json
from tensorbank.storage import Store

KEY = "t/index/samples"
COLUMNS = pa.schema(
    [
        pa.field("part", pa.string()),
        pa.field("lon", pa.float64()),
        pa.field("row", pa.int32()),
        pa.field("flag", pa.bool_()),
        pa.field("time", pa.timestamp("us", "UTC")),
        pa.field("S2", pa.struct([pa.field("mean", pa.float32()), pa.field("n", pa.int64())])),
    ]
)
ASKED = ("tensorbank.pin.tiles", FINITE)
MANY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
times = st.datetimes().filter(lambda t: t.year > 1970)
bounds = st.fixed_dictionaries(
    {},
    optional={
        "part": st.sampled_from(["", "a", "b", "ü\n", 'q"']),
        "lon": st.floats(allow_nan=False, allow_infinity=False),
        "row": st.integers(-(2**31), 2**31 - 1),
        "flag": st.booleans(),
        "time": times,
        "S2": st.fixed_dictionaries(
            {},
            optional={
                "mean": st.floats(width=32, allow_nan=False, allow_infinity=False),
                "n": st.integers(-(2**63), 2**63 - 1),
            },
        ),
    },
)
files = st.tuples(st.integers(0, 11), bounds, bounds, st.integers(0, 2**40))
commits = st.lists(
    st.tuples(
        st.lists(files, max_size=3, unique_by=lambda f: f[0]), st.sets(st.integers(0, 11)), st.integers(0, 9)
    ),
    min_size=1,
    max_size=6,
)


class Log:
    """A log in a folder, whose versions are read by delta-rs."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder.as_uri())
        self.mirror = IndexMirror(self.store, folder / "cache")
        self.version = -1

    def append(self, actions: list[dict]) -> bytes:
        self.version += 1
        append_commit(self.store, KEY, self.version, actions, {"tensorbank.id": str(self.version)})
        return self.store.get(f"{KEY}/_delta_log/{self.version:020}.json")

    def state(self):
        log = self.mirror.log(KEY, self.version)
        return read_version(log, KEY, "samples", self.store, lambda _: ASKED)

    def said(self):
        """Return what the log says beside files, read without delta-rs."""
        return read_own_log(self.version, self.contents(), KEY, lambda _: ASKED)

    def contents(self) -> dict[str, bytes]:
        log = self.mirror.log(KEY, self.version)
        return {name: (log.folder / "_delta_log" / name).read_bytes() for name in log.names}

    def checkpoint(self) -> None:
        write_checkpoint(self.store, KEY, self.mirror.log(KEY, self.version))


def file_of(number: int, low: dict, high: dict, n: int) -> NewFile:
    return NewFile(f"{KEY}/{number:02}.parquet", n + 1, n, statistics_json(n, low, high))


def begun(folder: Path) -> Log:
    log = Log(folder)
    first = commit_actions(
        KEY, LevelChange(added=(file_of(99, {"part": "m"}, {"part": "m"}, 3),)), {FINITE: 1}
    )
    log.append(creation_actions("id", COLUMNS, {"tensorbank.columns": "x"}) + first)
    return log


def leaves(table: pa.Table) -> dict[str, list]:
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return {name: table[name].to_pylist() for name in table.column_names}


def assert_same(found, told) -> None:
    assert found == told
    assert leaves(found.statistics) == leaves(told.statistics)
    assert found.statistics.schema.equals(told.statistics.schema)


@MANY
@given(commits, st.integers(1, 3), st.integers(0, 5))
def test_the_state_is_the_one_that_delta_rs_reads(tmp_path_factory, changes, at_once, checkpoint):
    log = begun(tmp_path_factory.mktemp("log"))
    state, waiting, pairs = log.state(), [], []
    files = state.files
    there = {99}
    for number, (added, removed, pinned) in enumerate(changes):
        added = [f for f in added if f[0] not in there]
        gone = sorted((removed & there) | ({99} & there if number == 3 else set()))
        named = {f.key: f for f in log.state().files.files}
        change = LevelChange(
            tuple(file_of(*f) for f in added), tuple(named[f"{KEY}/{n:02}.parquet"] for n in gone)
        )
        there = (there - set(gone)) | {f[0] for f in added}
        said = {"tensorbank.pin.tiles": pinned, "another.program": 7} if pinned else {}
        waiting.append(log.append(commit_actions(KEY, change, said)))
        if number == checkpoint:
            log.checkpoint()
        if len(waiting) < at_once and number < len(changes) - 1:
            continue
        told = log.state()
        found = advanced_files(files, KEY, waiting)
        pairs.append((found or told.files, told.files))
        assert (found is None) == (not files.files), "types are known from files"
        state = advanced(state, waiting, ASKED)
        assert state == log.said() == told
        files, waiting = found or told.files, []
    assert pairs
    for found, told in pairs:
        assert_same(found, told)


def test_so_many_commits_are_no_more_pieces(tmp_path):
    log = begun(tmp_path)
    files = log.state().files
    for n in range(60):
        part = f"p{n * 37 % 60:02}"
        added = file_of(n, {"part": part, "lon": n / 3}, {"part": part, "lon": n / 2}, n)
        files = advanced_files(files, KEY, [log.append(commit_actions(KEY, LevelChange((added,)), {}))])
        assert files.statistics.column(0).num_chunks <= 19
    told = log.state().files
    assert_same(files, told)
    assert files.statistics.nbytes <= 1.1 * told.statistics.nbytes + 1000
    assert [f.part for f in files.files] == sorted(f.part for f in files.files)


def test_a_log_says_its_columns_and_settings_as_delta_rs_reads_them(tmp_path):
    log = begun(tmp_path)
    wider = COLUMNS.append(pa.field("more", pa.list_(pa.float32()), metadata={"a": "ü"}))
    log.append([metadata_action("id", wider, {"tensorbank.columns": "x,y"})])
    assert log.said() == log.state()
    assert log.said().columns.equals(log.state().columns, check_metadata=True)
    log.checkpoint()
    log.append(commit_actions(KEY, LevelChange(), {"tensorbank.pin.tiles": 5}))
    assert log.said() == log.state()
    assert log.said().columns.equals(log.state().columns, check_metadata=True)


def test_a_log_that_another_program_wrote_to_is_left_to_delta_rs(tmp_path):
    log = begun(tmp_path)
    state = log.state()
    key = f"{KEY}/_delta_log/{1:020}.json"
    commit = b'{"txn":{"appId":"tensorbank.pin.tiles","version":8}}\n'
    log.store.put(key, commit)
    log.version = 1
    assert (log.said(), advanced(state, [commit], ASKED)) == (None, None)
    log.checkpoint()
    log.store.put(key, commit + b'{"commitInfo":{}}\n')
    log.store.delete(f"{KEY}/_delta_log/{1:020}.checkpoint.crc32c")
    assert log.said() is None


KEYS = pa.schema([pa.field("key", pa.int64()), pa.field("part", pa.string())])
keys_bounds = st.fixed_dictionaries(
    {}, optional={"key": st.integers(-(2**63), 2**63 - 1), "part": st.sampled_from(["", "a", "ü\n"])}
)


@MANY
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), keys_bounds, keys_bounds), min_size=1, max_size=6),
    st.integers(0, 6),
)
def test_files_of_keys_are_those_that_delta_rs_lists(tmp_path_factory, changes, checkpoint):
    log = Log(tmp_path_factory.mktemp("log"))
    log.append(creation_actions("id", KEYS, {}) + commit_actions(KEY, LevelChange(), {FINITE: 1}))
    n_compared = 0
    for number, (name, keep, low, high) in enumerate(changes):
        gone = () if keep else log.state().files.files
        new = file_of(10 * number + name, low, high, number)
        log.append(commit_actions(KEY, LevelChange((new,), gone), {}))
        if number == checkpoint:
            log.checkpoint()
        told, state = log.state().files, log.said()
        found = read_own_files(state, "samples", log.contents(), KEY, KEY)
        assert_same(found, told)
        n_compared += len(found.files)
    assert n_compared


WIDE = pa.schema(
    [
        *COLUMNS,
        pa.field("small", pa.int16()),
        pa.field("tiny", pa.int8()),
        pa.field("bytes", pa.binary()),
        pa.field("times", pa.list_(pa.timestamp("us", "UTC"))),
        pa.field(
            "deep", pa.struct([("ref", pa.struct([("key", pa.string()), ("blocks", pa.list_(pa.int32()))]))])
        ),
    ]
)
deep = st.fixed_dictionaries(
    {}, optional={"ref": st.fixed_dictionaries({}, optional={"key": st.sampled_from(["", "k/1"])})}
)
wide_bounds = st.builds(
    lambda some, small, more: {**some, "small": small, "tiny": small // 300, "deep": more},
    bounds,
    st.integers(-(2**15), 2**15 - 1),
    deep,
)


@MANY
@given(
    st.lists(st.tuples(st.booleans(), wide_bounds, wide_bounds), min_size=1, max_size=5), st.integers(0, 5)
)
def test_files_of_any_columns_of_an_index_are_those_that_delta_rs_lists(
    tmp_path_factory, changes, checkpoint
):
    log = Log(tmp_path_factory.mktemp("log"))
    log.append(creation_actions("id", WIDE, {}) + commit_actions(KEY, LevelChange(), {FINITE: 1}))
    n_compared = 0
    for number, (keep, low, high) in enumerate(changes):
        gone = () if keep else log.state().files.files
        log.append(commit_actions(KEY, LevelChange((file_of(number, low, high, number),), gone), {}))
        if number == checkpoint:
            log.checkpoint()
        told = log.state().files
        found = read_own_files(log.said(), "samples", log.contents(), KEY, KEY)
        assert_same(found, told)
        n_compared += len(found.files)
    assert n_compared


def test_a_column_of_another_type_than_an_index_has_is_left_to_delta_rs(tmp_path):
    log = Log(tmp_path)
    odd = COLUMNS.append(pa.field("day", pa.date32()))
    log.append(creation_actions("id", odd, {}))
    log.append(commit_actions(KEY, LevelChange((file_of(1, {}, {}, 1),)), {}))
    assert read_own_files(log.said(), "samples", log.contents(), KEY, KEY) is None
    assert len(log.state().files.files) == 1


def altered(**fields: object) -> list[dict]:
    (action,) = commit_actions(KEY, LevelChange((file_of(1, {}, {}, 1),)), {})
    return [{"add": {**action["add"], **fields}}]


@pytest.mark.parametrize(
    "actions",
    [
        [metadata_action("id", COLUMNS, {})],
        [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}],
        [{"domainMetadata": {"domain": "d", "configuration": "", "removed": False}}],
        altered(deletionVector={"storageType": "u"}),
        altered(partitionValues={"a": "1"}),
        altered(path="a%20b.parquet"),
        altered(path="../a.parquet"),
        altered(stats=None),
        altered(stats='{"numRecords":1,"minValues":{"row":"one"}}'),
        altered(stats="{}\n{}"),
        [*altered(), {"remove": {"path": "01.parquet", "dataChange": True}}],
    ],
    ids=lambda actions: json.dumps(actions)[:60],
)
def test_what_is_not_understood_is_left_to_delta_rs(tmp_path, actions):
    log = begun(tmp_path)
    files = log.state().files
    assert advanced_files(files, KEY, [log.append(actions)]) is None
    assert advanced_files(files, KEY, [b"{\n"]) is None


def test_the_types_of_an_empty_table_are_not_known(tmp_path):
    log = Log(tmp_path)
    log.append(creation_actions("id", COLUMNS, {}))
    files = log.state().files
    commit = log.append(commit_actions(KEY, LevelChange((file_of(1, {}, {}, 1),)), {}))
    assert advanced_files(files, KEY, [commit]) is None
