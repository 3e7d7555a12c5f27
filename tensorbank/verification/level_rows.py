"""Checks of the rows of other levels against those of samples: tiles, keys, deletions and added columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog import keys_of
from tensorbank.schema import TableSchema
from tensorbank.verification.findings import MAX_NAMED, Finding, FindingKind
from tensorbank.verification.sample_rows import (
    SampleRows,
    batches,
    ids_of,
    pairs_of,
    place_digests,
    ref_digests,
    whole,
)
from tensorbank.verification.tile_windows import TileWindows, wrong_windows

__all__ = ["LevelRows"]

UInt64 = npt.NDArray[np.uint64]


class LevelRows:
    """The rows of samples, and the levels that are compared with them.

    Parameters
    ----------
    samples
        Local paths of the files of samples.
    parts
        Numbers of parts that the pairs in ``rows`` were made with.
    """

    def __init__(self, rows: SampleRows, samples: Sequence[str], parts: dict[str, int]) -> None:
        self.rows = rows
        self.samples = samples
        self.parts = parts
        self._pairs = np.sort(rows.pairs)

    def keys(self, paths: Sequence[str], folder: str) -> Iterator[Finding]:
        """Yield what the level keys lacks of the rows of samples, and what it has beside them."""
        held = _read_pairs(paths)
        wanted = np.stack([self.rows.keys, self.rows.stems], axis=1)
        lost, more = _difference(wanted, held), _difference(held, wanted)
        if len(lost):
            ids = ids_of(self.samples, lost[:, 0])
            yield Finding(
                FindingKind.MISSING_KEY, folder, f"{len(lost)} rows of samples have no key here", "", ids
            )
        if len(more):
            named = ", ".join(map(str, more[:3, 0].tolist()))
            yield Finding(
                FindingKind.EXTRA_KEY, folder, f"{len(more)} keys are of no row of samples, such as {named}"
            )

    def deleted(self, paths: Sequence[str], folder: str) -> Iterator[Finding]:
        """Yield what is deleted that is not there."""
        n_stray = 0
        for path in paths:
            for rows in batches(path, ["key", "part"]):
                n_stray += int(np.count_nonzero(~_among(pairs_of(rows, self.parts), self._pairs)))
        if n_stray:
            yield Finding(
                FindingKind.STRAY_DELETION,
                folder,
                f"{n_stray} deletions are of rows that samples does not have",
            )

    def column(self, name: str, paths: Sequence[str], folder: str) -> Iterator[Finding]:
        """Yield what an added column has of no sample, and what it has twice."""
        keys = np.concatenate(
            [np.zeros(0, np.int64)]
            + [as_numpy(rows["key"], 0) for path in paths for rows in batches(path, ["key"])]
        )
        distinct, times = np.unique(keys, return_counts=True)
        stray = ~np.isin(distinct, self.rows.keys)
        if stray.any():
            reason = f"column {name} has values of {int(np.count_nonzero(stray))} samples that are not there"
            yield Finding(FindingKind.STRAY_VALUE, folder, reason)
        if (times > 1).any():
            ids = ids_of(self.samples, distinct[times > 1])
            reason = f"column {name} has several values of {int(np.count_nonzero(times > 1))} samples"
            yield Finding(FindingKind.DUPLICATE_VALUE, folder, reason, "", ids)

    def tiles(self, schema: TableSchema, paths: Sequence[str], folder: str) -> Iterator[Finding]:
        """Yield what tiles lacks of the samples that count, what it has beside the rows of samples, and wrong addresses."""
        pairs: list[UInt64] = []
        tiles: list[npt.NDArray[np.int64]] = []
        stray: dict[str, None] = {}
        wrong: dict[str, None] = {}
        n_stray = 0
        for path in paths:
            for rows in batches(path, ["sample_id", "split", "part", "key", "time_index", "tile"]):
                mine = pairs_of(rows, self.parts)
                time, tile = (as_numpy(rows[n], 0).astype(np.int64) for n in ("time_index", "tile"))
                pairs.append(mine)
                tiles.append(time << 16 | tile)
                lost = ~_among(mine, self._pairs)
                n_stray += int(np.count_nonzero(lost))
                ids = whole(rows["sample_id"])
                stray.update(dict.fromkeys(ids.filter(as_arrow(lost)).unique().to_pylist()))
                first = np.flatnonzero(
                    np.diff(mine, prepend=~mine[:1])
                )  # rows of one sample follow each other
                heads = rows.take(as_arrow(first))
                other = keys_of(heads, "split", "sample_id") != as_numpy(heads["key"], 0)
                wrong.update(dict.fromkeys(heads["sample_id"].filter(as_arrow(other)).to_pylist()))
        if wrong:
            reason = f"tiles of {len(wrong)} samples have another key than their id's"
            yield Finding(FindingKind.WRONG_KEY, folder, reason, "", tuple(wrong)[:MAX_NAMED])
        if n_stray:
            reason = f"{n_stray} tiles are of rows that samples does not have"
            yield Finding(FindingKind.STRAY_TILES, folder, reason, "", tuple(stray)[:MAX_NAMED])
        every = np.concatenate([np.zeros(0, np.uint64), *pairs])
        yield from self._counted(every, np.concatenate([np.zeros(0, np.int64), *tiles]), folder)
        yield from self._facts(schema, paths, folder)
        for modality in schema:
            yield from self._addresses(modality.name, paths, folder)

    def _facts(self, schema: TableSchema, paths: Sequence[str], folder: str) -> Iterator[Finding]:
        """Compare season and place in tiles with those in samples, and windows with the cells that they are of."""
        columns = ["key", "part", "season", "lon", "lat"]
        pairs, digests = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for path in self.samples:
            for rows in batches(path, columns):
                pairs.append(pairs_of(rows, self.parts))
                digests.append(place_digests(rows))
        of_sample, digest = np.concatenate(pairs), np.concatenate(digests)
        order = np.argsort(of_sample)
        of_sample, digest = of_sample[order], digest[order]
        windows = TileWindows.of(paths)
        refs = [f"{m.name}.ref.{f}" for m in schema for f in ("row", "time_index", "y0", "y1", "x0", "x1")]
        own = ["sample_id", "row", "time_index", "tile", "y0", "y1", "x0", "x1"]
        wrong: dict[str, None] = {}
        for path in paths:
            for rows in batches(path, [*columns, *own, *refs]):
                found = pairs_of(rows, self.parts)
                if not len(of_sample):
                    continue
                at = np.minimum(np.searchsorted(of_sample, found), len(of_sample) - 1)
                known = of_sample[at] == found
                elsewhere = known & (
                    (digest[at] != place_digests(rows)) | wrong_windows(rows, schema, windows)
                )
                wrong.update(dict.fromkeys(rows["sample_id"].filter(as_arrow(elsewhere)).to_pylist()))
        if wrong:
            reason = f"tiles of {len(wrong)} samples have another place, row, date or window than theirs"
            yield Finding(FindingKind.WRONG_TILES, folder, reason, "", tuple(map(str, wrong))[:MAX_NAMED])

    def _counted(self, pairs: UInt64, tiles: npt.NDArray[np.int64], folder: str) -> Iterator[Finding]:
        """Compare the numbers of tiles: those of a part are alike."""
        order = np.lexsort((tiles, pairs))
        ordered, cells = pairs[order], tiles[order]
        twice = (ordered[1:] == ordered[:-1]) & (cells[1:] == cells[:-1])
        keys = self.rows.keys[np.argsort(self.rows.pairs)]
        if twice.any():
            ids = ids_of(self.samples, self._keys_of(ordered[1:][twice], keys))
            reason = f"{int(np.count_nonzero(twice))} tiles are there twice"
            yield Finding(FindingKind.STRAY_TILES, folder, reason, "", ids)
        live, first = np.unique(self.rows.pairs[self.rows.live], return_index=True)
        part_of = self.rows.part_of[self.rows.live][first]
        have = np.searchsorted(ordered, live, "right") - np.searchsorted(ordered, live, "left")
        fewer = have == 0
        for part in np.unique(part_of).tolist():
            mine = part_of == part
            fewer |= mine & (have < np.bincount(have[mine]).argmax())
        if fewer.any():
            ids = ids_of(self.samples, self._keys_of(live[fewer], keys))
            reason = f"{int(np.count_nonzero(fewer))} samples lack tiles"
            yield Finding(FindingKind.MISSING_TILES, folder, reason, "", ids)

    def _keys_of(self, pairs: UInt64, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the keys of pairs that rows of samples have."""
        found = pairs[_among(pairs, self._pairs)]
        return keys[np.searchsorted(self._pairs, found)]

    def _addresses(self, modality: str, paths: Sequence[str], folder: str) -> Iterator[Finding]:
        """Compare the addresses of a modality in tiles with those in samples."""
        column = [f"{modality}.ref", "key", "part", "sample_id"]
        pairs, digests = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for path in self.samples:
            for rows in batches(path, column):
                if rows.schema.get_field_index(modality) >= 0:
                    there = whole(rows[modality]).is_valid()
                    mine = rows.filter(there)
                    pairs.append(pairs_of(mine, self.parts))
                    digests.append(ref_digests(whole(mine[modality]).field("ref")))
        of_sample, digest = np.concatenate(pairs), np.concatenate(digests)
        order = np.argsort(of_sample)
        of_sample, digest = of_sample[order], digest[order]
        wrong: dict[str, None] = {}
        for path in paths:
            for rows in batches(path, column):
                if rows.schema.get_field_index(modality) < 0:
                    continue
                mine = rows.filter(whole(rows[modality]).is_valid())
                found = pairs_of(mine, self.parts)
                known = _among(found, self._pairs)
                if not len(of_sample):
                    same = np.zeros(len(found), np.bool_)
                else:
                    at = np.minimum(np.searchsorted(of_sample, found), len(of_sample) - 1)
                    same = (of_sample[at] == found) & (
                        digest[at] == ref_digests(whole(mine[modality]).field("ref"))
                    )
                wrong.update(dict.fromkeys(mine["sample_id"].filter(as_arrow(known & ~same)).to_pylist()))
        if wrong:
            reason = f"tiles of {len(wrong)} samples lead elsewhere than their samples"
            yield Finding(
                FindingKind.WRONG_TILES, folder, reason, modality, tuple(map(str, wrong))[:MAX_NAMED]
            )


def _read_pairs(paths: Sequence[str]) -> npt.NDArray[np.int64]:
    """Read (n, 2) keys of files of ``keys``."""
    every = (rows for path in paths for rows in batches(path, ["key", "stem_key"]))
    found = [
        np.stack([as_numpy(rows[n], 0).astype(np.int64) for n in ("key", "stem_key")], axis=1)
        for rows in every
    ]
    return np.concatenate([np.zeros((0, 2), np.int64), *found])


def _difference(some: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the rows of (n, 2) numbers that are more often in the first than in the second, once each. Pure."""
    mine, n_mine = np.unique(some, axis=0, return_counts=True)
    kind = np.dtype([("a", np.int64), ("b", np.int64)])
    theirs, n_theirs = np.unique(others, axis=0, return_counts=True)
    have = np.zeros(len(mine), np.int64)
    left, right = (np.ascontiguousarray(rows).view(kind).reshape(-1) for rows in (mine, theirs))
    _, at_mine, at_theirs = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    have[at_mine] = n_theirs[at_theirs]
    return mine[n_mine > have]


def _among(values: UInt64, known: UInt64) -> npt.NDArray[np.bool_]:
    """Tell which values are among sorted ones. Pure."""
    if not len(known):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[at] == values)
