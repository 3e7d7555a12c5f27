"""Batches as tensors: their memory, the reads that run ahead to fill it, and how samples are put together."""

from __future__ import annotations

from tensorbank_loader.batch.collation import collate
from tensorbank_loader.batch.form import MASK, Batch, BatchForm, n_samples_of, samples_of
from tensorbank_loader.batch.mix_batches import MixForm, MixReader
from tensorbank_loader.batch.plan_form import PlanForm
from tensorbank_loader.batch.read_window import Window, forked
from tensorbank_loader.batch.reader import Reader
from tensorbank_loader.batch.steps import PADDING, Batches

__all__ = [
    "Batch",
    "BatchForm",
    "Batches",
    "MASK",
    "MixForm",
    "MixReader",
    "PADDING",
    "PlanForm",
    "Reader",
    "Window",
    "collate",
    "forked",
    "n_samples_of",
    "samples_of",
]
