"""The requests and answers between the harness and a peer's process.
Needs numpy only, since it runs in every peer's environment.

A peer is a module of this package with

``DISTRIBUTIONS``
    Names of the installed packages whose versions are reported.
``prepare(export, folder, track)``
    Writes the exported samples in the peer's own format into an empty folder, which the server then serves.
``Loader(request)``
    Opens the peer's own reader. ``epoch()`` yields batches of one epoch; ``close()`` ends its processes; ``state_dict()``, where
    the peer can resume, is what a later request carries in ``state``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "Batch",
    "Export",
    "Loader",
    "Place",
    "Request",
    "Window",
    "Workload",
    "cut",
    "fingerprint",
    "item_name",
    "places",
]

Batch = tuple[Sequence[str], Mapping[str, Any]]
"""The ids of the delivered items, and a tensor or array [item, band, y, x] a modality in the stored dtype."""

Window = tuple[int, int, int, int, int]
"""The position of a sample, and the half-open pixel window y0, y1, x0, x1."""

Place = tuple[int, int, int | None, int, int | None]
"""A window, or a whole sample where the ends are None."""


@dataclass(frozen=True)
class Workload:
    """The task that a peer is asked to do.

    Parameters
    ----------
    name
        Q0 ... Q5.
    modalities
        Bands by modality, None for all of them.
    where
        SQL over the columns of the samples; empty for no condition.
    positions
        Positions of the samples that ``where`` selects, for peers that cannot filter: they get them free.
        None for all.
    windows
        Crops to deliver instead of whole samples, for Q5. An item's id is then ``<sample>/<y0>/<x0>``.
    tiles_where
        SQL over the tiles, which selects the windows.
    """

    name: str
    modalities: Mapping[str, Sequence[int] | None]
    where: str = ""
    positions: Sequence[int] | None = None
    windows: Sequence[Window] | None = None
    tiles_where: str = ""


@dataclass(frozen=True)
class Request:
    """One run of a peer's loader.

    Parameters
    ----------
    export, folder, cache
        Local folders: of the exported samples (for names, never for pixels), of what ``prepare`` wrote, and an empty one.
    endpoint, bucket, prefix
        Place where the server has what ``prepare`` wrote: ``<endpoint>/<bucket>/<prefix>/...``, path style,
        any credentials.
    n_workers
        Processes of a ``DataLoader``; None for what suits the peer: two, or none where it has threads of its own.
    at_least_s
        Further epochs begin until so many seconds are over: short ones say little of a steady state.
    verify
        Fingerprint every delivered byte rather than a few, outside of timed runs.
    step_s
        Seconds that the consumer sleeps with each batch.
    stop_after
        Batches after which to stop and hand out the state; 0 for never.
    """

    peer: str
    export: str
    folder: str
    cache: str
    endpoint: str
    bucket: str
    prefix: str
    track: str
    workload: Workload
    batch_size: int = 16
    n_workers: int | None = None
    seed: int = 42
    at_least_s: float = 0.0
    shuffle: bool = True
    verify: bool = False
    step_s: float = 0.0
    stop_after: int = 0
    state: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def s3_url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def http_url(self) -> str:
        return f"{self.endpoint}/{self.bucket}/{self.prefix}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        given = json.loads(text)
        workload = given.pop("workload")
        if workload["windows"] is not None:
            workload["windows"] = [tuple(w) for w in workload["windows"]]
        return cls(workload=Workload(**workload), **given)


class Loader(Protocol):
    """A peer's reader."""

    def epoch(self) -> Iterator[Batch]: ...

    def close(self) -> None: ...


class Export:
    """The logical samples: ``<modality>.npy`` of shape [sample, band, y, x], and ``manifest.json``.

    The manifest has ``modalities`` (dtype and bands by name) and ``samples`` (``sample_id`` and ten scalars each).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())

    def __len__(self) -> int:
        return len(self.manifest["samples"])

    @property
    def modalities(self) -> list[str]:
        return list(self.manifest["modalities"])

    @property
    def ids(self) -> list[str]:
        return [row["sample_id"] for row in self.manifest["samples"]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The id and scalars of every sample."""
        rows: list[dict[str, Any]] = self.manifest["samples"]
        return rows

    def bands(self, modality: str) -> list[str]:
        names: list[str] = self.manifest["modalities"][modality]["bands"]
        return names

    def pixels(self, modality: str) -> npt.NDArray[np.generic]:
        """Return all samples of a modality, mapped into memory."""
        found: npt.NDArray[np.generic] = np.load(self.folder / f"{modality}.npy", mmap_mode="r")
        return found

    def items(self, workload: Workload) -> Iterator[tuple[str, dict[str, npt.NDArray[np.generic]]]]:
        """Yield what a workload has to deliver, by definition: the truth that loaders are compared with."""
        stored = {name: self.pixels(name) for name in workload.modalities}
        ids = self.ids
        for place in places(workload, len(self)):
            pixels = {m: cut(stored[m][place[0]], b, *place[1:]) for m, b in workload.modalities.items()}
            yield item_name(ids[place[0]], place), pixels


def places(workload: Workload, n_samples: int) -> list[Place]:
    """Return the items of a workload in stored order: for peers that address samples by number."""
    if workload.windows is not None:
        return list(workload.windows)
    positions = range(n_samples) if workload.positions is None else workload.positions
    return [(p, 0, None, 0, None) for p in positions]


def item_name(sample_id: str, place: Place) -> str:
    """Return the id of an item: the sample's, with the corner of a window."""
    return sample_id if place[2] is None else f"{sample_id}/{place[1]}/{place[3]}"


def cut(
    pixels: npt.NDArray[np.generic],
    bands: Sequence[int] | None,
    y0: int = 0,
    y1: int | None = None,
    x0: int = 0,
    x1: int | None = None,
) -> npt.NDArray[np.generic]:
    """Return the bands and window of [band, y, x]."""
    chosen = pixels if bands is None else pixels[list(bands)]
    return chosen[:, y0:y1, x0:x1]


def fingerprint(pixels: npt.NDArray[np.generic], *, full: bool) -> int:
    """Return the CRC-32 of [band, y, x]: of every byte, or of every 37th row's and column's pixel,
    which costs a timed run nothing.
    """
    seen = pixels if full else pixels[:, ::37, ::37]
    return zlib.crc32(np.ascontiguousarray(seen))
