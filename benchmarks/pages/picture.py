"""The picture: rates as shares of the ceiling, a panel a workload."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pages.summary import CEILING, TRACKS, WORKLOADS, Key, medians
from peers import PEERS

__all__ = ["draw"]

LEAST = 0.0005
"""The share at which the axes begin."""


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw rates as shares of the ceiling, a panel per workload."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    speed = medians(found["runs"])
    names = [n for n in WORKLOADS if any(k[2] == n for k in speed)]
    latencies = sorted({k[3] for k in speed})
    shown = [p for p in PEERS if p != CEILING and any(k[0] == p for k in speed)]
    figure, axes = plt.subplots(
        1,
        len(names),
        figsize=(2.2 + 2.3 * len(names), 0.9 + 0.38 * len(shown)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    colours = plt.get_cmap("viridis")(
        [0.15 + 0.6 * i / max(1, len(latencies) - 1) for i in range(len(latencies))]
    )
    height = 0.8 / len(latencies)
    for axis, name in zip(axes[0], names, strict=True):
        for i, ms in enumerate(latencies):
            shares = [_share(speed, p, name, ms) for p in shown]
            at = [len(shown) - 1 - j + 0.4 - height * (i + 0.5) for j in range(len(shown))]
            axis.barh(at, shares, height, color=colours[i], label=f"{ms} ms")
        axis.set_title(name)
        axis.set_xscale("log")
        axis.set_xlim(left=LEAST)
        axis.set_xticks([0.001, 0.01, 0.1, 1.0], ["0.1%", "1%", "10%", "100%"], fontsize=8)
        axis.minorticks_off()
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(shown) - 1, -1, -1), [PEERS[p].name for p in shown])
    axes[0][-1].legend(title="added", fontsize=7, title_fontsize=7, loc="lower right")
    figure.supxlabel(
        "samples/s as a share of the ceiling, each with the best of its codecs that were measured",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _share(speed: Mapping[Key, Mapping[str, Any]], peer: str, name: str, ms: int) -> float:
    """Return a peer's best rate as a share of the ceiling's, of the compressed tracks if there are any; 0 where either was not
    measured.
    """
    tracks = [t for t in TRACKS if t != "raw"] if any(k[1] != "raw" for k in speed) else ["raw"]
    best, top = (
        max((speed[key]["samples_s"] for t in tracks if (key := (p, t, name, ms)) in speed), default=0.0)
        for p in (peer, CEILING)
    )
    return best / top if top else 0.0
