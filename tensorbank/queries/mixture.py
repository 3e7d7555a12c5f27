"""Mixes: several plans streamed as one, in proportion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Unpack
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arguments import flag, number, whole_number
from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.errors import InvalidInputError
from tensorbank.plans import (
    DatasetOptions,
    Handle,
    LoaderOptions,
    Origin,
    Plan,
    common_origin,
    dataset_of,
    loader_of,
)
from tensorbank.queries.answers import Answers
from tensorbank.queries.proportions import Proportions

if TYPE_CHECKING:
    from tensorbank_loader import DataLoader, StreamingDataset

__all__ = ["MIXED_FROM", "Mix", "mix"]

MIXED_FROM = "mixed_from"
"""The column of a mix's batches: which of its sources a sample is of, counted from 0."""

Length = int | Literal["first", "last"]


@dataclass(frozen=True)
class Mix:
    """A set of several plans and their shares of what is streamed. Frozen and picklable.

    Parameters
    ----------
    plans
        The sources.
    weights
        Weight of each source; only their ratios count.
    seed
        Seed of the order.
    homogeneous
        True if each global batch is of one source; batches are then in proportion.
    length
        Samples an epoch; ``"first"`` or ``"last"``: until the first or the last source has been through once. :attr:`n_draws` is
        how many that is.
    """

    plans: tuple[Plan, ...]
    weights: tuple[float, ...]
    seed: int = 0
    homogeneous: bool = False
    length: Length = "last"

    def __len__(self) -> int:
        """Return the number of samples of all sources together.
        An epoch may have more or fewer, see :attr:`n_draws`.
        """
        return sum(map(len, self.plans))

    @property
    def n_draws(self) -> int:
        """The number of samples in an epoch, of all ranks together.

        A homogeneous mix is cut in whole global batches, so that its epochs are longer by a part of one; the loader's ``len``
        tells.
        """
        if isinstance(self.length, int):
            return self.length
        proportions = Proportions.of(self.weights, self.seed)
        ends = [proportions.places_until(source, len(plan)) for source, plan in enumerate(self.plans)]
        return min(ends) if self.length == "first" else max(ends)

    def __repr__(self) -> str:
        weights = np.array(self.weights) / max(self.weights)
        shares = weights / weights.sum()
        sources = ", ".join(f"{share:.3g} of {len(p)}" for share, p in zip(shares, self.plans, strict=True))
        return f"Mix({self.fingerprint}, {sources}, {self.n_draws} samples an epoch)"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the tables, which are made again where they are used."""
        return {name: value for name, value in self.__dict__.items() if name not in ("joined", "sources")}

    @property
    def fingerprint(self) -> str:
        """The hash of all sources and how they are mixed, 32 hexadecimal digits."""
        told = [[p.fingerprint for p in self.plans], self.weights, self.seed, self.homogeneous, self.length]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    @cached_property
    def sources(self) -> tuple[Plan, ...]:
        """The plans, with a column that says which of them it is."""
        return tuple(_marked(plan, number) for number, plan in enumerate(self.plans))

    @cached_property
    def joined(self) -> Plan:
        """Return all sources as one plan, one after the other:
        tensors as in the first, and the metadata of all.

        A column that a source lacks is null for its samples. Numbers of two types become the one that holds both.

        Raises
        ------
        InvalidInputError
            Their tensors differ, a column is of types that do not go together, or no store holds them all.
        """
        first = self.sources[0]
        for i, plan in enumerate(self.sources[1:], start=1):
            _check_alike(first.handles, plan.handles, i)
        origin, below = _common_origin(self.sources)
        tables = _with_dates(
            [_rebased(p, prefix) for p, prefix in zip(self.sources, below, strict=True)], first
        )
        names = list(dict.fromkeys(name for t in tables for name in t.column_names))
        for name in names:
            _check_types(name, tables)
        table = pa.concat_tables(tables, promote_options="permissive").select(names).unify_dictionaries()
        source = replace(first.source, sql=" + ".join(p.source.sql for p in self.plans))
        return Plan(self.fingerprint, source, first.handles, table, origin)

    def dataloader(self, **options: Unpack[LoaderOptions]) -> DataLoader:
        """Stream the mix in batches; see :class:`tensorbank_loader.DataLoader` for the options."""
        return loader_of(self, **options)

    def dataset(self, **options: Unpack[DatasetOptions]) -> StreamingDataset:
        """Return the mix for a loader of torch's; see :class:`tensorbank_loader.StreamingDataset` for the options."""
        return dataset_of(self, **options)


Source = Answers | Plan
MAX_WEIGHT = 1e200
MAX_LENGTH = 1 << 40
"""The most places of an epoch: places times shares of sources fit 63 bits."""


def mix(
    sources: Mapping[Source, float] | Iterable[Source | tuple[Source, float]],
    *,
    seed: int = 0,
    temperature: float | Sequence[float] | None = None,
    homogeneous: bool = False,
    length: Length = "last",
) -> Mix:
    """Mix queries or plans, in any window of an epoch in proportion to their weights. Queries are planned.

    Batches have the metadata columns of all sources, null where a sample's source has none of that name. An epoch ends when each
    source has been through at least once, unless ``length`` says otherwise; :attr:`Mix.n_draws` tells how many samples that is.

    Parameters
    ----------
    sources
        Queries or plans and their weights, as a mapping or as pairs; those that come without weights have 1, times what
        ``temperature`` says.
    seed
        Seed of the order.
    temperature
        Flattens the shares of large sources: each weight is multiplied by ``n ** (1 / temperature)``, n being the samples of the
        source. 1 is proportional to size, infinity equal. One number, or one a source. None: weights are shares as they
        are, and without weights the temperature is 1.
    homogeneous
        Make each global batch of one source, which may then have tensors of their own; batches are in proportion.
    length
        Samples an epoch; ``"first"`` or ``"last"``: until the first or the last source has been through once. A source that is
        through before begins again, shuffled anew.

    Raises
    ------
    InvalidInputError
        There are no sources, one is empty, or a number makes no sense.
    """
    given = _pairs(sources)
    weighted = [w is not None for _, w in given]
    if not given or any(weighted) != all(weighted):
        raise InvalidInputError("a mix needs sources, all with weights or all without")
    weights = [
        1.0 if w is None else number(f"the weight of source {i}", w, above=0)
        for i, (_, w) in enumerate(given)
    ]
    seed = whole_number("seed", seed, at_least=0)
    flag("homogeneous", homogeneous)
    if length not in ("first", "last"):
        length = _length(length)
    plans = tuple(s if isinstance(s, Plan) else s.plan() for s, _ in given)
    for i, plan in enumerate(plans):
        if not len(plan):
            raise InvalidInputError(f"source {i} of the mix selects no sample: {plan.source.sql}")
    if temperature is None and not any(weighted):
        temperature = 1.0
    shares = np.array(weights)
    if temperature is not None:
        if shares.max() > MAX_WEIGHT:  # so that the product does not overflow
            shares /= shares.max()
        with np.errstate(over="ignore"):
            shares = shares * np.array([len(p) for p in plans], np.float64) ** (
                1 / _temperatures(temperature, len(plans))
            )
        if not np.isfinite(shares).all():
            raise InvalidInputError(f"temperature is {temperature!r}, too near to 0 for sources of this size")
    return Mix(plans, tuple(shares.tolist()), seed, homogeneous, length)


def _pairs(sources: Any) -> list[tuple[Source, Any]]:
    """Return the sources and their weights, None where they come without."""
    if isinstance(sources, str) or not isinstance(sources, Mapping | Iterable):
        raise InvalidInputError(
            f"a mix takes queries or plans and their weights, got {sources!r}; give a mapping, or a list of pairs"
        )
    listed = sources.items() if isinstance(sources, Mapping) else sources
    given = [s if isinstance(s, tuple) and len(s) == 2 else (s, None) for s in listed]
    for i, (source, _) in enumerate(given):
        if not isinstance(source, Plan | Answers):
            raise InvalidInputError(
                f"source {i} of the mix is {source!r}; give a query, such as bank.sql(...), or a plan"
            )
    return given


def _length(length: Any) -> int:
    try:
        return whole_number("length", length, at_least=1, at_most=MAX_LENGTH)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}, 'first' or 'last'") from None


def _temperatures(temperature: Any, n: int) -> npt.NDArray[np.float64]:
    """Return one temperature per source."""
    listed = list(temperature) if isinstance(temperature, Sequence | np.ndarray) else [temperature] * n
    if isinstance(temperature, str) or len(listed) != n:
        raise InvalidInputError(f"temperature is {temperature!r}; give one positive number, or one a source")
    return np.array([number("temperature", t, above=0, finite=False) for t in listed])


def _check_types(name: str, tables: Sequence[pa.Table]) -> None:
    """Refuse a column of types that no type holds."""
    kinds = list(dict.fromkeys(t.schema.field(name).type for t in tables if name in t.column_names))
    try:
        pa.unify_schemas([pa.schema([(name, kind)]) for kind in kinds], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidInputError(
            f"column {name!r} has the types {', '.join(map(str, kinds))} in the sources of the mix, which do not go together; "
            "cast it in a query, or rename it with AS"
        ) from error


def _with_dates(tables: Sequence[pa.Table], plan: Plan) -> list[pa.Table]:
    """Return the tables of alike plans, with the numbers of dates in all of them where one has them."""
    found = list(tables)
    for handle in plan.handles:
        name = handle.columns.n_times
        if not any(name in t.column_names for t in found):
            continue
        for i, table in enumerate(found):
            if name not in table.column_names:
                present = as_numpy(table[handle.columns.key].is_valid())
                n_times = np.where(present, handle.n_times, 0).astype(np.int16)
                found[i] = table.append_column(name, as_arrow(n_times))
    return found


def _marked(plan: Plan, number: int) -> Plan:
    if MIXED_FROM in plan.table.column_names:
        raise InvalidInputError(f"a mix has the column {MIXED_FROM!r} already; rename the query's with AS")
    mark = pa.repeat(pa.scalar(number, pa.int8() if number < 128 else pa.int32()), len(plan))
    return replace(plan, table=plan.table.append_column(MIXED_FROM, mark))


def _check_alike(expected: tuple[Handle, ...], got: tuple[Handle, ...], number: int) -> None:
    if [_form(h) for h in expected] != [_form(h) for h in got]:
        raise InvalidInputError(
            f"source {number} of the mix has tensors {[_form(h) for h in got]}, source 0 has "
            f"{[_form(h) for h in expected]}; select the same, or mix whole batches with homogeneous=True"
        )


def _form(h: Handle) -> tuple[Any, ...]:
    """Return the properties that two handles must share for their tensors to
    stand in one batch and be read alike.
    """
    m = h.modality
    form = (h.name, m.dtype, h.shape, (m.height, m.width), m.fill_value, len(m.bands), h.bands, h.window)
    return (*form, h.by_date)


def _common_origin(plans: Sequence[Plan]) -> tuple[Origin, list[str]]:
    """Return an origin that holds the shards of all, and the folder in it of each plan's bank."""
    found = common_origin([plan.origin for plan in plans])
    if found is None:
        banks = sorted({plan.bank for plan in plans})
        raise InvalidInputError(
            f"the sources lie in stores that no one connection reaches: {banks}; "
            "mix whole batches of them with homogeneous=True"
        )
    return found


def _rebased(plan: Plan, prefix: str) -> pa.Table:
    """Return a plan's table with shard keys below another folder."""
    table = plan.table
    if not prefix:
        return table
    for handle in plan.handles:
        name = handle.columns.key
        keys = table[name].combine_chunks()
        chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
        moved = [
            pa.DictionaryArray.from_arrays(
                c.indices, pa.array([unquote(prefix) + key for key in c.dictionary.to_pylist()], pa.string())
            )
            for c in chunks
        ]
        table = table.set_column(
            table.schema.get_field_index(name), name, pa.chunked_array(moved, table[name].type)
        )
    return table
