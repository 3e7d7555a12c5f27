"""A lexer of CQL2 text: it cuts a text into numbers, texts, names and signs, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tensorbank_server.filters.literals import FilterError

__all__ = ["Token", "number_of", "tokens_of", "wrong_at"]

_TOKENS = re.compile(
    r"""(?:
      (?P<number>[-+]?+(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][-+]?+\d++)?+)(?![\w.])
    | (?P<text>'(?:[^']|'')*+')
    | (?P<quoted>"[^"]++")
    | (?P<name>[A-Za-z_][A-Za-z0-9_:]*+(?:\.[A-Za-z0-9_:]++)*+)
    | (?P<sign><>|<=|>=|[-=<>+*/(),])
    )""",
    re.VERBOSE,
)
"""The pattern of tokens. All repetitions are possessive: without that, a long text of digits that is no number would be
tried again from each of its digits."""
_SPACE = re.compile(r"\s*+")
MAX_NUMBER_CHARACTERS = 64
"""The most characters of a number: no float needs more, and conversion takes time that grows with its square."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token.

    Parameters
    ----------
    kind
        ``number``, ``text``, ``quoted`` (a name in double quotes), ``name``, ``sign``, or ``end`` behind the last one.
    text
        The characters of the filter that it is.
    start
        The position of the first of them, from 0.
    """

    kind: str
    text: str
    start: int

    @property
    def word(self) -> str:
        """The name in lower case, or the sign; empty for a literal or a quoted name."""
        return self.text.lower() if self.kind in ("name", "sign") else ""


def tokens_of(text: str) -> Iterator[Token]:
    """Yield the tokens of a text.

    Raises
    ------
    FilterError
        A character begins no token, or a number is too long.
    """
    at = _after_space(text, 0)
    while at < len(text):
        found = _TOKENS.match(text, at)
        if found is None or found.lastgroup is None:
            raise wrong_at(at, "this cannot be read")
        if found.lastgroup == "number" and len(found[0]) > MAX_NUMBER_CHARACTERS:
            raise wrong_at(at, f"a number of more than {MAX_NUMBER_CHARACTERS} characters")
        yield Token(found.lastgroup, found[0], at)
        at = _after_space(text, found.end())


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found is not None else at


def number_of(token: Token) -> int | float:
    """Return the value of a number."""
    try:
        return int(token.text)
    except ValueError:
        return float(token.text)


def wrong_at(at: int, what: str) -> FilterError:
    """Return the error for a position in the text, counted from 0."""
    return FilterError("", f"{what} (character {at + 1})")
