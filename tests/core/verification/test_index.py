"""Every kind of damage to an index is found under its name, and nothing else is found with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tensorbank as tb
from tensorbank.cli.app import main
from tensorbank.verification import Finding, FindingKind, verify


def found(folder: Path) -> list[Finding]:
    return verify(tb.open(folder), "t").findings


def kinds(folder: Path) -> list[str]:
    return [str(f.kind) for f in found(folder)]


def level_files(folder: Path, level: str) -> list[Path]:
    catalog = tb.open(folder).catalog
    return [folder / f.key for f in catalog.files("t", level).files]


def edited(rows: pa.Table, name: str, edit) -> pa.Table:
    """Return rows with the values of a column changed by a function of its list."""
    values = rows[name].to_pylist()
    changed = edit(values) or values
    field = rows.schema.field(name)
    return rows.set_column(rows.schema.get_field_index(name), field, pa.array(changed, field.type))


def test_a_sound_bank_is_sound(sound_bank, capsys):
    report = verify(tb.open(sound_bank), "t")
    assert report.findings == []
    assert (report.n_samples, report.n_shards) == (7, 8)
    assert report.n_index_files == 2 + 2 + 2 + 1 + 1 + 1
    assert main(["verify", str(sound_bank)]) == 0
    assert "all sound" in capsys.readouterr().out


def test_every_version_is_sound(sound_bank):
    bank = tb.open(sound_bank)
    numbers = []
    for entry in bank.table("t").history():
        report = verify(bank.at({"t": entry.version}), "t")
        assert report.findings == [], entry
        numbers.append(report.n_samples)
    assert numbers == [7, 8, 8, 4, 0]


def test_a_compacted_bank_is_sound(bank_folder):
    assert tb.open(bank_folder).table("t").compact().n_dropped == 1
    assert found(bank_folder) == []


@pytest.mark.parametrize("level", ["samples", "tiles", "shards", "keys", "deleted", "columns/score"])
def test_a_flip_a_cut_and_a_loss_of_an_index_file_are_told_apart(bank_folder, level):
    path = level_files(bank_folder, level)[0]
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 4
    for content, kind in (
        (bytes(flipped), "damaged-index-file"),
        (data[:-1], "damaged-index-file"),
        (None, "missing-index-file"),
    ):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        one = [f for f in found(bank_folder) if f.key == path.relative_to(bank_folder).as_posix()]
        assert [f.kind for f in one] == [kind]


@pytest.mark.parametrize("level", ["samples", "tiles", "keys"])
def test_a_flip_in_a_commit_is_found(bank_folder, level):
    log = bank_folder / "t" / "index" / level / "_delta_log"
    path = sorted(log.glob("*.json"))[1]
    data = bytearray(path.read_bytes())
    data[data.rindex(b"timestamp") + 14] ^= 1
    path.write_bytes(data)
    assert {f.kind for f in found(bank_folder)} == {"damaged-log"}
    assert any(path.name in f.key or path.name in f.reason for f in found(bank_folder))
    path.unlink()
    assert {f.kind for f in found(bank_folder)} <= {"damaged-log", "missing-pin"}


def test_damage_to_a_checkpoint_is_found_though_nothing_needs_it(bank_folder):
    bank = tb.open(bank_folder)
    bank.catalog.checkpoint("t")
    assert found(bank_folder) == []
    (path,) = (bank_folder / "t" / "index" / "tiles" / "_delta_log").glob("*.checkpoint.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert {f.kind for f in found(bank_folder)} == {"damaged-log"}


def test_a_pin_of_what_is_not_there_is_found(bank_folder):
    log = bank_folder / "t" / "index" / "deleted" / "_delta_log"
    for path in log.iterdir():
        path.unlink()
    assert kinds(bank_folder) == ["missing-pin"]


def test_damaged_tags_and_leases_are_found(bank_folder):
    tag = bank_folder / "t" / "tags" / "paper.json"
    tag.write_bytes(tag.read_bytes().replace(b"paper", b"paqer", 1))
    assert kinds(bank_folder) == ["damaged-tag"]
    tag.unlink()
    (bank_folder / "t" / "leases").mkdir()
    (bank_folder / "t" / "leases" / "0.json").write_bytes(b"{}")
    assert kinds(bank_folder) == ["damaged-lease"]


def shift_ref(rows: pa.Table, modality: str, **by: int) -> pa.Table:
    def edit(values):
        for name, n in by.items():
            values[0]["ref"][name] += n

    return edited(rows, modality, edit)


def set_in(values: list, *path: int | str, to: object) -> None:
    *path, last = path
    at = values
    for step in path:
        at = at[step]
    at[last] = to


SAMPLES_DAMAGE = {
    "another key": (lambda r: edited(r, "key", lambda v: [v[0] + 1, *v[1:]]), {"wrong-key", "wrong-tiles"}),
    "a row twice": (
        lambda r: pa.concat_tables([r, r.slice(0, 1)]),
        {"duplicate-sample", "missing-key", "wrong-roll-up"},
    ),
    "a modality that is not listed": (
        lambda r: edited(r, "modalities", lambda v: [["DEM"], *v[1:]]),
        {"wrong-modalities"},
    ),
    "a length that is not that of the blocks": (
        lambda r: shift_ref(r, "DEM", length=1),
        {"bad-ref", "wrong-tiles", "wrong-roll-up"},
    ),
    "an offset that is off by one": (
        lambda r: shift_ref(r, "DEM", offset=1),
        {"wrong-tiles", "other-shard-index"},
    ),
    "a row that is off by one": (lambda r: shift_ref(r, "DEM", row=1), {"wrong-tiles", "other-shard-index"}),
    "a key that leads out of the bank": (
        lambda r: edited(r, "DEM", lambda v: set_in(v, 0, "ref", "key", to="../../etc/passwd")),
        {"bad-ref", "wrong-tiles", "wrong-roll-up"},
    ),
    "a row that is gone": (
        lambda r: r.slice(1),
        {"extra-key", "stray-tiles", "stray-value", "wrong-roll-up"},
    ),
}


@pytest.mark.parametrize("name", SAMPLES_DAMAGE)
def test_wrong_rows_of_samples_are_found(bank_folder, rewrite, name):
    edit, expected = SAMPLES_DAMAGE[name]
    rewrite(bank_folder, "samples", edit)
    told = found(bank_folder)
    assert {str(f.kind) for f in told} == expected
    ids = {i for f in told for i in f.sample_ids}
    assert ids <= {"sample-0000", "sample-0001"}
    assert ids or name == "a row that is gone"


OTHER_DAMAGE = {
    "a tile that is gone": ("tiles", lambda r: r.slice(1), {"missing-tiles"}),
    "a tile twice": ("tiles", lambda r: pa.concat_tables([r, r.slice(0, 1)]), {"stray-tiles"}),
    "a tile of another part": (
        "tiles",
        lambda r: edited(r, "part", lambda v: ["part-x", *v[1:]]),
        {"stray-tiles", "missing-tiles"},
    ),
    "a tile that leads elsewhere": ("tiles", lambda r: shift_ref(r, "S1RTC", offset=8), {"wrong-tiles"}),
    "a tile with another key": (
        "tiles",
        lambda r: edited(r, "sample_id", lambda v: ["sample-9999"] * 4 + v[4:]),
        {"wrong-key"},
    ),
    "a key that is gone": ("keys", lambda r: r.slice(1), {"missing-key"}),
    "a key too much": (
        "keys",
        lambda r: edited(r, "key", lambda v: [v[0] + 1, *v[1:]]),
        {"missing-key", "extra-key"},
    ),
    "another stem": (
        "keys",
        lambda r: edited(r, "stem_key", lambda v: [v[0] + 1, *v[1:]]),
        {"missing-key", "extra-key"},
    ),
    "a deletion of nothing": (
        "deleted",
        lambda r: edited(r, "part", lambda v: ["part-x"]),
        {"stray-deletion"},
    ),
    "a value of nobody": (
        "columns/score",
        lambda r: edited(r, "key", lambda v: [v[0] + 1, *v[1:]]),
        {"stray-value"},
    ),
    "a value twice": (
        "columns/score",
        lambda r: edited(r, "key", lambda v: [v[1], *v[1:]]),
        {"duplicate-value"},
    ),
    "a roll-up that is gone": ("shards", lambda r: r.slice(1), {"missing-roll-up"}),
    "a roll-up twice": (
        "shards",
        lambda r: pa.concat_tables([r, r.slice(0, 1)]),
        {"stray-roll-up", "wrong-roll-up"},
    ),
    "a roll-up of too few": (
        "shards",
        lambda r: edited(r, "DEM", lambda v: set_in(v, 0, "n_samples", to=1)),
        {"wrong-roll-up"},
    ),
    "a roll-up with a bound too narrow": (
        "shards",
        lambda r: edited(r, "DEM", lambda v: set_in(v, 0, "max", to=v[0]["max"] - 1)),
        {"wrong-roll-up"},
    ),
    "a roll-up with another mean": (
        "shards",
        lambda r: edited(r, "S1RTC", lambda v: set_in(v, 0, "vh", "mean", to=v[0]["vh"]["mean"] + 1)),
        {"wrong-roll-up"},
    ),
    "a roll-up with another place": (
        "shards",
        lambda r: edited(r, "max_lon", lambda v: [x - 0.05 for x in v]),
        {"wrong-roll-up"},
    ),
}


@pytest.mark.parametrize("name", OTHER_DAMAGE)
def test_wrong_rows_of_other_levels_are_found(bank_folder, rewrite, name):
    level, edit, expected = OTHER_DAMAGE[name]
    rewrite(bank_folder, level, edit)
    assert {str(f.kind) for f in found(bank_folder)} == expected


def test_a_sorted_copy_with_other_rows_is_found(bank_folder, rewrite):
    tb.open(bank_folder).table("t").add_sorted_copy("lon")
    assert found(bank_folder) == []
    rewrite(bank_folder, "sorted/lon", lambda r: edited(r, "lat", lambda v: [x + 1 for x in v]))
    (finding,) = found(bank_folder)
    assert (str(finding.kind), finding.key) == ("wrong-copy", "t/index/sorted/lon")
    rewrite(bank_folder, "sorted/lon", lambda r: r.slice(1))
    assert kinds(bank_folder) == ["wrong-copy"]


def test_all_kinds_have_a_description_and_a_test():
    assert all(kind.description.endswith(".") for kind in FindingKind)
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    untested = {kind for kind in FindingKind if f'"{kind}"' not in text}
    assert untested <= {FindingKind.UNREADABLE}


def test_several_passes_over_the_samples_find_the_same(bank_folder, monkeypatch):
    monkeypatch.setattr("tensorbank.verification.stored_form.MAX_REFS", 3)
    monkeypatch.setattr("tensorbank.verification.sample_rows.BATCH_ROWS", 1)
    assert found(bank_folder) == []
    shards = sorted(bank_folder.glob("t/tensors/*/DEM/c/*/0/0/0/0"))
    assert len(shards) == 4
    for path in shards:
        path.unlink()
    told = found(bank_folder)
    assert {f.kind for f in told} == {"missing-shard"}
    ids = sorted(i for f in told for i in f.sample_ids)
    assert ids == [f"sample-{i:04d}" for i in range(8) if i != 5]
    assert np.unique([f.key for f in told]).size == 4
