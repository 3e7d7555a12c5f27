"""A recipe of masked pretraining over several modalities, as 4M and TerraMind are pretrained, in plain PyTorch.

``torchrun -m tensorbank_pretraining`` runs it on any number of ranks; everything of it is meant to be read, copied and changed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names are imported when they are used: every command of the CLI loads this package
    from tensorbank_pretraining.masked_model import SIZES, MaskedModel, ModelSize
    from tensorbank_pretraining.patch_tokens import CLASS_TOKENS, COLOUR_TOKENS, PatchTokens, tokenize
    from tensorbank_pretraining.recipe import InputPixels, Recipe, TokenModality
    from tensorbank_pretraining.terramind_model import TerraMindSize

__all__ = [
    "CLASS_TOKENS",
    "COLOUR_TOKENS",
    "InputPixels",
    "MaskedModel",
    "ModelSize",
    "PatchTokens",
    "Recipe",
    "SIZES",
    "TerraMindSize",
    "TokenModality",
    "tokenize",
]

_MODULES = ("masked_model", "patch_tokens", "recipe", "terramind_model")
"""The modules that have the names above."""


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in __all__:
        for module in _MODULES:
            found = importlib.import_module(f"tensorbank_pretraining.{module}")
            if name in found.__all__:
                return getattr(found, name)
    raise AttributeError(f"module 'tensorbank_pretraining' has no attribute {name!r}")
