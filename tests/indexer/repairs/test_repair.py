"""A repaired shard is what was written, byte for byte; what cannot be repaired is named and stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank.cli.app import main
from tensorbank.verification import verify
from tensorbank_indexer import IngestOptions, ingest
from tensorbank_indexer.repairs import repair

MODALITIES = ("DEM", "S1RTC")
OPTIONS = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2, profile="hot")


def source(edition: int = 1, n: int = 5) -> TinySource:
    return TinySource(n, 0, edition, MODALITIES)


@pytest.fixture
def bank(tmp_path) -> tb.Bank:
    made = tb.create(tmp_path / "bank")
    ingest(source(), made, "t", OPTIONS)
    return made


def objects(bank: tb.Bank) -> dict[str, bytes]:
    return {o.key: bank.catalog.store.get(o.key) for o in bank.catalog.store.objects("t")}


def damage_some(bank: tb.Bank) -> list[str]:
    """Remove, cut and flip shards, each another one; return their keys."""
    folder = Path(bank.catalog.store.local_path or "")
    dem = sorted(folder.glob("t/tensors/*/DEM/c/*/0/0/0/0"))
    s1 = sorted(folder.glob("t/tensors/*/S1RTC/c/*/0/0/0/0"))
    assert (len(dem), len(s1)) == (3, 3)
    dem[0].unlink()
    dem[1].write_bytes(dem[1].read_bytes()[:100])
    flipped = bytearray(s1[0].read_bytes())
    flipped[40] ^= 1
    s1[0].write_bytes(flipped)
    index = bytearray(s1[2].read_bytes())
    index[-7] ^= 1
    s1[2].write_bytes(index)
    return sorted(p.relative_to(folder).as_posix() for p in (dem[0], dem[1], s1[0], s1[2]))


def test_damaged_shards_are_put_back_byte_for_byte(bank):
    before = objects(bank)
    keys = damage_some(bank)
    damaged = objects(bank)
    tried = repair(source(), bank, "t", dry_run=True)
    assert (tried.repaired, tried.left, tried.complete) == (keys, [], True)
    assert objects(bank) == damaged, "nothing is written by a dry run"
    done = repair(source(), bank, "t")
    assert (done.repaired, done.left) == (keys, [])
    assert done.n_findings >= 4
    assert objects(bank) == before
    assert verify(bank, "t", deep=True).sound
    assert repair(source(), bank, "t").n_findings == 0


def test_shards_with_deleted_samples_are_repaired_for_the_others(bank):
    bank.table("t").delete("sample_id = 'sample-0001'")
    damage_some(bank)
    assert repair(source(), bank, "t").complete
    assert verify(bank, "t", deep=True).sound
    bank.table("t").compact()
    damage_some(bank)
    assert repair(source(), bank, "t").complete
    assert verify(bank, "t", deep=True).sound


def test_what_the_archives_do_not_have_any_more_is_named_and_left(bank):
    keys = damage_some(bank)
    damaged = objects(bank)
    other = repair(source(edition=2), bank, "t")
    assert [one.key for one in other.left] == [k for k in keys if k != keys[-1]], (
        "an index follows from the rows alone"
    )
    assert all("edition-2" in one.reason for one in other.left)
    fewer = repair(source(n=1), bank, "t")
    assert {one.key for one in fewer.left} == {k for k in keys if k != keys[-1]}
    assert any("the source has no sample sample-000" in one.reason for one in fewer.left)
    now = objects(bank)
    assert {k for k in damaged if damaged[k] != now[k]} == {keys[-1]}


def test_the_command_tells_what_is_left(make_archives, tmp_path, capsys):
    archives, _ = make_archives("terramesh", "--samples", "6", "--per-tar", "6")
    folder = tmp_path / "bank"
    assert main(["ingest", str(archives), str(folder), "--table", "t", "--workers", "1"]) == 0
    (shard,) = folder.glob("t/tensors/*/DEM/c/0/0/0/0/0")
    before = shard.read_bytes()
    shard.unlink()
    capsys.readouterr()
    command = ["repair", str(archives), str(folder), "--table", "t", "--quick"]
    assert main([*command, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repaired"] == [shard.relative_to(folder).as_posix()]
    assert not shard.exists()
    assert main(command) == 0
    assert shard.read_bytes() == before
    commit = folder / "t/index/tiles/_delta_log/00000000000000000000.json"
    commit.write_bytes(commit.read_bytes()[:-9])
    assert main(command) == 1
    assert "damaged-log" in capsys.readouterr().out
