"""A torch data set over arrays [sample, band, y, x] that are addressed by number: for peers that are array libraries.

They have no query, no shuffle and no state: torch's ``DataLoader`` brings the order, and the positions of the selected samples
are given. A batch is asked for at once (``__getitems__``), so that a library can fetch its chunks at the same time. Arrays are
opened in the process that reads, since most clients do not survive a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from peers.contract import Batch, Export, Place, Request, cut, item_name, places

__all__ = ["Indexed", "IndexedLoader", "Reader", "cropped"]

Reader = Callable[[Sequence[Place], Mapping[str, Sequence[int] | None]], Mapping[str, Any]]
"""A function from places, and bands by modality, to an array [place, band, y, x] for each modality."""


class Indexed(torch.utils.data.Dataset[Any]):
    """A dataset of the batches of a workload."""

    def __init__(self, request: Request, opened: Callable[[Request], Reader]) -> None:
        self._request, self._opened = request, opened
        self._ids = Export(request.export).ids
        self._places = places(request.workload, len(self._ids))
        self._reader: Reader | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        if self._reader is None:
            self._reader = self._opened(self._request)
        chosen = [self._places[i] for i in indices]
        arrays = self._reader(chosen, self._request.workload.modalities)
        return [item_name(self._ids[p[0]], p) for p in chosen], {
            m: torch.from_numpy(a) for m, a in arrays.items()
        }


def _as_it_is(batch: Batch) -> Batch:
    return batch


class IndexedLoader:
    """A loader by torch's ``DataLoader``."""

    def __init__(self, request: Request, opened: Callable[[Request], Reader]) -> None:
        n_workers = 2 if request.n_workers is None else request.n_workers
        self._loader = torch.utils.data.DataLoader(
            Indexed(request, opened),
            batch_size=request.batch_size,
            shuffle=request.shuffle,
            generator=torch.Generator().manual_seed(request.seed),
            num_workers=n_workers,
            persistent_workers=n_workers > 0,
            collate_fn=_as_it_is,
        )

    def epoch(self) -> Iterator[Batch]:
        yield from self._loader

    def close(self) -> None:
        del self._loader


def cropped(
    whole: Mapping[str, Sequence[Any]],
    chosen: Sequence[Place],
    modalities: Mapping[str, Sequence[int] | None],
) -> dict[str, Any]:
    """Return the bands and windows of samples that had to be read whole."""
    return {
        m: np.stack([cut(np.asarray(a), bands, *p[1:]) for a, p in zip(whole[m], chosen, strict=True)])
        for m, bands in modalities.items()
    }
