"""Pixel predicates: what they mean. Pure.

A predicate compares the pixels of one band, or the normalised difference ``(a - b) / (a + b)`` of two bands of one modality, with
a constant, in float64. NaN matches nothing, and neither does a normalised difference whose denominator is 0. Of a sample with
``count`` pixels, ``n`` of which match: *any* is ``n > 0``, *all* is ``n == count``, *share* is ``n / count``.

Statistics bound ``n`` from both sides without a pixel being read (:mod:`tensorbank.statements.pixel_bounds`). Where
the bounds meet, or fall on one side of what is asked, the predicate is decided; only the others have to be read.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, InvalidInputError

__all__ = ["OPERATORS", "PixelPredicate", "Verdicts", "n_matching", "parse_comparison"]

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
MAX_COMPARISON_CHARACTERS = 64
"""The length of a comparison: no float needs more, and callers of a service send what they like."""
# possessive: what was read is never given back, so the time is linear in the length
_COMPARISON = re.compile(
    r"\s*+(>=|<=|<>|!=|==|=|>|<)\s*+([-+]?+(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][-+]?+\d++)?+)\s*+"
)
_SAME = {"==": "=", "<>": "!="}


@dataclass(frozen=True, slots=True)
class PixelPredicate:
    """One predicate.

    Parameters
    ----------
    quantifier
        ``any``, ``all`` or ``share``.
    bands
        One band name, or the two of a normalised difference; empty for the only band of a modality.
    comparison, constant
        Comparison and constant that a pixel must satisfy.
    share_comparison, share
        For ``share`` that is compared with a constant: what the share must satisfy. None where the share itself is asked for.
    from_index_only
        Leave open, as NULL, what only pixels can tell.
    table
        Name that the statement has for the table of the band.
    """

    quantifier: str
    bands: tuple[str, ...]
    comparison: str
    constant: float
    share_comparison: str | None = None
    share: float = 0.0
    from_index_only: bool = False
    table: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PixelPredicate:
        """Return the predicate that :meth:`to_json` wrote."""
        raw = json.loads(text)
        return cls(**{**raw, "bands": tuple(raw["bands"])})

    def answer(self, n: int, count: int) -> float:
        """Return the predicate's value for ``n`` matching pixels of ``count``: 1 or 0, or the share itself."""
        if self.quantifier == "any":
            return float(n > 0)
        if self.quantifier == "all":
            return float(n == count)
        share = n / count
        if self.share_comparison is None:
            return share
        return float(OPERATORS[self.share_comparison](share, self.share))


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The counts of the ways in which the answers that statistics of samples left open were found.

    Parameters
    ----------
    by_tiles
        Number decided by the statistics of the sample's tiles.
    read, read_bytes
        Number decided by reading pixels, and the bytes that were read.
    undecided
        Number left open, as ``refine := 'index'`` asks.
    """

    by_tiles: int = 0
    read: int = 0
    read_bytes: int = 0
    undecided: int = 0


def parse_comparison(text: str) -> tuple[str, float]:
    """Parse the operator and constant of ``'> 0.8'``.

    Raises
    ------
    InvalidInputError
        It is none.
    """
    found = _COMPARISON.fullmatch(text) if len(text) <= MAX_COMPARISON_CHARACTERS else None
    if found is None:
        raise InvalidInputError(
            f"{text[:MAX_COMPARISON_CHARACTERS]!r} is not a comparison with a number; write one such as '> 0.8'",
            kind=ErrorKind.SQL,
        )
    return _SAME.get(found[1], found[1]), float(found[2])


def n_matching(predicate: PixelPredicate, pixels: npt.NDArray[np.generic]) -> int:
    """Count the pixels that match, exactly. ``pixels`` is (time, band, y,
    x) of the predicate's one or two bands, in its order.

    NaN and the infinities are no values, as in the statistics: they match nothing.
    """
    values = pixels.astype(np.float64)
    if values.shape[1] == 2:
        a, b = values[:, 0], values[:, 1]
        with np.errstate(invalid="ignore"):
            total = a + b
            values = np.divide(a - b, total, out=np.full_like(total, np.nan), where=total != 0)
    matches = OPERATORS[predicate.comparison](values, predicate.constant)
    return int(np.count_nonzero(matches & np.isfinite(values)))
