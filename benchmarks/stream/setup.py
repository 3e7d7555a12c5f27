"""The bank of archives that is streamed, plans over it, and how much of them is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import tensorbank as tb
from tensorbank_demo.landscape.archive import write_archives
from tensorbank_indexer import IngestOptions, ingest, open_source

__all__ = ["Setup", "make_bank", "sized"]

MODALITIES = ("S2L2A", "S2L1C", "S2RGB", "S1RTC", "DEM", "NDVI", "LULC")
MIN_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings that the sections share.

    Parameters
    ----------
    folder, table
        Folder of the bank, on a local disk, and its table.
    scratch
        Folder for caches and whatever a section leaves.
    scale
        Factor of the amounts that are streamed: 1 for figures, less for a quick look.
    repeats
        Rounds of each comparison.
    batch_size
        Samples a batch.
    """

    folder: Path
    table: str
    scratch: Path
    scale: float = 1.0
    repeats: int = 5
    batch_size: int = 32

    def plan(self, columns: str = "", where: str = "true") -> tb.Plan:
        """Return a plan of the bank as it lies on the disk; all modalities of a majortom sample unless told otherwise."""
        columns = columns or ", ".join(MODALITIES)
        sql = f"SELECT sample_id, cloud_cover, {columns} FROM {self.table} WHERE {where}"
        return tb.open(str(self.folder)).sql(sql).plan()

    def sized(self, plan: tb.Plan, n_bytes: float) -> tb.Plan:
        """Return the rows of a plan that hold about so many stored bytes, scaled; a few batches at least."""
        n = round(n_bytes * self.scale * len(plan) / plan.read_bytes)
        return sized(plan, max(n, MIN_BATCHES * self.batch_size))

    def n(self, n: int) -> int:
        """Return a number of samples, reads or batches, scaled."""
        return max(round(n * self.scale), MIN_BATCHES * self.batch_size)


def sized(plan: tb.Plan, n: int) -> tb.Plan:
    """Return the first rows of a plan, repeated where that needs more than there are."""
    return replace(plan, table=plan.table.take(np.resize(np.arange(len(plan)), n)).combine_chunks())


def make_bank(
    folder: Path, *, n_samples: int, source: Path | None = None, n_workers: int = 2
) -> tuple[Path, str]:
    """Ingest archives into a new bank, made-up ones if none are given; the bank's folder and its table."""
    if source is None:
        source = write_archives(folder / "archives", n_samples=n_samples, samples_per_tar=128, seed=1).root
    bank = folder / "bank"
    ingest(open_source(str(source)), tb.create(str(bank)), "terramesh", IngestOptions(n_workers=n_workers))
    return bank, "terramesh"
