"""Orders of samples: arithmetic on seed, epoch and place that is the same in every process."""

from __future__ import annotations

from tensorbank_loader.order.dates import DateChoice, Times, as_numbers
from tensorbank_loader.order.mix_order import Mixed
from tensorbank_loader.order.permutation import batch_bounds, first_batch_of, n_batches, rank_bounds
from tensorbank_loader.order.plan_order import Order, Shuffle, order_of

__all__ = [
    "DateChoice",
    "Mixed",
    "Order",
    "Shuffle",
    "Times",
    "as_numbers",
    "batch_bounds",
    "first_batch_of",
    "n_batches",
    "order_of",
    "rank_bounds",
]
