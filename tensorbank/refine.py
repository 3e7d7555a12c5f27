"""Deciding pixel predicates for rows of a query: from the index where it can, from the pixels where it must."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from tensorbank.address import StorageOptions
from tensorbank.handles import HandleColumn, address_columns
from tensorbank.index import REF_TYPE
from tensorbank.layout import modality_of_key, table_of_key
from tensorbank.pixels import BandKnots, PixelPredicate, Verdicts, decide, n_matching
from tensorbank.plan import Handle, Plan, PlanSource
from tensorbank.reader import SampleReader
from tensorbank.schema import Modality, TableSchema

__all__ = ["PixelJudge"]

SAMPLES_AT_ONCE = 64
EXACT_ITEMSIZE_BYTES = 2


class PixelJudge:
    """Evaluates pixel predicates. May be called from DuckDB's threads; a sample is read once per predicate and call.

    Parameters
    ----------
    bank, storage
        Where the pixels are.
    """

    def __init__(self, bank: str, storage: StorageOptions) -> None:
        self.bank = bank
        self.storage = storage
        self.schemas: dict[str, TableSchema] = {}
        self._verdicts = Verdicts()
        self._lock = threading.Lock()

    @property
    def verdicts(self) -> Verdicts:
        """Counts so far."""
        with self._lock:
            return self._verdicts

    def judge(
        self, refs: Sequence[Mapping[str, Any] | None], numbers: Sequence[Any], text: str
    ) -> list[float | None]:
        """Values of one predicate for some rows, None where the sample lacks the modality.

        Parameters
        ----------
        refs
            Addresses, as :data:`tensorbank.index.REF_TYPE`.
        numbers
            For each row and each band of the predicate count, valid, min, quantiles, max.
        text
            The predicate as JSON.
        """
        predicate = PixelPredicate.from_json(text)
        answers: list[float | None] = [None] * len(refs)
        open_rows: dict[tuple[str, str], list[int]] = defaultdict(list)
        decided = 0
        for i, (ref, bands) in enumerate(zip(refs, numbers, strict=True)):
            if ref is None or ref["key"] is None:
                continue
            place = table_of_key(ref["key"]), modality_of_key(ref["key"])
            exact = np.dtype(self.schemas[place[0]][place[1]].dtype).itemsize <= EXACT_ITEMSIZE_BYTES
            answers[i] = decide(predicate, tuple(BandKnots.of(b, exact_quantiles=exact) for b in bands))
            if answers[i] is None:
                open_rows[place].append(i)
            else:
                decided += 1
        self._count(Verdicts(decided=decided))
        for (table, name), rows in open_rows.items():
            for start in range(0, len(rows), SAMPLES_AT_ONCE):
                some = rows[start : start + SAMPLES_AT_ONCE]
                found = self._read(predicate, self.schemas[table][name], [refs[i] for i in some])
                for i, value in zip(some, found, strict=True):
                    answers[i] = value
        return answers

    def _read(self, predicate: PixelPredicate, modality: Modality, refs: Sequence[Any]) -> list[float]:
        bands = tuple(modality.band_index(b) for b in predicate.bands) or (0,)
        handle = Handle("pixels", modality, bands)
        column = HandleColumn("pixels", pa.array(refs, REF_TYPE), ())
        source = PlanSource(self.bank, "", {}, 0)
        plan = Plan("", source, (handle,), pa.table(address_columns(column, handle)), self.storage)
        reader = SampleReader(plan)
        try:
            pixels = reader.read(np.arange(len(plan)))["pixels"]
        finally:
            reader.close()
        self._count(Verdicts(read=len(refs), read_bytes=plan.read_bytes))
        return [predicate.answer(n_matching(predicate, p), p[:, 0].size) for p in pixels]

    def _count(self, more: Verdicts) -> None:
        with self._lock:
            now = self._verdicts
            self._verdicts = replace(
                now,
                decided=now.decided + more.decided,
                read=now.read + more.read,
                read_bytes=now.read_bytes + more.read_bytes,
            )
