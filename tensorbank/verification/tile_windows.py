"""Windows of tiles: where the cells of a part lie in its samples, by the numbers of the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_numpy
from tensorbank.schema import TableSchema
from tensorbank.verification.sample_rows import batches, whole

__all__ = ["TileWindows", "wrong_windows"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TileWindows:
    """The cells along an axis, and the height and width that windows reach, by part."""

    forms: Mapping[str, tuple[int, int, int]]

    @classmethod
    def of(cls, paths: Sequence[str]) -> TileWindows:
        """Read what most of the tiles of each part say."""
        most: dict[str, tuple[int, int, int]] = {}
        for path in paths:
            for rows in batches(path, ["part", "tile", "y1", "x1"]):
                found = rows.group_by("part").aggregate([("tile", "max"), ("y1", "max"), ("x1", "max")])
                for row in found.to_pylist():
                    said = (row["tile_max"] or 0, row["y1_max"] or 0, row["x1_max"] or 0)
                    before = most.get(row["part"], said)
                    most[row["part"]] = (
                        max(said[0], before[0]),
                        max(said[1], before[1]),
                        max(said[2], before[2]),
                    )
        return cls({part: (max(1, isqrt(n + 1)), height, width) for part, (n, height, width) in most.items()})


def wrong_windows(rows: pa.Table, schema: TableSchema, windows: TileWindows) -> npt.NDArray[np.bool_]:
    """Tell which of some tiles, (n,), have not the window of their cell, or another row or date than their addresses."""
    parts = whole(rows["part"]).dictionary_encode()
    forms = [windows.forms[part] for part in parts.dictionary.to_pylist()]
    n, height, width = np.array(forms, np.int64).reshape(-1, 3)[as_numpy(parts.indices)].T
    tile, time, row = (as_numpy(rows[name], -1).astype(np.int64) for name in ("tile", "time_index", "row"))
    y, x = np.divmod(tile, n)

    def edges(high: Int64 | int, wide: Int64 | int) -> dict[str, Int64]:
        return {
            "y0": y * high // n,
            "y1": (y + 1) * high // n,
            "x0": x * wide // n,
            "x1": (x + 1) * wide // n,
        }

    wrong = np.zeros(rows.num_rows, np.bool_)
    for name, edge in edges(height, width).items():
        wrong |= as_numpy(rows[name], -1) != edge
    for modality in schema:
        if rows.schema.get_field_index(modality.name) < 0:
            continue
        column = whole(rows[modality.name])
        there, ref = as_numpy(column.is_valid()).astype(np.bool_), column.field("ref")
        wanted = {**edges(modality.height, modality.width), "row": row, "time_index": time}
        for name, value in wanted.items():
            wrong |= there & (as_numpy(ref.field(name), -1) != value)
    return wrong
