"""The loader: plans and mixes as batches of PyTorch tensors, in one order on any hardware.

::

    from tensorbank_loader import StreamingDataset, World

    dataset = StreamingDataset(plan, global_batch_size=512, seed=7, world=World(rank=3, n_ranks=8))
"""

from tensorbank.fetch import FetchOptions
from tensorbank_loader.batch import collate
from tensorbank_loader.budgets import ModalityTokens, TokenBudget
from tensorbank_loader.dataset import StreamingDataset
from tensorbank_loader.epochs import World
from tensorbank_loader.lineages import RunLineage, TableLineage, lineage
from tensorbank_loader.loader import DataLoader
from tensorbank_loader.sharing import shared_plan
from tensorbank_loader.telemetry import LoaderStats
from tensorbank_loader.transforms import Augment, Normalize

__all__ = [
    "Augment",
    "DataLoader",
    "FetchOptions",
    "LoaderStats",
    "ModalityTokens",
    "Normalize",
    "RunLineage",
    "StreamingDataset",
    "TableLineage",
    "TokenBudget",
    "World",
    "collate",
    "lineage",
    "shared_plan",
]
