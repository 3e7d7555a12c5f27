"""`tensorbank verify` finds the damage that was done, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tensorbank as tb
from tensorbank.cli.app import main
from tensorbank.reading.codec import crc32c
from tensorbank.verification import verify
from tensorbank.verification.sample_rows import SampleScan
from tensorbank.verification.stored_form import StoredForm
from tensorbank_indexer import IngestOptions, ingest, open_source


@pytest.fixture(scope="module")
def sound(make_archives, tmp_path_factory) -> Path:
    source, _ = make_archives("terramesh", "--samples", "6", "--per-tar", "6")
    folder = tmp_path_factory.mktemp("bank")
    ingest(open_source(str(source)), tb.create(folder), "t", IngestOptions(n_workers=1, profile="hot"))
    return folder


@pytest.fixture
def bank(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "bank"))


def test_a_sound_table_is_sound(bank, capsys):
    report = verify(tb.open(bank), "t", deep=True)
    assert report.sound
    assert report.n_samples == 6
    assert report.n_blocks == 6 * (12 + 13 + 3 + 2 + 1 + 1 + 1 + 1)
    assert main(["verify", str(bank)]) == 0
    assert "all sound" in capsys.readouterr().out


def test_one_flipped_bit_is_one_damaged_tensor(bank, capsys):
    opened = tb.open(bank)
    row = opened.sql(
        "SELECT sample_id, S2L2A.ref AS r FROM t ORDER BY S2L2A.ref.row LIMIT 1 OFFSET 3"
    ).arrow()
    ref = row["r"][0].as_py()
    shard = bank / ref["key"]
    data = bytearray(shard.read_bytes())
    data[ref["offset"] + ref["length"] // 2] ^= 16
    shard.write_bytes(data)
    assert verify(opened, "t").sound, "no block is read unless it is asked for"
    (damage,) = verify(opened, "t", deep=True).findings
    wanted = ("damaged-block", (row["sample_id"][0].as_py(),), "S2L2A", ref["key"])
    assert (damage.kind, damage.sample_ids, damage.modality, damage.key) == wanted
    assert main(["verify", str(bank), "t", "--deep", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [f["sample_ids"] for f in printed["findings"]] == [list(damage.sample_ids)]


def test_a_lost_shard_damages_all_its_tensors(bank):
    opened = tb.open(bank)
    key = opened.sql("SELECT DEM.ref.key AS k FROM t LIMIT 1").arrow()["k"][0].as_py()
    (bank / key).unlink()
    for deep in (False, True):
        (lost,) = verify(opened, "t", deep=deep).findings
        assert (lost.kind, lost.modality, lost.key) == ("missing-shard", "DEM", key)
        assert len(lost.sample_ids) == 6


# ---------------------------------------------------------------- what other readers go by


@pytest.fixture
def flaws(bank):
    """Return what tells the modality and key of each flaw in the stored form of a bank whose index is sound."""
    catalog = tb.open(bank).catalog
    version = catalog.version("t")
    samples = [catalog.path(f) for f in version.samples.files]
    scan = SampleScan(version.schema, None, "t/index/samples")
    assert list(scan.read(samples)) == []

    def found() -> list[tuple[str, str]]:
        form = StoredForm(catalog.store, version.schema, scan.arrays)
        return [
            (f.modality, f.key) for f in (*form.documents(), *form.shards(samples, scan.dead, scan.parts))
        ]

    return found


def flipped(path: Path, bit: int) -> bytes:
    body = bytearray(path.read_bytes())
    body[bit // 8] ^= 1 << bit % 8
    return bytes(body)


def test_every_flip_in_the_index_of_a_shard_is_found(bank, flaws):
    ref = (
        tb.open(bank)
        .sql("SELECT NDVI.ref AS r FROM t ORDER BY NDVI.ref.row DESC LIMIT 1")
        .arrow()["r"][0]
        .as_py()
    )
    shard = bank / ref["key"]
    sound = shard.read_bytes()
    assert flaws() == []
    first = 8 * (ref["offset"] + ref["length"])
    bits = range(first, 8 * len(sound), 7 if 8 * len(sound) - first > 800 else 1)
    assert len(bits) > 100
    for bit in [*bits][:: max(1, len(bits) // 20)]:
        shard.write_bytes(flipped(shard, bit))
        assert flaws() == [("NDVI", ref["key"])], bit
        shard.write_bytes(sound)
    shard.write_bytes(sound[:-1])
    assert flaws() == [("NDVI", ref["key"])]
    (cut,) = verify(tb.open(bank), "t").findings
    assert (cut.kind, cut.key) in {("cut-shard", ref["key"]), ("damaged-shard-index", ref["key"])}
    assert main(["verify", str(bank)]) == 1


def test_an_index_that_leads_elsewhere_under_a_right_checksum_is_found(bank):
    ref = (
        tb.open(bank)
        .sql("SELECT S2L2A.ref AS r FROM t ORDER BY S2L2A.ref.row LIMIT 1")
        .arrow()["r"][0]
        .as_py()
    )
    shard = bank / ref["key"]
    body = bytearray(shard.read_bytes())
    n = 16  # of one pair of offset and length
    end = max(
        r["offset"] + r["length"]
        for r in tb.open(bank).sql("SELECT S2L2A.ref AS r FROM t").arrow()["r"].to_pylist()
    )
    body[end : end + n], body[end + n : end + 2 * n] = body[end + n : end + 2 * n], body[end : end + n]
    body[-4:] = crc32c(bytes(body[end:-4])).to_bytes(4, "little")
    shard.write_bytes(body)
    (other,) = verify(tb.open(bank), "t").findings
    assert (other.kind, other.key) == ("other-shard-index", ref["key"])


@pytest.mark.parametrize("of", ["DEM", ""], ids=["array", "group"])
def test_flips_in_the_documents_of_zarr_are_found(bank, of, flaws):
    (part,) = tb.open(bank).table("t").parts()
    key = f"t/tensors/{part}/{of}/zarr.json".replace("//", "/")
    path = bank / key
    sound = path.read_bytes()
    free = sound.find(b'"consolidated_metadata"') if not of else 0
    rng = np.random.default_rng(0)
    unseen = []
    for bit in rng.integers(8 * free, 8 * len(sound), 20).tolist():
        path.write_bytes(flipped(path, bit))
        found = flaws()
        if (of, key) not in found:
            unseen.append(bit)
            assert same_json(path.read_bytes(), sound), "no flip that a reader would see"
        path.write_bytes(sound)
    assert len(unseen) < 10
    for content in (b"", b"[]", b"{}", b"5", b"[" * 10_000):
        path.write_bytes(content)
        assert (of, key) in flaws()
    path.unlink()
    assert (of, key) in flaws()
    assert ("zarr-document", key) in {(f.kind, f.key) for f in verify(tb.open(bank), "t").findings}


def same_json(a: bytes, b: bytes) -> bool:
    """Tell whether two texts are the same JSON, though they differ in white space, say."""
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


def test_a_bank_without_tables_says_so(tmp_path, capsys):
    tb.create(tmp_path / "empty")
    assert main(["verify", str(tmp_path / "empty")]) == 0
    assert "has no table, so there is nothing to verify" in capsys.readouterr().err
