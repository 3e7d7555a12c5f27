"""A small bank of two parts, with an added column and a deletion, and what plants damage in copies of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank.catalog import Change, LevelChange
from tensorbank_indexer import IngestOptions, ingest

OPTIONS = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2)
MODALITIES = ("DEM", "S1RTC")


@pytest.fixture(scope="session")
def sound_bank(tmp_path_factory) -> Path:
    """Samples 0 to 8 in two parts, of which sample 5 is deleted; a column ``score``; a tag. Nobody changes it."""
    folder = tmp_path_factory.mktemp("sound") / "bank"
    bank = tb.create(folder)
    for first in (0, 4):
        ingest(TinySource(4, first, modalities=MODALITIES), bank, "t", OPTIONS)
    table = bank.table("t")
    ids = [f"sample-{i:04d}" for i in range(8)]
    table.add_columns(pa.table({"sample_id": ids, "score": [float(i) for i in range(8)]}))
    table.delete("sample_id = 'sample-0005'")
    table.tag("paper")
    return folder


@pytest.fixture
def bank_folder(sound_bank, tmp_path) -> Path:
    """A copy of the bank, to be damaged."""
    return Path(shutil.copytree(sound_bank, tmp_path / "bank"))


Rewrite = Callable[[Path, str, Callable[[pa.Table], pa.Table | None]], None]


@pytest.fixture
def rewrite() -> Rewrite:
    """Return what replaces the rows of a level by others, in a commit that is as sound as any."""

    def change(folder: Path, level: str, edit: Callable[[pa.Table], pa.Table | None]) -> None:
        bank = tb.open(folder)
        catalog = bank.catalog

        def make(head: object) -> Change:
            parts = [event.part for event in reversed(catalog.history("t"))]
            files = catalog.state(head, level).files.files
            files = tuple(sorted(files, key=lambda f: parts.index(f.part) if f.part in parts else len(parts)))
            rows = pa.concat_tables(pq.read_table(catalog.path(f)) for f in files)
            new = edit(rows)
            added = () if new is None or not new.num_rows else (catalog.write("t", level, new),)
            types: Mapping[str, pa.Schema] = {level: rows.schema} if "/" in level else {}
            return Change("damage", {level: LevelChange(added, files)}, column_types=types)

        catalog.publish("t", make)

    return change
