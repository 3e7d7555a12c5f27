"""Tensors of a plan as an xarray dataset in memory: for notebooks and small selections; training streams instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.layout import dimension_names
from tensorbank.plans import Handle, Plan
from tensorbank.reading.sample_reader import SampleReader

if TYPE_CHECKING:
    import xarray

__all__ = ["as_dataset", "read_tensors"]


def read_tensors(plan: Plan, max_bytes: int) -> dict[str, Any]:
    """Read all samples of a plan: ``(n, time, band, y, x)`` by handle name, fill values where one is missing.

    Raises
    ------
    InvalidInputError
        The tensors are larger than ``max_bytes``, or the plan selects none.
    IntegrityError, StorageError
        Blocks are damaged, or the store does not answer.
    """
    if not plan.handles:
        raise InvalidInputError(
            "the query selects no tensor; select a modality such as S2L2A, or use .arrow() for rows"
        )
    n_bytes = len(plan) * sum(h.n_bytes for h in plan.handles)
    if n_bytes > max_bytes:
        raise InvalidInputError(
            f"the tensors take {n_bytes / 1e9:,.1f} GB, and at most {max_bytes / 1e9:,.1f} GB are read into memory at once; "
            "select fewer samples or bands, give max_bytes, or stream with .dataloader()",
            kind=ErrorKind.TOO_LARGE,
        )
    reader = SampleReader.of(plan)
    try:
        return reader.read(np.arange(len(plan), dtype=np.int64))
    finally:
        reader.close()


def as_dataset(plan: Plan, max_bytes: int) -> xarray.Dataset:
    """Read a plan into an xarray dataset; see :meth:`tensorbank.queries.answers.Answers.to_xarray`."""
    try:
        import xarray
    except ModuleNotFoundError:
        raise InvalidInputError(
            "this needs xarray: pip install xarray", kind=ErrorKind.MISSING_PACKAGE
        ) from None
    tensors = read_tensors(plan, max_bytes)
    dimensions = _dimensions(plan)
    coordinates: dict[str, Any] = {}
    for name in plan.metadata_columns:
        coordinates[name] = ("sample", _values(plan.table[name]))
    for handle in plan.handles:
        band = dimensions[handle.name][2]
        coordinates[band] = (band, [handle.modality.band_names[b] for b in handle.bands])
        present = plan.addresses[handle.name].present
        if not present.all():
            coordinates[f"{handle.name}_present"] = ("sample", present)
    variables = {h.name: (dimensions[h.name], tensors[h.name], _attributes(h)) for h in plan.handles}
    attributes = {"fingerprint": plan.fingerprint, "bank": plan.bank, "sql": plan.source.sql}
    return xarray.Dataset(variables, coordinates, attributes)


def _dimensions(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return the names of the axes of each handle;
    an axis is shared where it has the same length in the stored arrays and here.
    """
    modalities = [h.modality for h in plan.handles]
    found: dict[str, tuple[str, ...]] = {}
    lengths: dict[str, int] = {}
    for handle in plan.handles:
        sample, time, _, y, x = dimension_names(handle.modality, modalities)
        axes = [time, f"{handle.name}_band", y, x]
        for i, (axis, length) in enumerate(zip(axes, handle.shape, strict=True)):
            if lengths.setdefault(axis, length) != length:
                axes[i] = f"{handle.name}_{axis}"
                lengths[axes[i]] = length
        found[handle.name] = (sample, *axes)
    return found


def _values(column: Any) -> Any:
    """Return a column as xarray takes it: times without their zone, which is UTC."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us"))
    return column.to_numpy()


def _attributes(handle: Handle) -> dict[str, Any]:
    m = handle.modality
    return {**m.attributes, **({"flag_meanings": " ".join(n for _, n in m.classes)} if m.categorical else {})}
