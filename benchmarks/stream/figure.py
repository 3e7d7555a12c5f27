"""One measured figure beside its ceiling and its target. A value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

__all__ = ["Figure", "Missing", "paired"]


@dataclass(frozen=True, slots=True)
class Figure:
    """The value of one measurement.

    Parameters
    ----------
    section, what
        The question that is answered.
    value, unit
        Median of the repeats.
    ceiling
        The best that the same machine did in the same minutes, in the same unit; None where there is none.
    ratio
        Median of each round's value to its ceiling.
    target
        The promised value of ``judged``; None if nothing is promised.
    bound
        ``">="`` if the target is the least value, ``"<="`` if it is the most.
    judged
        Number that the target is about.
    detail
        Further numbers, for those who ask why.
    """

    section: str
    what: str
    value: float
    unit: str
    ceiling: float | None = None
    ratio: float | None = None
    target: float | None = None
    bound: Literal[">=", "<="] = ">="
    judged: Literal["ratio", "value"] = "ratio"
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> float | None:
        """The number that the target is about."""
        return self.ratio if self.judged == "ratio" else self.value

    @property
    def met(self) -> bool | None:
        """True if the target is met; None without one."""
        if self.target is None or self.measured is None:
            return None
        return self.measured >= self.target if self.bound == ">=" else self.measured <= self.target

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON-able values."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True, slots=True)
class Missing:
    """The name of a measurement that was not made, and the reason."""

    section: str
    what: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON-able values."""
        return asdict(self)


def paired(values: Sequence[float], ceilings: Sequence[float]) -> float:
    """Return the median of the ratios of each round: a machine that slows down slows both."""
    return median(v / c for v, c in zip(values, ceilings, strict=True))
