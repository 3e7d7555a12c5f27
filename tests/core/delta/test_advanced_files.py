"""States that follow from those before them, beside delta-rs' own reading of the same log."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorbank.delta import (
    LevelChange,
    advanced,
    append_commit,
    commit_actions,
    creation_actions,
    metadata_action,
    read_version,
)
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
    assert found.files == told.files
    assert leaves(found.files.statistics) == leaves(told.files.statistics)
    assert found.files.statistics.schema.equals(told.files.statistics.schema)
    assert (found.transactions, found.configuration) == (told.transactions, told.configuration)
    assert found.columns.equals(told.columns)


@MANY
@given(commits, st.integers(1, 3))
def test_the_state_is_the_one_that_delta_rs_reads(tmp_path_factory, changes, at_once):
    log = begun(tmp_path_factory.mktemp("log"))
    state, waiting, pairs = log.state(), [], []
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
        if len(waiting) < at_once and number < len(changes) - 1:
            continue
        told = log.state()
        found = advanced(state, KEY, waiting, ASKED)
        pairs.append((found or told, told))
        assert (found is None) == (not state.files.files), "types are known from files"
        state, waiting = found or told, []
    assert pairs
    for found, told in pairs:
        assert_same(found, told)


def test_so_many_commits_are_no_more_pieces(tmp_path):
    log = begun(tmp_path)
    state = log.state()
    for n in range(60):
        part = f"p{n * 37 % 60:02}"
        added = file_of(n, {"part": part, "lon": n / 3}, {"part": part, "lon": n / 2}, n)
        state = advanced(state, KEY, [log.append(commit_actions(KEY, LevelChange((added,)), {}))], ASKED)
        assert state.files.statistics.column(0).num_chunks <= 19
    assert_same(state, log.state())
    assert state.files.statistics.nbytes <= 1.1 * log.state().files.statistics.nbytes + 1000
    assert [f.part for f in state.files.files] == sorted(f.part for f in state.files.files)


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
    state = log.state()
    assert advanced(state, KEY, [log.append(actions)], ASKED) is None
    assert advanced(state, KEY, [b"{\n"], ASKED) is None


def test_the_types_of_an_empty_table_are_not_known(tmp_path):
    log = Log(tmp_path)
    log.append(creation_actions("id", COLUMNS, {}))
    state = log.state()
    commit = log.append(commit_actions(KEY, LevelChange((file_of(1, {}, {}, 1),)), {}))
    assert advanced(state, KEY, [commit], ASKED) is None
