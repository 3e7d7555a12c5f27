"""The order of a mix: which source stands at each place, and which of its samples. Values with arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tensorbank.arguments import numbers_of
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.queries import Mix, Proportions
from tensorbank_loader.order.batch_bounds import n_batches
from tensorbank_loader.order.options import OrderOptions
from tensorbank_loader.order.plan_order import order_of_plan
from tensorbank_loader.order.sample_order import Int64, SampleOrder

__all__ = ["Mixed", "order_of_mix"]


@dataclass(frozen=True, eq=False)
class Mixed:
    """An order of several sources in proportion, each of them in an order of its own. Keeps :class:`SampleOrder`.

    A source that has been gone through begins again, shuffled anew, whatever the epoch of the mix. So a source is never cut off,
    and none of its samples comes twice before all have come once. For that, an order counts the samples of each source from the
    first epoch on::

        places of the run   0 1 2 3 4 5 6 7 8 9 ...       sources A (3 samples) and B (4), shares 2 : 1
        source              A A B A A B A A B A
        samples before      0 1 0 2 3 1 4 5 2 6           of the same source
        of the source       epoch 0 of A has its samples 0 to 2, epoch 1 those from 3 on, ...

    Positions count through the plans of all sources, one after the other.

    Parameters
    ----------
    orders
        Order of each source.
    lengths
        Samples of each source's plan.
    proportions
        Shares in force since the beginning of epoch ``since``.
    length
        Samples in an epoch; ``"first"`` or ``"last"``: until the first or the last source has been gone through once.
    homogeneous
        True if a global batch is of one source.
    global_batch_size
        Samples of a global batch.
    drop_last
        True if a shorter last global batch is left out.
    since
        Epoch in which the weights were set.
    drawn
        Samples of each source before that epoch.
    """

    orders: tuple[SampleOrder, ...]
    lengths: tuple[int, ...]
    proportions: Proportions
    length: int | Literal["first", "last"]
    homogeneous: bool
    global_batch_size: int
    drop_last: bool
    since: int = 0
    drawn: tuple[int, ...] = ()

    @property
    def has_each_once(self) -> bool:
        return False

    @property
    def n_together(self) -> int:
        return 1

    @property
    def identity(self) -> Mapping[str, Any]:
        """The kind of shuffling and the number of sources.

        Weights are not among them: they may change in the course of a run, and are taken over from its states.
        """
        kinds = [dict(o.identity) for o in self.orders]
        return {"shuffle": kinds[0]["shuffle"], "n_sources": len(kinds)}

    @cached_property
    def n_places(self) -> int:
        unit = self._unit
        if isinstance(self.length, int):
            n = -(-self.length // unit)
        else:
            ends = [
                self.proportions.places_until(s, -(-order.n_places // unit))
                for s, order in enumerate(self.orders)
            ]
            n = min(ends) if self.length == "first" else max(ends)
        return n * unit

    @property
    def _unit(self) -> int:
        """The number of places in a row that are of one source."""
        return self.global_batch_size if self.homogeneous else 1

    @property
    def _n_used(self) -> int:
        """The number of places of an epoch that are handed out."""
        size = self.global_batch_size
        return min(n_batches(self.n_places, size, drop_last=self.drop_last) * size, self.n_places)

    def of_batches(self, global_batch_size: int) -> Mixed:
        orders = tuple(o.of_batches(global_batch_size) for o in self.orders)
        return replace(self, orders=orders, global_batch_size=global_batch_size)

    def sources(self, places: Int64, *, epoch: int) -> tuple[Int64, Int64]:
        """Return the source of each place, (m,) int64, and the number of samples of it that came before, (m,) int64.

        Raises
        ------
        InvalidInputError
            The epoch is older than the weights.
        """
        if epoch < self.since:
            raise InvalidInputError(
                f"the weights were set for epoch {self.since}, so that epoch {epoch} is not known any more; load a state of it"
            )
        absolute = (epoch - self.since) * self._n_used + places
        unit, inside = np.divmod(absolute, self._unit)
        source, before = self.proportions.assign(unit)
        return source, before * self._unit + inside + np.array(self._drawn, np.int64)[source]

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        source, count = self.sources(places, epoch=epoch)
        found = np.zeros(len(places), np.int64)
        starts = np.cumsum([0, *self.lengths])
        for s, order in enumerate(self.orders):
            mine = source == s
            turn, place = np.divmod(count[mine], order.n_places)
            positions = np.zeros(len(place), np.int64)
            for own_epoch in np.unique(turn).tolist():
                now = turn == own_epoch
                positions[now] = order.positions(place[now], seed=_seed_of(seed, s), epoch=own_epoch)
            found[mine] = starts[s] + positions
        return found

    def reweighted(self, weights: Sequence[float], *, epoch: int) -> Mixed:
        """Return the same order with other weights from the beginning of an epoch on.

        Raises
        ------
        InvalidInputError
            There is not one weight for each source, or one is not positive.
        """
        weights = numbers_of("weights", weights, above=0)
        if len(weights) != len(self.orders):
            raise InvalidInputError(f"{len(self.orders)} sources need as many weights, got {weights}")
        return replace(
            self,
            proportions=Proportions.of(weights, self.proportions.seed),
            since=epoch,
            drawn=self.drawn_before(epoch),
        )

    def drawn_before(self, epoch: int) -> tuple[int, ...]:
        """Return the number of samples of each source before an epoch."""
        n_units = (epoch - self.since) * self._n_used // self._unit
        counts = self.proportions.counts(n_units)
        return tuple(n + count * self._unit for n, count in zip(self._drawn, counts, strict=True))

    def drawn_positions(self, *, seed: int) -> Iterator[Int64]:
        start = 0
        for s, (order, n, length) in enumerate(zip(self.orders, self._drawn, self.lengths, strict=True)):
            for turn in range(-(-n // order.n_places)):
                places = np.arange(min(n - turn * order.n_places, order.n_places), dtype=np.int64)
                yield start + order.positions(places, seed=_seed_of(seed, s), epoch=turn)
            start += length

    @property
    def _drawn(self) -> tuple[int, ...]:
        return self.drawn or (0,) * len(self.orders)

    def to_dict(self) -> dict[str, Any]:
        """Return the field ``mix`` of a saved state: the shares, since which epoch, and the samples drawn before it.

        If a source has weights of its samples, also whether they are drawn with replacement.
        """
        told = {"units": list(self.proportions.units), "since": self.since, "drawn": list(self._drawn)}
        replacing = {o.identity["replacement"] for o in self.orders if "replacement" in o.identity}
        return {"mix": told | {"replacement": replacing.pop()} if replacing else told}

    def from_dict(self, state: Mapping[str, Any]) -> Mixed:
        """Return the order with the field ``mix`` of a saved state.

        Raises
        ------
        InvalidInputError
            The state has no shares of so many sources; the kind is ``other-state``.
        """
        n = len(self.orders)
        given = state.get("mix")
        told = given if isinstance(given, Mapping) else {}
        units: Any = told.get("units")
        since: Any = told.get("since")
        drawn: Any = told.get("drawn")
        if not (_are_counts(units, n, 1) and _are_counts(drawn, n, 0) and _are_counts([since], 1, 0)):
            raise InvalidInputError(
                f"this state has no weights of {n} sources: {given!r}", kind=ErrorKind.OTHER_STATE
            )
        proportions = replace(self.proportions, units=tuple(units))
        return replace(self, proportions=proportions, since=since, drawn=tuple(drawn))


def order_of_mix(mix: Mix, options: OrderOptions, global_batch_size: int) -> Mixed:
    """Return the order of a mix that a loader's options ask for.

    Raises
    ------
    InvalidInputError
        The options are for one plan, or do not go together with a source.
    """
    if options.shuffle == "window":
        raise InvalidInputError("a mix takes samples of its sources one by one; shuffle is 'full' or None")
    if options.n_draws is not None:
        raise InvalidInputError("n_draws is of one plan; give the mix a length")
    each = replace(options, shuffle="full" if options.shuffle else None)
    unweighted = replace(each, replacement=None)
    return Mixed(
        orders=tuple(
            order_of_plan(plan, unweighted if plan.weights is None else each, global_batch_size)
            for plan in mix.plans
        ),
        lengths=tuple(map(len, mix.plans)),
        proportions=Proportions.of(mix.weights, mix.seed),
        length=mix.length,
        homogeneous=mix.homogeneous,
        global_batch_size=global_batch_size,
        drop_last=options.drop_last,
    )


def _are_counts(values: Any, n: int, at_least: int) -> bool:
    """Return True if a value of a saved state is a list of so many whole numbers that are large enough."""
    return (
        isinstance(values, list)
        and len(values) == n
        and all(isinstance(v, int) and at_least <= v < 2**62 for v in values)
    )


def _seed_of(seed: int, source: int) -> int:
    """Return the seed of a source's order, so that two sources of equal length do not go in step."""
    return int(np.random.SeedSequence([seed, source, 2]).generate_state(1, np.uint64)[0])
