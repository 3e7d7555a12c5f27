"""Pickles read without their classes: containers and plain values as they are, everything else as opaque mappings.

A pickle names classes and functions, and says what to call them with. Here nothing is imported and nothing called, so that a
checkpoint of strangers runs no code, and one with classes that are not installed here is read all the same. Tensors stay where
they are.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterable
from typing import IO, Any

from tensorbank.errors import FormatError

__all__ = ["FIELDS", "Opaque", "read_torch_file", "unpickled"]

MAX_PICKLE_BYTES = 1 << 30
"""The most bytes of the pickle in a file; tensors lie beside it."""
N_PICKLES = 4
"""The number of pickles at the beginning of a file as torch.save wrote it before version 1.6; the last has the content."""
FIELDS, GIVEN, ITEMS = "\0fields", "\0given", "\0items"
"""The keys under which an opaque mapping has the fields of its object, the arguments of its class, and the items of a list."""


class Opaque(dict[Any, Any]):
    """An object of a class that is not loaded: what it holds, as far as the pickle says it."""

    def __init__(self, *given: Any) -> None:
        super().__init__({GIVEN: list(given)} if given else {})

    __hash__ = object.__hash__  # type: ignore[assignment]  # a dict has none, and pickles have objects as keys

    def __eq__(self, other: object) -> bool:
        return self is other

    def __setstate__(self, fields: Any) -> None:
        self[FIELDS] = fields

    def __call__(self, *given: Any) -> Opaque:
        return Opaque(*given)

    def append(self, item: Any) -> None:
        """Take an item of an object that is a list."""
        self.setdefault(ITEMS, []).append(item)

    def extend(self, items: Iterable[Any]) -> None:
        """Take items of an object that is a list."""
        self.setdefault(ITEMS, []).extend(items)


class _Unpickler(pickle.Unpickler):
    """A reader that loads no class. What its methods are given is pickle's choice, and says nothing here."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ARG002
        return Opaque

    def persistent_load(self, pid: Any) -> Any:  # noqa: ARG002
        return Opaque()


def unpickled(source: IO[bytes], name: str) -> Any:
    """Return the content of the next pickle of a stream.

    Raises
    ------
    FormatError
        There is none, or it is damaged.
    """
    try:
        return _Unpickler(source).load()
    except (
        *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError),
        *(ValueError, OverflowError, RecursionError, MemoryError),
    ) as error:
        raise FormatError(
            f"{name} holds no pickle that can be read: {str(error) or type(error).__name__}"
        ) from error


def read_torch_file(source: IO[bytes], name: str) -> Any:
    """Return what torch.save or pickle wrote to a file, without its tensors.

    Raises
    ------
    FormatError
        It is no such file, or a damaged one.
    """
    if not zipfile.is_zipfile(source):
        source.seek(0)
        return _pickles(source, name)
    try:
        with zipfile.ZipFile(source) as archive:
            members = [m for m in archive.infolist() if m.filename.rpartition("/")[2] == "data.pkl"]
            if len(members) != 1 or members[0].file_size > MAX_PICKLE_BYTES:
                raise FormatError(
                    f"{name} is a zip file, but none of torch.save: it holds no data.pkl of a sound size"
                )
            content = archive.read(members[0])
    # NotImplementedError: a compression that zipfile lacks; RuntimeError: a member under a password.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise FormatError(f"{name} is a damaged zip file: {error}") from error
    return unpickled(io.BytesIO(content), name)


def _pickles(source: IO[bytes], name: str) -> list[Any]:
    """Return the pickles that a file begins with."""
    found = [unpickled(source, name)]
    while len(found) < N_PICKLES:
        try:
            found.append(unpickled(source, name))
        except FormatError:  # the end, or bytes of tensors
            break
    return found
