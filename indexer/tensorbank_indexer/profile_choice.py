"""The choice of a codec profile by evidence: what the first samples take under each, and what a reading machine makes of that.

No clock decides. Bytes are measured on the samples, seconds of decoding are those of the published measurement, so that the same
samples lead to the same profile: an interrupted ingest finds what it had written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError
from tensorbank.reading import DECODE_S_PER_GB, PROFILES, codec_for
from tensorbank.schema import Modality

__all__ = ["ProfileChoice", "ProfileTrial", "ReadingMachine", "choose_profile", "decoded_gb_per_s"]

MAX_BLOCKS = 48
"""The blocks of a modality that are encoded on trial, at most; 48 of Sentinel-2 take a third of a second."""
AS_GOOD = 0.95
"""The share of the best rate from which on a profile is as good, and the one of fewest bytes is taken."""


@dataclass(frozen=True, slots=True)
class ReadingMachine:
    """A machine that will read: ``cores`` that are free to decode, and its network in gigabits a second."""

    cores: int
    network_gbps: float

    def __post_init__(self) -> None:
        if self.cores < 1 or not self.network_gbps > 0:
            raise InvalidInputError(
                f"a reading machine needs at least 1 core and a network, got {self.cores} cores and "
                f"{self.network_gbps} Gbit/s"
            )


@dataclass(frozen=True, slots=True)
class ProfileChoice:
    """A codec profile and, in one line, why it was chosen; no reason if somebody asked for it."""

    profile: str
    reason: str = ""


class ProfileTrial:
    """A trial of all profiles on the samples that decide a schema."""

    def __init__(self) -> None:
        self._seen_bytes: Counter[str] = Counter()
        self._n_tried: Counter[str] = Counter()
        self._tried_bytes: Counter[str] = Counter()
        self._stored_bytes: Counter[tuple[str, str]] = Counter()

    def add(self, modality: Modality, pixels: npt.NDArray[np.generic]) -> None:
        """Encode the blocks of one modality of one sample, (time, band, y, x), as far as its modality needs more of them."""
        if not pixels.size:
            return
        self._seen_bytes[modality.name] += pixels.nbytes
        blocks = pixels.reshape(-1, *pixels.shape[-2:])[: MAX_BLOCKS - self._n_tried[modality.name]]
        self._n_tried[modality.name] += len(blocks)
        self._tried_bytes[modality.name] += blocks.nbytes
        for profile in PROFILES:
            codec = codec_for(profile, modality)
            stored = (len(codec.encode(np.ascontiguousarray(block))) for block in blocks)
            self._stored_bytes[profile, modality.name] += sum(stored)

    def stored_shares(self) -> dict[str, float]:
        """Return stored bytes for each decoded byte, by profile: of all modalities, each as often as it was seen."""
        total = self._seen_bytes.total()
        if not total:
            return dict.fromkeys(PROFILES, 1.0)
        return {
            profile: sum(
                seen / total * self._stored_bytes[profile, name] / self._tried_bytes[name]
                for name, seen in self._seen_bytes.items()
            )
            for profile in PROFILES
        }


def decoded_gb_per_s(stored_share: float, decode_s_per_gb: float, machine: ReadingMachine) -> float:
    """Return the GB/s of tensors that a machine reads: the lesser of what its network brings and its cores decode. Pure."""
    return min(machine.network_gbps / 8 / stored_share, machine.cores / decode_s_per_gb)


def choose_profile(
    stored_shares: Mapping[str, float],
    machine: ReadingMachine,
    decode_s_per_gb: Mapping[str, float] = DECODE_S_PER_GB,
) -> ProfileChoice:
    """Choose the profile of fewest bytes among those that a machine reads about as fast as the fastest. Pure.

    Parameters
    ----------
    stored_shares
        Stored bytes for each decoded byte, by profile, at least one.
    decode_s_per_gb
        CPU seconds of one core to decode a GB, by profile.
    """
    rates = {
        name: decoded_gb_per_s(share, decode_s_per_gb[name], machine) for name, share in stored_shares.items()
    }
    best = max(rates.values())
    good = [name for name, rate in rates.items() if rate >= AS_GOOD * best]
    chosen = min(good, key=lambda name: (stored_shares[name], name))
    told = ", ".join(
        f"{name} {rates[name]:.2f} GB/s at {stored_shares[name]:.0%} of the bytes"
        for name in sorted(rates, key=lambda name: -rates[name])
    )
    return ProfileChoice(
        chosen,
        f"codec profile {chosen}: the smallest of those that {machine.cores} cores at {machine.network_gbps:g} Gbit/s read at "
        f"{AS_GOOD:.0%} of the best rate or more ({told})",
    )
