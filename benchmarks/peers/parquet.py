"""The exported samples as Parquet, for peers that read it: one binary column a modality, row groups of 64 MB, one a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from peers.contract import Export, cut

__all__ = ["decoded", "shapes_of", "write"]

ROW_GROUP_BYTES = 64 << 20


def write(export: Export, folder: Path, track: str) -> None:
    """Write files of one row group, so that as many readers as there are files can share them."""
    stored = {name: export.pixels(name) for name in export.modalities}
    n_rows = max(1, ROW_GROUP_BYTES // sum(p[0].nbytes for p in stored.values()))
    for first in range(0, len(export), n_rows):
        rows = export.rows[first : first + n_rows]
        table = pa.Table.from_pylist(rows)
        for name, pixels in stored.items():
            blobs = [pixels[first + i].tobytes() for i in range(len(rows))]
            table = table.append_column(name, pa.array(blobs, pa.large_binary()))
        pq.write_table(
            table,
            folder / f"{first // n_rows:05d}.parquet",
            compression="zstd" if track == "zstd" else "none",
            compression_level=3 if track == "zstd" else None,
            use_dictionary=False,
        )


def shapes_of(export: Export, modalities: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and [band, y, x] by modality."""
    return {m: (export.pixels(m).dtype.name, export.pixels(m).shape[1:]) for m in modalities}


def decoded(blob: bytes, dtype: str, shape: tuple[int, ...], bands: Any, window: Any = ()) -> Any:
    """Decode one modality of one sample, as an array of its own."""
    return np.array(cut(np.frombuffer(blob, dtype).reshape(shape), bands, *window))
