"""Pretraining of TerraMind: batches as its encoder-decoder takes them, masked by budgets, pixels and tokens of one crop."""

from __future__ import annotations

from tensorbank_loader.terramind.crops import Crop, Crops
from tensorbank_loader.terramind.mod_dict import MODEL_NAMES, ModDict
from tensorbank_loader.terramind.token_masks import TokenMasks, token_masks

__all__ = ["MODEL_NAMES", "Crop", "Crops", "ModDict", "TokenMasks", "token_masks"]
