"""The simulation of some processes that read and train, event by event. Pure: values in, a trace out."""

from __future__ import annotations

from tensorbank_simulation.engine.rank import BatchCost
from tensorbank_simulation.engine.reading import ReadCost
from tensorbank_simulation.engine.store import StoreSetting
from tensorbank_simulation.engine.training import NodesSetting, Trace, train

__all__ = ["BatchCost", "NodesSetting", "ReadCost", "StoreSetting", "Trace", "train"]
