"""Batches as the encoder-decoder of TerraMind takes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tensorbank.arguments import whole_number
from tensorbank.errors import InvalidInputError, NotFoundError, nearest
from tensorbank_loader.batch import Batch
from tensorbank_loader.budgets import TokenBudget
from tensorbank_loader.terramind.crops import Crops
from tensorbank_loader.terramind.token_masks import token_masks

__all__ = ["MODEL_NAMES", "ModDict"]

MODEL_NAMES: Mapping[str, str] = {
    "S2L1C": "untok_sen2l1c@224",
    "S2L2A": "untok_sen2l2a@224",
    "S2RGB": "untok_sen2rgb@224",
    "S1GRD": "untok_sen1grd@224",
    "S1RTC": "untok_sen1rtc@224",
    "DEM": "untok_dem@224",
    "S2L2A_tokens": "tok_sen2l2a@224",
    "S1GRD_tokens": "tok_sen1grd@224",
    "S1RTC_tokens": "tok_sen1rtc@224",
    "DEM_tokens": "tok_dem@224",
    "NDVI_tokens": "tok_ndvi@224",
    "LULC_tokens": "tok_lulc@224",
}
"""The names of modalities in TerraMind's models (``MODALITY_INFO`` of TerraTorch), by their usual names in a table."""


class ModDict(torch.nn.Module):
    """A transform that makes ``batch["mod_dict"]`` of a batch with a budget, on the device of the batch.

    It is ``{model's name: {"tensor", "input_mask", "target_mask", "decoder_attention_mask"}}`` as 4M's and TerraMind's forward
    passes take it, masks as in :class:`TokenMasks`. Pixels are (n, band, size, size), tokens (n, y, x) int64, both of one crop of
    the sample. Which tokens and which crop follows from ``draw_key``: every rank and every resumed run has the same. The other
    columns of the batch stay, its tensors are only in the dictionary.

    Pixels come as they are: put :class:`tensorbank_loader.Normalize` with ``fill=0.0`` before it.

    Parameters
    ----------
    budget
        Budget that the loader was given.
    names
        Names in the model by modality, in place of those in :data:`MODEL_NAMES`.
    crops
        Crops that samples are seen in; None: any place of 224 x 224 pixels, mirrored or not, for pixels only.
    vocabularies
        Number of tokens that the model knows, by modality. Others than ``[0, vocabulary)`` are refused by the name of their
        sample, where a model would end in an error of its own or, on a GPU, take the whole process with it. Modalities that are
        not named are not looked at.

    Raises
    ------
    InvalidInputError
        A modality has no name in the model, or a vocabulary is no positive number.
    NotFoundError
        A vocabulary is of a modality that the budget does not have.

    Examples
    --------
    ::

        budget = TokenBudget((ModalityTokens("S2L2A", target_alphas=0), ModalityTokens("LULC_tokens")))
        constants = {"S2L2A": normalization("terramind-v1", "S2L2A")}  # of the pixels: tokens stay numbers
        make = nn.Sequential(Normalize(plan, constants, fill=0.0), ModDict(budget, crops=Crops(listed=(Crop(20, 20),))))
        loader = plan.dataloader(batch_size=64, budget=budget, transform=make)
    """

    def __init__(
        self,
        budget: TokenBudget,
        *,
        names: Mapping[str, str] | None = None,
        crops: Crops | None = None,
        vocabularies: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        known = {**MODEL_NAMES, **(names or {})}
        for name in budget.names:
            if name not in known:
                raise InvalidInputError(
                    f"TerraMind has no modality of the name {name!r}; give names={{{name!r}: ...}}.{nearest(name, known)}"
                )
        self.budget = budget
        self.names = {name: known[name] for name in budget.names}
        self.crops = Crops() if crops is None else crops
        self.vocabularies = dict(vocabularies or {})
        for name, vocabulary in self.vocabularies.items():
            if name not in self.names:
                raise NotFoundError(f"the budget has no modality {name!r}.{nearest(name, self.names)}")
            whole_number(f"the vocabulary of {name}", vocabulary, at_least=1)

    def forward(self, batch: Batch) -> Batch:
        """Return the batch with its dictionary.

        Raises
        ------
        InvalidInputError
            The batch has no budget, tokens are of other crops or beyond their vocabulary, or pixels are too few.
        """
        if "draw_key" not in batch:
            raise InvalidInputError("this batch has no budget; give the loader budget=, the same as here")
        keys = batch["draw_key"]
        made = {}
        for modality in self.budget.modalities:
            name, n_tokens = modality.name, modality.n_tokens
            inputs, targets = batch["input_tokens"][name], batch["target_tokens"][name]
            masks = token_masks(inputs, targets, keys, n_tokens, name)
            made[self.names[name]] = {"tensor": self._seen(batch[name], keys, modality.name, n_tokens)} | (
                masks._asdict()
            )
        self._require_known({name: made[self.names[name]]["tensor"] for name in self.vocabularies}, batch)
        rest = {name: value for name, value in batch.items() if name not in self.names}
        return {**rest, "mod_dict": made}

    def _seen(self, tensor: torch.Tensor, keys: torch.Tensor, name: str, n_tokens: int) -> torch.Tensor:
        """Return what the model sees of a modality: its tokens, or the pixels that it makes some of."""
        if tensor.shape[-2] * tensor.shape[-1] == n_tokens:
            return self.crops.tokens(tensor, keys, name).to(torch.int64)
        return self.crops.pixels(tensor, keys)

    def _require_known(self, tokens: Mapping[str, torch.Tensor], batch: Batch) -> None:
        """Return if all tokens are of their vocabularies; the device is waited for once."""
        unknown = {name: (t < 0) | (t >= self.vocabularies[name]) for name, t in tokens.items()}
        if not unknown or not torch.stack([u.any() for u in unknown.values()]).any():
            return
        name, wrong = next((name, u) for name, u in unknown.items() if u.any())
        which = wrong.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        samples = [
            str(batch["sample_id"][i]) if "sample_id" in batch else f"number {i} of the batch" for i in which
        ]
        found, vocabulary = tokens[name][which[0]], self.vocabularies[name]
        others = (
            f", and {len(samples) - 1} more samples of its batch have such, too" if len(samples) > 1 else ""
        )
        raise InvalidInputError(
            f"{name} of sample {samples[0]} has tokens from {found.min().item()} to {found.max().item()}, and the vocabulary is "
            f"{vocabulary}, tokens 0 to {vocabulary - 1}{others}; give the vocabulary of the tokenizer that made them"
        )
