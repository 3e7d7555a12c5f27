"""Predicates of TensorBank's own in a syntax tree, turned into SQL that DuckDB can evaluate and skip blocks by. Pure.

``pixels_any(S2L2A.B08, '> 3000')``, ``pixels_all(...)``, ``pixels_share(...)`` and comparisons of the latter with a constant
become what the index knows of them, and a call of one function for the rows that it leaves open. A plain comparison that holds
wherever the predicate does goes in front, and lets files, shards and row groups be skipped; so it is with polygons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import shapely

from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.schema import TableSchema
from tensorbank.sql import CLASS_FUNCTION, PIXELS_FUNCTION, POLYGON_FUNCTION
from tensorbank.statements.names import Found, Scope, common_tables, scope_of
from tensorbank.statements.pixel_bounds import bounds, decision, necessary
from tensorbank.statements.pixel_predicates import PixelPredicate, parse_comparison

__all__ = ["functions_of", "n_predicates", "rewrite"]

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
_WINDOW = ("time_index", "y0", "y1", "x0", "x1")

Parse = Callable[[str], Any]


def functions_of(tree: Any) -> set[str]:
    """Return the lower-case names of the functions to be replaced that a syntax tree calls."""
    if isinstance(tree, list):
        return set().union(*map(functions_of, tree))
    if not isinstance(tree, dict):
        return set()
    mine = {str(tree.get("function_name")).lower()} if tree.get("class") == "FUNCTION" else set()
    return (mine & {*_QUANTIFIERS, POLYGON_FUNCTION, CLASS_FUNCTION}).union(*map(functions_of, tree.values()))


def n_predicates(tree: Any) -> int:
    """Count the pixel predicates in a syntax tree."""
    if isinstance(tree, list):
        return sum(n_predicates(node) for node in tree)
    if not isinstance(tree, dict):
        return 0
    return (_quantifier(tree) is not None) + sum(n_predicates(v) for v in tree.values())


def rewrite(tree: Any, tables: Mapping[str, TableSchema], parse: Parse) -> Any:
    """The tree with every such predicate replaced.

    Parameters
    ----------
    tables
        Tables of the bank that the statement names.
    parse
        Turns the text of an expression into its node.

    Raises
    ------
    InvalidInputError, NotFoundError
        A predicate names no band, or its comparison is none.
    """
    return _Rewriting(tables, parse).node(tree, (), {})


class _Rewriting:
    def __init__(self, tables: Mapping[str, TableSchema], parse: Parse) -> None:
        self.tables = tables
        self.parse = parse

    def node(self, tree: Any, scopes: tuple[Scope, ...], common: Mapping[str, Any]) -> Any:
        """A node with what is below it; ``scopes`` are those of the SELECTs around it, the innermost first."""
        if isinstance(tree, list):
            return [self.node(child, scopes, common) for child in tree]
        if not isinstance(tree, dict):
            return tree
        if "cte_map" in tree:
            common = common_tables(tree, self.tables, common)
        if tree.get("type") == "SELECT_NODE":
            scopes = (scope_of(tree, self.tables, common), *scopes)
            tree = {**tree, "select_list": [_with_name(column) for column in tree["select_list"]]}
        text = self._pixels(tree, scopes) or self._dominant_class(tree, scopes) or _polygon(tree, scopes)
        if text is None:
            return {key: self.node(value, scopes, common) for key, value in tree.items()}
        return {**self.parse(text), "alias": tree.get("alias", "")}

    def _pixels(self, tree: Any, scopes: Sequence[Scope]) -> str | None:
        """Return SQL of a pixel predicate, None of anything else."""
        call, comparison, share = _compared_share(tree) or (tree, None, 0.0)
        quantifier = _quantifier(call)
        if quantifier is None:
            return None
        band, condition, from_index_only = _arguments_of(call)
        op, constant = parse_comparison(condition)
        targets = [self._target(node, scopes) for node in _operands(band)]
        found = targets[0][0]
        if any(other.path != found.path for other, *_ in targets):
            raise InvalidInputError(
                "a normalised difference takes two bands of one modality of one table", kind=ErrorKind.SQL
            )
        origin, handle = found.origin, _path(found.path)
        names = tuple(name for _, name, _ in targets)
        predicate = PixelPredicate(quantifier, names, op, constant, comparison, share, from_index_only)
        paths = [path for *_, path in targets]
        what = (predicate, handle, paths, origin.modality, origin.level)
        window = _WINDOW if origin.level == "tiles" else ()
        fields = [f'"{n}" := {handle}.ref."{n}"' for n in ("key", "offset", "length", "block_bytes", *window)]
        fields += [f'"{n}" := NULL::SMALLINT' for n in _WINDOW if not window]
        text = predicate.to_json().replace("'", "''")
        read = f"{PIXELS_FUNCTION}(struct_pack({', '.join(fields)}), '{text}')"
        answer = decision(predicate, bounds(*what), read if _is_value(predicate) else f"({read} = 1)")
        known = f"CASE WHEN {handle}.ref.key IS NULL THEN NULL ELSE {answer} END"
        first = necessary(*what)
        return f"({first} AND {known})" if first else known

    def _dominant_class(self, tree: Any, scopes: Sequence[Scope]) -> str | None:
        """Return SQL of ``dominant_class(LULC)``:
        the name of the class with the largest share, the first of equals."""
        if tree.get("class") != "FUNCTION" or str(tree.get("function_name")).lower() != CLASS_FUNCTION:
            return None
        arguments = [a.get("expression", a) for a in tree["arguments"]]
        path = [str(n) for n in arguments[0].get("column_names", [])] if len(arguments) == 1 else []
        found = next((f for scope in scopes if (f := scope.handle(path))), None) if path else None
        if found is None or found.rest or not found.origin.modality.categorical:
            names = sorted({m.name for schema in self.tables.values() for m in schema if m.categorical})
            got = ".".join(path) or "something else"
            raise InvalidInputError(
                f"{CLASS_FUNCTION} takes a categorical modality, got {got}.{nearest(path[-1] if path else '', names)}",
                kind=ErrorKind.SQL,
            )
        names = [n for _, n in found.origin.modality.classes]
        shares = ", ".join(f"{_path(found.path)}.share.{_quoted(n)}" for n in names)
        labels = ", ".join("'" + n.replace("'", "''") + "'" for n in names)
        return f"list_value({labels})[list_position(list_value({shares}), greatest({shares}))]"

    def _target(self, node: Any, scopes: Sequence[Scope]) -> tuple[Found, str, str]:
        """Handle, name of the band, SQL of its statistics."""
        if node.get("class") == "COLUMN_REF":
            path = [str(n) for n in node["column_names"]]
        elif node.get("literal", {}).get("kind") == "STRING":
            path = str(node["literal"]["text"]).split(".")
        else:
            path = []
        found = next((f for scope in scopes if (f := scope.handle(path))), None) if path else None
        if found is None:
            raise self._no_band(path)
        modality = found.origin.modality
        if found.origin.level == "shards":
            raise InvalidInputError(
                "pixel predicates are for samples and tiles, not for shards", kind=ErrorKind.SQL
            )
        if not found.rest:
            if len(modality.bands) > 1:
                raise InvalidInputError(
                    f"{modality.name} has {len(modality.bands)} bands; "
                    f"name one, such as {modality.name}.{modality.band_names[0]}",
                    kind=ErrorKind.UNKNOWN_BAND,
                )
            return found, modality.band_names[0], _path(found.path)
        band = modality.band_names[modality.band_index(found.rest[0])]
        if len(found.rest) > 1:
            raise self._no_band(path)
        return found, band, _path([*found.path, band] if len(modality.bands) > 1 else found.path)

    def _no_band(self, path: Sequence[str]) -> InvalidInputError:
        got = ".".join(path) or "an expression"
        names = sorted({m.name for schema in self.tables.values() for m in schema})
        return InvalidInputError(
            f"pixel predicates take a modality's band, got {got}.{nearest(path[-1] if path else '', names)}",
            kind=ErrorKind.UNKNOWN_BAND,
        )


def _with_name(column: Any) -> Any:
    """An item of a SELECT list; one without an alias is called as its function is."""
    call = (_compared_share(column) or (column,))[0]
    name = str(call.get("function_name")).lower()
    if name not in (*_QUANTIFIERS, CLASS_FUNCTION) or column.get("alias"):
        return column
    return {**column, "alias": name}


def _quantifier(node: Any) -> str | None:
    name = node.get("function_name") if isinstance(node, dict) and node.get("class") == "FUNCTION" else None
    return _QUANTIFIERS.get(str(name).lower())


def _compared_share(node: Any) -> tuple[Any, str, float] | None:
    """Find ``pixels_share(...) >= 0.2``, either way round: the call, its comparison and the constant."""
    comparison = _COMPARISONS.get(str(node.get("type")))
    if node.get("class") != "COMPARISON" or comparison is None:
        return None
    left, right = node["left"], node["right"]
    for call, other, op in ((left, right, comparison), (right, left, _MIRRORED[comparison])):
        if _quantifier(call) == "share" and (constant := _number(other)) is not None:
            return call, op, constant
    return None


def _is_value(predicate: PixelPredicate) -> bool:
    return predicate.quantifier == "share" and predicate.share_comparison is None


def _number(node: Any) -> float | None:
    literal = node.get("literal") if node.get("class") == "CONSTANT" else None
    if not isinstance(literal, dict) or literal.get("kind") not in ("INTEGER", "NUMERIC", "FLOAT", "DOUBLE"):
        return None
    return float(literal["text"])


def _text(node: Any) -> str | None:
    literal = node.get("literal") if node.get("class") == "CONSTANT" else None
    return str(literal["text"]) if isinstance(literal, dict) and literal.get("kind") == "STRING" else None


def _arguments_of(call: Any) -> tuple[Any, str, bool]:
    """Return the band, the comparison, and whether ``refine := 'index'`` asks to
    leave open what only pixels can tell."""
    name = str(call["function_name"]).lower()
    plain = [a.get("expression", a) for a in call["arguments"] if not a.get("name")]
    named = {str(a["name"]).lower(): a.get("expression", a) for a in call["arguments"] if a.get("name")}
    condition = _text(plain[1]) if len(plain) == 2 else None
    if condition is None or set(named) - {"refine"}:
        raise InvalidInputError(
            f"{name} takes a band and a comparison, such as {name}(S2L2A.B08, '> 3000')", kind=ErrorKind.SQL
        )
    refine = _text(named["refine"]) if named else "pixels"
    if refine not in ("pixels", "index"):
        raise InvalidInputError(
            f"{name} takes refine := 'pixels', which reads where the index cannot decide, or refine := 'index'",
            kind=ErrorKind.SQL,
        )
    return plain[0], condition, refine == "index"


def _operands(node: Any) -> list[Any]:
    """The one band, or the two of ``nd(a, b)``."""
    if node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() == "nd":
        operands = [a.get("expression", a) for a in node["arguments"]]
        if len(operands) != 2:
            raise InvalidInputError(
                "nd() takes two bands, such as nd(S2L2A.B08, S2L2A.B04)", kind=ErrorKind.SQL
            )
        return operands
    return [node]


def _polygon(tree: Any, scopes: Sequence[Scope]) -> str | None:
    """Return SQL of ``intersects_polygon`` of a table's footprints,
    behind comparisons of their boxes with the polygon's."""
    if tree.get("class") != "FUNCTION" or str(tree.get("function_name")).lower() != POLYGON_FUNCTION:
        return None
    arguments = [a.get("expression", a) for a in tree["arguments"]]
    if len(arguments) != 2 or arguments[0].get("class") != "COLUMN_REF":
        return None
    path, text = [str(n) for n in arguments[0]["column_names"]], _text(arguments[1])
    if text is None or path[-1].lower() != "footprint" or not (scopes and scopes[0].owns(path)):
        return None
    try:
        west, south, east, north = shapely.bounds(shapely.from_geojson(text)).tolist()
    except (shapely.errors.GEOSException, json.JSONDecodeError):
        return None  # the function itself says what is wrong
    if not west <= east:
        return None
    box = _path([*path[:-1], "bbox"])
    near = f"({box}.west <= {east!r} AND {box}.east >= {west!r}) OR ({box}.west >= 0 AND {box}.east <= 0)"
    call = f"{POLYGON_FUNCTION}({_path(path)}, '{text.replace(chr(39), chr(39) * 2)}')"
    return f"({box}.south <= {north!r} AND {box}.north >= {south!r} AND ({near}) AND {call})"


def _path(names: Sequence[str]) -> str:
    return ".".join(_quoted(n) for n in names)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
