"""Shards written anew without deleted samples: other bytes for nobody, fewer bytes for the bank."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, closing
from datetime import timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.dask_processes import DaskProcesses
from support.tiny_source import TinySource, pixels
from tensorbank.cli.app import main
from tensorbank.engines import Workers
from tensorbank.reading import SampleReader
from tensorbank.verification import verify
from tensorbank_indexer import IngestOptions, ingest

# Connections whose other end was killed are left to the collector by Dask, and it is no verdict on a test when that runs.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MODALITIES = ("DEM", "S1RTC")
OPTIONS = IngestOptions(n_workers=1, samples_per_shard=4, n_tiles=2)


@pytest.fixture
def bank(tmp_path):
    bank = tb.create(tmp_path / "bank")
    ingest(TinySource(8, modalities=MODALITIES), bank, "t", OPTIONS)
    return bank


def delete(bank, *numbers: int):
    names = ", ".join(f"'sample-{n:04d}'" for n in numbers)
    return bank.table("t").delete(f"sample_id IN ({names})").version


def stored_refs(bank, version=None) -> dict[tuple[str, str], dict]:
    found = {}
    pinned = bank.catalog.version("t", version)
    gone = bank.catalog.deleted(pinned)
    dead = set() if gone is None else {(r["key"], r["part"]) for r in gone.to_pylist()}
    for file in pinned.samples.files:
        for row in pq.read_table(bank.catalog.path(file)).to_pylist():
            if (row["key"], row["part"]) not in dead:
                found |= {(row["sample_id"], name): row[name]["ref"] for name in MODALITIES}
    return found


def blocks_of(bank, refs) -> dict[tuple[str, str], bytes]:
    get = bank.catalog.store.get_range
    return {k: bytes(get(r["key"], r["offset"], r["offset"] + r["length"])) for k, r in refs.items()}


def shards_of(bank) -> dict[str, int]:
    return {o.key: o.n_bytes for o in bank.catalog.store.objects("t/tensors") if "/c/" in o.key}


@pytest.mark.parametrize("compacted_before", [False, True])
def test_the_samples_that_stay_have_the_same_blocks_and_the_others_are_nowhere(bank, compacted_before):
    version = delete(bank, 1, 2)
    before = stored_refs(bank)
    blocks, old = blocks_of(bank, before), shards_of(bank)
    if compacted_before:
        version = bank.table("t").compact().version
    tried = bank.table("t").compact(rewrite_shards=True, dry_run=True)
    assert shards_of(bank) == old
    done = bank.table("t").compact(rewrite_shards=True)
    assert (tried.n_rewritten, tried.n_wasted_bytes) == (done.n_rewritten, done.n_wasted_bytes)
    assert done.n_rewritten == 2
    assert done.version == version + 1
    after = stored_refs(bank)
    assert blocks_of(bank, after) == blocks
    assert {k[0] for k in after if after[k]["key"] != before[k]["key"]} == {"sample-0000", "sample-0003"}
    assert {k: r["row"] for k, r in after.items()} == {k: r["row"] for k, r in before.items()}
    new = {key: n for key, n in shards_of(bank).items() if key not in old}
    assert sum(new.values()) == sum(n for key, n in old.items() if "/c/0/" in key) - done.n_wasted_bytes
    assert verify(bank, "t", deep=True).findings == []
    assert bank.table("t").diff(version).is_empty
    again = bank.table("t").compact(rewrite_shards=True)
    assert not again.changed
    newest = bank.table("t").history()[0]
    assert (newest.operation, newest.details["rewritten_shards"]) == ("compact", 2)


def test_pinned_readers_have_the_old_shards_until_they_are_collected(bank):
    pinned = bank.sql("SELECT sample_id, DEM FROM t").plan()
    old = set(shards_of(bank))
    delete(bank, *range(4), 5)  # a shard loses all, the other one
    bank.table("t").compact(rewrite_shards=True)
    with closing(SampleReader.of(pinned)) as reader:
        read = reader.read(np.arange(8))["DEM"]
    got = dict(zip(pinned.table["sample_id"].to_pylist(), read, strict=True))
    assert all(np.array_equal(got[f"sample-{n:04d}"], pixels(n, "DEM")) for n in range(8))
    licence = bank.table("t").provenance()[0].licence
    gone = bank.gc(older_than=timedelta(0), dry_run=False)
    assert gone.kinds["tensors"].n_objects == 4
    assert not old & set(shards_of(bank))
    now = tb.open(bank.url)
    read = now.table("t").read("sample-0006")
    assert all(np.array_equal(read[name], pixels(6, name)) for name in MODALITIES)
    assert verify(now, "t", deep=True).findings == []
    assert now.table("t").provenance()[0].licence == licence == "CC0-1.0"
    assert now.table("t").compact(rewrite_shards=True).changed is False


def test_a_copy_keeps_what_the_table_gives_up(bank):
    bank.catalog.copy("t", "u")
    delete(bank, 0, 7)
    bank.table("t").compact(rewrite_shards=True)
    bank.gc(older_than=timedelta(0), dry_run=False)
    now = tb.open(bank.url)
    for table in ("t", "u"):
        assert verify(now, table, deep=True).findings == []
    now.table("u").delete("sample_id = 'sample-0003'")
    assert now.table("u").compact(rewrite_shards=True).n_rewritten == 2
    assert verify(now, "u", deep=True).findings == []


def test_damage_is_not_copied(bank):
    delete(bank, 1)
    ref = stored_refs(bank)["sample-0002", "DEM"]
    path = bank.catalog.store.local_path / ref["key"]
    data = bytearray(path.read_bytes())
    data[ref["offset"] + 20] ^= 1
    path.write_bytes(data)
    objects = {o.key for o in bank.catalog.store.objects("t/index")}
    with pytest.raises(tb.IntegrityError, match=r"row 2 .* is not copied; `tensorbank repair`"):
        bank.table("t").compact(rewrite_shards=True)
    assert {o.key for o in bank.catalog.store.objects("t/index")} == objects


def test_the_command_says_what_it_left_out(bank, capsys):
    delete(bank, 1)
    assert main(["compact", bank.url, "t", "--rewrite-shards", "--dry-run"]) == 0
    assert "2 shards written anew without" in capsys.readouterr().out
    assert main(["compact", bank.url, "t", "--rewrite-shards"]) == 0
    assert "1 row of deleted samples dropped, 2 shards written anew without" in capsys.readouterr().out


def rows_of(bank) -> list[dict]:
    """The rows of samples and tiles of the newest version, in the order in which they are stored."""
    newest = bank.catalog.version("t", None)
    files = [
        f for level in ("samples", "tiles", "shards") for f in bank.catalog.state(newest, level).files.files
    ]
    return [row for f in files for row in pq.read_table(bank.catalog.path(f)).to_pylist()]


def objects_of(bank) -> dict[str, bytes]:
    """All objects of parts; ``#`` and a number at the end of a name is what a killed process was writing."""
    listed = bank.catalog.store.objects("t/tensors")
    return {o.key: bytes(bank.catalog.store.get(o.key)) for o in listed if "#" not in o.key}


@pytest.mark.parametrize("engine", ["processes", "scheduler"])
def test_workers_write_the_shards_that_threads_write(bank, tmp_path, engine):
    """On a cluster one of two workers is killed when the first shard is there; its task is done by the other one."""
    delete(bank, 1, 2, 5)
    other = tb.open(shutil.copytree(tmp_path / "bank", tmp_path / "other"))
    with ExitStack() as stack:
        doomed, workers = [], Workers("processes", 2)
        if engine == "scheduler":
            cluster = stack.enter_context(DaskProcesses(tmp_path / "dask"))
            doomed = cluster.workers(2)[:1]
            workers = Workers(cluster.scheduler, wait_s=100.0)

        def progress(what: str, done: int, total: int) -> None:
            if what == "rewritten shards":
                assert 0 < done <= total == 4
                if doomed:
                    cluster.kill(doomed.pop())

        done = other.table("t").compact(rewrite_shards=True, workers=workers, progress=progress)
        assert doomed == []
    expected = bank.table("t").compact(rewrite_shards=True)
    assert done.n_rewritten == expected.n_rewritten == 4
    assert (done.n_wasted_bytes, done.n_dropped) == (expected.n_wasted_bytes, expected.n_dropped)
    assert objects_of(other) == objects_of(bank)
    assert rows_of(other) == rows_of(bank)
    assert verify(other, "t", deep=True).findings == []


def test_workers_of_another_release_copy_nothing(bank, tmp_path):
    delete(bank, 1)
    before = objects_of(bank)
    with DaskProcesses(tmp_path / "dask") as cluster:
        (other,) = cluster.workers(1, "import tensorbank; tensorbank.__version__ = '0.0.9'")
        with pytest.raises(tb.TensorBankError, match=r"it has tensorbank 0\.0\.9") as refused:
            bank.table("t").compact(rewrite_shards=True, workers=Workers(cluster.scheduler, wait_s=100.0))
    assert other in str(refused.value)
    assert objects_of(bank) == before
    with pytest.raises(tb.InvalidInputError, match="ask for shards to be rewritten"):
        bank.table("t").compact(workers=Workers())
