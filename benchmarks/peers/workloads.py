"""The questions that every peer answers."""

from __future__ import annotations

import numpy as np

from peers.contract import Export, Workload, cut

__all__ = ["NAMES", "ideal_bytes", "workload"]

NAMES = ("Q0", "Q1", "Q2", "Q3", "Q4", "Q5")
MAX_CLOUD_COVER = 0.1
PAIR = ("S2L2A", "S1RTC")
RED_GREEN_BLUE = (3, 2, 1)
"""The numbers of S2L2A's red, green and blue bands, in the order that is asked for."""
N_RANDOM = 64
MAX_TILES = 4096


def workload(name: str, export: Export) -> Workload:
    """Make one question over the exported samples.

    Q0 everything. Q1 the tenth with the fewest clouds. Q2 two of its seven modalities. Q3 three of twelve bands of one of these.
    Q4 64 random ids. Q5 tiles of one land cover, two modalities.
    """
    whole: dict[str, tuple[int, ...] | None] = dict.fromkeys(export.modalities)
    pair: dict[str, tuple[int, ...] | None] = dict.fromkeys(PAIR)
    clear = [i for i, row in enumerate(export.rows) if row["cloud_cover"] < MAX_CLOUD_COVER]
    where = f"cloud_cover < {MAX_CLOUD_COVER}"
    if name == "Q0":
        return Workload(name, whole)
    if name == "Q1":
        return Workload(name, whole, where, clear)
    if name == "Q2":
        return Workload(name, pair, where, clear)
    if name == "Q3":
        return Workload(name, {**pair, "S2L2A": RED_GREEN_BLUE}, where, clear)
    if name == "Q4":
        rng = np.random.default_rng(4)
        drawn = sorted(rng.permutation(len(export))[:N_RANDOM].tolist())
        ids = ", ".join(f"'{export.ids[i]}'" for i in drawn)
        return Workload(name, whole, f"sample_id IN ({ids})", drawn)
    if name == "Q5":
        tiles = export.manifest["tiles"]
        windows = [(w[0], w[1], w[2], w[3], w[4]) for w in tiles["windows"]]
        return Workload(name, pair, windows=windows, tiles_where=tiles["where"])
    raise SystemExit(f"no workload {name!r}; there are {', '.join(NAMES)}")


def ideal_bytes(work: Workload, export: Export, track: str) -> int:
    """Return the bytes that suffice for every peer, on each track:
    the selected bands raw, or by zstd 3 band by band.

    The same for all peers, so one with a better codec may come out below 1. A tile needs its bands whole, as no codec
    of the track can be cut, and a band once however many of its tiles are asked for.
    """
    if work.windows is None:
        positions = list(range(len(export))) if work.positions is None else list(work.positions)
    else:
        positions = sorted({w[0] for w in work.windows})
    total = 0
    for name, bands in work.modalities.items():
        stored = export.pixels(name)
        n_bands = stored.shape[1]
        chosen = list(range(n_bands) if bands is None else bands)
        if track == "raw":
            total += len(positions) * cut(stored[0], chosen).nbytes
        else:
            sizes = np.load(export.folder / f"{name}.zstd_bytes.npy")
            total += int(sizes[np.ix_(positions, chosen)].sum())
    return total
