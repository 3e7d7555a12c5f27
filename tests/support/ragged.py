"""A source whose samples have fewer dates of some modalities than others, as archives of ragged stacks do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import tensorbank as tb
from tensorbank_indexer import IngestOptions, IngestReport, ingest, open_source
from tensorbank_indexer.source import RawSample, SampleRef, Source

N_DATES = 4
SHORT: Mapping[int, Mapping[str, int]] = {0: {"S1GRD": 3}, 3: {"S2L2A": 2, "S1GRD": 1, "cloud_mask": 2}}
"""The dates of modalities, by the place of a sample in its archive."""


class ShortStacks:
    """A source whose stacks are cut to so many dates."""

    def __init__(self, whole: Source, short: Mapping[int, Mapping[str, int]] = SHORT) -> None:
        self._whole, self._short = whole, short

    def __getattr__(self, name: str) -> object:
        return getattr(self._whole, name)

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        for raw in self._whole.read(refs):
            for name, n in self._short.get(raw.ref.position, {}).items():
                m = raw.modalities[name]
                times = None if m.times_ns is None else m.times_ns[:n]
                raw.modalities[name] = replace(
                    m, pixels=m.pixels[:n], times_ns=times, product_ids=m.product_ids[:n]
                )
            yield raw


def make_ragged_bank(
    archives: Path, folder: Path, short: Mapping[int, Mapping[str, int]] = SHORT
) -> tuple[tb.Bank, IngestReport]:
    """A bank of stacks of four dates, with a table ``t`` of which some samples have fewer."""
    bank = tb.create(folder)
    source = ShortStacks(open_source(str(archives)), short)
    return bank, ingest(source, bank, "t", IngestOptions(n_workers=1, samples_per_shard=4))
