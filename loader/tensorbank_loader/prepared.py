"""Batches as the consumer takes them: transformed when it asks for one, or some ahead of it in a thread."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, replace
from typing import Any

from tensorbank_loader.batch import Batch, n_samples_of
from tensorbank_loader.epochs import Step
from tensorbank_loader.transforms import Transform

__all__ = ["Prepared", "PreparedAhead", "Transformed"]

LINGER_S = 1.0
"""Seconds to wait for the thread of a loader that nobody has closed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A transformed batch.

    Parameters
    ----------
    step
        Step of the epoch.
    item
        What the transform made of the batch.
    n_samples, n_bytes
        Samples of the batch, and bytes of its tensors, columns of metadata aside.
    transform_s
        Seconds of the consumer's thread in the transform.
    """

    step: Step
    item: Any
    n_samples: int
    n_bytes: int
    transform_s: float


class Transformed:
    """An iterator of transformed batches, each made when it is asked for. It keeps nothing of what it has handed out.

    Parameters
    ----------
    batches
        Generator of the batches, which is closed with this.
    transform
        Function of a batch.
    handles
        Names of the batches' tensors, for their bytes.
    """

    def __init__(
        self,
        batches: Generator[tuple[Step, Batch], None, None],
        transform: Transform,
        handles: Collection[str],
    ) -> None:
        self._batches = batches
        self._transform = transform
        self._handles = handles

    def __next__(self) -> Prepared:
        step, batch = next(self._batches)
        n_samples = n_samples_of(batch)
        n_bytes = sum(batch[name].nbytes for name in self._handles if name in batch)
        begun = time.perf_counter()
        item = self._transform(batch)
        return Prepared(step, item, n_samples, n_bytes, time.perf_counter() - begun)

    def close(self) -> None:
        """End the iteration. May be called twice."""
        self._batches.close()


class PreparedAhead:
    """An iterator of transformed batches that a thread of its own makes, some of them ahead of the consumer.

    An error comes behind the batches that were there before it, and ends the iteration. The thread ends with the batches, by
    :meth:`close`, and when nobody holds this object any more.

    Parameters
    ----------
    items
        Batches, which are the thread's alone from here on, and are closed by it.
    n
        The most batches that are ahead.
    cancel
        Function that makes them end soon, whatever they wait for; called by another thread.
    """

    def __init__(self, items: Transformed, n: int, cancel: Callable[[], None]) -> None:
        self._line = _Line(n, cancel)
        self._thread = threading.Thread(
            target=self._line.run, args=(items,), name="tensorbank-transform", daemon=True
        )
        self._thread.start()
        # The thread knows the line only, so that this object can go while it runs.
        self._forgotten = weakref.finalize(self, _left, self._line, self._thread)

    def __next__(self) -> Prepared:
        return replace(self._line.take(), transform_s=0.0)

    @property
    def n_ahead(self) -> int:
        """The number of batches that are there."""
        return self._line.n_there

    def close(self) -> None:
        """Drop what is ahead, and end the thread. May be called twice."""
        self._line.stop()
        self._thread.join()
        self._forgotten.detach()


class _Line:
    """The batches between the thread that makes them and the one that takes them."""

    def __init__(self, n: int, cancel: Callable[[], None]) -> None:
        self._room = threading.Semaphore(n)
        self._made: queue.SimpleQueue[Prepared | BaseException] = queue.SimpleQueue()
        self._cancel = cancel
        self._stopped = False

    @property
    def n_there(self) -> int:
        return self._made.qsize()

    def run(self, items: Transformed) -> None:
        """Make batches while there is room, until there are no more."""
        try:
            while self._room.acquire() and not self._stopped:
                self._made.put(next(items))
            self._made.put(StopIteration())  # whoever waits for one more is told that none comes
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            self._made.put(error)
        finally:
            items.close()

    def take(self) -> Prepared:
        """Return the next batch, or raise what ended them."""
        found = self._made.get()
        if isinstance(found, BaseException):
            self._made.put(found)  # whoever asks again gets it again
            raise found
        self._room.release()
        return found

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped = True
        self._room.release()
        self._cancel()


def _left(line: _Line, thread: threading.Thread) -> None:
    """End the thread of a loader that was forgotten, or that the interpreter leaves behind."""
    line.stop()
    if thread is not threading.current_thread():
        thread.join(LINGER_S)
