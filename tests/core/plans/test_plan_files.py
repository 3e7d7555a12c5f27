"""Saved plans: sound, or refused by name. No bit of one leads anywhere else."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import crc32c as crc
import numpy as np
import pyarrow as pa
import pytest

from support.handmade import Handmade, make
from tensorbank import (
    FormatError,
    IntegrityError,
    InvalidInputError,
    Plan,
    StorageError,
    StorageOptions,
    TensorBankError,
)
from tensorbank.client import ServedPlan
from tensorbank.plans import LevelReport, PlanSource, StoreAddress
from tensorbank.plans.sealed_table import load_table, save_table
from tensorbank.reading.sample_reader import SampleReader

N = 23


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Handmade:
    return make(tmp_path_factory.mktemp("bank"), N)


def test_every_flipped_bit_is_refused_and_named(made, tmp_path):
    sound = made.plan.save(tmp_path / "sound").read_bytes()
    path = tmp_path / "flipped"
    rng = np.random.default_rng(0)
    seal = range(8 * (len(sound) - 40), 8 * len(sound))
    n = 0
    for bit in [*rng.integers(0, 8 * len(sound), 1500).tolist(), *range(200), *seal]:
        body = bytearray(sound)
        body[bit // 8] ^= 1 << bit % 8
        path.write_bytes(body)
        with pytest.raises(FormatError, match=str(path)):
            Plan.load(path)
        n += 1
    assert n > 1500


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 200, -1, -32, -33])
def test_a_cut_file_is_refused(made, tmp_path, length):
    sound = made.plan.save(tmp_path / "sound").read_bytes()
    (tmp_path / "cut").write_bytes(sound[:length])
    with pytest.raises(FormatError, match="cut"):
        Plan.load(tmp_path / "cut")
    (tmp_path / "more").write_bytes(sound + sound[-40:])
    with pytest.raises(FormatError, match="more"):
        Plan.load(tmp_path / "more")


def test_a_file_of_an_older_version_is_refused_with_what_to_do(tmp_path):
    table = pa.table({"a": [1]})
    with pa.OSFile(str(tmp_path / "old"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(FormatError, match="older version of TensorBank wrote it; make and save it again"):
        Plan.load(tmp_path / "old")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(FormatError):
            Plan.load(tmp_path / name)


def test_what_is_no_file_is_not_replaced(made, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="exists already and is not a file"):
        made.plan.save(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_leads_to_the_new_plan(made, tmp_path):
    (tmp_path / "newest").symlink_to(tmp_path / "first")
    made.plan.save(tmp_path / "newest")
    assert (tmp_path / "newest").is_symlink()
    assert Plan.load(tmp_path / "first") == made.plan


DESCRIBED = [
    ("fingerprint", None),
    ("source", {"bank": 1}),
    ("source", []),
    ("handles", [{"name": "S2"}]),
    ("handles", 5),
    ("served", {"password": "x"}),
    ("format_version", 99),
    ("endpoint", None),
]


@pytest.mark.parametrize(("field", "value"), DESCRIBED, ids=lambda v: str(v)[:20])
def test_a_sealed_file_that_describes_no_plan_is_refused(made, tmp_path, field, value):
    """A program of another version, or a person, may have written such a file."""
    path = made.plan.save(tmp_path / "plan")
    table = load_table(path, "a plan")
    described = json.loads(table.schema.metadata[b"tensorbank.plan"])
    described[field] = value
    if value is None:
        del described[field]
    save_table(path, table.replace_schema_metadata({b"tensorbank.plan": json.dumps(described).encode()}))
    with pytest.raises(FormatError, match=str(path)):
        Plan.load(path)
    for text in (b"[]", b"5", b"no json", b"\xff"):
        save_table(path, table.replace_schema_metadata({b"tensorbank.plan": text}))
        with pytest.raises(FormatError, match=str(path)):
            Plan.load(path)
    save_table(path, table.drop_columns(["S2.starts"]))
    with pytest.raises(FormatError, match=str(path)):
        Plan.load(path)


def test_a_million_samples_load_in_no_time_and_stay_mapped(tmp_path):
    n = 1_000_000
    rng = np.random.default_rng(0)
    table = pa.table({f"c{i}": rng.integers(0, 1 << 60, n) for i in range(8)})
    path = Plan("0" * 32, PlanSource("SELECT 1", {}, 1), (), table, StoreAddress("file:///nowhere")).save(
        tmp_path / "plan"
    )
    taken_s = []
    for _ in range(5):
        started = time.perf_counter()
        plan = Plan.load(path)
        taken_s.append(time.perf_counter() - started)
    assert len(plan) == n
    assert min(taken_s) < 0.1
    assert str(path) in Path("/proc/self/maps").read_text()
    assert plan.table.equals(table)


def test_a_file_is_replaced_as_a_whole_while_another_has_it_open(made, tmp_path):
    path = made.plan.save(tmp_path / "plan")
    first = Plan.load(path)
    replace(made.plan, table=made.plan.table.slice(0, 5)).save(path)
    assert len(Plan.load(path)) == 5
    assert first.table.equals(made.plan.table)
    assert [p.name for p in tmp_path.iterdir()] == ["plan"]
    with pytest.raises(StorageError, match="cannot be written"):
        made.plan.save(tmp_path / "none" / "plan")


ORIGINS = {
    "store": (
        {"endpoint": "http://h:1", "region": "eu-1", "served": None},
        StoreAddress("s3://eo/bank", StorageOptions("http://h:1", region="eu-1")),
    ),
    "service": (
        {
            "endpoint": None,
            "region": None,
            "served": {
                "service": "https://h",
                "bank": "b c",
                "plan": "p",
                "access": "dir",
                "question": '{"table": "t"}',
            },
        },
        ServedPlan("https://h", "b c", "p", "dir", question='{"table": "t"}'),
    ),
}


@pytest.mark.parametrize("which", ORIGINS)
def test_the_origin_of_a_plan_is_in_its_file_as_ever(tmp_path, which):
    """A file as FORMAT.md describes it, written without the code that saves plans."""
    written, origin = ORIGINS[which]
    levels = [{"level": "samples", "considered": 9, "kept": 4}]
    source = {
        "bank": origin.url,
        "sql": "SELECT 1",
        "snapshots": {"t": ["id", 3]},
        "planner_version": 2,
        "levels": levels,
        "scan_blocks": 5,
        "scan_bytes": 6,
    }
    described = {
        "format_version": 3,
        "fingerprint": "f" * 32,
        "source": source,
        "handles": [],
        **written,
    }
    table = pa.table({"n": [1, 2]}).replace_schema_metadata({b"tensorbank.plan": json.dumps(described)})
    save_table(tmp_path / "plan", table)
    plan = Plan.load(tmp_path / "plan")
    assert plan.origin == origin
    assert plan.bank == origin.url
    assert (plan.source.snapshots, plan.source.levels) == ({"t": ("id", 3)}, (LevelReport("samples", 9, 4),))
    again = Plan.load(plan.save(tmp_path / "again"))
    assert (again.origin, again.source, len(again)) == (plan.origin, plan.source, 2)


# ---------------------------------------------------------------- addresses that cannot be


def with_column(plan: Plan, name: str, change) -> Plan:
    """The plan with some numbers of a column changed."""
    column = plan.table[name].combine_chunks()
    kind = column.type
    values = np.array(column.values)
    change(values)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values, kind.value_type), kind.list_size)
    at = plan.table.column_names.index(name)
    return replace(plan, table=plan.table.set_column(at, name, column))


@pytest.mark.parametrize("start", [1 << 47, 1 << 62, (1 << 63) - 1, -1, -(1 << 63), 1 << 46])
def test_bytes_that_no_object_has_are_an_error_that_names_it(made, start):
    plan = with_column(made.plan, "LULC.starts", lambda v: v.__setitem__(7, start))
    with pytest.raises(
        IntegrityError, match=r"LULC of row 7 leads to bytes .*/t/tensors/p/LULC/c/"
    ) as caught:
        SampleReader.of(plan).read([7])
    assert caught.value.kind == "bad-address"


@pytest.mark.parametrize("length", [(1 << 32) - 1, 1 << 31, 100_000])
def test_a_giant_length_is_not_allocated(made, length):
    plan = with_column(made.plan, "S2.lengths", lambda v: v.__setitem__(3, length))
    with pytest.raises(IntegrityError, match="S2 of row 3"):
        SampleReader.of(plan).read([3])


def test_bytes_behind_the_object_are_an_error_that_names_it(made):
    plan = with_column(made.plan, "LULC.starts", lambda v: v.__setitem__(7, 1 << 40))
    with pytest.raises(TensorBankError, match="LULC/c/"):
        SampleReader.of(plan).read([7])


KEYS = [
    "../../other/tensors/p/LULC/c/0/0/0/0/0",
    "t/tensors/../../x/LULC/c/0/0/0/0/0",
    "/etc/passwd",
    "s3://other/t/tensors/p/LULC/c/0/0/0/0",
    "t/tensors/p/../c/0/0/0/0/0",
    "t/tensors/p/LULC/c/0/0/0/0/../../x",
    "t/tensors/p/LULC/c/0/0/0/0\n",
    "t/index/samples/x.parquet",
    "",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_leads_out_of_the_bank_is_refused(made, key):
    name = "LULC.key"
    keys = made.plan.table[name].combine_chunks()
    entries = keys.dictionary.to_pylist()
    entries[0] = key
    column = pa.DictionaryArray.from_arrays(keys.indices, pa.array(entries, pa.string()))
    at = made.plan.table.column_names.index(name)
    plan = replace(made.plan, table=made.plan.table.set_column(at, name, column))
    with pytest.raises(IntegrityError, match="is not a shard of") as caught:
        SampleReader.of(plan).read([0])
    assert caught.value.kind == "bad-address"


# ---------------------------------------------------------------- keys of services


def test_a_key_goes_only_to_a_service_that_the_caller_names(made, tmp_path):
    heard = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def listen() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                heard.append(connection.recv(65536))
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        served = ServedPlan(service=url, bank="b", plan="p", access="url")
        path = replace(made.plan, origin=served).save(tmp_path / "plan")
        with pytest.raises(InvalidInputError, match=f"service='{url}'") as caught:
            Plan.load(path, key="hush")
        assert caught.value.kind == "untrusted-service"
        with pytest.raises(InvalidInputError, match=url) as caught:
            Plan.load(path, key="hush", service="https://mine.example")
        assert caught.value.kind == "other-service"
        assert Plan.load(path).origin.key is None
        assert Plan.load(path, key="hush", service=f"{url}/").origin.key == "hush"
        assert not heard
        listening.shutdown(socket.SHUT_RDWR)
    with pytest.raises(InvalidInputError, match="without a service") as caught:
        Plan.load(made.plan.save(tmp_path / "own"), key="hush")
    assert caught.value.kind == "no-service"
    with pytest.raises(InvalidInputError, match="acess_key") as caught:
        Plan.load(tmp_path / "own", acess_key="x")
    assert "access_key" in str(caught.value)


def test_the_seal_is_what_the_module_says(tmp_path):
    table = pa.table({"a": [1, 2]})
    save_table(tmp_path / "t", table)
    body = (tmp_path / "t").read_bytes()
    magic, n_bytes, checksum, of_seal = struct.unpack("<8sQI8xI", body[-32:])
    assert (magic, checksum, of_seal) == (b"TBSEAL01", crc.crc32c(body[:n_bytes]), crc.crc32c(body[-32:-4]))
    assert pa.ipc.open_file(pa.BufferReader(body[:n_bytes])).read_all().equals(table)
