"""Headers about what a client accepts and already has (RFC 9110, 12.5.1 and 13). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["chosen", "has_current", "may_resume"]

MAX_MEMBERS = 64
"""The most members of a list in a header that are looked at."""
_WEIGHT = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


def chosen(accept: str, offered: Sequence[str]) -> str:
    """Return the media type of ``offered`` that a client wants most; the first among equals, and if it wants none."""
    weights = [_weight(accept, media_type) for media_type in offered]
    best = max(weights)
    return offered[weights.index(best)] if best > 0 else offered[0]


def _weight(accept: str, media_type: str) -> float:
    """Return the weight of the most specific range that a type falls under; 0 if it falls under none."""
    if not accept.strip():
        return 1.0
    best: tuple[int, float] = (-1, 0.0)
    for member in accept.split(",", MAX_MEMBERS)[:MAX_MEMBERS]:
        name, *parameters = (part.strip() for part in member.split(";"))
        ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        if name.lower() not in ranges:
            continue
        found = [w for p in parameters if (w := _WEIGHT.fullmatch(p))]
        is_malformed = not found and any(p.lower().startswith("q=") for p in parameters)
        weight = 0.0 if is_malformed else float(found[0][1]) if found else 1.0
        best = max(best, (2 - ranges.index(name.lower()), weight))
    return best[1]


def has_current(if_none_match: str, etag: str) -> bool:
    """Tell whether ``If-None-Match`` names this ETag (weak comparison); ``*`` names every one."""
    if if_none_match.strip() == "*":
        return True
    known = [t.strip().removeprefix("W/") for t in if_none_match.split(",", MAX_MEMBERS)[:MAX_MEMBERS]]
    return etag.removeprefix("W/") in known


def may_resume(if_range: str | None, etag: str) -> bool:
    """Tell whether a range may be answered: ``If-Range`` is missing, or is this very ETag (strong comparison)."""
    return if_range is None or (if_range.strip() == etag and not etag.startswith("W/"))
