"""A compact encoder and decoder over tokens of several modalities, in plain PyTorch.

As 4M (Mizrahi et al., 2023): the encoder sees some tokens of all modalities together; the decoder is asked for others by their
modality and place, looks at each other's places within a modality and at what the encoder has made, and predicts the tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from tensorbank_pretraining.recipe import Recipe

__all__ = ["SIZES", "MaskedModel", "ModelSize"]

ModDict = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The width of a model, its heads, and its layers."""

    width: int
    n_heads: int
    n_encoder: int
    n_decoder: int

    @property
    def label(self) -> str:
        """The name of the size in checkpoints: one of another name is not gone on from."""
        return f"{self.width}x{self.n_encoder}+{self.n_decoder}"

    def model(self, recipe: Recipe) -> MaskedModel:
        """Return a model of this size, with the recipe's first weights."""
        return MaskedModel(recipe, self)


SIZES: Mapping[str, ModelSize] = {
    "micro": ModelSize(96, 3, 3, 2),
    "tiny": ModelSize(192, 3, 12, 4),
    "small": ModelSize(384, 6, 12, 8),
    "base": ModelSize(768, 12, 12, 12),
}
"""Sizes by name; ``tiny``, ``small`` and ``base`` are as wide and deep as TerraMind's encoders of these names."""


class MaskedModel(nn.Module):
    """A model that predicts target tokens of a sample from its input tokens.

    Parameters
    ----------
    recipe
        Recipe with the modalities and the grid of patches.
    size
        Width and depth.
    """

    def __init__(self, recipe: Recipe, size: ModelSize) -> None:
        super().__init__()
        self.patch = recipe.patch
        self.n_input, self.n_target = recipe.n_input, recipe.n_target
        width = size.width
        self.pixels = nn.ModuleDict(
            {p.name: nn.Linear(p.n_bands * recipe.patch**2, width) for p in recipe.pixels}
        )
        self.tokens = nn.ModuleDict({t.name: nn.Embedding(t.vocabulary, width) for t in recipe.tokens})
        self.heads = nn.ModuleDict({t.name: nn.Linear(width, t.vocabulary) for t in recipe.tokens})
        names = recipe.names
        self.of_modality = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in names})
        self.asked_of = nn.ParameterDict({t.name: nn.Parameter(torch.zeros(width)) for t in recipe.tokens})
        self.encoder = nn.ModuleList(Block(width, size.n_heads) for _ in range(size.n_encoder))
        self.decoder = nn.ModuleList(Block(width, size.n_heads, crosses=True) for _ in range(size.n_decoder))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.register_buffer("places", positions(recipe.grid, width), persistent=False)
        self._initialise(recipe.seed)

    def forward(self, mod_dict: ModDict) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of the cross-entropies of all targets of each modality of tokens, and their number, (modalities,) each.

        Parameters
        ----------
        mod_dict
            ``{modality: {"tensor", "input_mask", "target_mask", ...}}`` of :class:`tensorbank_loader.terramind.ModDict`, under
            the names of the recipe.
        """
        seen, hidden = self._seen(mod_dict)
        allowed = ~hidden[:, None, None, :]
        for block in self.encoder:
            seen = block(seen, allowed)
        memory = self.encoder_norm(seen)
        asked, kind, wanted, absent = self._asked(mod_dict)
        among = ((kind[:, :, None] == kind[:, None, :]) & ~absent[:, None, :])[:, None]
        among = among | torch.eye(among.shape[-1], dtype=torch.bool, device=among.device)
        for block in self.decoder:
            asked = block(asked, among, memory, allowed)
        made = self.decoder_norm(asked)
        totals, counts = [], []
        for number, head in enumerate(self.heads.values()):
            mine = (kind == number) & ~absent
            # Of no target at all the sum is 0, and every parameter still has a gradient, as DDP wants it.
            logits = head(made[mine]).float()
            totals.append(functional.cross_entropy(logits, wanted[mine], reduction="sum"))
            counts.append(mine.sum())
        return torch.stack(totals), torch.stack(counts)

    def _seen(self, mod_dict: ModDict) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the input tokens of all modalities, (n, n_input, width), and which places are empty, (n, n_input)."""
        embedded, masks = [], []
        for name in (*self.pixels, *self.tokens):
            given = mod_dict[name]
            vectors = (
                self.pixels[name](patches(given["tensor"], self.patch))
                if name in self.pixels
                else self.tokens[name](given["tensor"].flatten(1))
            )
            embedded.append(vectors + self.of_modality[name] + self.places)
            masks.append(given["input_mask"])
        every, mask = torch.cat(embedded, 1), torch.cat(masks, 1)
        chosen = mask.to(torch.int8).argsort(dim=1, stable=True)[:, : self.n_input]
        hidden = mask.gather(1, chosen)
        hidden = hidden & ~hidden.all(
            1, keepdim=True
        )  # a sample of nothing attends to anything, else its sums are NaN
        return every.gather(1, chosen[:, :, None].expand(-1, -1, every.shape[2])), hidden

    def _asked(self, mod_dict: ModDict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what is asked for: queries (n, n_target, width), and of each the number of its modality, the token that is
        right, and whether there is none, (n, n_target) each.
        """
        queries, kinds, rights, masks = [], [], [], []
        for number, name in enumerate(self.tokens):
            given = mod_dict[name]
            right = given["tensor"].flatten(1)
            queries.append((self.asked_of[name] + self.places).expand(len(right), -1, -1))
            kinds.append(torch.full_like(right, number))
            rights.append(right)
            masks.append(given["target_mask"])
        mask = torch.cat(masks, 1)
        chosen = mask.to(torch.int8).argsort(dim=1, stable=True)[:, : self.n_target]
        every = torch.cat(queries, 1)
        asked = every.gather(1, chosen[:, :, None].expand(-1, -1, every.shape[2]))
        return (
            asked,
            torch.cat(kinds, 1).gather(1, chosen),
            torch.cat(rights, 1).gather(1, chosen),
            mask.gather(1, chosen),
        )

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        """Draw the first weights, each from a stream of its own: the same on every rank, whatever was drawn before."""
        for name, parameter in self.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))  # takes 32 bits
            if parameter.ndim > 1 or name.startswith(("of_modality", "asked_of")):
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
            elif "norm" not in name:
                nn.init.zeros_(parameter)


class Block(nn.Module):
    """A layer of a transformer that normalises before; with ``crosses`` it also looks at a memory."""

    def __init__(self, width: int, n_heads: int, *, crosses: bool = False) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, n_heads)
        self.cross_norm = nn.LayerNorm(width) if crosses else None
        self.cross = Attention(width, n_heads) if crosses else None
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self,
        x: torch.Tensor,
        allowed: torch.Tensor,
        memory: torch.Tensor | None = None,
        of_memory: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return (n, places, width) of the same; masks are True where one place may look at another."""
        normal = self.norm(x)
        x = x + self.attention(normal, normal, allowed)
        if self.cross is not None and self.cross_norm is not None and memory is not None:
            x = x + self.cross(self.cross_norm(x), memory, of_memory)
        fed: torch.Tensor = self.mlp(self.mlp_norm(x))
        return x + fed


class Attention(nn.Module):
    """A layer of attention with several heads, from ``x`` to ``memory``."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """Return (n, places, width) for ``x`` of this shape and ``memory`` (n, others, width)."""
        query = self._heads(self.query(x))
        key, value = (self._heads(part) for part in self.key_value(memory).chunk(2, dim=-1))
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        joined: torch.Tensor = self.out(found.transpose(1, 2).flatten(2))
        return joined

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        n, places, _ = x.shape
        return x.view(n, places, self.n_heads, -1).transpose(1, 2)


def patches(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Return the patches of (n, band, y, x), row by row, as (n, patches, band * size * size)."""
    n, bands, height, width = pixels.shape
    cut = pixels.reshape(n, bands, height // size, size, width // size, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, bands * size * size)


def positions(grid: int, width: int) -> torch.Tensor:
    """Return the embeddings of places on a grid, (grid * grid, width): sines and cosines of y and x (Vaswani et al., 2017)."""
    quarter = width // 4
    rates = 10_000.0 ** (-torch.arange(quarter) / quarter)
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    waves = [f(axis.flatten()[:, None] * rates) for axis in (y, x) for f in (torch.sin, torch.cos)]
    return functional.pad(torch.cat(waves, dim=1), (0, width - 4 * quarter))
