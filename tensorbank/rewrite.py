"""Pixel predicates in a syntax tree, turned into expressions that DuckDB can evaluate. Pure.

``pixels_any(S2L2A.B08, '> 3000')``, ``pixels_all(...)``, ``pixels_share(...)`` and comparisons of the latter with a constant
become calls of one function that gets the address and the statistics of the band. Class shares answer predicates of
categorical modalities outright.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tensorbank.errors import InvalidInputError, nearest
from tensorbank.pixels import OPERATORS, PixelPredicate, parse_comparison
from tensorbank.schema import Modality
from tensorbank.stats import QUANTILES

__all__ = ["FUNCTION", "has_pixel_predicates", "rewrite"]

FUNCTION = "tensorbank_pixels"
_QUANTIFIERS = {"pixels_any": "any", "pixels_all": "all", "pixels_share": "share"}
_COMPARISONS = {
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "!=",
}
_MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "=": "=", "!=": "!="}
_NUMBERS = ("count", "valid", "min", *(name for name, _ in QUANTILES), "max")

Parse = Callable[[str], Any]


def has_pixel_predicates(tree: Any) -> bool:
    """Whether a syntax tree calls one of the functions."""
    return any(True for _ in _calls(tree))


def rewrite(tree: Any, modalities: Sequence[Modality], parse: Parse) -> Any:
    """The tree with every pixel predicate replaced.

    Parameters
    ----------
    modalities
        Of the tables that the statement names.
    parse
        Turns the text of an expression into its node.

    Raises
    ------
    InvalidInputError
        A predicate names no band, or its comparison is none.
    """
    if isinstance(tree, list):
        return [rewrite(node, modalities, parse) for node in tree]
    if not isinstance(tree, dict):
        return tree
    found = _compared_share(tree) or (tree, None, 0.0)
    call, comparison, share = found
    quantifier = _quantifier(call)
    if quantifier is None:
        return {key: rewrite(value, modalities, parse) for key, value in tree.items()}
    text = _expression(call, quantifier, comparison, share, modalities)
    return {**parse(text), "alias": tree.get("alias", "")}


def _calls(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        if _quantifier(node) is not None:
            yield node
        for value in node.values():
            yield from _calls(value)
    elif isinstance(node, list):
        for value in node:
            yield from _calls(value)


def _quantifier(node: Any) -> str | None:
    name = node.get("function_name") if isinstance(node, dict) and node.get("class") == "FUNCTION" else None
    return _QUANTIFIERS.get(str(name).lower())


def _compared_share(node: Any) -> tuple[Any, str, float] | None:
    """``pixels_share(...) >= 0.2``, either way round: the call, its comparison and the constant."""
    comparison = _COMPARISONS.get(str(node.get("type")))
    if node.get("class") != "COMPARISON" or comparison is None:
        return None
    left, right = node["left"], node["right"]
    for call, other, op in ((left, right, comparison), (right, left, _MIRRORED[comparison])):
        if _quantifier(call) == "share" and (constant := _number(other)) is not None:
            return call, op, constant
    return None


def _number(node: Any) -> float | None:
    literal = node.get("literal") if node.get("class") == "CONSTANT" else None
    if not isinstance(literal, dict) or literal.get("kind") not in ("INTEGER", "NUMERIC", "FLOAT", "DOUBLE"):
        return None
    return float(literal["text"])


def _arguments(node: Any) -> list[Any]:
    return [a.get("expression", a) for a in node["arguments"]]


def _expression(
    call: Any, quantifier: str, comparison: str | None, share: float, modalities: Sequence[Modality]
) -> str:
    """SQL of one predicate."""
    arguments = _arguments(call)
    if len(arguments) != 2 or arguments[1].get("literal", {}).get("kind") != "STRING":
        raise InvalidInputError(
            f"{call['function_name']} takes a band and a comparison, such as {call['function_name']}(S2L2A.B08, '> 3000')",
            kind="sql",
        )
    op, constant = parse_comparison(arguments[1]["literal"]["text"])
    targets = [_target(node, modalities) for node in _operands(arguments[0])]
    handle, modality = targets[0][0], targets[0][1]
    if any(other[0] != handle for other in targets):
        raise InvalidInputError(
            "a normalised difference takes two bands of one modality of one table", kind="sql"
        )
    names = tuple(band for _, _, band, _ in targets)
    predicate = PixelPredicate(quantifier, names, op, constant, comparison, share)
    if modality.categorical:
        return _by_shares(handle, modality, predicate)
    lists = ", ".join(
        "[" + ", ".join(f"{path}.{_quoted(n)}::DOUBLE" for n in _NUMBERS) + "]" for *_, path in targets
    )
    text = predicate.to_json().replace("'", "''")
    value = f"{FUNCTION}({handle}.ref, [{lists}], '{text}')"
    return value if quantifier == "share" and comparison is None else f"({value} = 1)"


def _operands(node: Any) -> list[Any]:
    """The one band, or the two of ``nd(a, b)``."""
    if node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() == "nd":
        operands = _arguments(node)
        if len(operands) != 2:
            raise InvalidInputError("nd() takes two bands, such as nd(S2L2A.B08, S2L2A.B04)", kind="sql")
        return operands
    return [node]


def _target(node: Any, modalities: Sequence[Modality]) -> tuple[str, Modality, str, str]:
    """SQL of the handle, its modality, name of the band, SQL of the band's statistics."""
    if node.get("class") == "COLUMN_REF":
        path = [str(n) for n in node["column_names"]]
    elif node.get("literal", {}).get("kind") == "STRING":
        path = str(node["literal"]["text"]).split(".")
    else:
        path = []
    by_name = {m.name.lower(): m for m in modalities}
    if path and path[-1].lower() in by_name:
        modality = by_name[path[-1].lower()]
        if len(modality.bands) > 1:
            raise InvalidInputError(
                f"{modality.name} has {len(modality.bands)} bands; name one, such as {modality.name}.{modality.band_names[0]}",
                kind="unknown-band",
            )
        whole = _path(path)
        return whole, modality, modality.band_names[0], whole
    if len(path) > 1 and path[-2].lower() in by_name:
        modality = by_name[path[-2].lower()]
        band = modality.band_names[modality.band_index(path[-1])]
        whole = _path(path[:-1])
        return whole, modality, band, _path(path) if len(modality.bands) > 1 else whole
    got = ".".join(path) or "an expression"
    raise InvalidInputError(
        f"pixel predicates take a modality's band, got {got}.{nearest(path[-1] if path else '', [m.name for m in modalities])}",
        kind="unknown-band",
    )


def _by_shares(handle: str, modality: Modality, predicate: PixelPredicate) -> str:
    """A predicate of a categorical modality from its class shares, exact; a code without a name is read."""
    matches = OPERATORS[predicate.comparison]
    shares = [
        f"{handle}.share.{_quoted(n)}" for code, n in modality.classes if matches(code, predicate.constant)
    ]
    n = f"round(({' + '.join(shares) or '0'}) * {handle}.count)"
    if predicate.quantifier == "any":
        answer = f"{n} > 0"
    elif predicate.quantifier == "all":
        answer = f"{n} = {handle}.count"
    else:
        answer = f"{n} / {handle}.count"
        if predicate.share_comparison is not None:
            answer = f"{answer} {predicate.share_comparison} {predicate.share!r}"
    nothing = ", ".join(["NULL::DOUBLE"] * (len(_NUMBERS) - 2))
    numbers = f"[[{handle}.count::DOUBLE, {handle}.count::DOUBLE, {nothing}]]"
    value = f"{FUNCTION}({handle}.ref, {numbers}, '{predicate.to_json()}')"
    read = (
        value if predicate.quantifier == "share" and predicate.share_comparison is None else f"({value} = 1)"
    )
    return f"CASE WHEN {handle}.ref IS NULL THEN NULL WHEN {handle}.valid = {handle}.count THEN {answer} ELSE {read} END"


def _path(names: Sequence[str]) -> str:
    return ".".join(_quoted(n) for n in names)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
