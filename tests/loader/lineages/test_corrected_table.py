"""The lineage of a run whose table is corrected afterwards, by the operations that users have for it."""

from __future__ import annotations

import dataclasses
import json

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank.cli.app import main
from tensorbank_indexer import IngestOptions, ingest, replace_modality
from tensorbank_loader import DataLoader, World

INLINE = IngestOptions(n_workers=1, samples_per_shard=4, n_tiles=2)
REFRESHED, REPLACED, DELETED = range(4, 8), range(8, 12), range(12, 18)


def numbers_of(names: list[str]) -> set[int]:
    return {int(name.removeprefix("sample-")) for name in names}


def test_what_was_deleted_and_replaced_since_is_named(tmp_path, capsys):
    """A run stops within its first epoch, and is resumed; later the table is corrected, of what it has seen and has not."""
    bank = tb.create(tmp_path / "bank")
    for first in range(0, 24, 4):
        ingest(TinySource(4, first, modalities=("DEM", "S1RTC")), bank, "t", INLINE)
    plan = bank.sql("SELECT sample_id, DEM FROM t WHERE lon < 12.15").plan()  # 22 of them
    seen: list[str] = []
    state = None
    for n_steps in (3, 4):
        loader = DataLoader(plan, global_batch_size=2, seed=3, world=World())
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        batches = iter(loader)
        for _ in range(n_steps):
            seen += next(batches)["sample_id"]
        state = loader.state_dict()
        loader.close()
    before = numbers_of(seen)
    assert len(before) == len(seen) == 14
    (tmp_path / "checkpoint.json").write_text(json.dumps({"loader": state}))

    table = bank.table("t")
    assert (
        table.delete(
            f"lon BETWEEN {10 + DELETED[0] / 10 - 0.01} AND {10 + DELETED[-1] / 10 + 0.01}"
        ).n_samples
        == 6
    )
    again = TinySource(len(REFRESHED), REFRESHED[0], edition=2, modalities=("DEM", "S1RTC"))
    ingest(again, bank, "t", dataclasses.replace(INLINE, refresh=True))
    replace_modality(TinySource(len(REPLACED), REPLACED[0], edition=3), bank, "t", "DEM", INLINE)
    # of no concern to the run: a modality that it did not read, a column, more samples, and the same in other files
    replace_modality(TinySource(3, edition=3, modalities=("S1RTC",)), bank, "t", "S1RTC", INLINE)
    table.add_columns(bank.sql("SELECT sample_id, 0.5 AS score FROM t").arrow())
    ingest(TinySource(2, 30), bank, "t", INLINE)
    table.compact()

    assert main(["lineage", str(tmp_path / "checkpoint.json"), str(tmp_path / "bank"), "--json"]) == 0
    ((told,),) = [run["tables"] for run in json.loads(capsys.readouterr().out)]
    expected = {
        "deleted": before & {*DELETED},
        "replaced": before & ({*REFRESHED} | {*REPLACED}),
        "kept": before - {*DELETED, *REFRESHED, *REPLACED},
    }
    assert all(expected.values()), "the run has seen some of each"
    assert (told["version"], told["newest"], told["n_seen"]) == (6, bank.catalog.version("t").version, 14)
    assert (told["n_deleted"], told["n_replaced"]) == (len(expected["deleted"]), len(expected["replaced"]))
    ids = tmp_path / "ids.jsonl"
    assert (
        main(["lineage", str(tmp_path / "checkpoint.json"), str(tmp_path / "bank"), "--ids", str(ids)]) == 0
    )
    rows = [json.loads(line) for line in ids.read_text().splitlines()]
    found = {fate: numbers_of([r["sample_id"] for r in rows if r["fate"] == fate]) for fate in expected}
    assert found == expected
    assert len(rows) == 14
