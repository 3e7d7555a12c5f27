"""The errors of TensorBank: few classes, by what the caller will do next.

Each carries a stable ``kind`` for programs and a sentence for people: what was got, what to do
next, and the nearest valid names where a name was wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConflictError",
    "FormatError",
    "IntegrityError",
    "InvalidInputError",
    "NotFoundError",
    "StorageError",
    "TensorBankError",
    "as_error",
    "nearest",
]


class TensorBankError(Exception):
    """The base of all errors that TensorBank raises on purpose.

    Parameters
    ----------
    message
        One sentence for the person who reads it.
    kind
        Stable, kebab-case name for programs; the class's own where not given.
    """

    default_kind = "error"

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind or self.default_kind

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), str(self), self.kind))


def _rebuild(cls: type[TensorBankError], message: str, kind: str) -> TensorBankError:
    return cls(message, kind=kind)


class NotFoundError(TensorBankError, LookupError):
    """A bank, table, snapshot, sample or object does not exist."""

    default_kind = "not-found"


class InvalidInputError(TensorBankError, ValueError):
    """The caller's input cannot be used as it is: SQL, names, options."""

    default_kind = "invalid-input"


class ConflictError(TensorBankError):
    """An error because another writer was first, or the store cannot arbitrate between writers."""

    default_kind = "conflict"


class StorageError(TensorBankError, OSError):
    """The object store refused, timed out or is not configured.

    ``retry_after_s`` is how long a store of kind ``throttled`` asked to be left alone; None if it did not say.
    """

    default_kind = "storage"
    retry_after_s: float | None = None


class IntegrityError(TensorBankError):
    """The error that stored bytes are not what was written: wrong length or checksum."""

    default_kind = "integrity"


class FormatError(TensorBankError, ValueError):
    """An archive or a bank is not in a format that TensorBank reads."""

    default_kind = "format"


def as_error(failed: BaseException) -> Exception:
    """Return what ended a thread as an error for whoever waits for it.

    A panic of a native library, or an exit, is no ``Exception``: raised in another thread it would end more than it should.
    """
    if isinstance(failed, Exception):
        return failed
    error = StorageError(
        f"a reading thread was ended by {type(failed).__name__}: {str(failed)[:200]}", kind="crashed"
    )
    error.__cause__ = failed
    return error


def nearest(name: str, valid: Iterable[str], *, n: int = 3) -> str:
    """A hint such as `` Did you mean 'B08'?``, or the valid names, or nothing at all."""
    names = sorted(set(valid))
    folded = {v.lower(): v for v in names}
    close = difflib.get_close_matches(name.lower(), list(folded), n=n, cutoff=0.6)
    if close:
        return " Did you mean " + " or ".join(repr(folded[c]) for c in close) + "?"
    if names and len(names) <= 12:
        return " There is " + ", ".join(names) + "."
    return ""
