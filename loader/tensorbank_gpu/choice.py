"""The choice between decoding on the device and on the host: the quicker way of the first batches, which take both."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

import torch

from tensorbank.errors import FormatError, InvalidInputError, TensorBankError
from tensorbank_gpu.device_tensors import decode_on_device, decode_on_host
from tensorbank_gpu.nvcomp_streams import NvcompStreams
from tensorbank_gpu.stored_reader import StoredBatch
from tensorbank_gpu.stream_decoder import StreamDecoder

__all__ = ["Choice", "MeasuredDecoder", "Trial", "Way", "quicker"]

logger = logging.getLogger(__name__)

N_TRIALS = 5
"""The number of batches that are decoded both ways. The first of them is not timed: it waits for libraries and memory."""


class Way(StrEnum):
    """The place where blocks are decoded."""

    DEVICE = "device"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Trial:
    """One batch that was decoded both ways: seconds from stored bytes on the host to tensors on the device."""

    device_s: float
    host_s: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The way that batches are decoded, why, and what was measured."""

    way: Way
    reason: str
    trials: tuple[Trial, ...] = ()


def quicker(trials: Sequence[Trial]) -> Choice:
    """Return the way whose median of some trials is the smaller; at a draw the host. Pure. At least one trial."""
    device_ms, host_ms = (
        1e3 * median(times) for times in zip(*((t.device_s, t.host_s) for t in trials), strict=True)
    )
    way = Way.DEVICE if device_ms < host_ms else Way.HOST
    reason = f"a batch takes {device_ms:.1f} ms on the device and {host_ms:.1f} ms on the host"
    return Choice(way, reason, tuple(trials))


class MeasuredDecoder:
    """A decoder of batches that takes both ways for the first ones, compares them, and keeps to the quicker.

    For one caller at a time. The host has the last word: where a batch does not decode on the device, or decodes to something
    else, the host decodes it, and all that come after. So a device that decodes wrongly is noticed in the first batches, and
    damage is what the host says it is.

    Parameters
    ----------
    device
        Device that tensors go to.
    streams
        Decoder of streams there, or why there is none: then everything is decoded on the host.
    n_threads
        Threads that decode on the host; None: as many as processors.
    clock
        Clock in seconds.
    """

    def __init__(
        self,
        device: torch.device,
        streams: StreamDecoder | str,
        *,
        n_threads: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device = device
        self._streams = None if isinstance(streams, str) else streams
        self._threads = ThreadPoolExecutor(
            n_threads or os.cpu_count(), thread_name_prefix="tensorbank-decode"
        )
        self._clock = clock
        self._trials: list[Trial] = []
        self._choice = Choice(Way.HOST, streams) if isinstance(streams, str) else None

    @classmethod
    def open(cls, device: torch.device) -> MeasuredDecoder:
        """Return a decoder for a device, with nvCOMP if this is a GPU of NVIDIA's and nvCOMP is installed."""
        if device.type != "cuda" or torch.version.cuda is None:
            return cls(device, f"{device} is no GPU that nvCOMP works on")
        try:
            return cls(device, NvcompStreams.load())
        except InvalidInputError as error:
            return cls(device, str(error))

    @property
    def choice(self) -> Choice | None:
        """The choice; None while it is being measured."""
        return self._choice

    def decode(self, batch: StoredBatch) -> dict[str, torch.Tensor]:
        """Return the tensors of a batch on the device, as :func:`tensorbank_gpu.decode_on_device` does.

        Raises
        ------
        IntegrityError
            A block does not decode on the host either.
        """
        streams = self._streams
        if streams is None or (self._choice is not None and self._choice.way is Way.HOST):
            return decode_on_host(batch, self.device, self._threads)
        started_s = self._clock()
        try:
            found = decode_on_device(batch, self.device, streams)
            self._synchronize()
        except FormatError:
            return decode_on_host(batch, self.device, self._threads)  # blocks of another writer
        except (TensorBankError, RuntimeError) as error:
            return self._give_up(batch, f"the device does not decode what the host does: {error}")
        if self._choice is not None:
            return found
        between_s = self._clock()
        expected = decode_on_host(batch, self.device, self._threads)
        self._synchronize()
        ended_s = self._clock()
        if not _same(found, expected):
            return self._settled(
                Choice(Way.HOST, "the device decodes to other pixels than the host"), expected
            )
        self._trials.append(Trial(between_s - started_s, ended_s - between_s))
        if len(self._trials) == N_TRIALS:
            return self._settled(quicker(self._trials[1:]), found)
        return found

    def close(self) -> None:
        """End the threads. The decoder cannot be used again."""
        self._threads.shutdown()

    def _give_up(self, batch: StoredBatch, reason: str) -> dict[str, torch.Tensor]:
        """Decode a batch on the host, and if it does decode there, all others too."""
        return self._settled(
            Choice(Way.HOST, reason, tuple(self._trials)), decode_on_host(batch, self.device, self._threads)
        )

    def _settled(self, choice: Choice, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self._choice = choice
        logger.info("batches are decoded on the %s: %s", choice.way, choice.reason)
        return tensors

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """Return whether tensors have the same bits: NaN is what it is."""
    return all(
        torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))
        for name, tensor in expected.items()
    )
