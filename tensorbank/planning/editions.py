"""Editions: tables that a statement names at another version than the bank's own, by ``AT (VERSION => ...)`` or
``AT (TIMESTAMP => ...)``.

Each becomes a table of a name of its own, such as ``terramesh@3``, which no table of a bank can have. So two versions of one
table in a statement are two tables for all that follows: their columns, conditions, files and views.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tensorbank.catalog import Catalog
from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.layout import LEVELS
from tensorbank.retention import moment_of, version_as_of, version_tagged
from tensorbank.sql import (
    At,
    BaseTable,
    Cast,
    Constant,
    Node,
    expression_of,
    rebuilt,
    relation_of,
    with_name,
)
from tensorbank.statements import common_names, mention_of, mentions

__all__ = ["Edition", "Editions", "with_editions"]

MARK = "@"
_VERSION = "an AT takes (VERSION => 3), (VERSION => 'paper-v1') with a tag, or (TIMESTAMP => '2026-03-01')"


@dataclass(frozen=True, slots=True)
class Edition:
    """A table of the bank at a version; None for the newest, which is the one that a name alone means unless it is pinned."""

    table: str
    version: int | None


@dataclass(frozen=True)
class Editions:
    """The tables and versions that names in a statement mean.

    Parameters
    ----------
    versions
        Versions of tables that are pinned, by table.
    dated
        Editions by the names that :func:`with_editions` gave them.
    """

    versions: Mapping[str, int]
    dated: Mapping[str, Edition] = field(default_factory=dict)

    def of(self, name: str) -> Edition:
        """Return what a name means."""
        return self.dated.get(name) or Edition(name, self.versions.get(name))


def with_editions(
    tree: Node, catalog: Catalog, registered: Collection[str]
) -> tuple[Node, Mapping[str, Edition]]:
    """Return the tree with every table that has an ``AT`` under a name of its own, and what these names mean.

    The tree itself where there is none; the bank is asked nothing then.

    Parameters
    ----------
    registered
        Names of the user's own tables, which have no versions.

    Raises
    ------
    InvalidInputError
        An ``AT`` is of what is no table of the bank, or names no version.
    NotFoundError
        There is no such tag or version.
    """
    dated = [table for _, table in mentions(tree) if table.at is not None]
    if not dated:
        return tree, {}
    own = {name.lower() for name in (*common_names(tree), *registered)}
    names = {name for table in dated for name in (table.schema, table.name) if name}
    tables = dict.fromkeys(catalog.among(names))
    found: dict[tuple[str, str, str], Edition] = {}
    editions: dict[str, Edition] = {}

    def renamed(node: Node) -> Node:
        table = relation_of(node)
        if not isinstance(table, BaseTable) or table.at is None:
            return rebuilt(node, renamed)
        mention = mention_of(table, tables)
        if mention is None or table.catalog or (not table.schema and table.name.lower() in own):
            raise _no_edition(table, own, list(tables) or catalog.told_tables())
        name, level = mention
        asked = (name, table.at.unit, str(_value_of(table.at)))
        if asked not in found:
            found[asked] = Edition(name, _version(catalog, name, table.at))
        edition = found[asked]
        called = f"{name}{MARK}{edition.version}"
        editions[called] = edition
        return with_name(node, called, level, table.alias or table.name)

    return renamed(tree), editions


def _version(catalog: Catalog, table: str, at: At) -> int:
    """Return the version that an ``AT`` of a table means."""
    value = _value_of(at)
    if at.unit == "TIMESTAMP":
        if not isinstance(value, str):
            raise InvalidInputError(f"{_VERSION}; the time is a text", kind=ErrorKind.SQL)
        return version_as_of(catalog, table, moment_of(value))
    if isinstance(value, str) and not value.isdecimal():
        return version_tagged(catalog, table, value)
    if at.unit != "VERSION" or isinstance(value, bool | float) or not 0 <= int(value) < 2**63:
        raise InvalidInputError(f"{_VERSION}; got {value!r}", kind=ErrorKind.SQL)
    return int(value)


def _value_of(at: At) -> float | int | str | bool:
    """Return the constant of an ``AT``: what depends on the clock, or on rows, would be another version the next time."""
    found = expression_of(at.value)
    if isinstance(found, Cast) and found.type_name in ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "VARCHAR"):
        found = expression_of(found.value)
    if not isinstance(found, Constant):
        raise InvalidInputError(
            f"{_VERSION}: a constant, so that it means the same again", kind=ErrorKind.SQL
        )
    return found.value


def _no_edition(table: BaseTable, own: Collection[str], tables: Collection[str]) -> InvalidInputError:
    said = ".".join(part for part in (table.catalog, table.schema, table.name) if part)
    if not table.schema and table.name.lower() in own:
        return InvalidInputError(
            f"{said!r} is no table of the bank, so it has no versions; put the AT behind the bank's table itself",
            kind=ErrorKind.SQL,
        )
    spelled = {t.lower() for t in tables}
    hint = (
        nearest(table.name, LEVELS) if table.schema.lower() in spelled else nearest(table.name, tables)
    ) or " No table of this bank is known."
    return InvalidInputError(f"there is no table {said!r}.{hint}", kind=ErrorKind.UNKNOWN_TABLE)
