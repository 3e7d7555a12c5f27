"""Problems of one member of an archive, and the boundary that keeps them from affecting anything else.

An archive is somebody else's data: no list of exceptions is complete for what it may make a parser raise. So
there is one place where everything is caught and becomes a reason in words.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from tensorbank.errors import ErrorKind, StorageError, TensorBankError

__all__ = ["Boundary", "Problem", "is_identifier", "readable", "reason_of"]

MAX_REASON_CHARS = 400
MAX_IDENTIFIER_CHARS = 200
SPECIFIC_KINDS = frozenset(
    {
        ErrorKind.CODEC,
        ErrorKind.ENCRYPTED_ENTRY,
        ErrorKind.OVER_LIMIT,
        ErrorKind.TRUNCATED_ARCHIVE,
        ErrorKind.ZIP_METHOD,
    }
)
"""The kinds of errors that say more than that a member is damaged."""


class Problem(NamedTuple):
    """A defect found in a member: kind and reason as in ``Finding``; ``action`` is empty where it depends on what is left of
    the member.
    """

    kind: str
    reason: str
    action: str = ""


class Boundary:
    """A block around one member: ``report`` is handed what is raised inside, as kind and reason, and the program goes
    on behind the block.

    ``kind`` is that of a finding whose cause has no kind of its own. A store that fails is no fault of the member:
    its StorageError goes on, as does what is no ``Exception`` (the user's interrupt). That a decoder got no
    memory is one: sizes are bounded, so it is the member that asked for too much.
    """

    def __init__(self, report: Callable[[str, str], object], kind: str = "corrupt-member") -> None:
        self._report = report
        self._kind = kind

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _class: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        # Everything, on purpose: no list is complete for what somebody else's bytes make a parser raise.
        if not isinstance(error, Exception) or isinstance(error, StorageError):
            return False
        self._report(*reason_of(error, self._kind))
        return True


def reason_of(error: Exception, kind: str = "corrupt-member") -> tuple[str, str]:
    """Return the kind and reason of a finding about this error; errors that are not ours are named by their class."""
    if isinstance(error, TensorBankError):
        return (error.kind if error.kind in SPECIFIC_KINDS else kind), readable(str(error))
    return kind, readable(f"It cannot be read: {type(error).__name__}: {error}.")


def readable(text: str, max_chars: int = MAX_REASON_CHARS) -> str:
    """Return the text on one line, of bounded length, without characters that a terminal or UTF-8 does not take."""
    if len(text) > max_chars:
        text = text[: max_chars - 3] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def is_identifier(text: str) -> bool:
    """Tell whether a text may be a sample's id, a stem or a band: printable, not long, and no path."""
    return (
        0 < len(text) <= MAX_IDENTIFIER_CHARS
        and text.isprintable()
        and not text.isspace()
        and text not in (".", "..")
        and "/" not in text
        and "\\" not in text
    )
