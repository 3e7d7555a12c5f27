"""Hashes that tell values apart."""

from __future__ import annotations

import hashlib
import json

__all__ = ["digest"]


def digest(*parts: object) -> str:
    """Return 32 hexadecimal digits that tell values apart."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
