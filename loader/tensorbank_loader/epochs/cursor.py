"""The position of a run: its order, its rank, and the batch that comes next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tensorbank.arguments import choice, instance, whole_number
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.epochs.agreement import require_agreement
from tensorbank_loader.epochs.epoch import Epochs, State
from tensorbank_loader.epochs.saved_state import check_world, loaded, saved
from tensorbank_loader.epochs.trail import Place, Trail, place_of
from tensorbank_loader.epochs.world import World

__all__ = ["Cursor", "OnIter"]

logger = logging.getLogger(__name__)

OnIter = Literal["restart", "continue"]
"""A treatment by ``iter()`` of an epoch that was left: begin it anew, or go on with it."""


class Cursor:
    """The epochs of a run and the position in them, with the rules that say where an ``iter()`` begins.

    By what happened before ``iter()``, it begins:

    ======================================== =========================================================
    nothing                                  epoch 0 from its start
    the epoch ``e`` was had to its end       epoch ``e + 1`` from its start
    the epoch ``e`` was left                 epoch ``e`` from its start; its rest with ``"continue"``
    ``load_state_dict``                      at the position of the state
    ``set_epoch(e)``                         epoch ``e`` from its start
    ``load_state_dict``, then ``set_epoch``  of the state's epoch: at the position of the state
    ======================================== =========================================================

    The world is settled when the first epoch begins, not before. ``_given`` is the caller's, ``_found`` is the one that was
    found, and it stays. A state that is loaded before that is kept in ``_unchecked``, to be compared with the world.

    ``state`` is the next global batch. ``resuming`` is True if the next ``iter()`` goes on there although the epoch has begun.

    Parameters
    ----------
    epochs
        Epochs of the run; in batches of one rank if ``batch_size`` is given, as the number of ranks is not known yet.
    batch_size
        Samples of a rank; None if the size of the global batch is given.
    world
        Rank and number of ranks. None: they are found when the first epoch begins.
    on_iter
        Treatment of an epoch that was left.
    single
        True if samples are handed out one by one, so that a state may stand inside of a batch.
    """

    def __init__(
        self,
        epochs: Epochs,
        *,
        batch_size: int | None,
        world: World | None,
        on_iter: OnIter,
        single: bool = False,
    ) -> None:
        choice("on_iter", on_iter, ("restart", "continue"))
        if world is not None:
            instance("world", world, World, "give a World(rank, n_ranks), or leave it out")
        self._epochs = epochs
        self._batch_size = batch_size
        self._given = world
        self._found: World | None = None
        self._on_iter = on_iter
        self._single = single
        self._is_settled = self._is_agreed = False
        self._unchecked: Mapping[str, Any] | None = None
        self._trail = Trail()
        self.state = State()
        self.resuming = False
        if world is not None:
            _check_size(self.epochs, world)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the world that was found: a copy may go to another process, and finds its own."""
        inside = self.resuming or self.state.is_inside
        return {
            **self.__dict__,
            "_found": None,
            "_is_settled": False,
            "_is_agreed": False,
            "resuming": inside,
        }

    @property
    def world(self) -> World:
        """The rank and number of ranks: those found or given, else those that would be found now."""
        return self._found or self._given or World.detect()

    @property
    def was_given_a_world(self) -> bool:
        """True if the caller chose the world."""
        return self._given is not None

    @property
    def epochs(self) -> Epochs:
        """The epochs, in the global batches of this world."""
        if self._batch_size is None:
            return self._epochs
        return self._epochs.resized(self._batch_size * self.world.n_ranks)

    @property
    def unsized(self) -> Epochs:
        """The epochs, in batches of whatever size: for what does not depend on it."""
        return self._epochs

    def found(self, world: World) -> None:
        """Settle the world, whatever would be found in this process."""
        self._found = world

    def go_to(self, state: State) -> None:
        """Let the next ``iter()`` begin at a state, unless it begins there anyway."""
        if state != self.first:
            self.state, self.resuming = state, state.is_inside

    def begin(
        self, *, tell: bool = True, at: Callable[[Epochs, World], State] | None = None
    ) -> tuple[Epochs, World]:
        """Settle the world and the state at which an epoch begins, which is :attr:`state` from then on.

        Parameters
        ----------
        tell
            True to log a warning if some ranks' last batch is empty.
        at
            Function that returns the state, for workers, which agree on it; None: :attr:`first`.

        Raises
        ------
        InvalidInputError
            The world cannot be found, is not that of the process group, cannot go on with the state that was loaded, or other
            ranks stream something else.
        """
        world = self.world
        if not self._is_settled:
            if self._found is None:
                world.check_group()
            epochs = self.epochs
            _check_size(epochs, world)
            if tell and epochs.leaves_ranks_empty(world):
                logger.warning(
                    "the last of %d global batches has fewer samples than there are ranks (%d): some ranks get a batch of none, "
                    "whose mean is NaN; even='pad', even='drop' or drop_last=True avoid that",
                    epochs.n_batches,
                    world.n_ranks,
                )
            self._found, self._is_settled = world, True
        if self._unchecked is not None:
            check_world(self.epochs, self._unchecked, world)
            self._unchecked = None
        stood = self._place(self.state)
        self._trail = self._trail.shared_by(self.epochs.n_sharing(world), stood)
        self.state, self.resuming = self.first, False
        if at is not None:
            self.state = at(self.epochs, world)
        if at is None:
            self.require_agreement(self.state)
        self._trail = self._trail.jumped(stood, self._place(self.state))
        return self.epochs, world

    def require_agreement(self, state: State) -> None:
        """Compare with the other ranks what is about to be streamed from a state on, once.

        Raises
        ------
        InvalidInputError
            They stream something else; the kind is ``world``.
        """
        if not self._is_agreed:
            require_agreement(saved(self.epochs, state, self.world), self.world)
            self._is_agreed = True

    def _place(self, state: State) -> Place:
        """Return the place of a state, which in an epoch that has not begun does not depend on the world."""
        return place_of(state, self.epochs.n_batches) if state.is_inside else (state.epoch, 0)

    @property
    def first(self) -> State:
        """The state at which the next ``iter()`` begins."""
        left = self.state.is_inside and not self.resuming
        return State(self.state.epoch) if left and self._on_iter == "restart" else self.state

    def set_epoch(self, epoch: int) -> None:
        """Choose the next epoch."""
        epoch = whole_number("epoch", epoch, at_least=0, at_most=2**62)
        if not (self.resuming and epoch == self.state.epoch):
            self._trail = self._trail.jumped(self._place(self.state), (epoch, 0))
            self.state, self.resuming = State(epoch), False

    def state_dict(self, world: World | None = None) -> dict[str, Any]:
        """Return the position of the run, as JSON-able numbers."""
        world = world or self.world
        trail = self._trail.shared_by(self.epochs.n_sharing(world), self._place(self.state))
        return saved(self.epochs, self.state, world, trail)

    def load_state_dict(self, given: Mapping[str, Any], *, worker: World | None = None) -> None:
        """Go on where a saved state stands.

        Parameters
        ----------
        worker
            The worker that goes on with a state of its own; None outside of workers.
        """
        world = worker or self._given or self._found
        epochs, state = loaded(self._epochs, given, world, single=self._single)
        if worker is None and given["n_workers"] > 1:
            raise InvalidInputError(
                f"this state is of one of {given['n_workers']} workers; give it to the loader that had them",
                kind=ErrorKind.OTHER_STATE,
            )
        self._epochs, self._batch_size = epochs, None
        self._trail = Trail.of_state(given)
        self._unchecked = None if world is not None else dict(given)
        place = (
            state if worker is not None else State(state.epoch, state.position, state.skip, state.position)
        )
        self.state, self.resuming = place, True

    def set_weights(self, weights: Sequence[float]) -> None:
        """Change the weights of a mix's sources, between two epochs."""
        self._epochs, self.state = self.epochs.reweighted(weights, self.state)


def _check_size(epochs: Epochs, world: World) -> None:
    if epochs.global_batch_size < world.n_ranks:
        raise InvalidInputError(
            f"a global batch of {epochs.global_batch_size} gives {world.n_ranks} ranks less than a sample each; "
            "give a larger batch, or use fewer ranks"
        )
