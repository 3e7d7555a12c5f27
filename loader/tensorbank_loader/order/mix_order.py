"""The order of a mix: which source stands at each place, and which of its samples. Values with arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tensorbank.arguments import numbers_of
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.plans import Proportions
from tensorbank_loader.order.permutation import n_batches

if TYPE_CHECKING:
    from tensorbank_loader.order.plan_order import Order

__all__ = ["Mixed"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mixed:
    """An order of several sources in proportion, each in an order of its own.

    A source that is through begins again, shuffled anew, whatever the epoch of the mix: sources are neither cut off nor
    repeated early. Positions count through the plans of all sources, one after the other.

    Parameters
    ----------
    orders
        Order of each source.
    lengths
        Samples of each source's plan.
    proportions
        Shares in force since the beginning of epoch ``since``.
    length
        Samples an epoch; ``"first"`` or ``"last"``: until the first or the last source has been through once.
    homogeneous
        True if a global batch is of one source.
    global_batch_size, drop_last
        Size of a global batch, and True if an incomplete last one is left out.
    since
        Epoch.
    drawn
        Samples of each source before that.
    """

    orders: tuple[Order, ...]
    lengths: tuple[int, ...]
    proportions: Proportions
    length: int | Literal["first", "last"]
    homogeneous: bool
    global_batch_size: int
    drop_last: bool
    since: int = 0
    drawn: tuple[int, ...] = ()

    n_together = 1

    @property
    def identity(self) -> Mapping[str, Any]:
        """The values that a saved state must agree on. Weights are not among them: they may change in the
        course of a run, and are taken over from its states."""
        kinds = [dict(o.identity) for o in self.orders]
        return {"shuffle": kinds[0]["shuffle"], "n_sources": len(kinds)}

    @cached_property
    def n_places(self) -> int:
        unit = self.global_batch_size if self.homogeneous else 1
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
    def _n_used(self) -> int:
        """The number of places of an epoch that are handed out."""
        size = self.global_batch_size
        return min(n_batches(self.n_places, size, drop_last=self.drop_last) * size, self.n_places)

    def of_batches(self, global_batch_size: int) -> Mixed:
        orders = tuple(o.of_batches(global_batch_size) for o in self.orders)
        return replace(self, orders=orders, global_batch_size=global_batch_size)

    def sources(self, places: Int64, *, epoch: int) -> tuple[Int64, Int64]:
        """The source of each place, (m,) int64, and how many samples of it came before, (m,) int64."""
        if epoch < self.since:
            raise InvalidInputError(
                f"the weights were set for epoch {self.since}, so that epoch {epoch} is not known any more; load a state of it"
            )
        absolute = (epoch - self.since) * self._n_used + places
        if self.homogeneous:
            batch, inside = np.divmod(absolute, self.global_batch_size)
            source, before = self.proportions.assign(batch)
            before = before * self.global_batch_size + inside
        else:
            source, before = self.proportions.assign(absolute)
        return source, before + np.array(self._drawn, np.int64)[source]

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
        """Return the same with other weights from the beginning of an epoch on.

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
        used = (epoch - self.since) * self._n_used
        unit = self.global_batch_size if self.homogeneous else 1
        counts = self.proportions.counts(used // unit)
        return tuple(n + count * unit for n, count in zip(self._drawn, counts, strict=True))

    @property
    def _drawn(self) -> tuple[int, ...]:
        return self.drawn or (0,) * len(self.orders)

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`reweighted` changes, as JSON-able numbers."""
        return {"units": list(self.proportions.units), "since": self.since, "drawn": list(self._drawn)}

    def from_dict(self, given: Any) -> Mixed:
        """Return the order as :meth:`to_dict` wrote it.

        Raises
        ------
        InvalidInputError
            It is none.
        """
        n = len(self.orders)
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


def _are_counts(values: Any, n: int, at_least: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == n
        and all(isinstance(v, int) and at_least <= v < 2**62 for v in values)
    )


def _seed_of(seed: int, source: int) -> int:
    """Return the seed of a source's order, so that two sources of equal length do not go in step."""
    return int(np.random.SeedSequence([seed, source, 2]).generate_state(1, np.uint64)[0])
