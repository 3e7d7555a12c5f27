"""Draw how near each figure is to its target, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stream.figure import Figure

__all__ = ["attained", "draw"]

MET, MISSED = "#2a6f97", "#e07a1f"
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 1}
MOST = 2.0
"""The ratio at which bars end; what is better by more is written beside them."""


def attained(figure: Figure) -> float:
    """Return the ratio of the measured value to the target, turned so that 1 is met and more is better."""
    if figure.target is None or figure.measured is None:
        raise ValueError(f"{figure.what} has no target")
    if figure.bound == ">=":
        return figure.measured / figure.target
    if figure.measured <= 0:  # nothing at all is what is promised, or better than that
        return 1.0 if figure.target == 0 else float("inf")
    if figure.target == 0:
        return 0.0
    return figure.target / figure.measured


def draw(figures: Sequence[Figure], out: Path) -> None:
    """Draw one bar for each figure that has a target, by section from top to bottom."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = [f for f in figures if f.target is not None and f.measured is not None][::-1]
    plot, axis = plt.subplots(figsize=(11, 1.2 + 0.32 * max(len(shown), 3)), layout="constrained")
    values = [min(attained(f), MOST) for f in shown]
    colors = [MET if f.met else MISSED for f in shown]
    axis.barh(range(len(shown)), values, color=colors, height=0.7)
    for place, (figure, value) in enumerate(zip(shown, values, strict=True)):
        unit = f" {figure.unit}" if figure.judged == "value" and figure.unit else ""
        said = f"{figure.measured:.4g}{unit} ({figure.bound} {figure.target:g})"
        axis.text(value + 0.015, place, said, va="center", fontsize=8, bbox=BEHIND_TEXT)
    axis.set_yticks(range(len(shown)), [f"{f.section}: {f.what}" for f in shown], fontsize=8)
    axis.axvline(1.0, color="#333333", linewidth=1, zorder=1.5)
    axis.set_xlim(0, MOST * 1.3)
    axis.set_xlabel(
        "how much of its target a figure attains: the line and beyond is met (blue), short of it is missed (orange)"
    )
    axis.set_title("Streaming: what was measured, and (in brackets) what is promised")
    axis.spines[["top", "right"]].set_visible(False)
    plot.savefig(out, dpi=130)
    plt.close(plot)
