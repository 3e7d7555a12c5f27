"""One process: the window of batches ahead, and the consumer that takes them.

It does what :class:`tensorbank_loader.batch.Window` does, with the same bounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tensorbank_simulation.engine.clock import Clock
from tensorbank_simulation.engine.reading import ReadCost, Reading

__all__ = ["BatchCost", "Rank", "WindowSetting"]


@dataclass(frozen=True, slots=True)
class BatchCost:
    """One batch of one process: its reads, and what it costs beside them.

    Parameters
    ----------
    n_bytes, tensor_bytes
        Memory from the demand until it is handed out, tensors and stored bytes; and that of the tensors.
    plan_s, form_s
        Seconds of the consumer's thread: for planning the reads, and for making a batch of filled buffers.
    n_steps
        Steps that are cut out of it: some orders read several together.
    fresh_s_per_byte
        CPU seconds of each byte of tensors for which there is no memory to use again.
    """

    reads: Sequence[ReadCost]
    n_bytes: int
    tensor_bytes: int = 0
    plan_s: float = 0.0
    form_s: float = 0.0
    n_steps: int = 1
    fresh_s_per_byte: float = 0.0


@dataclass(frozen=True, slots=True)
class WindowSetting:
    """The bounds of a window: its bytes, the batches that are under way whatever their size, and how fast it grows."""

    max_inflight_bytes: int
    min_batches: int
    ramp: int


class Rank:
    """A process that reads batches in order, and hands each on when it is there and wanted.

    Parameters
    ----------
    batches
        Batches in order.
    handed
        Callable that is told the number of each step whose batch is handed out.
    """

    def __init__(
        self,
        clock: Clock,
        reading: Reading,
        setting: WindowSetting,
        batches: Iterator[BatchCost],
        handed: Callable[[int], None],
    ) -> None:
        self.reading = reading
        self._clock, self._setting, self._handed = clock, setting, handed
        self._batches = batches
        self._coming: deque[tuple[BatchCost, list[bool]]] = deque()
        self._inflight_bytes = 0
        self._n_handed = 0
        self._n_cut = 0
        self._free_bytes = self._held_bytes = 0
        self._is_waiting = False
        self.peak_bytes = 0
        """The most bytes that the window held."""

    def demand(self) -> None:
        """Ask for the batch of the next step; the end of the batches ends it silently."""
        if self._n_cut:
            self._n_cut -= 1
            self._hand()
            return
        self._ask_ahead(len(self._coming) + self._setting.ramp)

    def _ask_ahead(self, most: int) -> None:
        """Start reads while there is room, one batch after another, and then wait for the first."""
        setting = self._setting
        n = len(self._coming)
        has_room = n < setting.min_batches or (n < most and self._inflight_bytes < setting.max_inflight_bytes)
        batch = next(self._batches, None) if has_room else None
        if batch is None:
            self._await()
            return
        is_there = [False]

        def planned() -> None:
            self.reading.submit(batch.reads, lambda: self._allocated_s(batch), came)
            self._ask_ahead(most)

        def came() -> None:
            is_there[0] = True
            self._look()

        self._coming.append((batch, is_there))
        self._inflight_bytes += batch.n_bytes
        self.peak_bytes = max(self.peak_bytes, self._inflight_bytes)
        self.reading.lock.add(batch.plan_s, planned)

    def _allocated_s(self, batch: BatchCost) -> float:
        """Take memory for a batch's tensors, and return the CPU seconds of what is fresh."""
        fresh_bytes = max(batch.tensor_bytes - self._free_bytes, 0)
        self._free_bytes -= batch.tensor_bytes - fresh_bytes
        return fresh_bytes * batch.fresh_s_per_byte

    def _await(self) -> None:
        self._is_waiting = bool(self._coming)
        self._look()

    def _look(self) -> None:
        """Hand the first batch out, if it is there and wanted."""
        if not self._is_waiting or not self._coming[0][1][0]:
            return
        self._is_waiting = False
        batch, _ = self._coming.popleft()
        self._inflight_bytes -= batch.n_bytes
        # The consumer lets go of a batch when it has the next one.
        self._free_bytes, self._held_bytes = self._free_bytes + self._held_bytes, batch.tensor_bytes
        self._n_cut = batch.n_steps - 1
        self.reading.lock.add(batch.form_s, self._hand)

    def _hand(self) -> None:
        number = self._n_handed
        self._n_handed += 1
        self._clock.after(0.0, lambda: self._handed(number))
