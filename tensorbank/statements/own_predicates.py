"""Predicates of TensorBank's own in a syntax tree, turned into SQL that DuckDB can evaluate and skip blocks by. Pure.

``pixels_any(S2L2A.B08, '> 3000')``, ``pixels_all(...)``, ``pixels_share(...)`` and comparisons of the latter with a constant
become what the index knows of them, and a call of one function for the rows that it leaves open. A plain comparison that holds
wherever the predicate does goes in front, and lets files, shards and row groups be skipped; so it is with polygons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.schema import TableSchema
from tensorbank.sql import (
    CLASS_FUNCTION,
    PIXELS_FUNCTION,
    POLYGON_FUNCTION,
    Call,
    Column,
    Comparison,
    Constant,
    Node,
    alias_of,
    expression_of,
    literal,
    named,
    path,
    quoted,
    rebuilt,
    select_of,
    text_of,
    walk,
    with_columns_of,
)
from tensorbank.statements.names import Found, Visible
from tensorbank.statements.pixel_bounds import bounds, decision, necessary
from tensorbank.statements.pixel_predicates import PixelPredicate, parse_comparison

__all__ = ["functions_of", "n_predicates", "rewrite"]

_QUANTIFIERS = {"pixels_any": "any", "pixels_all": "all", "pixels_share": "share"}
_WINDOW = ("time_index", "y0", "y1", "x0", "x1")

Parse = Callable[[str], Node]


def functions_of(tree: Node) -> set[str]:
    """Return the lower-case names of the functions to be replaced that a syntax tree calls."""
    mine = {*_QUANTIFIERS, POLYGON_FUNCTION, CLASS_FUNCTION}
    return {call.name for node in walk(tree) if (call := _call(node)) is not None and call.name in mine}


def n_predicates(tree: Node) -> int:
    """Count the pixel predicates in a syntax tree."""
    return sum(call.name in _QUANTIFIERS for node in walk(tree) if (call := _call(node)) is not None)


def rewrite(tree: Node, tables: Mapping[str, TableSchema], parse: Parse) -> Node:
    """Return the tree with every such predicate replaced.

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
    return _Rewriting(tables, parse).node(tree, Visible(tables))


class _Rewriting:
    def __init__(self, tables: Mapping[str, TableSchema], parse: Parse) -> None:
        self.tables = tables
        self.parse = parse

    def node(self, tree: Node, around: Visible) -> Node:
        """Return a node with what is below it, given what is visible to the node around it."""
        around = around.inside(tree)
        if (select := select_of(tree)) is not None:
            tree = with_columns_of(tree, [_with_name(column) for column in select.columns])
        text = self._pixels(tree, around) or self._dominant_class(tree, around) or _polygon(tree, around)
        if text is None:
            return rebuilt(tree, lambda child: self.node(child, around))
        return named(self.parse(text), alias_of(tree))

    def _pixels(self, tree: Node, around: Visible) -> str | None:
        """Return SQL of a pixel predicate, None of anything else."""
        call, comparison, share = _compared_share(tree) or (_call(tree), None, 0.0)
        if call is None or (quantifier := _QUANTIFIERS.get(call.name)) is None:
            return None
        band, condition, from_index_only = _arguments_of(call)
        op, constant = parse_comparison(condition)
        targets = [self._target(node, around) for node in _operands(band)]
        found = targets[0][0]
        if any(other.path != found.path for other, *_ in targets):
            raise InvalidInputError(
                "a normalised difference takes two bands of one modality of one table", kind=ErrorKind.SQL
            )
        origin, handle = found.origin, path(found.path)
        names = tuple(name for _, name, _ in targets)
        predicate = PixelPredicate(
            quantifier, names, op, constant, comparison, share, from_index_only, origin.table
        )
        what = (predicate, handle, [sql for *_, sql in targets], origin.modality, origin.level)
        window = _WINDOW if origin.level == "tiles" else ()
        fields = [f'"{n}" := {handle}.ref."{n}"' for n in ("key", "offset", "length", "block_bytes", *window)]
        fields += [f'"{n}" := NULL::SMALLINT' for n in _WINDOW if not window]
        read = f"{PIXELS_FUNCTION}(struct_pack({', '.join(fields)}), {literal(predicate.to_json())})"
        answer = decision(predicate, bounds(*what), read if _is_value(predicate) else f"({read} = 1)")
        known = f"CASE WHEN {handle}.ref.key IS NULL THEN NULL ELSE {answer} END"
        first = necessary(*what)
        return f"({first} AND {known})" if first else known

    def _dominant_class(self, tree: Node, around: Visible) -> str | None:
        """Return SQL of ``dominant_class(LULC)``: the name of the class with the largest share, the first of equals."""
        call = _call(tree)
        if call is None or call.name != CLASS_FUNCTION:
            return None
        column = expression_of(call.arguments[0]) if len(call.arguments) == 1 else None
        names = column.names if isinstance(column, Column) else ()
        found = around.handle(names)
        if found is None or found.rest or not found.origin.modality.categorical:
            known = sorted({m.name for schema in self.tables.values() for m in schema if m.categorical})
            got = ".".join(names) or "something else"
            raise InvalidInputError(
                f"{CLASS_FUNCTION} takes a categorical modality, got {got}.{nearest(names[-1] if names else '', known)}",
                kind=ErrorKind.SQL,
            )
        classes = [n for _, n in found.origin.modality.classes]
        shares = ", ".join(f"{path(found.path)}.share.{quoted(n)}" for n in classes)
        labels = ", ".join(map(literal, classes))
        return f"list_value({labels})[list_position(list_value({shares}), greatest({shares}))]"

    def _target(self, node: Node, around: Visible) -> tuple[Found, str, str]:
        """Return the handle, the name of the band, and SQL of its statistics."""
        column = expression_of(node)
        if isinstance(column, Column):
            names: Sequence[str] = column.names
        else:
            names = (text_of(node) or "").split(".")
        found = around.handle(names)
        if found is None:
            raise self._no_band(names)
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
            return found, modality.band_names[0], path(found.path)
        band = modality.band_names[modality.band_index(found.rest[0])]
        if len(found.rest) > 1:
            raise self._no_band(names)
        return found, band, path([*found.path, band] if len(modality.bands) > 1 else found.path)

    def _no_band(self, names: Sequence[str]) -> InvalidInputError:
        got = ".".join(names) or "an expression"
        known = sorted({m.name for schema in self.tables.values() for m in schema})
        return InvalidInputError(
            f"pixel predicates take a modality's band, got {got}.{nearest(names[-1], known)}",
            kind=ErrorKind.UNKNOWN_BAND,
        )


def _call(node: Node) -> Call | None:
    """Return the call of a function that a node is, not over a window."""
    found = expression_of(node)
    return found if type(found) is Call else None


def _with_name(column: Node) -> Node:
    """Return an item of a SELECT list; one without an alias is called as its function is."""
    compared = _compared_share(column)
    call = compared[0] if compared is not None else _call(column)
    if call is None or call.name not in (*_QUANTIFIERS, CLASS_FUNCTION) or alias_of(column):
        return column
    return named(column, call.name)


def _compared_share(node: Node) -> tuple[Call, str, float] | None:
    """Find ``pixels_share(...) >= 0.2``, either way round: the call, its comparison and the constant."""
    found = expression_of(node)
    if not isinstance(found, Comparison):
        return None
    for either in (found, found.mirrored()):
        call, constant = _call(either.left), _number(either.right)
        if call is not None and _QUANTIFIERS.get(call.name) == "share" and constant is not None:
            return call, either.op, constant
    return None


def _is_value(predicate: PixelPredicate) -> bool:
    return predicate.quantifier == "share" and predicate.share_comparison is None


def _number(node: Node) -> float | None:
    found = expression_of(node)
    value = found.value if isinstance(found, Constant) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _arguments_of(call: Call) -> tuple[Node, str, bool]:
    """Return the band, the comparison, and whether ``refine := 'index'`` asks to leave open what only pixels can tell."""
    condition = text_of(call.arguments[1]) if len(call.arguments) == 2 else None
    if condition is None or set(call.by_name) - {"refine"}:
        raise InvalidInputError(
            f"{call.name} takes a band and a comparison, such as {call.name}(S2L2A.B08, '> 3000')",
            kind=ErrorKind.SQL,
        )
    refine = text_of(call.by_name["refine"]) if call.by_name else "pixels"
    if refine not in ("pixels", "index"):
        raise InvalidInputError(
            f"{call.name} takes refine := 'pixels', which reads what the index leaves open, or 'index', which reads nothing",
            kind=ErrorKind.SQL,
        )
    return call.arguments[0], condition, refine == "index"


def _operands(node: Node) -> Sequence[Node]:
    """Return the one band, or the two of ``nd(a, b)``."""
    call = _call(node)
    if call is None or call.name != "nd":
        return [node]
    if len(call.arguments) != 2:
        raise InvalidInputError("nd() takes two bands, such as nd(S2L2A.B08, S2L2A.B04)", kind=ErrorKind.SQL)
    return call.arguments


def _polygon(tree: Node, around: Visible) -> str | None:
    """Return SQL of ``intersects_polygon`` of a table's footprints, behind comparisons of their boxes with the polygon's."""
    call = _call(tree)
    if call is None or call.name != POLYGON_FUNCTION or len(call.arguments) != 2:
        return None
    column, text = expression_of(call.arguments[0]), text_of(call.arguments[1])
    if not isinstance(column, Column) or text is None or column.names[-1].lower() != "footprint":
        return None
    if not (around.scopes and around.scopes[0].owns(column.names)):
        return None
    import shapely  # which takes longer to import than most statements take, and few have a polygon

    try:
        west, south, east, north = shapely.bounds(shapely.from_geojson(text)).tolist()
    except (shapely.errors.GEOSException, json.JSONDecodeError):
        return None  # the function itself says what is wrong
    if not west <= east:
        return None
    box = path([*column.names[:-1], "bbox"])
    near = f"({box}.west <= {east!r} AND {box}.east >= {west!r}) OR ({box}.west >= 0 AND {box}.east <= 0)"
    called = f"{POLYGON_FUNCTION}({path(column.names)}, {literal(text)})"
    return f"({box}.south <= {north!r} AND {box}.north >= {south!r} AND ({near}) AND {called})"
