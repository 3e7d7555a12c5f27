"""Batches that are transformed ahead: the end of the thread that makes them is told to whoever waits for the next."""

from __future__ import annotations

import pytest

from tensorbank_loader.epochs import Step
from tensorbank_loader.prepared import Prepared, _Line


class StopsMeanwhile:
    """Batches of which the line is stopped while the first is made."""

    def __init__(self) -> None:
        self.line = _Line(2, lambda: None)
        self.n_made, self.is_closed = 0, False

    def __next__(self) -> Prepared:
        self.n_made += 1
        self.line.stop()
        return Prepared(Step(0, 0, 1), "item", 1, 1, 0.0)

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.timeout(20)
def test_who_waits_is_told_that_the_line_was_stopped():
    items = StopsMeanwhile()
    items.line.run(items)
    assert items.line.take().item == "item"
    for _ in range(2):
        with pytest.raises(StopIteration):
            items.line.take()
    assert (items.n_made, items.is_closed) == (1, True)
