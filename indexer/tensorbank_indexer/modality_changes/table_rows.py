"""The rows of a table as a change of one modality needs them: where each sample lies, and what it has of the modality."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_numpy
from tensorbank.catalog import Catalog, TableVersion
from tensorbank.errors import FormatError, NotFoundError
from tensorbank.index_schema import REF_TYPE, SOURCE_TYPE, TIME
from tensorbank.layout import place_of_key
from tensorbank.storage import Store
from tensorbank_indexer.modality_changes.spooled_rows import SpooledRows
from tensorbank_indexer.rows import OPTICAL_MODALITIES, RADAR_MODALITIES

__all__ = ["StoredRow", "TableRows", "array_form"]

Ref = Mapping[str, Any]
_TEXTS = ("sample_id", "split", "stem")
_TIMES = {"S2_times": OPTICAL_MODALITIES, "S1_times": RADAR_MODALITIES}
_TIMES_TYPE = pa.list_(TIME)
_KINDS = {"ref": REF_TYPE, "source": SOURCE_TYPE, "product_ids": pa.list_(pa.string())}


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row of samples: its name and place, its address and origin in the modality, and its addresses in the inputs.

    ``ref``, ``source`` and the ``inputs`` are None where the sample lacks the modality. ``times`` are the dates that columns
    have of such modalities, optical or radar; none where they have none.
    """

    key: int
    sample_id: str
    split: str
    stem: str
    row: int
    ref: Ref | None
    source: Ref | None
    product_ids: tuple[str, ...]
    times: tuple[datetime, ...]
    inputs: Mapping[str, Ref | None]


class TableRows:
    """Every row of samples of one version, deleted ones too: places in memory, 30 bytes each, the rest on the local disk.

    A row without any modality lies nowhere: its place is -1.

    Parameters
    ----------
    folder
        Folder on the local disk for what does not stay in memory.
    modality
        Name of the modality that changes; the table may lack it.
    inputs
        Names of modalities whose addresses are needed, too.
    """

    def __init__(
        self, catalog: Catalog, version: TableVersion, folder: Path, modality: str, inputs: Sequence[str] = ()
    ) -> None:
        self.version = version
        self.modality = modality
        self.inputs = tuple(inputs)
        self._times = next((c for c, names in _TIMES.items() if modality in names), None)
        self.parts: dict[str, int] = {}
        self.array_of_part: dict[int, str] = {}
        self._columns: dict[str, list[npt.NDArray[Any]]] = {
            n: [] for n in ("key", "part", "row", "shard", "has", "ready")
        }
        self._rows = SpooledRows(folder / f"rows-{version.version}.arrow", _spooled(self.inputs))
        for file in version.samples.files:
            self._read(catalog.path(file))
        dtypes = {"key": np.int64, "part": np.int32, "row": np.int32, "shard": np.int32}
        found = {
            name: np.concatenate([np.empty(0, dtypes.get(name, np.bool_)), *columns])
            for name, columns in self._columns.items()
        }
        self.key, self.part, self.row, self.shard = (found[n] for n in ("key", "part", "row", "shard"))
        self.has: npt.NDArray[np.bool_] = found["has"]
        """True for rows that have the modality, (n,)."""
        self.ready: npt.NDArray[np.bool_] = found["ready"]
        """True for rows that have all inputs, (n,)."""
        self.live = self.matching(catalog.deleted(version), otherwise=False, invert=True)

    def matching(
        self, named: pa.Table | None, *, otherwise: bool, invert: bool = False
    ) -> npt.NDArray[np.bool_]:
        """Tell which of the rows, (n,), are named by ``key`` and ``part`` in a table; ``otherwise`` if there is none."""
        if named is None:
            return np.full(len(self.key), otherwise != invert)
        codes = [self.parts.get(part, -1) for part in named["part"].to_pylist()]
        pairs = np.stack([as_numpy(named["key"]).astype(np.int64), np.array(codes, np.int64)], axis=1)
        own = np.stack([self.key, self.part.astype(np.int64)], axis=1)
        as_one = np.dtype([("key", np.int64), ("part", np.int64)])
        found = np.isin(np.ascontiguousarray(own).view(as_one), np.ascontiguousarray(pairs).view(as_one))
        named_rows: npt.NDArray[np.bool_] = found.reshape(-1) != invert
        return named_rows

    @cached_property
    def n_live(self) -> int:
        """The number of samples."""
        return int(np.count_nonzero(self.live))

    def groups(self, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
        """Yield part, shard, and the numbers of all rows in it, in the order of their places, of each shard with a wanted row."""
        shards = (self.part.astype(np.int64) << 32) | self.shard
        order = np.lexsort((self.row, shards))
        order = order[self.row[order] >= 0]
        bounds = np.flatnonzero(np.diff(shards[order], prepend=-1))
        touched = np.unique(shards[wanted])
        for start, end in zip(bounds.tolist(), [*bounds[1:].tolist(), len(order)], strict=True):
            shard = shards[order[start]]
            if touched[min(np.searchsorted(touched, shard), len(touched) - 1)] == shard:
                yield int(shard >> 32), int(shard & 0xFFFFFFFF), order[start:end]

    def take(self, numbers: npt.NDArray[np.int64]) -> list[StoredRow]:
        """Return some rows whole."""
        rows = self._rows.take(numbers).to_pylist()
        return [
            StoredRow(
                int(self.key[n]),
                row["sample_id"] or "",
                row["split"] or "",
                row["stem"] or "",
                int(self.row[n]),
                row["ref"],
                row["source"],
                tuple(row["product_ids"] or ()),
                tuple(row["times"] or ()),
                {name: row[f"input {name}"] for name in self.inputs},
            )
            for n, row in zip(numbers.tolist(), rows, strict=True)
        ]

    def _read(self, path: str) -> None:
        """Read the rows of one file."""
        with pq.ParquetFile(path) as parquet:
            there = set(parquet.schema_arrow.names)
            names = [m.name for m in self.version.schema if m.name in there]
            own = [f"{self.modality}.{f}" for f in ("ref", "source", "product_ids")]
            columns = [
                *(*_TEXTS, "part", "key", *([self._times] if self._times in there else [])),
                *(f"{m}.ref.{f}" for m in names for f in ("key", "row")),
                *(own if self.modality in there else []),
                *(f"{m}.ref" for m in self.inputs if m in there),
            ]
            for group in range(parquet.num_row_groups):
                self._add(parquet.read_row_group(group, columns=columns), names)

    def _add(self, rows: pa.Table, modalities: Sequence[str]) -> None:
        texts = rows["part"].to_pylist()
        codes = np.array([self.parts.setdefault(part, len(self.parts)) for part in texts], np.int32)
        row, shard = np.full(len(rows), -1, np.int32), np.full(len(rows), -1, np.int32)
        for name in modalities:
            ref = pc.struct_field(rows[name], "ref")
            keys = _whole(pc.struct_field(ref, "key")).dictionary_encode()
            places = [place_of_key(key) for key in keys.dictionary.to_pylist()]
            code = as_numpy(keys.indices, -1)
            at = (row < 0) & (code >= 0)
            row[at] = as_numpy(pc.struct_field(ref, "row"), -1)[at]
            shard[at] = np.array([n for _, n in places], np.int32)[code[at]]
            for number in np.flatnonzero(at).tolist():
                self.array_of_part.setdefault(int(codes[number]), places[code[number]][0])
        spooled = {name: rows[name] for name in _TEXTS}
        spooled |= {field: _field(rows, self.modality, field) for field in _KINDS}
        spooled |= {f"input {m}": _field(rows, m, "ref") for m in self.inputs}
        none = pa.nulls(len(rows), _TIMES_TYPE)
        spooled["times"] = rows[self._times] if self._times in rows.column_names else none
        self._rows.append(pa.table(spooled, schema=self._rows.schema))
        has = {
            name: as_numpy(spooled[name].is_valid()) for name in ("ref", *(f"input {m}" for m in self.inputs))
        }
        ready = np.logical_and.reduce(
            [np.ones(len(rows), np.bool_), *(has[f"input {m}"] for m in self.inputs)]
        )
        found = {
            "key": as_numpy(rows["key"]),
            "part": codes,
            "row": row,
            "shard": shard,
            "has": has["ref"],
            "ready": ready,
        }
        for name, column in found.items():
            self._columns[name].append(column)


def array_form(store: Store, array: str) -> tuple[int, int]:
    """Return the rows of a Zarr array of a part, and those of one shard.

    Raises
    ------
    FormatError
        Its document is missing or damaged.
    """
    try:
        document = json.loads(store.get(f"{array}/zarr.json"))
        n_rows, n_slots = document["shape"][0], document["chunk_grid"]["configuration"]["chunk_shape"][0]
        return int(n_rows), int(n_slots)
    except (NotFoundError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FormatError(
            f"{store.url}/{array}/zarr.json is missing or damaged, and says how rows lie in shards; restore it"
        ) from error


def _spooled(inputs: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [
            *(pa.field(name, pa.string()) for name in _TEXTS),
            *(pa.field(name, kind) for name, kind in _KINDS.items()),
            pa.field("times", _TIMES_TYPE),
            *(pa.field(f"input {name}", REF_TYPE) for name in inputs),
        ]
    )


def _field(rows: pa.Table, modality: str, field: str) -> pa.ChunkedArray:
    """Return a field of a modality, null where a row lacks it."""
    kind = _KINDS[field]
    if modality not in rows.column_names:
        return pa.chunked_array([pa.nulls(len(rows), kind)])
    return pc.struct_field(rows[modality], field).cast(kind)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])
