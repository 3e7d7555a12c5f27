"""Pictures of forecasts, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorbank_simulation.forecast import EpochForecast

__all__ = ["draw_curves", "draw_scaling"]

BLUE, ORANGE, GREY = "#2a6f97", "#e07a1f", "#666666"
COLORS = (BLUE, ORANGE, "#4f772d", "#7b2d8b", GREY)
DPI = 90


def draw_scaling(found: Sequence[tuple[int, EpochForecast]], out: Path) -> None:
    """Draw the time of an epoch and the GPUs' wait over the number of nodes."""
    plt = _pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    nodes = [n for n, _ in found]
    epochs_h = [f.epoch_s / 3600 for _, f in found]
    left.loglog(nodes, epochs_h, "o-", color=BLUE, base=2)
    left.loglog(
        nodes, [epochs_h[0] * nodes[0] / n for n in nodes], "--", color=GREY, label="as many times faster"
    )
    left.set_yscale("log")
    left.set_ylabel("hours of an epoch")
    left.legend(frameon=False)
    right.semilogx(nodes, [100 * f.wait_share for _, f in found], "o-", color=ORANGE, base=2)
    right.set_ylim(-3, 103)
    right.set_ylabel("% of the time that GPUs wait")
    for n, f in found:
        right.annotate(
            f.bound_by,
            (n, 100 * f.wait_share),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    for axis in (left, right):
        axis.set_xlabel("nodes")
        axis.set_xticks(nodes, [str(n) for n in nodes])
    _save(plt, figure, out)


def draw_curves(
    panels: Sequence[tuple[str, str, Mapping[str, Sequence[tuple[float, float]]]]],
    out: Path,
    *,
    log_x: bool = True,
) -> None:
    """Draw some panels side by side.

    Parameters
    ----------
    panels
        Label of the x axis, label of the y axis, and points by the name of their curve.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.7 * len(panels), 3.4), layout="constrained", squeeze=False
    )
    for axis, (x_label, y_label, curves) in zip(axes[0], panels, strict=True):
        for color, (name, points) in zip(COLORS, curves.items(), strict=False):
            xs, ys = zip(*points, strict=True)
            axis.plot(xs, ys, "o-", color=color, label=name, markersize=4)
            if log_x:
                axis.set_xscale("log", base=2)
                axis.set_xticks(xs, [f"{x:g}" for x in xs])
        axis.set_ylim(bottom=0)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        if len(curves) > 1:
            axis.legend(frameon=False, fontsize=8)
    _save(plt, figure, out)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(plt: Any, figure: Any, out: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.minorticks_off()
    figure.savefig(out, dpi=DPI, metadata={"Software": ""})
    plt.close(figure)
