"""One table at one version as a statement sees it: the index files that may hold rows of its answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tensorbank.catalog import COLUMNS_FOLDER, DELETED, SORTED_FOLDER, Catalog, TableVersion
from tensorbank.delta import VersionState
from tensorbank.index_files import LevelFiles, LogCopy
from tensorbank.layout import LEVELS, Level
from tensorbank.planning.added_columns import needed_columns
from tensorbank.planning.editions import Edition, Editions
from tensorbank.planning.logs_ahead import LogsAhead
from tensorbank.pruning import ANYTHING, Condition
from tensorbank.retention import telling_expired
from tensorbank.schema import TableSchema
from tensorbank.sorted_copies import UsableCopy, copy_among, mentioned, usable_copy, with_fewest_rows
from tensorbank.sql import BaseTable, Node, strings_in
from tensorbank.statements import common_names, mention_of, mentions

__all__ = ["PinnedTable", "pin", "pin_mentioned"]

N_THREADS = 16


@dataclass(frozen=True)
class PinnedTable:
    """One table of a statement, pinned to a snapshot, with the files that the statement needs of it.

    Parameters
    ----------
    name
        Name in the statement: the table's own, or that of an edition.
    version
        The version of the table, which says what belongs to it.
    levels
        Every file of the levels that the statement needs.
    deleted
        Files of the keys of samples whose rows do not count.
    added
        The columns that were added later and that the statement may mean, by name.
    copies
        Copies of samples sorted by columns that the statement may ask about.
    conditions
        Conditions that rows of a level must satisfy at least.
    kept
        The files left by pruning; all of them before that.
    shards_considered, shards_kept
        Roll-ups looked at and not ruled out; None where no roll-up was asked.
    """

    name: str
    version: TableVersion
    levels: Mapping[Level, LevelFiles]
    deleted: LevelFiles | None = None
    added: Mapping[str, VersionState] = field(default_factory=dict)
    copies: tuple[UsableCopy, ...] = ()
    conditions: Mapping[Level, Condition] = field(default_factory=dict)
    kept: Mapping[Level, LevelFiles] = field(default_factory=dict)
    shards_considered: int | None = None
    shards_kept: int | None = None

    @property
    def table(self) -> str:
        """The name of the table in the bank."""
        return self.version.table

    @property
    def schema(self) -> TableSchema:
        return self.version.schema

    @property
    def snapshot(self) -> tuple[str, int]:
        return self.version.identity

    @property
    def pins(self) -> dict[str, int]:
        """The versions of the Delta tables that the snapshot is made of; of format 1 those that were the newest."""
        if self.version.pins is not None:
            return dict(self.version.pins)
        return {level: files.version for level, files in self.levels.items() if level != "samples"}

    @property
    def mentioned(self) -> tuple[Level, ...]:
        """The levels that the statement reads row by row."""
        return tuple(level for level in self.conditions if level != "shards")

    @property
    def sorted_by(self) -> str | None:
        """The column by which the copy is sorted that is read in the place of samples, None if they are read as they are."""
        found = (
            copy_among(self.kept["samples"], self.copies)
            if self.copies and "samples" in self.mentioned
            else None
        )
        return None if found is None else found.column

    def by_files(self, conditions: Mapping[Level, Condition], *, in_order: bool = False) -> PinnedTable:
        """Return the table without the files that the log's statistics rule out,
        and of a table of format 1 without those of parts that the snapshot does not show.

        Files of samples give way to those of a sorted copy where that has fewer rows to look at, unless the rows must come
        ``in_order``.
        """
        parts = self.levels["samples"].parts if self.version.pins is None else None
        kept: dict[Level, LevelFiles] = {}
        for level, files in self.levels.items():
            visible = files if parts is None else files.of_parts(parts)
            kept[level] = visible if level == "shards" else visible.matching(conditions.get(level, ANYTHING))
        if self.copies and not in_order and "samples" in conditions:
            kept["samples"] = with_fewest_rows(kept["samples"], conditions["samples"], self.copies)
        return replace(self, conditions=dict(conditions), kept=kept)

    def by_shards(self, parts: Mapping[Level, frozenset[str]], *, considered: int, kept: int) -> PinnedTable:
        """Return the table without the files of parts none of whose shards can hold a row of the answer."""
        fewer = {v: f.of_parts(parts[v]) if v in parts else f for v, f in self.kept.items()}
        return replace(self, kept=fewer, shards_considered=considered, shards_kept=kept)


def pin(
    catalog: Catalog,
    name: str,
    levels: Collection[Level],
    edition: Edition,
    ahead: LogsAhead,
    tree: Node | None = None,
) -> PinnedTable:
    """Pin the table and version that a name means, with the added columns that a statement needs, if its tree is given."""
    with telling_expired(catalog, {edition.table: edition.version}):
        return _pinned(catalog, name, levels, edition, ahead, tree)


def _pinned(
    catalog: Catalog,
    name: str,
    levels: Collection[Level],
    edition: Edition,
    ahead: LogsAhead,
    tree: Node | None,
) -> PinnedTable:
    newest = ahead.log(edition.table, "samples") if edition.version is None else None
    at = catalog.version(edition.table, edition.version, newest)
    columns = (
        {f"{COLUMNS_FOLDER}/{c}": c for c in needed_columns(tree, at.columns)} if tree is not None else {}
    )
    asked = mentioned(at.sorted_copies, strings_in(tree)) if tree is not None and at.sorted_copies else ()
    copies = {f"{SORTED_FOLDER}/{name}": name for name in asked}
    needed = {*levels, "samples", *columns, *copies, *([DELETED] if at.has(DELETED) else [])}
    found = _states(catalog, at, needed, {level: ahead.log(edition.table, level) for level in needed})
    files = {level: found[level].files for level in LEVELS if level in found}
    deleted = found[DELETED].files if DELETED in found else None
    added = {name: found[level] for level, name in columns.items()}
    usable = [
        catalog.fact(*at.identity, ("copy", name), partial(usable_copy, found[level], files["samples"]))
        for level, name in copies.items()
    ]
    return PinnedTable(name, at, files, deleted, added, tuple(c for c in usable if c is not None), kept=files)


def _states(
    catalog: Catalog, at: TableVersion, levels: Collection[str], ahead: Mapping[str, LogCopy | None]
) -> dict[str, VersionState]:
    """Return some levels of a version. Each is some requests in a row, unless it was read before: threads cost more then."""
    read = {level for level, log in ahead.items() if log is not None and log.version == at.pinned(level)}
    new = [level for level in levels if level not in read and not catalog.knows(at, level)]
    if len(new) >= 2:
        with ThreadPoolExecutor(len(new)) as pool:
            list(pool.map(lambda level: catalog.state(at, level), new))
    return {level: catalog.state(at, level, ahead.get(level)) for level in levels}


def pin_mentioned(
    catalog: Catalog,
    tree: Node,
    levels: Collection[Level],
    editions: Editions,
    others: Collection[str],
    ahead: LogsAhead,
) -> list[PinnedTable]:
    """Pin every table of the bank that a statement mentions.

    Names that are tables as they are spelled, which most are, are found by their logs; where some are not, a listing of the bank
    says what is a table.

    Parameters
    ----------
    tree
        The statement's syntax tree.
    levels
        Pinned beside those that are mentioned.
    editions
        Tables and versions that names mean.
    others
        Names that mean something else.
    ahead
        Logs that are being read already.
    """
    mentioned = [table for _, table in mentions(tree)]
    undated = [table for table in mentioned if table.schema not in editions.dated]
    names = {name for table in undated for name in (table.schema, table.name) if name} - {*others}
    spelled = {n: n for n in names - common_names(tree) - {*editions.versions}}
    guessed = _levels_of(mentioned, spelled, levels)
    for name, wanted in guessed.items():
        ahead.begin(name, wanted)
    for name in guessed:
        ahead.log(name, "samples")  # a table whose log was read is met
    tables = [*catalog.among(names), *editions.dated]
    needed = _levels_of(mentioned, {t: t for t in tables}, levels)

    def pinned(name: str) -> PinnedTable:
        return pin(catalog, name, needed[name], editions.of(name), ahead, tree)

    if len(needed) < 2:
        return [pinned(name) for name in needed]
    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(pinned, sorted(needed)))


def _levels_of(
    mentioned: Collection[BaseTable], tables: Mapping[str, Any], levels: Collection[Level]
) -> dict[str, frozenset[Level]]:
    """Return the tables and the levels of each that are needed, if these are the tables."""
    found: dict[str, set[Level]] = {}
    for table in mentioned:
        mention = mention_of(table, tables)
        if mention is not None:
            found.setdefault(mention[0], {"samples", *levels}).add(mention[1])
    return {name: frozenset(of_table) for name, of_table in found.items()}
