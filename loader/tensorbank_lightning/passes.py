"""A loader as a Trainer goes through it: one pass after the other, each as long as an epoch at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

__all__ = ["Passes", "SteadyLoader"]


class SteadyLoader(Protocol):
    """A loader whose state is exact after each batch, as :class:`tensorbank_loader.DataLoader` is."""

    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


class Passes:
    """An iterable of passes over a loader, for a Trainer.

    A pass has as many batches as an epoch, unless the Trainer ends it earlier. Where the loader goes on with an epoch that was
    left (``on_iter="continue"``), a pass begins where the last one has ended, and goes on with the next epoch where one is over:
    so a Trainer with ``limit_train_batches`` sees all samples of an epoch, a part in each of its own, before any comes again.

    The Trainer finds a loader that can be resumed, but nothing in its state: the data module keeps that.

    Parameters
    ----------
    loader
        Loader of the batches.
    """

    def __init__(self, loader: SteadyLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        """Return the number of batches of a pass, those of this rank in an epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        n_left = len(self.loader)
        while n_left:
            for batch in self.loader:
                n_left -= 1
                yield batch
                del batch  # its memory is the next one's, once the consumer has dropped it, too
                if not n_left:
                    return

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the data module has loaded the state already."""
