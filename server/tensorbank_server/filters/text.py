"""A parser of CQL2 text into CQL2-JSON, such as ``S2L2A.B08.mean > 1500 AND season IN ('summer')``.

A parser of bounded depth over a bounded text. Names may have dots, or be quoted; keywords and functions have no case.
"""

# The parser is our own: see `tensorbank_server.filters.cql2`.

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import shapely

from tensorbank_server.filters.filter_bounds import FilterBounds, measure
from tensorbank_server.filters.lexer import Token, number_of, tokens_of, wrong_at
from tensorbank_server.filters.literals import FilterError, Json

__all__ = ["parse_text"]

T = TypeVar("T")

_SPATIAL = ("s_intersects", "s_disjoint")
_TEMPORAL = ("t_after", "t_before", "t_during", "t_intersects", "t_disjoint", "t_equals")
_PIXELS = ("pixels_any", "pixels_all")
_GEOMETRIES = (
    "point",
    "multipoint",
    "linestring",
    "multilinestring",
    "polygon",
    "multipolygon",
    "geometrycollection",
)
_WORDS = frozenset({"and", "or", "not", "between", "in", "like", "is", "null", "true", "false"})


def parse_text(text: str, bounds: FilterBounds | None = None) -> Json:
    """Parse CQL2 text into the CQL2-JSON that it stands for.

    Raises
    ------
    FilterError
        It is no CQL2 text, too long or nested too deep; the message has the position.
    """
    bounds = bounds or FilterBounds()
    if len(text.encode(errors="replace")) > bounds.max_bytes:
        raise FilterError("", f"longer than {bounds.max_bytes:,} bytes")
    parser = _Parser(text, list(tokens_of(text)), bounds.max_depth)
    tree = parser.disjunction()
    parser.expect_end()
    measure(tree, bounds)  # a sum nests as deep as it has terms
    return tree


def _ends_of_parentheses(tokens: list[Token]) -> dict[int, int]:
    """Return the number of the token that closes each parenthesis, by that of the one that opens it."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for i, token in enumerate(tokens):
        if token.word == "(":
            opened.append(i)
        elif token.word == ")" and opened:
            found[opened.pop()] = i
    return found


class _Parser:
    """A parser by recursive descent, in which each level of nesting counts."""

    def __init__(self, text: str, tokens: list[Token], max_depth: int) -> None:
        self.text = text
        self.tokens = tokens
        self.ends = _ends_of_parentheses(tokens)
        self.at = 0
        self.depth = 0
        self.max_depth = max_depth

    def disjunction(self) -> Json:
        self.depth += 1
        if self.depth > self.max_depth:
            raise wrong_at(self._here(), f"nested deeper than {self.max_depth}")
        found = self._chain("or", self._conjunction)
        self.depth -= 1
        return found

    def _conjunction(self) -> Json:
        return self._chain("and", self._negation)

    def _chain(self, word: str, part: Callable[[], Json]) -> Json:
        args = [part()]
        while self._take(word):
            args.append(part())
        return args[0] if len(args) == 1 else {"op": word, "args": args}

    def _negation(self) -> Json:
        n = 0
        while self._take("not"):
            n += 1
        if n > self.max_depth:
            raise wrong_at(self._here(), f"nested deeper than {self.max_depth}")
        found = self._predicate()
        return {"op": "not", "args": [found]} if n % 2 else found

    def _predicate(self) -> Json:
        word = self._peek().word
        if word in ("true", "false"):
            self.at += 1
            return word == "true"
        if word in (*_SPATIAL, *_TEMPORAL, *_PIXELS) and self._is_call():
            return self._call()
        if word == "(" and self._parenthesis_is_boolean():
            return self._in_parentheses(self.disjunction)
        return self._compared(self._sum())

    def _compared(self, left: Json) -> Json:
        negated = self._take("not")
        token = self._next("a comparison is needed here")
        word = token.word
        if word in ("=", "<>", "<", "<=", ">", ">=") and not negated:
            return {"op": word, "args": [left, self._sum()]}
        if word == "is" and not negated:
            negated = self._take("not")
            self._expect("null")
            found: Json = {"op": "isNull", "args": [left]}
        elif word == "between":
            low = self._sum()
            self._expect("and")
            found = {"op": "between", "args": [left, low, self._sum()]}
        elif word == "in":
            found = {"op": "in", "args": [left, self._in_parentheses(lambda: self._list(self._sum))]}
        elif word == "like":
            found = {"op": "like", "args": [left, self._literal_text()]}
        else:
            raise wrong_at(token.start, "a comparison is needed here")
        return {"op": "not", "args": [found]} if negated else found

    def _sum(self) -> Json:
        return self._arithmetic(("+", "-"), lambda: self._arithmetic(("*", "/"), self._value))

    def _arithmetic(self, signs: tuple[str, ...], part: Callable[[], Json]) -> Json:
        left = part()
        while True:
            token = self._peek()
            if token.word in signs:
                self.at += 1
                left = {"op": token.word, "args": [left, part()]}
            elif token.kind == "number" and token.text[0] in signs:
                # `a -1`: the sign was read as the number's
                self.tokens[self.at] = Token("number", token.text[1:], token.start + 1)
                left = {"op": token.text[0], "args": [left, part()]}
            else:
                return left

    def _value(self) -> Json:
        token = self._next("a value is needed here")
        if token.kind == "number":
            return number_of(token)
        if token.kind == "text":
            return token.text[1:-1].replace("''", "'")
        if token.kind == "quoted":
            return {"property": token.text[1:-1]}
        if token.word == "(":
            self.at -= 1
            return self._deeper(lambda: self._in_parentheses(self._sum))
        if token.word == "-":
            return {"op": "-", "args": [0, self._deeper(self._value)]}
        if token.kind == "name" and token.word not in _WORDS:
            self.at -= 1
            return self._call() if self._is_call() else self._property()
        raise wrong_at(token.start, "a value is needed here")

    def _property(self) -> Json:
        token = self._next("a name is needed here")
        if token.kind == "quoted":
            return {"property": token.text[1:-1]}
        if token.kind != "name" or token.word in _WORDS:
            raise wrong_at(token.start, "a name is needed here")
        return {"property": token.text}

    def _call(self) -> Json:
        token = self._next("a function is needed here")
        word = token.word
        if word in _GEOMETRIES:
            return self._geometry(token)
        if word == "bbox":
            return {"bbox": self._in_parentheses(lambda: self._list(self._plain_number))}
        if word in ("date", "timestamp"):
            return {word: self._in_parentheses(self._literal_text)}
        if word == "interval":
            return {"interval": self._in_parentheses(lambda: self._list(self._literal_text))}
        if word in (*_SPATIAL, *_TEMPORAL, *_PIXELS, "pixels_share", "nd"):
            args = self._deeper(lambda: self._in_parentheses(lambda: self._list(self._sum)))
            return {"op": word, "args": args}
        raise wrong_at(token.start, f"there is no function {token.text[:60]!r}")

    def _geometry(self, token: Token) -> Json:
        """Parse the WKT from a token to its closing parenthesis."""
        last = self.ends.get(self.at)
        if last is None:
            raise wrong_at(token.start, "this geometry is not closed")
        at, end = last + 1, self.tokens[last].start + 1
        try:
            shape = shapely.from_wkt(self.text[token.start : end])
        except shapely.errors.GEOSException:
            raise wrong_at(token.start, "this is not a geometry in WKT") from None
        self.at = at
        found: Json = json.loads(shapely.to_geojson(shape))
        return found

    def _list(self, part: Callable[[], Json]) -> list[Json]:
        found = [part()]
        while self._take(","):
            found.append(part())
        return found

    def _in_parentheses(self, part: Callable[[], T]) -> T:
        self._expect("(")
        found = part()
        self._expect(")")
        return found

    def _deeper(self, part: Callable[[], T]) -> T:
        self.depth += 1
        if self.depth > self.max_depth:
            raise wrong_at(self._here(), f"nested deeper than {self.max_depth}")
        found = part()
        self.depth -= 1
        return found

    def _plain_number(self) -> Json:
        token = self._next("a number is needed here")
        if token.kind != "number":
            raise wrong_at(token.start, "a number is needed here")
        return number_of(token)

    def _literal_text(self) -> str:
        token = self._next("a text is needed here")
        if token.kind != "text":
            raise wrong_at(token.start, "a text in single quotes is needed here")
        return token.text[1:-1].replace("''", "'")

    def _is_call(self) -> bool:
        following = self.tokens[self.at + 1 : self.at + 2]
        return bool(following) and following[0].word == "("

    def _parenthesis_is_boolean(self) -> bool:
        """Tell whether the parenthesis here holds a condition rather than a sum.

        Behind a condition comes a junction, a closing parenthesis or the end; behind a sum comes a comparison or arithmetic.
        """
        end = self.ends.get(self.at)
        if end is None:
            raise wrong_at(self._here(), "a closing parenthesis is missing")
        following = self.tokens[end + 1].word if end + 1 < len(self.tokens) else ""
        return following in ("", "and", "or", ")")

    def _peek(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else Token("end", "", len(self.text))

    def _here(self) -> int:
        return self._peek().start

    def _next(self, otherwise: str) -> Token:
        token = self._peek()
        if token.kind == "end":
            raise wrong_at(token.start, otherwise)
        self.at += 1
        return token

    def _take(self, word: str) -> bool:
        if self._peek().word != word:
            return False
        self.at += 1
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise wrong_at(self._here(), f"{word!r} is needed here")

    def expect_end(self) -> None:
        if self._peek().kind != "end":
            raise wrong_at(self._here(), "the filter should end here")
