"""Transforms of whole batches on the device."""

from __future__ import annotations

from tensorbank_loader.transforms.augment import Augment
from tensorbank_loader.transforms.normalize import Normalize, profile_constants
from tensorbank_loader.transforms.transform import Transform, checked, ready

__all__ = [
    "Augment",
    "Normalize",
    "Transform",
    "checked",
    "profile_constants",
    "ready",
]
