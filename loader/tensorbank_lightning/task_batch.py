"""The batch that tasks of TerraTorch 1.2 take, made of a batch of the loader.

Such a task hands every entry of a batch but ``image``, ``mask``, ``label`` and ``filename`` to the forward pass of its model, so
that everything else is kept apart under one name, which the data module takes away before the task sees the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorbank import Normalization
from tensorbank.errors import InvalidInputError, NotFoundError, nearest
from tensorbank.plans import Handle, Plan
from tensorbank.queries import Mix
from tensorbank_lightning.georeferences import Georeferences
from tensorbank_loader import Normalize
from tensorbank_loader.batch import MASK, Batch
from tensorbank_loader.transforms import Transform, profile_constants

__all__ = ["DETAILS", "Constants", "TaskBatch"]

DETAILS = "tensorbank"
"""The name under which a batch keeps what no model takes: metadata columns, presence of modalities, dates, padding."""
SAMPLE_ID = "sample_id"
PLACE = ("epsg", "bounds")
"""The columns that say where a sample lies."""

Constants = str | Mapping[str, Mapping[str, Sequence[float]]]
"""Constants of normalisation: a published profile, or ``{modality: {"mean": [...], "std": [...]}}``."""


class TaskBatch(torch.nn.Module):
    """A transform from a batch of the loader to one of TerraTorch's tasks.

    The result has:

    ``image``
        {modality: (n, band, y, x) float32}, (n, band, time, y, x) where there are several dates. Pixels without a value are
        ``fill``.
    ``mask``
        (n, y, x) int64, if a mask is named: ``ignore`` where there is no class.
    ``label``
        (n,) int64, if a label is named.
    ``filename``
        {modality: n texts}, if the query selects ``sample_id``: ids, or paths of GeoTIFFs that have the samples' georeference.
    ``tensorbank``
        All other entries of the loader's batch.

    Parameters
    ----------
    plan
        Plan or mix of the batches.
    mask
        Modality that holds the classes, one band of one date. None: there is no mask.
    label
        Column of whole numbers, one a sample. None: there is no label.
    constants
        Constants of normalisation; modalities that a mapping does not name, and categorical ones, stay as they are. None: all do.
    fill
        Value of pixels that have none: NaN, ``nodata``, and those of samples that lack the modality. It is in normalised units,
        0 is the mean.
    nodata
        Stored value that marks pixels without one, by modality.
    ignore
        Value of the mask where there is no class.
    no_label
        Stored value of the mask that stands for no class; NaN, and samples that lack the mask, are none in any case.
    repeat_dates
        True to repeat modalities of one date as often as others have dates, as elevation beside a series of images.
    augment
        Transform of the loader's batch, once it is normalised.
    georeferences
        Files with the georeference of each sample, for writers of predictions. None: ``filename`` has ids.

    Raises
    ------
    NotFoundError
        The query lacks a modality or column that is named.
    InvalidInputError
        The mask has several bands or dates, no modality is left for the image, or what is to be georeferenced lacks its place.
    """

    def __init__(
        self,
        plan: Plan | Mix,
        *,
        mask: str | None = None,
        label: str | None = None,
        constants: Constants | None = None,
        fill: float = 0.0,
        nodata: Mapping[str, float] | None = None,
        ignore: int = -1,
        no_label: int | None = None,
        repeat_dates: bool = False,
        augment: Transform | None = None,
        georeferences: Georeferences | None = None,
    ) -> None:
        super().__init__()
        plans = (plan,) if isinstance(plan, Plan) else plan.plans
        handles = {h.name: h for p in plans for h in p.handles}
        columns = {name for p in plans for name in p.metadata_columns}
        if mask is not None:
            _check_mask(mask, handles)
        if label is not None and label not in columns:
            raise NotFoundError(
                f"the query has no column {label!r} for the label.{nearest(label, sorted(columns))}"
            )
        if MASK in handles:
            raise InvalidInputError(
                f"a batch keeps under {MASK!r} which samples have what; leave the modality its own name, and say mask=NAME"
            )
        images = {name: h for name, h in handles.items() if name != mask}
        if not images:
            raise InvalidInputError("the query selects no modality for the image")
        if georeferences is not None:
            _check_place(columns, images)
        self.mask, self.label, self.ignore, self.no_label = mask, label, ignore, no_label
        self.images = tuple(images)
        self.repeat_dates = repeat_dates
        self.normalize = Normalize(plan, _constants(images, constants), fill=fill, nodata=nodata)
        self.augment = augment
        self.georeferences = georeferences

    def forward(self, batch: Batch) -> dict[str, Any]:
        """Return the batch of a task; ``batch`` stays as it is."""
        ready = self.normalize(batch)
        if self.augment is not None:
            ready = self.augment(ready)
        present: Mapping[str, torch.Tensor] = batch.get(MASK, {})
        task: dict[str, Any] = {"image": self._image(ready)}
        if self.mask is not None:
            task["mask"] = self._classes(ready[self.mask], present.get(self.mask))
        if self.label is not None:
            task["label"] = self._label(ready[self.label])
        if SAMPLE_ID in batch:
            names = self._names(batch, task["image"])
            task["filename"] = dict.fromkeys((*self.images, *([self.mask] if self.mask else [])), names)
        taken = {*self.images, self.mask, self.label}
        task[DETAILS] = {name: value for name, value in batch.items() if name not in taken}
        return task

    def _image(self, ready: Batch) -> dict[str, torch.Tensor]:
        """Return the pixels of each modality with the bands before the dates."""
        image = {
            name: ready[name].transpose(1, 2).contiguous() if ready[name].ndim == 5 else ready[name]
            for name in self.images
            if name in ready  # a mix's batch may be of one source
        }
        n_dates = {pixels.shape[2] for pixels in image.values() if pixels.ndim == 5}
        if not self.repeat_dates or not n_dates:
            return image
        if len(n_dates) > 1:
            raise InvalidInputError(
                f"modalities have {' and '.join(map(str, sorted(n_dates)))} dates, so those of one date cannot be repeated "
                "for all; select modalities of one number of dates"
            )
        (n,) = n_dates
        return {
            name: pixels if pixels.ndim == 5 else pixels.unsqueeze(2).expand(-1, -1, n, -1, -1)
            for name, pixels in image.items()
        }

    def _classes(self, stored: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """Return the classes of the mask, (n, y, x) int64."""
        codes = stored.squeeze(1)
        if codes.is_floating_point():
            codes = codes.nan_to_num(self.ignore)
        codes = codes.to(torch.int64, copy=True)
        if self.no_label is not None:
            codes.masked_fill_(codes == self.no_label, self.ignore)
        if present is not None:
            codes.masked_fill_(~present.view(-1, 1, 1), self.ignore)
        return codes

    def _label(self, values: Any) -> torch.Tensor:
        if not isinstance(values, torch.Tensor) or values.is_floating_point():
            raise InvalidInputError(
                f"the label {self.label!r} must be whole numbers without nulls; cast it in the query, and leave nulls out"
            )
        return values.to(torch.int64)

    def _names(self, batch: Batch, image: Mapping[str, torch.Tensor]) -> list[str]:
        ids = [str(name) for name in batch[SAMPLE_ID]]
        if self.georeferences is None:
            return ids
        height, width = next(iter(image.values())).shape[-2:]
        codes = batch["epsg"]
        codes = codes.tolist() if isinstance(codes, torch.Tensor) else codes
        return self.georeferences.write(ids, codes, batch["bounds"], height, width)


def _check_mask(mask: str, handles: Mapping[str, Handle]) -> None:
    if mask not in handles:
        raise NotFoundError(
            f"the query selects no modality {mask!r} for the mask.{nearest(mask, list(handles))}"
        )
    n_times, n_bands, *_ = handles[mask].shape
    if n_times * n_bands > 1:
        raise InvalidInputError(
            f"the mask {mask} has {n_bands} bands and {n_times} dates, and one of each is needed; select it by bands(...)"
        )


def _check_place(columns: set[str], images: Mapping[str, Handle]) -> None:
    lacking = [name for name in (SAMPLE_ID, *PLACE) if name not in columns]
    if lacking:
        raise InvalidInputError(
            f"predictions are written where their samples lie, and the query does not select {', '.join(lacking)}; "
            "begin it with SELECT sample_id, epsg, bounds, ..."
        )
    windows = [name for name, handle in images.items() if handle.window is not None]
    if windows:
        raise InvalidInputError(
            f"{', '.join(windows)} are tiles, and bounds are those of whole samples; select the samples"
        )


def _constants(images: Mapping[str, Handle], given: Constants | None) -> dict[str, Normalization]:
    """Return constants for all modalities of the image; 0 and 1 leave one as it is."""
    found: dict[str, Normalization] = {}
    if isinstance(given, str):
        found = profile_constants(images, given)
    elif given is not None:
        for name, numbers in given.items():
            if name not in images:
                raise NotFoundError(
                    f"the image has no modality {name!r} to normalise.{nearest(name, list(images))}"
                )
            if set(numbers) != {"mean", "std"}:
                raise InvalidInputError(
                    f"the constants of {name} are mean and std, got {', '.join(sorted(numbers)) or 'none'}"
                )
            found[name] = Normalization(tuple(numbers["mean"]), tuple(numbers["std"]))
    for name, handle in images.items():
        n_bands = len(handle.bands)
        found.setdefault(name, Normalization((0.0,) * n_bands, (1.0,) * n_bands))
    return found
