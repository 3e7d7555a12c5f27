"""Masks of tokens: which of a sample's tokens are input, and which are targets. Arithmetic on tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch

from tensorbank_loader.terramind.keyed import hashed

__all__ = ["TokenMasks", "token_masks"]


class TokenMasks(NamedTuple):
    """The masks of one modality, as 4M's and TerraMind's models take them.

    Parameters
    ----------
    input_mask, target_mask
        (n, tokens) bool, True for tokens that are not used.
    decoder_attention_mask
        (n, tokens) int32: at the first target token the number of targets, else 0. Its running sum says which targets see each
        other.
    """

    input_mask: torch.Tensor
    target_mask: torch.Tensor
    decoder_attention_mask: torch.Tensor


def token_masks(
    inputs: torch.Tensor, targets: torch.Tensor, keys: torch.Tensor, n_tokens: int, name: str
) -> TokenMasks:
    """Draw which tokens are used: a uniform choice for each sample, input and targets disjoint.

    Parameters
    ----------
    inputs, targets
        (n,) int64, how many tokens of each sample; together no more than ``n_tokens``.
    keys
        (n,) int64 keys of the samples, which decide the draw.
    n_tokens
        Tokens of a sample.
    name
        Name of the modality: others draw other tokens.
    """
    order = hashed(keys, f"tokens of {name}", n_tokens).argsort(dim=1, stable=True)
    place = torch.arange(n_tokens, device=keys.device)
    rank = torch.empty_like(order).scatter_(1, order, place.expand_as(order))
    last_input = inputs[:, None]
    last_target = last_input + targets[:, None]
    input_mask = rank >= last_input
    target_mask = (rank < last_input) | (rank >= last_target)
    first = torch.where(target_mask, n_tokens, place).amin(dim=1) % n_tokens
    attention = torch.zeros(order.shape, dtype=torch.int32, device=keys.device)
    attention.scatter_(1, first[:, None], targets[:, None].to(torch.int32))
    return TokenMasks(input_mask, target_mask, attention)
