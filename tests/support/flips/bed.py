"""A bank with all that is kept of it: logs with a checkpoint, index files of all levels, shards, documents, a plan, a state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank.fetch import FetchOptions
from tensorbank.plans import StoreAddress
from tensorbank.reading.sample_reader import SampleReader
from tensorbank_indexer import IngestOptions, ingest

__all__ = ["LOADER", "N_SAMPLES", "QUESTION", "TABLE", "TAGS", "Bed", "make"]

TABLE = "t"
QUESTION = (
    f"SELECT sample_id, DEM, S1RTC FROM {TABLE} WHERE lon > 10.05 AND DEM.mean > 100 AND season <> 'winter' "
    "AND S1RTC.vv.max > 10 ORDER BY sample_id"
)
LOADER = {"batch_size": 2, "seed": 5}
N_SAMPLES = (4, 4, 3)
TAGS = ("first", "second")
MODALITIES = ("DEM", "S1RTC")


def make(folder: str) -> None:
    """Make all of it in a folder."""
    root = Path(folder)
    bank = tb.create(root / "bank", cache=root / "cache")
    first = 0
    for number, n in enumerate(N_SAMPLES):
        source = TinySource(n, first, modalities=MODALITIES)
        options = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2, revision=f"r{number}")
        ingest(source, bank, TABLE, options)
        first += n
        if number == 1:
            bank.catalog.checkpoint(TABLE)
    for tag in TAGS:
        bank.table(TABLE).tag(tag, message=f"the {tag}")
    plan = bank.sql(QUESTION).plan()
    plan.save(root / "saved.plan")
    with plan.dataloader(**LOADER) as loader:
        batches = iter(loader)
        next(batches)
        (root / "saved.state").write_text(json.dumps(loader.state_dict()))


@dataclass(frozen=True)
class Bed:
    """A copy of what was made, for one process: ``mirrored`` is the bank under a name for which index files are copied first."""

    root: Path

    @classmethod
    def copied(cls, made: Path, root: Path) -> Bed:
        """Copy what was made, and fill the caches."""
        shutil.copytree(made / "bank", root / "bank")
        shutil.copytree(made / "bank", root / "mirrored?")
        for name in ("saved.plan", "saved.state"):
            shutil.copy(made / name, root / name)
        bed = cls(root)
        bed.sql(mirrored=True)
        bed.pixels(cached=True)
        return bed

    def opened(self, *, mirrored: bool = False) -> tb.Bank:
        """Open the bank anew, as a new process would."""
        return tb.open(self.root / ("mirrored?" if mirrored else "bank"), cache=self.root / "cache")

    def sql(self, *, mirrored: bool = False) -> tb.Plan:
        """Plan a question with conditions that files, shards and row groups are left out by."""
        return self.opened(mirrored=mirrored).sql(QUESTION).plan()

    @cached_property
    def plan(self) -> tb.Plan:
        """The saved plan, over this copy of the bank."""
        plan = tb.Plan.load(self.root / "saved.plan")
        return replace(plan, origin=StoreAddress((self.root / "bank").as_uri()))

    def pixels(self, *, cached: bool = False) -> list[tuple[str, str]]:
        """Read all samples of the plan; the bytes of each modality."""
        options = FetchOptions(cache_dir=self.root / "ranges" if cached else None, max_gap_bytes=0)
        with closing(SampleReader.of(self.plan, options)) as reader:
            tensors = reader.read(np.arange(len(self.plan)))
        return sorted((name, tensor.tobytes().hex()) for name, tensor in tensors.items())

    def files(self, *patterns: str) -> Iterator[Path]:
        """Yield the files of some patterns, sorted."""
        for pattern in patterns:
            yield from sorted(p for p in self.root.glob(pattern) if p.is_file())
