"""Banks in Lightning and TerraTorch: a data module whose splits are queries, and whose batches are those of TerraTorch's tasks.

::

    from tensorbank_lightning import TensorBankDataModule

    data = TensorBankDataModule("s3://eo-bank", train="SELECT sample_id, S2L2A, LULC FROM terramesh", mask="LULC", batch_size=8)
    trainer.fit(task, datamodule=data)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported when they are used: Lightning takes seconds
    from tensorbank_lightning.data_module import TensorBankDataModule
    from tensorbank_lightning.task_batch import TaskBatch

__all__ = ["TaskBatch", "TensorBankDataModule"]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name == "TensorBankDataModule":
        from tensorbank_lightning.data_module import TensorBankDataModule

        return TensorBankDataModule
    if name == "TaskBatch":
        from tensorbank_lightning.task_batch import TaskBatch

        return TaskBatch
    raise AttributeError(f"module 'tensorbank_lightning' has no attribute {name!r}")
