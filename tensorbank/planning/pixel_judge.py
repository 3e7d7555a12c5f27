"""Deciding pixel predicates where the statistics of a row leave them open: from its tiles, or from the pixels."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tensorbank.addressing import HandleColumn, address_columns
from tensorbank.catalog import Catalog
from tensorbank.errors import ErrorKind, IntegrityError
from tensorbank.fetch import Fetcher
from tensorbank.index_schema import TILE_REF_TYPE
from tensorbank.layout import is_shard_key, modality_of_key, table_of_key
from tensorbank.planning.pinned_table import PinnedTable
from tensorbank.plans import Addresses, Handle
from tensorbank.pruning import Compare
from tensorbank.reading import SampleReader
from tensorbank.schema import Modality
from tensorbank.sql import Database, literal, quoted, read_parquet
from tensorbank.statements import Bounds, PixelPredicate, Verdicts, bounds, decision, n_matching

__all__ = ["PixelJudge", "TileAnswers"]

SAMPLES_AT_ONCE = 64
TILES_FROM = 8
"""The number of open samples of one shard from which on a look at their tiles costs less than reading them:
one scan of a row group or two."""

Ref = Mapping[str, Any]


class PixelJudge:
    """An evaluator of pixel predicates. DuckDB's threads may call it at once; each row is decided once per predicate.

    DuckDB calls it for the rows that statistics leave open, while it executes the statement, so one of its threads waits for the
    network meanwhile. To find these rows first, read them, and execute again with what was found would hold no thread, but which
    rows are open depends on the answers themselves: LIMIT, QUALIFY and EXCEPT over a predicate whose value is not known yet keep
    other rows than over one whose value is. Only a statement whose WHERE alone has the predicate could be answered by two passes.

    Parameters
    ----------
    bank
        URL of the bank where the pixels are.
    fetcher
        Fetcher of its bytes: one for all reads of a statement, so that connections are made once.
    tables
        Tables whose rows are asked about.
    tiles
        Gives answers from the statistics of tiles.
    """

    def __init__(
        self, bank: str, fetcher: Fetcher, tables: Sequence[PinnedTable], tiles: TileAnswers
    ) -> None:
        self.bank = bank
        self.fetcher = fetcher
        self.tables = {table.name: table for table in tables}
        self.tiles = tiles
        self._verdicts = Verdicts()
        self._known: dict[tuple[object, ...], float | None] = {}
        self._lock = threading.Lock()

    @property
    def verdicts(self) -> Verdicts:
        """The counts so far."""
        with self._lock:
            return self._verdicts

    def judge(self, refs: Sequence[Ref | None], text: str) -> list[float | None]:
        """Return the values of one predicate for some rows, None where it stays open.

        Parameters
        ----------
        refs
            Addresses, as :data:`tensorbank.index_schema.TILE_REF_TYPE`; of whole samples without a window.
        text
            The predicate as JSON.
        """
        predicate = PixelPredicate.from_json(text)
        # DuckDB tries what comes of a row that an outer join made up: no tensor, no answer
        refs = [None if ref is None or ref["key"] is None else ref for ref in refs]
        names = [None if ref is None else (text, *(ref[n] for n in _IDENTITY)) for ref in refs]
        asked = {n: r for n, r in zip(names, refs, strict=True) if n is not None and r is not None}
        with self._lock:
            unknown = {n: r for n, r in asked.items() if n not in self._known}
        for key in {ref["key"] for ref in unknown.values()}:
            if not is_shard_key(key):
                raise IntegrityError(
                    f"the index says that pixels lie in {key!r}, which is not the key of a shard",
                    kind=ErrorKind.BAD_ADDRESS,
                )
        found = self._by_tiles(predicate, unknown)
        still = {n: r for n, r in unknown.items() if n not in found}
        more = Verdicts(by_tiles=len(found))
        if predicate.from_index_only:
            found |= dict.fromkeys(still)
            more = replace(more, undecided=len(still))
        with self._lock:
            self._verdicts = _plus(self._verdicts, more)
        if not predicate.from_index_only:
            found |= self._by_pixels(predicate, still)
        with self._lock:
            self._known |= found
            return [None if n is None else self._known[n] for n in names]

    def _by_tiles(
        self, predicate: PixelPredicate, refs: Mapping[tuple[object, ...], Ref]
    ) -> dict[tuple[object, ...], float | None]:
        """Return the answers for samples whose tiles' statistics say more than their own."""
        by_key: dict[str, list[tuple[object, ...]]] = defaultdict(list)
        for name, ref in refs.items():
            if ref["y0"] is None:
                by_key[ref["key"]].append(name)
        found: dict[tuple[object, ...], float | None] = {}
        for key, names in by_key.items():
            if predicate.from_index_only or len(names) >= TILES_FROM:
                table = self._table_of(predicate, key)
                modality = table.schema[modality_of_key(key)]
                offsets = [refs[n]["offset"] for n in names]
                answers = self.tiles.find(predicate, table, modality, key, offsets)
                found |= {n: answers[refs[n]["offset"]] for n in names if refs[n]["offset"] in answers}
        return found

    def _by_pixels(
        self, predicate: PixelPredicate, refs: Mapping[tuple[object, ...], Ref]
    ) -> dict[tuple[object, ...], float | None]:
        """Return the answers from reading, by what fits one batch: a modality and a size of window."""
        groups: dict[tuple[str, str, tuple[int, int] | None], list[tuple[object, ...]]] = defaultdict(list)
        for name, ref in refs.items():
            window = None if ref["y0"] is None else (ref["y1"] - ref["y0"], ref["x1"] - ref["x0"])
            table = self._table_of(predicate, ref["key"])
            groups[table.name, modality_of_key(ref["key"]), window].append(name)
        found: dict[tuple[object, ...], float | None] = {}
        for (table_name, modality_name, window), names in groups.items():
            modality = self.tables[table_name].schema[modality_name]
            for start in range(0, len(names), SAMPLES_AT_ONCE):
                some = names[start : start + SAMPLES_AT_ONCE]
                answers = self._read(predicate, modality, window, [refs[n] for n in some])
                found |= dict(zip(some, answers, strict=True))
        return found

    def _table_of(self, predicate: PixelPredicate, key: str) -> PinnedTable:
        """Return the table, at its version, that a shard belongs to: the predicate's own, or another of a UNION."""
        own, name = self.tables.get(predicate.table), table_of_key(key)
        if own is not None and own.table == name:
            return own
        named = next((table for table in self.tables.values() if table.table == name), own)
        having = (t for t in self.tables.values() if modality_of_key(key) in t.schema.names)
        return named or next(having)  # shards of a copied table lie below another name

    def _read(
        self,
        predicate: PixelPredicate,
        modality: Modality,
        window: tuple[int, int] | None,
        refs: Sequence[Ref],
    ) -> list[float]:
        bands = tuple(modality.band_index(b) for b in predicate.bands)
        handle = Handle("pixels", modality, bands, window)
        column = HandleColumn.of_refs("pixels", pa.array([{"row": None, **r} for r in refs], TILE_REF_TYPE))
        addresses = Addresses.of(pa.table(address_columns(column, handle)), [handle], self.bank)
        pixels = SampleReader(addresses, self.fetcher).read(np.arange(addresses.n_samples))["pixels"]
        with self._lock:
            self._verdicts = _plus(self._verdicts, Verdicts(read=len(refs), read_bytes=addresses.read_bytes))
        n_times = addresses["pixels"].n_times
        there = pixels if n_times is None else [p[:n] for p, n in zip(pixels, n_times.tolist(), strict=True)]
        return [predicate.answer(n_matching(predicate, p), p[:, 0].size) for p in there]


_IDENTITY = ("key", "offset", "time_index", "y0", "x0")


def _plus(a: Verdicts, b: Verdicts) -> Verdicts:
    return Verdicts(*(getattr(a, f.name) + getattr(b, f.name) for f in fields(Verdicts)))


class TileAnswers:
    """Answers from the tiles of a bank, whose statistics say more than those of the sample. May be called by many threads.

    Parameters
    ----------
    db
        The instance whose other connection is asked while a statement runs on the first.
    """

    def __init__(self, db: Database, catalog: Catalog) -> None:
        self._db = db
        self._catalog = catalog
        self._lock = threading.Lock()

    def find(
        self,
        predicate: PixelPredicate,
        table: PinnedTable,
        modality: Modality,
        key: str,
        offsets: Sequence[int],
    ) -> dict[int, float]:
        """Return the answers of a predicate for samples of one shard, by their offset, where their tiles decide it.

        The bounds of a sample are the sums of those of its tiles, which must be all of them: as many pixels as it has.
        """
        handle = quoted(modality.name)
        bands = [modality.band_names[modality.band_index(b)] for b in predicate.bands]
        paths = [f"{handle}.{quoted(b)}" if len(modality.bands) > 1 else handle for b in bands]
        each = bounds(predicate, handle, paths, modality, "tiles")
        summed = Bounds("sum(low)", "sum(high)", "sum(n)")
        with self._lock:
            in_shard = Compare((modality.name.lower(), "ref", "key"), "=", key)
            files = self._catalog.state(table.version, "tiles").files.matching(in_shard)
            if not files.files:
                return {}
            scan = read_parquet(self._catalog.mirror.scan(files.files, in_shard, self._db.serve))
            found = self._db.side.sql(
                f"""
                SELECT "offset", ({decision(predicate, summed, "NULL")})::DOUBLE AS answer
                FROM (SELECT {handle}.ref."offset" AS "offset", {each.low} AS low, {each.high} AS high, {each.count} AS n
                      FROM {scan}
                      WHERE {handle}.ref.key = {literal(key)}
                        AND {handle}.ref."offset" BETWEEN {min(offsets)} AND {max(offsets)})
                GROUP BY ALL
                HAVING sum(n) = {math.prod(modality.sample_shape) // len(modality.bands)} AND count(low) = count(*)
                   AND answer IS NOT NULL
                """
            ).fetchall()
        return dict(found)
