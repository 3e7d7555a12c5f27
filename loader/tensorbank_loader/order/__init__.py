"""Orders of samples: arithmetic on seed, epoch and place, the same in every process."""

from __future__ import annotations

from tensorbank_loader.order.batch_bounds import batch_bounds, first_batch_of, n_batches, rank_bounds
from tensorbank_loader.order.dates import DateChoice
from tensorbank_loader.order.mix_order import order_of_mix
from tensorbank_loader.order.options import Even, OrderOptions, Shuffle, Times, as_numbers
from tensorbank_loader.order.plan_order import order_of_plan
from tensorbank_loader.order.sample_order import SampleOrder

__all__ = [
    "DateChoice",
    "Even",
    "OrderOptions",
    "SampleOrder",
    "Shuffle",
    "Times",
    "as_numbers",
    "batch_bounds",
    "first_batch_of",
    "n_batches",
    "order_of_mix",
    "order_of_plan",
    "rank_bounds",
]
