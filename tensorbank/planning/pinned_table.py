"""One table at one version as a statement sees it: the index files that may hold rows of its answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from tensorbank.catalog import Catalog
from tensorbank.errors import TensorBankError
from tensorbank.index_files import LevelFiles
from tensorbank.layout import LEVELS, Level
from tensorbank.pruning import ANYTHING, Condition
from tensorbank.schema import TableSchema
from tensorbank.sql import BaseTable, Node
from tensorbank.statements import common_names, mention_of, mentions

__all__ = ["PinnedTable", "pin", "pin_mentioned"]

N_THREADS = 16


@dataclass(frozen=True)
class PinnedTable:
    """One table of a statement, pinned to a snapshot, with the files that the statement needs of it.

    Parameters
    ----------
    levels
        Every file of the levels that the statement needs.
    conditions
        Conditions that rows of a level must satisfy at least.
    kept
        The files left by pruning; all of them before that.
    shards_considered, shards_kept
        Roll-ups looked at and not ruled out; None where no roll-up was asked.
    """

    name: str
    schema: TableSchema
    levels: Mapping[Level, LevelFiles]
    conditions: Mapping[Level, Condition] = field(default_factory=dict)
    kept: Mapping[Level, LevelFiles] = field(default_factory=dict)
    shards_considered: int | None = None
    shards_kept: int | None = None

    @property
    def snapshot(self) -> tuple[str, int]:
        samples = self.levels["samples"]
        return samples.table_id, samples.version

    @property
    def mentioned(self) -> tuple[Level, ...]:
        """The levels that the statement reads row by row."""
        return tuple(level for level in self.conditions if level != "shards")

    def by_files(self, conditions: Mapping[Level, Condition]) -> PinnedTable:
        """Return the table without the files that the log's statistics rule out,
        and without those of parts that the snapshot does not show.
        """
        parts = self.levels["samples"].parts
        kept: dict[Level, LevelFiles] = {}
        for level, files in self.levels.items():
            visible = files if parts is None else files.of_parts(parts)
            kept[level] = visible if level == "shards" else visible.matching(conditions.get(level, ANYTHING))
        return replace(self, conditions=dict(conditions), kept=kept)

    def by_shards(self, parts: Mapping[Level, frozenset[str]], *, considered: int, kept: int) -> PinnedTable:
        """Return the table without the files of parts none of whose shards can hold a row of the answer."""
        fewer = {v: f.of_parts(parts[v]) if v in parts else f for v, f in self.kept.items()}
        return replace(self, kept=fewer, shards_considered=considered, shards_kept=kept)


def pin(catalog: Catalog, name: str, levels: Collection[Level], version: int | None) -> PinnedTable:
    """Pin a table to a version, to the newest if None."""
    with ThreadPoolExecutor(max(1, len(levels))) as pool:  # each level is some requests in a row
        found = pool.map(lambda level: catalog.files(name, level, version), levels)
        files = dict(zip(levels, found, strict=True))
    return PinnedTable(name, catalog.schema(name, files["samples"].version), files, kept=files)


def pin_mentioned(
    catalog: Catalog,
    tree: Node,
    levels: Collection[Level],
    versions: Mapping[str, int],
    others: Collection[str],
) -> list[PinnedTable]:
    """Pin every table of the bank that a statement mentions.

    Which names are tables is what a listing of the bank says; they are opened meanwhile as they are spelled, since most of
    them are.

    Parameters
    ----------
    tree
        The statement's syntax tree.
    levels
        Pinned beside those that are mentioned.
    versions
        Versions of tables that are not at their newest.
    others
        Names that mean something else.
    """
    mentioned = [table for _, table in mentions(tree)]
    names = {name for table in mentioned for name in (table.schema, table.name) if name} - {*others}
    spelled = {n: n for n in names - common_names(tree)}
    with ThreadPoolExecutor(N_THREADS) as pool:
        listed = pool.submit(catalog.among, names)
        guesses = {
            at: pool.submit(_guess, catalog, *at, versions.get(at[0]))
            for at in _levels_of(mentioned, spelled, levels)
        }
        tables = listed.result()
        needed = sorted(_levels_of(mentioned, {t: t for t in tables}, levels))
        found = {at: guess for at, future in guesses.items() if (guess := future.result()) is not None}
        rest = {at: pool.submit(catalog.files, *at, versions.get(at[0])) for at in needed if at not in found}
        found |= {at: future.result() for at, future in rest.items()}
    pinned = []
    for name in sorted({name for name, _ in needed}):
        files = {level: found[name, level] for level in LEVELS if (name, level) in found}
        pinned.append(PinnedTable(name, catalog.schema(name, files["samples"].version), files, kept=files))
    return pinned


def _levels_of(
    mentioned: Collection[BaseTable], tables: Mapping[str, Any], levels: Collection[Level]
) -> set[tuple[str, Level]]:
    """Return the tables and levels that are needed, if these are the tables."""
    found = {mention for table in mentioned if (mention := mention_of(table, tables)) is not None}
    return found | {(name, level) for name, _ in found for level in ("samples", *levels)}


def _guess(catalog: Catalog, name: str, level: Level, version: int | None) -> LevelFiles | None:
    """Return the files of what may be a table; None if something is wrong: asking again says what."""
    try:
        return catalog.files(name, level, version)
    except TensorBankError:
        return None
