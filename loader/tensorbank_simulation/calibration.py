"""The costs of reading on one machine, and the rates of its network: a value, and its file of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tensorbank.arguments import number, whole_number
from tensorbank.errors import FormatError, InvalidInputError
from tensorbank.reading import DECODE_S_PER_GB
from tensorbank_simulation.latency import Latency

__all__ = ["DEFAULT_CALIBRATION", "VERSION", "Calibration"]

VERSION = 1
"""The version of the file's format."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The costs of reading. CPU seconds are those of one core while all are busy; a GB is 10^9 bytes.

    Parameters
    ----------
    machine
        Words on the machine, for people.
    n_cores
        Cores that the process may use.
    decode_s_per_gb
        CPU seconds to verify and decode a GB of tensors, by codec profile, and by modality where a bank was measured.
    block_s, read_s, batch_s
        CPU seconds of the loader for each block, read and batch, whatever their size. An interpreter does them one at a time.
    request_s, request_s_per_gb
        CPU seconds of a request to the store, and of each GB that it brings.
    fresh_s_per_gb
        CPU seconds of a GB of memory that was never used: a loader's batches use theirs again.
    hit_s, hit_s_per_gb, miss_s, miss_s_per_gb
        CPU seconds of a read that the cache has; and of one that it has not, for the look and for keeping the bytes.
    latency
        Time to the first byte; None if no store was measured.
    connection_bytes_s, bandwidth_bytes_s
        Bytes a second of one connection, and of all together; infinite if no store was measured.
    is_local
        True if the store is a disk of this machine.

    Raises
    ------
    InvalidInputError
        A number makes no sense; the message names it.
    """

    machine: str
    n_cores: int
    decode_s_per_gb: Mapping[str, float]
    block_s: float
    read_s: float
    batch_s: float
    request_s: float
    request_s_per_gb: float
    fresh_s_per_gb: float
    hit_s: float
    hit_s_per_gb: float
    miss_s: float
    miss_s_per_gb: float
    latency: Latency | None = None
    connection_bytes_s: float = math.inf
    bandwidth_bytes_s: float = math.inf
    is_local: bool = False
    version: int = field(default=VERSION)

    def __post_init__(self) -> None:
        whole_number("n_cores", self.n_cores, at_least=1)
        for name, value in self.decode_s_per_gb.items():
            number(f"decode_s_per_gb[{name!r}]", value, at_least=0)
        for f in fields(self):
            if f.name.endswith("bytes_s"):
                number(f.name, getattr(self, f.name), above=0, finite=False)
            elif f.name.endswith(("_s", "_s_per_gb")) and f.name != "decode_s_per_gb":
                number(f.name, getattr(self, f.name), at_least=0)

    def decode_s(self, kind: str) -> float:
        """Return the CPU seconds of a GB of a modality or profile; those of ``balanced`` for a modality that was not measured."""
        found = self.decode_s_per_gb.get(kind)
        return self.decode_s_per_gb.get("balanced", DECODE_S_PER_GB["balanced"]) if found is None else found

    def to_json(self) -> str:
        """Return JSON that :meth:`from_json` reads; null stands for infinite rates."""
        values = {n: None if v == math.inf else v for n, v in asdict(self).items()}
        return json.dumps({"format": "tensorbank-calibration", **values}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Read a calibration.

        Raises
        ------
        FormatError
            It is none, or one of a later version.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if values.pop("format") != "tensorbank-calibration":
                raise ValueError("another format")
            if values["version"] != VERSION:
                raise ValueError(f"its version is {values['version']!r}, and {VERSION} is read")
            for name in ("connection_bytes_s", "bandwidth_bytes_s"):
                values[name] = math.inf if values[name] is None else values[name]
            if values["latency"] is not None:
                values["latency"] = Latency(*(tuple(values["latency"][n]) for n in ("shares", "seconds")))
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError, InvalidInputError) as error:
            raise FormatError(
                f"this is no calibration: {error}; `tensorbank calibrate -o FILE` writes one"
            ) from error

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a calibration from a file."""
        return cls.from_json(path.read_text(encoding="utf-8"))


DEFAULT_CALIBRATION = Calibration(
    machine="a shared x86-64 machine with 2 cores",
    n_cores=2,
    decode_s_per_gb=dict(DECODE_S_PER_GB),
    block_s=5e-6,
    read_s=1e-4,
    batch_s=1e-3,
    request_s=3e-4,
    request_s_per_gb=0.4,
    fresh_s_per_gb=0.7,
    hit_s=3e-4,
    hit_s_per_gb=0.3,
    miss_s=6e-4,
    miss_s_per_gb=0.8,
)
"""The costs of reading where nobody has measured: right to a factor of two."""
