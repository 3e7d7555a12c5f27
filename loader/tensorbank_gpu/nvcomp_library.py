"""The batched C API of nvCOMP, as far as decompression of LZ4 and zstd needs it. The library is loaded when it is asked for.

The declarations are those of ``nvcomp/lz4.h``, ``nvcomp/zstd.h`` and ``nvcomp/shared_types.h`` of nvCOMP 6.0, as the package
``nvidia-libnvcomp-cu12`` carries them. A major version may change them, so another one is refused. Its Python API is not used:
that takes an object for each stream, and a batch has a thousand.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Protocol

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_gpu.frames import Codec

__all__ = ["BatchedCalls", "DeviceStreams", "NvcompLibrary"]

MAJOR_VERSION = 6
CUDA_BACKEND = 2
"""Decompression by CUDA code. The hardware engine of newer GPUs, which the default may choose, reports no damaged stream."""
NAMES = {Codec.LZ4: "LZ4", Codec.ZSTD: "Zstd"}


@dataclass(frozen=True, slots=True)
class DeviceStreams:
    """The addresses on the device of what describes n streams, and of what is told about them.

    Parameters
    ----------
    n
        The number of streams.
    sources, source_bytes, dest_bytes, dests
        Addresses of arrays (n,) of 8 bytes each: address and size of each stream, size and address of its place.
    found_bytes, statuses
        Addresses of arrays to fill: (n,) u64, bytes that each decoded to, and (n,) i32, 0 for those that decoded.
    temp, temp_bytes
        Address and size of memory to work in.
    """

    n: int
    sources: int
    source_bytes: int
    dest_bytes: int
    dests: int
    found_bytes: int
    statuses: int
    temp: int
    temp_bytes: int


class BatchedCalls(Protocol):
    """The calls that a decoder of streams on a GPU makes."""

    def temp_bytes(self, codec: Codec, n: int, largest_bytes: int, total_bytes: int) -> int:
        """Return the memory that decoding n streams works in, the largest of which and all of which decode to so many bytes."""

    def decompress(self, codec: Codec, streams: DeviceStreams, cuda_stream: int) -> None:
        """Ask for streams to be decoded, as work of a CUDA stream; returns at once."""


class _Options(ctypes.Structure):
    """``nvcompBatchedLZ4DecompressOpts_t``, whose fields but the first are 0 by default, and the one of zstd: 64 bytes."""

    _fields_ = (("backend", ctypes.c_int), ("reserved", ctypes.c_char * 60))


class _Properties(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("cudart_version", ctypes.c_uint32))


class _Alignments(ctypes.Structure):
    _fields_ = (("input", ctypes.c_size_t), ("output", ctypes.c_size_t), ("temp", ctypes.c_size_t))


class NvcompLibrary:
    """The library, loaded and of a version that is known.

    Parameters
    ----------
    library
        The shared library, as ctypes has it.

    Raises
    ------
    InvalidInputError
        It is of another major version, or wants streams to lie at even addresses, which those of Blosc do not.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._options = _Options(backend=CUDA_BACKEND)
        self.version = self._version()
        if self.version // 1000 != MAJOR_VERSION:
            raise InvalidInputError(
                f"nvCOMP has version number {self.version}, and {MAJOR_VERSION}.x is known; "
                "install it by pip install 'tensorbank[gpu]'",
                kind=ErrorKind.MISSING_PACKAGE,
            )
        for codec, name in NAMES.items():
            found = self.alignments(codec)
            if found[:2] != (1, 1):
                raise InvalidInputError(
                    f"this nvCOMP wants streams of {name} at multiples of {found} bytes, and Blosc's lie anywhere",
                    kind=ErrorKind.MISSING_PACKAGE,
                )

    @classmethod
    def load(cls) -> NvcompLibrary:
        """Load the library of the package ``nvidia-libnvcomp``. It needs no GPU yet.

        Raises
        ------
        InvalidInputError
            It is not installed; the kind is ``missing-package``.
        """
        try:
            from nvidia import libnvcomp

            library = libnvcomp.load_library()
        except ImportError as error:
            raise _missing() from error
        if library is None:
            raise _missing()
        return cls(library)

    def alignments(self, codec: Codec) -> tuple[int, int, int]:
        """Return what the addresses of streams, of their places, and of memory to work in must be multiples of."""
        found = _Alignments()
        self._call(codec, "DecompressGetRequiredAlignments", self._options, ctypes.byref(found))
        return found.input, found.output, found.temp

    def temp_bytes(self, codec: Codec, n: int, largest_bytes: int, total_bytes: int) -> int:
        found = ctypes.c_size_t()
        size = ctypes.c_size_t
        self._call(
            codec,
            "DecompressGetTempSize",
            size(n),
            size(largest_bytes),
            self._options,
            ctypes.byref(found),
            size(total_bytes),
            ctypes.c_void_p(None),
        )
        return found.value

    def decompress(self, codec: Codec, streams: DeviceStreams, cuda_stream: int) -> None:
        address, size, s = ctypes.c_void_p, ctypes.c_size_t, streams
        self._call(
            codec,
            "DecompressAsync",
            address(s.sources),
            address(s.source_bytes),
            address(s.dest_bytes),
            address(s.found_bytes),
            size(s.n),
            address(s.temp),
            size(s.temp_bytes),
            address(s.dests),
            self._options,
            address(s.statuses),
            address(cuda_stream),
        )

    def _version(self) -> int:
        found = _Properties()
        self._library.nvcompGetProperties(ctypes.byref(found))
        return int(found.version)

    def _call(self, codec: Codec, name: str, *arguments: Any) -> None:
        """Call a function, and raise an error of kind ``no-device`` if it says that it failed."""
        function = f"nvcompBatched{NAMES[codec]}{name}"
        status = getattr(self._library, function)(*arguments)
        if status:
            raise InvalidInputError(
                f"{function} ends with status {status}: the device cannot be used by nvCOMP",
                kind=ErrorKind.NO_DEVICE,
            )


def _missing() -> InvalidInputError:
    return InvalidInputError(
        "decoding on a GPU needs nvCOMP; pip install 'tensorbank[gpu]'", kind=ErrorKind.MISSING_PACKAGE
    )
