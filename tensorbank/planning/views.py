"""The tables of a bank as a statement names them: views over the index files that may hold its answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np

from tensorbank.arrow_numpy import as_arrow
from tensorbank.catalog import Catalog
from tensorbank.index_files import LevelFiles, of_file
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.layout import Level
from tensorbank.planning.added_columns import with_columns
from tensorbank.planning.pinned_table import PinnedTable
from tensorbank.pruning import ANYTHING, leaves, may_match, of_shards, shard_columns
from tensorbank.sql import Database, quoted, read_parquet

__all__ = ["TableViews"]

_SCHEMAS = {"samples": samples_schema, "tiles": tiles_schema, "shards": shards_schema}
SMALL_BYTES = 4 << 20
"""The total size in bytes up to which all index files are fetched at once,
rather than level by level as conditions are known."""


class TableViews:
    """The views for one statement, which last until DuckDB's instance is cleared.

    ``con`` is the connection that has them. ``paths`` are the files that they read, ``files`` the same by table and level,
    ``columns`` the names of what is in them. ``named`` are the tables, in lower case, that the statement names with a level, as
    ``world.samples``: of others there is no such view, for each takes as long as a column of ten million rows.
    """

    def __init__(self, db: Database, catalog: Catalog, named: Collection[str] = ()) -> None:
        self.con = db.con
        self.catalog = catalog
        self._db = db
        self._named = frozenset(named)
        if catalog.mirror.in_place is None:
            db.serve({})  # files may be, later on
        self.paths: list[str] = []
        self.files: defaultdict[tuple[str, Level], list[str]] = defaultdict(list)
        self.columns: set[str] = set()
        self._with_shards: set[str] = set()

    def show(self, table: PinnedTable) -> PinnedTable:
        """Create the views of a table, and return it without the files that its roll-ups rule out.

        Shards come first, since their roll-ups say which other files are needed at all.
        """
        every = [file for files in table.kept.values() for file in files.files]
        if sum(file.n_bytes for file in every) <= SMALL_BYTES:
            self.catalog.mirror.readable(every)
        if "shards" in table.conditions:
            self.shards(table)
        if "shards" in table.levels:
            table = self._by_shards(table)
        for level in table.mentioned:
            self._create_view(table, level)
        return table

    def shards(self, table: PinnedTable) -> str:
        """Return the name of the view of a table's shards, made when it is first asked for: most plans know what it would say."""
        if table.name not in self._with_shards:
            self._with_shards.add(table.name)
            self._create_view(table, "shards")
        return f"{quoted(table.name)}.shards"

    def _by_shards(self, table: PinnedTable) -> PinnedTable:
        """Return the table without files of parts that the roll-ups rule out."""
        known = {
            (level, leaf): columns
            for level in table.mentioned
            for leaf in sorted(leaves(table.conditions[level]))
            if (columns := shard_columns(leaf, table.schema, level)) is not None
        }
        if not known or table.levels["samples"].parts is None:
            return table
        bounds = ", ".join(f"{low} AS l{i}, {high} AS h{i}" for i, (low, high) in enumerate(known.values()))
        rows = self.catalog.fact(
            *table.snapshot,
            ("bounds", bounds),
            lambda: self.con.sql(f"SELECT part, {bounds} FROM {self.shards(table)}").to_arrow_table(),
        )
        masks = {}
        for v in table.mentioned:
            of = of_shards(rows, [leaf if level == v else None for level, leaf in known])
            masks[v] = may_match(table.conditions[v], of, len(rows))
        # a part without a roll-up is not ruled out
        named = self.catalog.fact(
            *table.snapshot, "parts of roll-ups", lambda: frozenset(rows["part"].to_pylist())
        )
        without = table.levels["samples"].parts - named
        parts = {v: without.union(rows["part"].filter(as_arrow(m)).to_pylist()) for v, m in masks.items()}
        n_kept = int(np.logical_or.reduce(list(masks.values())).sum())
        return table.by_shards(parts, considered=len(rows), kept=n_kept)

    def _create_view(self, table: PinnedTable, level: Level) -> None:
        name = quoted(table.name)
        scan = self._scan(table, level, table.kept[level])
        if level != "samples" and table.version.pins is None and table.levels["samples"].parts is None:
            scan += f" WHERE part IN (SELECT DISTINCT part FROM {self._scan(table, 'samples', table.levels['samples'])})"
        if level != "shards" and table.deleted is not None and table.deleted.files:
            scan += f" AS live ANTI JOIN {self._gone(table.deleted)} AS gone USING (key, part)"
        rows = f"SELECT * FROM {scan}"
        if level == "samples":
            self.columns.update(table.version.columns)
            rows = with_columns(rows, table.name, table.added, self._db, self.catalog)
        if level != "samples":
            self._db.create_view(name, level, rows)
            return
        self._db.create_view("main", name, rows)
        if table.name.lower() in self._named:
            self._db.create_view(name, level, f"SELECT * FROM main.{name}")

    def left_out(self, table: PinnedTable, level: Level) -> str | None:
        """Return the SQL to select those rows of a level from that are deleted, None if none is."""
        if table.deleted is None or not table.deleted.files:
            return None
        gone = self._gone(table.deleted)
        parts = self.catalog.fact(*table.snapshot, "parts with deleted samples", lambda: self._parts(gone))
        scan = self._scan(table, level, table.levels[level].of_parts(parts), is_read=False)
        return f"{scan} AS dead SEMI JOIN {gone} AS gone USING (key, part)"

    def _gone(self, deleted: LevelFiles) -> str:
        """Return the SQL of the keys and parts of rows that do not count."""
        paths = [str(p) for p in self.catalog.mirror.readable(deleted.files)]
        return f"(SELECT key, part FROM {read_parquet(paths)})"

    def _parts(self, gone: str) -> frozenset[str]:
        return frozenset(part for (part,) in self.con.execute(f"SELECT DISTINCT part FROM {gone}").fetchall())

    def _scan(self, table: PinnedTable, level: Level, files: LevelFiles, *, is_read: bool = True) -> str:
        """Return the SQL to select the rows of some files from, with every column of the table.

        What ``is_read`` for the statement itself is among ``paths`` and ``files`` afterwards.
        """
        empty = f"{table.name}_{level}_without_rows"
        if not files.files:
            self._db.register(empty, _SCHEMAS[level](table.schema).empty_table())
            return quoted(empty)
        paths = self._names(table, level, files)
        self.paths += paths
        if is_read:
            self.files[table.name, level] = paths
        scan = read_parquet(paths, alike=files.alike)
        columns = self.catalog.fact(*table.snapshot, ("columns", *paths), lambda: self._columns(scan))
        self.columns.update(columns)
        if not table.levels["samples"].finite and (nans := frozenset().union(*map(of_file, paths))):
            # as text: Parquet's statistics, which leave NaN out, make DuckDB take isnan(x) for false
            given = (
                f"CASE WHEN {c}::VARCHAR = 'nan' THEN NULL ELSE {c} END AS {c}"
                for c in map(quoted, sorted(nans))
            )
            scan = f"(SELECT * REPLACE ({', '.join(given)}) FROM {scan})"
        missing = self.catalog.fact(
            *table.snapshot,
            ("missing", level, *paths),
            lambda: [f.name for f in _SCHEMAS[level](table.schema) if f.name not in columns],
        )
        if not missing:
            return scan
        # files from before the modality, or from before the column
        self._db.register(empty, _SCHEMAS[level](table.schema).empty_table())
        absent = ", ".join(f"(SELECT {quoted(m)} FROM {quoted(empty)}) AS {quoted(m)}" for m in missing)
        return f"(SELECT *, {absent} FROM {scan})"

    def _names(self, table: PinnedTable, level: Level, files: LevelFiles) -> list[str]:
        """Return the names by which DuckDB opens files."""
        if not table.levels["samples"].finite:  # all their numbers are looked through
            return [str(p) for p in self.catalog.mirror.readable(files.files)]
        condition = table.conditions.get(level, ANYTHING)
        return self.catalog.mirror.scan(files.files, condition, self._db.serve)

    def _columns(self, scan: str) -> frozenset[str]:
        """Return the names of the columns of a scan."""
        return frozenset(self.con.sql(f"SELECT * FROM {scan}").columns)
