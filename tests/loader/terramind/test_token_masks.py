"""Masks of tokens: as many as the budget says, disjoint, uniform, and the same in every batch."""

from __future__ import annotations

import torch

from tensorbank_loader.terramind import token_masks
from tensorbank_loader.terramind.keyed import below, hashed

N_TOKENS = 196


def made(n: int = 3000):
    generator = torch.Generator().manual_seed(1)
    keys = torch.randint(0, 1 << 53, (n,), generator=generator)
    inputs = torch.randint(0, 129, (n,), generator=generator)
    targets = torch.randint(0, N_TOKENS - 128, (n,), generator=generator)
    return keys, inputs, targets, token_masks(inputs, targets, keys, N_TOKENS, "DEM")


def test_masks_have_as_many_tokens_as_the_budget_and_share_none():
    _, inputs, targets, masks = made()
    assert ((~masks.input_mask).sum(dim=1) == inputs).all()
    assert ((~masks.target_mask).sum(dim=1) == targets).all()
    assert (masks.input_mask | masks.target_mask).all()


def test_the_attention_mask_has_the_number_of_targets_at_the_first_of_them():
    """By 4M's own words: ``argmin(target_mask + arange * 1e-6)`` gets ``(~target_mask).sum()``."""
    masks = made(400)[3]
    assert masks.target_mask.shape == (400, N_TOKENS)
    for target_mask, attention in zip(masks.target_mask, masks.decoder_attention_mask, strict=True):
        expected = torch.zeros(N_TOKENS, dtype=torch.int32)
        first = torch.argmin(target_mask + torch.arange(N_TOKENS, dtype=torch.float64) * 1e-6)
        expected[first] = (~target_mask).sum()
        assert (attention == expected).all()


def test_every_token_is_chosen_as_often():
    keys = torch.arange(20_000)
    masks = token_masks(torch.full((20_000,), 49), torch.full((20_000,), 49), keys, N_TOKENS, "DEM")
    assert masks.input_mask.shape == masks.target_mask.shape == (20_000, N_TOKENS)
    for mask in masks[:2]:
        share = (~mask).double().mean(dim=0)
        assert (share - 0.25).abs().max() < 5 * (0.25 * 0.75 / 20_000) ** 0.5


def test_samples_and_modalities_are_independent():
    keys, inputs, targets, masks = made(2000)
    other = token_masks(inputs, targets, keys, N_TOKENS, "LULC")
    some = (inputs > 40) & (inputs < 90)
    assert (masks.input_mask[some] != other.input_mask[some]).any(dim=1).all()
    both = (~masks.input_mask[some] & ~other.input_mask[some]).sum().double()
    expected = (inputs[some].double() ** 2 / N_TOKENS).sum()
    assert abs(both / expected - 1) < 0.02


def test_a_sample_has_the_same_masks_in_every_batch():
    keys, inputs, targets, masks = made(100)
    some = [80, 3, 41]
    alone = token_masks(inputs[some], targets[some], keys[some], N_TOKENS, "DEM")
    assert alone.input_mask.shape == (3, N_TOKENS)
    for mine, theirs in zip(alone, masks, strict=True):
        assert (mine == theirs[some]).all()


def test_random_numbers_are_what_unsigned_arithmetic_says():
    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    import zlib

    keys = [0, 1, 2**52 + 12345, 2**53 - 1]
    salt = zlib.crc32(b"a purpose")
    found = hashed(torch.tensor(keys), "a purpose", 3)
    assert found.shape == (4, 3)
    for key, row in zip(keys, found.tolist(), strict=True):
        first = mix((key * 0x9E3779B97F4A7C15 + salt) % 2**64)
        assert row == [mix((first + i * 0xD1342543DE82EF95) % 2**64) >> 2 for i in (1, 2, 3)]


def test_numbers_below_a_bound_are_uniform():
    counts = torch.bincount(below(torch.arange(70_000), "crop", 7), minlength=7)
    assert (counts - 10_000).abs().max() < 500
