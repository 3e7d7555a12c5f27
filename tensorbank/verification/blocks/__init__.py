"""Checks of stored blocks: each is read, compared with its checksum and decoded, and the statistics of its pixels made anew."""

from __future__ import annotations

from tensorbank.verification.blocks.block_check import BlockCheck
from tensorbank.verification.blocks.histograms import RollUpHistograms
from tensorbank.verification.blocks.recomputed import sample_differences
from tensorbank.verification.blocks.unit_check import BlockSetting

__all__ = ["BlockCheck", "BlockSetting", "RollUpHistograms", "sample_differences"]
