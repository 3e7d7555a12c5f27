"""TerraMind's own encoder and decoder, from TerraTorch, as the model of a recipe: with random weights, or those of a checkpoint.

TerraTorch is no part of TensorBank's environments: it is imported when such a model is made, and only then.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.terramind import MODEL_NAMES
from tensorbank_pretraining.masked_model import ModDict
from tensorbank_pretraining.recipe import Recipe

__all__ = ["TERRAMIND_SIZES", "TerraMindModel", "TerraMindSize"]

_log = logging.getLogger(__name__)
TERRAMIND_SIZES = ("tiny", "small", "base")


@dataclass(frozen=True, slots=True)
class TerraMindSize:
    """The size of a TerraMind of version 1, and the weights that it begins with.

    Parameters
    ----------
    name
        ``tiny``, ``small`` or ``base``.
    checkpoint
        File of ``torch.save`` with the weights, as TerraMind's are published; None: random ones, by the recipe's seed.
    """

    name: str
    checkpoint: Path | None = None

    @property
    def label(self) -> str:
        """The name of the size in checkpoints of a run."""
        return f"terratorch-{self.name}"

    def model(self, recipe: Recipe) -> TerraMindModel:
        """Return TerraMind in this size, with its first weights."""
        return TerraMindModel(recipe, self)


class TerraMindModel(nn.Module):
    """TerraMind, with the forward pass of :class:`tensorbank_pretraining.MaskedModel`.

    Parameters
    ----------
    recipe
        Recipe whose modalities have names of :data:`tensorbank_loader.terramind.MODEL_NAMES`.
    size
        Size and first weights.

    Raises
    ------
    InvalidInputError
        TerraTorch is not installed (kind ``missing-extra``), TerraMind does not have a modality of the recipe, or its bands,
        tokens or patches, or the checkpoint lacks weights of its layers; of those of embeddings a warning names what it lacks.
    """

    def __init__(self, recipe: Recipe, size: TerraMindSize) -> None:
        super().__init__()
        parts = _parts_of_terratorch()
        self.names = {name: _model_name(name) for name in recipe.names}
        self.targets = tuple(self.names[t.name] for t in recipe.tokens)
        self.n_input, self.n_target = recipe.n_input, recipe.n_target
        info = parts["MODALITY_INFO"]
        _check(recipe, self.names, info)
        settings = _settings(size.name, parts["LayerNorm"])
        form = {"img_size": recipe.crop_size, "dim": settings["dim"], "patch_size": recipe.patch}
        seen = list(self.names.values())
        with torch.random.fork_rng(
            devices=[]
        ):  # the same weights on all ranks, and draws of others stay what they were
            torch.manual_seed(recipe.seed)
            encoder, _ = parts["build_modality_embeddings"](info, seen, **form)
            decoder, _ = parts["build_output_modality_embeddings"](info, list(self.targets), **form)
            self.terramind = parts["TerraMind"](
                encoder_embeddings=encoder, decoder_embeddings=decoder, modality_info=info, **settings
            )
        if size.checkpoint is not None:
            self._load(size.checkpoint)

    @property
    def encoder(self) -> nn.ModuleList:
        """The layers of the encoder."""
        found: nn.ModuleList = self.terramind.encoder
        return found

    @property
    def decoder(self) -> nn.ModuleList:
        """The layers of the decoder."""
        found: nn.ModuleList = self.terramind.decoder
        return found

    def forward(self, mod_dict: ModDict) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sums of the cross-entropies of all targets of each modality of tokens, and their numbers, (modalities,)."""
        renamed = {model_name: dict(mod_dict[name]) for name, model_name in self.names.items()}
        counts = torch.stack([(~renamed[name]["target_mask"]).sum() for name in self.targets])
        _, means = self.terramind(
            renamed,
            num_encoder_tokens=self.n_input,
            num_decoder_tokens=self.n_target,
            loss_type="mod",
        )
        totals = []
        for name, count in zip(self.targets, counts, strict=True):
            # Of no target at all the sum is 0, and every parameter still has a gradient, as DDP wants it.
            unused = sum(p.sum() for p in self.terramind.decoder_embeddings[name].parameters()) * 0.0
            totals.append(means[name].reshape(()) * count + unused)
        return torch.stack(totals), counts

    def _load(self, path: Path) -> None:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        saved = saved.get("model", saved)
        mine = self.terramind.state_dict()
        fitting = {k: v for k, v in saved.items() if k in mine and v.shape == mine[k].shape}
        lacking = [name for name in mine if name not in fitting]
        if layers := [name for name in lacking if name.startswith(("encoder.", "decoder."))]:
            raise InvalidInputError(
                f"{path} lacks {len(layers)} weights of the layers of this TerraMind, such as {layers[0]}, or has them in "
                "another shape; give a file such as TerraMind_v1_base.pt, of the same size"
            )
        if lacking:
            _log.warning(
                "%s lacks %d weights, which begin at random: %s", path, len(lacking), ", ".join(lacking)
            )
        self.terramind.load_state_dict(mine | fitting)


def _parts_of_terratorch() -> dict[str, Any]:
    """Import TerraMind's model and its embeddings."""
    try:
        from terratorch.models.backbones.terramind.model import terramind, tm_utils
        from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"a model of TerraTorch needs {error.name}; pip install terratorch, or take --model tiny",
            kind=ErrorKind.MISSING_EXTRA,
        ) from error
    return {
        "TerraMind": terramind.TerraMind,
        "LayerNorm": tm_utils.LayerNorm,
        "build_modality_embeddings": terramind.build_modality_embeddings,
        "build_output_modality_embeddings": terramind.build_output_modality_embeddings,
        "MODALITY_INFO": MODALITY_INFO,
    }


def _settings(name: str, norm: Any) -> dict[str, Any]:
    """Return the arguments of TerraMind for a size of version 1, as TerraTorch's register has them.

    The register itself makes none in sizes tiny and small: it hands on an argument that the model does not take.
    """
    depths = {"tiny": (192, 3, 12, 4), "small": (384, 6, 12, 6), "base": (768, 12, 12, 12)}
    dim, n_heads, n_encoder, n_decoder = depths[name]
    is_base = name == "base"
    return {
        "dim": dim,
        "num_heads": n_heads,
        "encoder_depth": n_encoder,
        "decoder_depth": n_decoder,
        "mlp_ratio": 4,
        "qkv_bias": not is_base,
        "proj_bias": not is_base,
        "mlp_bias": not is_base,
        "norm_layer": partial(norm, eps=1e-6, bias=False),
        "act_layer": nn.SiLU if is_base else nn.GELU,
        "gated_mlp": is_base,
    }


def _model_name(name: str) -> str:
    if name not in MODEL_NAMES:
        raise InvalidInputError(
            f"TerraMind has no modality {name!r}; it has {', '.join(sorted(MODEL_NAMES))}: rename yours with AS"
        )
    return MODEL_NAMES[name]


def _check(recipe: Recipe, names: Mapping[str, str], info: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what TerraMind has otherwise."""
    for pixels in recipe.pixels:
        n_bands = info[names[pixels.name]]["num_channels"]
        if pixels.n_bands != n_bands:
            raise InvalidInputError(
                f"TerraMind sees {n_bands} bands of {pixels.name}, the query selects {pixels.n_bands}"
            )
    for tokens in recipe.tokens:
        vocabulary = info[names[tokens.name]]["vocab_size"]
        if tokens.vocabulary > vocabulary:
            raise InvalidInputError(
                f"TerraMind knows {vocabulary} tokens of {tokens.name}, the recipe has {tokens.vocabulary}"
            )
