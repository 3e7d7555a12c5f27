"""The contract of an order of samples, and the part of it that all orders of one plan share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError

__all__ = ["Int64", "PlanOrder", "SampleOrder"]

Int64 = npt.NDArray[np.int64]


class SampleOrder(Protocol):
    """An order of the samples of an epoch, of a plan or of a mix of several.

    An epoch has ``n_places`` places, which :class:`tensorbank_loader.epochs.Epochs` cuts into global batches. An order tells
    which sample stands at each place. It is a value: seed and epoch are arguments, so that every process of a run computes the
    same, and it knows neither ranks nor workers. Any place can be asked for alone.

    Samples are told by their positions in the plan. Positions of a mix count through the plans of all sources, one after the
    other.
    """

    @property
    def n_places(self) -> int:
        """The number of places in an epoch."""

    @property
    def has_each_once(self) -> bool:
        """True if each sample stands at exactly one place of every epoch."""

    @property
    def n_together(self) -> int:
        """The number of global batches that are best read together, counted from the first of an epoch."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The fields of a saved state that must be equal for a run to go on, as JSON-able values."""

    def of_batches(self, global_batch_size: int) -> SampleOrder:
        """Return the same order for global batches of another size."""

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        """Return the positions, (m,) int64, of the samples at some places, (m,) int64 in ``[0, n_places)``."""

    def reweighted(self, weights: Sequence[float], *, epoch: int) -> SampleOrder:
        """Return the same order with other weights of the sources, from the beginning of an epoch on.

        Raises
        ------
        InvalidInputError
            The order has no sources, or the weights make no sense.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a saved state that hold what :meth:`reweighted` changes, as JSON-able values."""

    @property
    def since(self) -> int:
        """The epoch since which the weights of the sources hold; 0 for an order without sources."""

    def drawn_positions(self, *, seed: int) -> Iterator[Int64]:
        """Yield the positions, (m,) int64, of the samples that were drawn before :meth:`reweighted` changed the weights.

        They are told by their number for each source: one that was drawn several times comes as often.
        """

    def from_dict(self, state: Mapping[str, Any]) -> SampleOrder:
        """Return the order with what :meth:`to_dict` wrote into a saved state.

        Raises
        ------
        InvalidInputError
            The state lacks it, or it is damaged; the kind is ``other-state``.
        """


class PlanOrder:
    """The part of :class:`SampleOrder` that orders of one plan share: no sources to weight, and batches of any size."""

    __slots__ = ()

    @property
    def has_each_once(self) -> bool:
        return True

    @property
    def since(self) -> int:
        return 0

    @property
    def n_together(self) -> int:
        return 1

    def of_batches(self, global_batch_size: int) -> Self:  # noqa: ARG002 - for orders that depend on it
        return self

    def reweighted(self, weights: Sequence[float], *, epoch: int) -> Self:  # noqa: ARG002 - for orders with weights
        """Refuse to change weights.

        Raises
        ------
        InvalidInputError
            Always: one plan has no sources.
        """
        raise InvalidInputError("weights are of the sources of a mix, and this loader streams one plan")

    def to_dict(self) -> dict[str, Any]:
        return {}

    def drawn_positions(self, *, seed: int) -> Iterator[Int64]:  # noqa: ARG002 - for orders with weights
        return iter(())

    def from_dict(self, state: Mapping[str, Any]) -> Self:  # noqa: ARG002 - an order without state
        return self
