"""Augmentations of kornia on batches of several co-registered modalities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, nearest
from tensorbank_loader.batch import Batch

if TYPE_CHECKING:
    from kornia.augmentation import AugmentationSequential

__all__ = ["Augment"]


class Augment(torch.nn.Module):
    """A transform that augments the tensors of a batch with kornia's augmentations, one after the other.

    Augmentations that move pixels (flips, crops, rotations) draw their parameters once for each sample, for all modalities, dates
    and masks, which stay co-registered. Augmentations that change values (noise, blur, brightness) draw for each modality by
    itself, and leave masks alone. Draws come from torch's generator. Pixels are computed in float32: integers become float32,
    floats and masks keep their dtype.

    NaN spreads to its neighbours where pixels are interpolated. Give :class:`tensorbank_loader.Normalize` a ``fill``, and let it
    come first.

    Parameters
    ----------
    augmentations
        Augmentations of ``kornia.augmentation``, for single images: one, or several in their order.
    modalities
        Tensors (n, band, y, x) or (n, time, band, y, x) of the batch, all of one height and width.
    masks
        Tensors of classes, with codes up to 2^24. They are moved with the modalities, by the nearest pixel; pixels from outside
        are class 0.

    Raises
    ------
    InvalidInputError
        kornia is not installed; there are no modalities, or one twice; something is not an augmentation of single images.

    Examples
    --------
    ::

        from kornia.augmentation import RandomAffine, RandomHorizontalFlip
        augment = Augment([RandomHorizontalFlip(), RandomAffine(20.0)], modalities=["S2L2A", "S1RTC"], masks=["LULC"])
        loader = plan.dataloader(batch_size=64, transform=nn.Sequential(Normalize(plan, "terramesh", fill=0.0), augment))
    """

    def __init__(
        self,
        augmentations: torch.nn.Module | Sequence[torch.nn.Module],
        *,
        modalities: Sequence[str],
        masks: Sequence[str] = (),
    ) -> None:
        super().__init__()
        names = (*modalities, *masks)
        if not modalities or len(set(names)) != len(names):
            raise InvalidInputError(f"tensors to augment must be named, each once, got {list(names)}")
        steps = [augmentations] if isinstance(augmentations, torch.nn.Module) else list(augmentations)
        self.modalities = tuple(modalities)
        self.masks = tuple(masks)
        self.steps = torch.nn.ModuleList()
        for moves, group in groupby(steps, _moves_pixels):
            alike = list(group)
            self.steps.append(self._together(alike) if moves else _Apart(alike, len(self.modalities)))

    def _together(self, augmentations: list[torch.nn.Module]) -> AugmentationSequential:
        """Return a container of kornia's, which shares parameters over its inputs and takes the nearest pixel for masks."""
        from kornia.augmentation import AugmentationSequential

        keys = ["input"] * len(self.modalities) + ["mask"] * len(self.masks)
        return AugmentationSequential(*augmentations, data_keys=keys)  # type: ignore[arg-type]  # annotated too narrowly

    def forward(self, batch: Batch) -> Batch:
        """Return a batch with augmented tensors; ``batch`` stays as it is.

        Raises
        ------
        NotFoundError, InvalidInputError
            The batch lacks a tensor, or they differ in height or width.
        """
        names = (*self.modalities, *self.masks)
        for name in names:
            if name not in batch:
                raise NotFoundError(
                    f"the batch has no tensor {name!r} to augment.{nearest(name, list(batch))}"
                )
        sizes = {name: tuple(batch[name].shape[-2:]) for name in names}
        if len(set(sizes.values())) > 1:
            raise InvalidInputError(
                f"tensors that are augmented together need one height and width, got {sizes}"
            )
        folded = [_folded(batch[name]) for name in names]
        for step in self.steps if len(folded[0]) else ():  # a rank's share of a batch may be empty
            found = step(*folded)
            folded = [found] if isinstance(found, torch.Tensor) else list(found)
        n = len(self.modalities)
        done = {name: _unfolded(f, batch[name]) for name, f in zip(self.modalities, folded[:n], strict=True)}
        codes = {
            name: _unfolded(f, batch[name]).to(batch[name].dtype)
            for name, f in zip(self.masks, folded[n:], strict=True)
        }
        return batch | done | codes

    def extra_repr(self) -> str:
        return f"modalities={list(self.modalities)}, masks={list(self.masks)}"


class _Apart(torch.nn.Module):
    """A change of values, drawn for each of the first ``n`` inputs by itself. The other inputs pass unchanged."""

    def __init__(self, augmentations: list[torch.nn.Module], n: int) -> None:
        super().__init__()
        self.each = torch.nn.Sequential(*augmentations)
        self.n = n

    def forward(self, *folded: torch.Tensor) -> list[torch.Tensor]:
        return [self.each(images) for images in folded[: self.n]] + list(folded[self.n :])


def _moves_pixels(step: Any) -> bool:
    """Return True if an augmentation is geometric, so that every tensor must follow it."""
    try:
        from kornia.augmentation import IntensityAugmentationBase2D, RigidAffineAugmentationBase2D
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"augmentations need {error.name}; pip install 'tensorbank[augment]'",
            kind=ErrorKind.MISSING_EXTRA,
        ) from error
    if not isinstance(step, RigidAffineAugmentationBase2D):
        raise InvalidInputError(
            f"{type(step).__name__} is no augmentation of single images; give kornia's augmentations themselves, "
            "without a container around them"
        )
    return not isinstance(step, IntensityAugmentationBase2D)


def _folded(stored: torch.Tensor) -> torch.Tensor:
    """Fold time and band: return (n, time * band, y, x) float32."""
    return stored.flatten(1, -3).to(torch.float32)


def _unfolded(images: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """Return images in the shape of the stored tensor, but for height and width, and in its dtype if it has floats."""
    pixels = images.reshape(*stored.shape[:-2], *images.shape[-2:])
    return pixels.to(stored.dtype) if stored.is_floating_point() else pixels
