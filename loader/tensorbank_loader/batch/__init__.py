"""Batches as tensors: their memory, the reads that run ahead to fill it, and how samples are put together."""
