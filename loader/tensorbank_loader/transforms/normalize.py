"""Normalisation of whole batches on the device: from stored integers to the floats that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tensorbank.errors import InvalidInputError, NotFoundError, nearest
from tensorbank.plans import Handle
from tensorbank.statistics import Normalization, Statistics, normalization
from tensorbank_loader.batch import MASK, Batch
from tensorbank_loader.streamed import Streamed, plans_of

__all__ = ["Normalize", "profile_constants"]


class Normalize(torch.nn.Module):
    """A transform of the continuous tensors of a batch: ``(pixels - mean) / std`` band by band. All else is left alone.

    Pixels are computed in float32, on the device of the batch. Means and standard deviations are buffers named
    ``mean_<handle>`` and ``std_<handle>``, (band, 1, 1) float32, in the bands' order of the batch.

    Parameters
    ----------
    plan
        Plan or mix of the batches. It says which tensors are categorical, and which bands of a modality were selected.
    constants
        Name of a published profile, of :data:`tensorbank.statistics.published.PROFILE_NAMES`, which must have every continuous
        tensor. Or the constants by handle name, for those tensors only: the answer of ``query.statistics(...)``, or a
        :class:`tensorbank.Normalization` with the bands in the order of the batch.
    dtype
        Type of normalised tensors, such as ``torch.bfloat16``.
    fill
        Value of pixels that have none: NaN, ``nodata``, and pixels of samples, or of dates, that lack the modality. 0 is the
        mean. None: they are taken as they are. NaN stays NaN, and fill values are normalised as any number.
    nodata
        Stored value that marks pixels without one, by handle name. Such pixels become ``fill``.

    Raises
    ------
    NotFoundError
        No such profile or handle, or the profile has no constants for a continuous tensor.
    InvalidInputError
        Constants of another type; a band has no mean, or a standard deviation that is not positive; nodata without fill;
        a dtype that is not of floats; a name stands for several things.

    Examples
    --------
    ::

        plan = bank.sql("SELECT S2L2A, LULC FROM terramesh").plan()
        loader = plan.dataloader(batch_size=64, device="cuda", transform=Normalize(plan, "terramind-v1", dtype=torch.bfloat16))
    """

    def __init__(
        self,
        plan: Streamed,
        constants: str | Mapping[str, Normalization | Statistics],
        *,
        dtype: torch.dtype = torch.float32,
        fill: float | None = None,
        nodata: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if not dtype.is_floating_point:
            raise InvalidInputError(f"normalised pixels are floats, got dtype={dtype}")
        every = [h for p in plans_of(plan) for h in p.handles]
        handles = {h.name: h for h in every}
        found = profile_constants(handles, constants) if isinstance(constants, str) else dict(constants)
        self.dtype = dtype
        self.fill = fill
        self.nodata = dict(nodata or {})
        self.names = tuple(found)
        for name in (*found, *self.nodata):
            if name not in handles:
                raise NotFoundError(f"the plan has no tensor {name!r}.{nearest(name, list(handles))}")
        if self.nodata and fill is None:
            raise InvalidInputError("pixels of nodata need a fill, such as fill=0.0, which is the mean")
        for name, given in found.items():
            if "." in name:
                raise InvalidInputError(f"torch takes no dot in a buffer's name: rename {name!r} with AS")
            _alike([h for h in every if h.name == name])
            if not isinstance(given, Normalization | Statistics):
                raise InvalidInputError(
                    f"the constants of {name!r} are {given!r}; give a tensorbank.Normalization, or the answer of "
                    "query.statistics()"
                )
            mean, std = _numbers(handles[name], given)
            self.register_buffer(f"mean_{name}", torch.tensor(mean).view(-1, 1, 1))
            self.register_buffer(f"std_{name}", torch.tensor(std).view(-1, 1, 1))

    def forward(self, batch: Batch) -> Batch:
        """Return a batch with normalised tensors (..., band, y, x); ``batch`` stays as it is."""
        present: Mapping[str, torch.Tensor] = batch.get(MASK, {})
        named = [name for name in self.names if name in batch]  # a mix's batch may be of one source
        return batch | {name: self._normalized(name, batch[name], present.get(name)) for name in named}

    def extra_repr(self) -> str:
        return f"{', '.join(self.names)}, dtype={self.dtype}, fill={self.fill}"

    def _normalized(self, name: str, stored: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        pixels = stored.to(torch.float32, copy=True)
        pixels.sub_(self.get_buffer(f"mean_{name}")).div_(self.get_buffer(f"std_{name}"))
        if self.fill is not None:
            if stored.is_floating_point():
                pixels.nan_to_num_(self.fill, torch.inf, -torch.inf)
            if name in self.nodata:
                pixels.masked_fill_(stored == self.nodata[name], self.fill)
            if present is not None:
                # (n,), or (n, time) where samples have some of the dates of the tensor.
                lacking = ~present.view(*present.shape, *[1] * (pixels.ndim - present.ndim))
                pixels.masked_fill_(lacking, self.fill)
        return pixels.to(self.dtype)


def _alike(handles: Sequence[Handle]) -> None:
    """Refuse handles of one name in the plans of a mix that are not of the same bands."""
    first, *others = handles
    if any((h.modality.bands, h.bands) != (first.modality.bands, first.bands) for h in others):
        raise InvalidInputError(
            f"{first.name} has other bands in one source of the mix than in another; rename one with AS"
        )


def profile_constants(handles: Mapping[str, Handle], profile: str) -> dict[str, Normalization]:
    """Return the constants of a published profile for the selected bands of every continuous handle.

    Raises
    ------
    NotFoundError
        There is no such profile, or it has none for one of them.
    InvalidInputError
        The profile has another number of bands than the table.
    """
    found = {}
    for name, handle in handles.items():
        if handle.modality.categorical:
            continue
        whole = normalization(profile, handle.modality.name)
        n_bands = len(handle.modality.bands)
        if len(whole.mean) != n_bands:
            raise InvalidInputError(
                f"profile {profile} has {len(whole.mean)} bands of {handle.modality.name}, the table has {n_bands}; "
                "give the constants by handle name"
            )
        found[name] = Normalization(
            tuple(whole.mean[b] for b in handle.bands), tuple(whole.std[b] for b in handle.bands)
        )
    return found


def _numbers(
    handle: Handle, given: Normalization | Statistics
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of a handle's bands; statistics are matched by name."""
    names = [handle.modality.band_names[b] for b in handle.bands]
    if isinstance(given, Statistics):
        if given.shares is not None:
            raise InvalidInputError(f"{handle.name} is categorical, so it has no mean to normalise with")
        bands = [given[name] for name in names]
        mean: list[float | None] = [b.mean for b in bands]
        std: list[float | None] = [b.std for b in bands]
    else:
        mean, std = list(given.mean), list(given.std)
    if not len(mean) == len(std) == len(names):
        raise InvalidInputError(
            f"{handle.name} has {len(names)} bands, got {len(mean)} means and {len(std)} standard deviations"
        )
    for name, m, s in zip(names, mean, std, strict=True):
        if m is None or s is None or not s > 0:
            raise InvalidInputError(
                f"band {name} of {handle.name} has mean {m} and standard deviation {s}, which cannot normalise it; "
                "leave the band out, or give constants"
            )
    return tuple(float(m) for m in mean if m is not None), tuple(float(s) for s in std if s is not None)
