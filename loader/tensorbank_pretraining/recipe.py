"""The recipe of a pretraining run as one value: what is seen, what is predicted, and how the model is optimised."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from tensorbank.arguments import choice, whole_number
from tensorbank.errors import InvalidInputError
from tensorbank_loader import ModalityTokens, TokenBudget
from tensorbank_loader.terramind import Crop, Crops

__all__ = ["InputPixels", "Recipe", "TokenModality"]


@dataclass(frozen=True, slots=True)
class InputPixels:
    """A modality of pixels that the model sees and does not predict. ``n_bands`` is what the plan selects of it."""

    name: str
    n_bands: int


@dataclass(frozen=True, slots=True)
class TokenModality:
    """A modality of tokens that the model sees and predicts. Tokens are in ``[0, vocabulary)``."""

    name: str
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pretraining run, the same on every rank.

    Parameters
    ----------
    pixels, tokens
        Modalities of the model.
    crops
        Crops that the tokens were made of.
    n_input, n_target
        Tokens of a sample that are seen, and that are predicted.
    alpha
        Concentration of the Dirichlet distributions of both.
    global_batch_size
        Samples of all ranks together in one forward pass.
    accumulate
        Forward passes in a step of the optimiser.
    n_steps
        Steps of the optimiser.
    learning_rate, warmup_steps, weight_decay, clip_norm
        Peak of a cosine schedule that ends at 0, steps of its linear start, decay, and bound of the gradient's norm.
    ema_decay
        Decay of the moving average of the weights; 0: none.
    seed
        Seed of order, budgets, masks and the first weights.

    Raises
    ------
    InvalidInputError
        A number is out of its range, or there is nothing to see or to predict.
    """

    pixels: tuple[InputPixels, ...]
    tokens: tuple[TokenModality, ...]
    crops: tuple[Crop, ...] = (Crop(20, 20),)
    crop_size: int = 224
    patch: int = 16
    n_input: int = 128
    n_target: int = 128
    alpha: float = 0.5
    global_batch_size: int = 64
    accumulate: int = 1
    n_steps: int = 1000
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.tokens:
            raise InvalidInputError("nothing is predicted: name modalities of tokens, such as LULC_tokens:16")
        for name in ("global_batch_size", "accumulate", "n_steps", "patch", "crop_size"):
            whole_number(name, getattr(self, name), at_least=1)
        whole_number("warmup_steps", self.warmup_steps, at_least=0, at_most=self.n_steps)
        if self.crop_size % self.patch:
            raise InvalidInputError(f"crops of {self.crop_size} pixels are no whole patches of {self.patch}")
        choice("precision", self.precision, ("float32", "bfloat16"))
        for token in self.tokens:
            whole_number(f"the vocabulary of {token.name}", token.vocabulary, at_least=2)
        self.budget()

    @property
    def grid(self) -> int:
        """The patches of a crop along each axis."""
        return self.crop_size // self.patch

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all modalities."""
        return (*(p.name for p in self.pixels), *(t.name for t in self.tokens))

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of a hash of all values but the precision, which may change when a run goes on."""
        fields = {name: value for name, value in asdict(self).items() if name != "precision"}
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def budget(self) -> TokenBudget:
        """Return the budget of a sample: pixels are seen, tokens are seen and predicted."""
        n = self.grid**2
        seen = [ModalityTokens(p.name, n, self.alpha, 0.0) for p in self.pixels]
        both = [ModalityTokens(t.name, n, self.alpha, self.alpha) for t in self.tokens]
        return TokenBudget((*seen, *both), self.n_input, self.n_target)

    def crop_settings(self) -> Crops:
        """Return the crops of pixels and tokens."""
        return Crops(self.crop_size, self.crops)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step in ``[0, n_steps)``: a linear start, then half a cosine."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        along = (step - self.warmup_steps) / max(self.n_steps - self.warmup_steps, 1)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * along))
