"""The engine of a bank whose files are read here."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from tensorbank.bank.engine import Snapshot
from tensorbank.catalog import DELETED, Catalog, Provenance, SnapshotInfo, provenance_of
from tensorbank.errors import InvalidInputError, NotFoundError
from tensorbank.layout import LEVELS, part_key, table_of_key
from tensorbank.planning import Planner
from tensorbank.queries import Query, Selection
from tensorbank.retention import (
    Tag,
    VersionName,
    create_tag,
    delete_tag,
    list_tags,
    require_kept,
    telling_expired,
    version_of,
)
from tensorbank.schema import TableSchema
from tensorbank.sql import quoted
from tensorbank.statistics import Statistics

__all__ = ["LocalEngine"]


class LocalEngine:
    """An :class:`tensorbank.bank.Engine` over a catalog; its planner runs in this process."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    @property
    def url(self) -> str:
        """The URL of the bank."""
        return self.catalog.store.url

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        return self.catalog.tables()

    def schema(self, table: str, version: int | None) -> TableSchema:
        """Return the modalities of a table."""
        with telling_expired(self.catalog, {table: version}):
            return self.catalog.schema(table, version)

    def history(self, table: str) -> list[SnapshotInfo]:
        """Return the versions of a table, newest first."""
        return self.catalog.history(table)

    def version_of(self, table: str, name: VersionName) -> int:
        """Return the number of a version that is given by its number, a tag or a time."""
        return version_of(self.catalog, table, name)

    def tags(self, table: str) -> list[Tag]:
        """Return the tags of a table by their names; IntegrityError if one is damaged."""
        self.catalog.files(table, "samples", None)  # of no table there are no tags
        tags, damaged = list_tags(self.catalog.store, table)
        if damaged:
            raise damaged[0]
        return tags

    def tag(self, table: str, version: int | None, name: str, message: str) -> Tag:
        """Give a version a name."""
        self.catalog.mirror.require_writable()
        with telling_expired(self.catalog, {table: version}):
            at = self.catalog.version(table, version)
        tag = create_tag(
            self.catalog.store,
            table,
            name,
            table_id=at.table_id,
            version=at.version,
            message=message,
        )
        try:
            require_kept(self.catalog, at)
        except NotFoundError:
            delete_tag(self.catalog.store, table, name)
            raise
        return tag

    def untag(self, table: str, name: str) -> None:
        """Take a name from a version."""
        self.catalog.mirror.require_writable()
        delete_tag(self.catalog.store, table, name)

    def snapshot(self, table: str, version: int | None) -> Snapshot:
        """Count what a table holds, from its log and the roll-ups of the shards; from its samples where some are deleted."""
        with telling_expired(self.catalog, {table: version}):
            at = self.catalog.version(table, version)
            levels = self.catalog.levels(at, [*LEVELS, *(at.pins or {})])
        parts = levels["samples"].parts
        if at.pins is None and parts is not None:  # other parts lie in tiles and shards as well
            levels = {level: files.of_parts(parts) for level, files in levels.items()}
        version, schema = at.version, at.schema
        n_deleted = levels[DELETED].n_rows if DELETED in levels else 0
        count, length, rows = (
            ("count({})", "{}.ref.length", "") if n_deleted else ("sum({}.n_samples)", "{}.length", ".shards")
        )
        columns = [(i, quoted(m.name)) for i, m in enumerate(schema)]
        sums = ", ".join(
            f"coalesce({count.format(c)}, 0)::BIGINT AS n{i}, coalesce(sum({length.format(c)}), 0)::BIGINT AS b{i}"
            for i, c in columns
        )
        planner = self._planner(table, version)
        (row,) = planner.arrow(
            f"SELECT count(DISTINCT part) AS n_parts, {sums} FROM {quoted(table)}{rows}"
        ).to_pylist()
        (shards,) = planner.arrow(f"SELECT count(*) AS n_shards FROM {quoted(table)}.shards").to_pylist()
        return Snapshot(
            table=table,
            version=version,
            n_samples=levels["samples"].n_rows - n_deleted,
            n_parts=int(row["n_parts"]),
            n_shards=int(shards["n_shards"]),
            tensor_bytes=sum(int(row[f"n{i}"]) * m.sample_bytes for i, m in enumerate(schema)),
            stored_bytes=sum(int(row[f"b{i}"]) for i, _ in enumerate(schema)),
            index_bytes=sum(files.n_bytes for files in levels.values()),
            format=1 if at.pins is None else 2,
        )

    def describe(self, table: str, version: int | None) -> dict[str, Statistics]:
        """Summarize every modality, from the roll-ups of the shards: no pixel and no sample row is read."""
        return self._planner(table, version).describe(table)

    def parts(self, table: str, version: int | None) -> dict[str, str]:
        """Return the URLs of the Zarr groups that samples lie in, by the name of the part."""
        planner = self._planner(table, version)
        schema = self.catalog.schema(table, version)
        keys = ", ".join(f"{quoted(m.name)}.key" for m in schema)
        folders = planner.arrow(
            f"""SELECT DISTINCT part, regexp_extract(key, '^[^/]+/tensors/[^/]+') AS folder
            FROM (SELECT part, unnest([{keys}]) AS key FROM {quoted(table)}.shards)
            WHERE key IS NOT NULL AND part IN (SELECT DISTINCT part FROM {quoted(table)})"""
        ).to_pydict()
        parts = planner.arrow(f"SELECT DISTINCT part FROM {quoted(table)}")["part"].to_pylist()
        without = set(parts) - set(folders["part"])  # their shards have no roll-up
        found = {*folders["folder"], *(part_key(table, part) for part in without)}
        return {folder.rpartition("/")[2]: f"{self.url}/{folder}" for folder in sorted(found)}

    def provenance(self, table: str, version: int | None) -> list[Provenance]:
        """Return the source, revision and licence of every part, by the name of the part."""
        folders = {part: url.removeprefix(f"{self.url}/") for part, url in self.parts(table, version).items()}
        return [provenance_of(self.catalog.store, table_of_key(key), part) for part, key in folders.items()]

    def query(self, sql: str, versions: Mapping[str, int], registered: Mapping[str, pa.Table]) -> Query:
        """Return a statement as a query."""
        return Query(sql, Planner(self.catalog, versions, registered))

    def select(
        self, table: str, versions: Mapping[str, int], registered: Mapping[str, pa.Table]
    ) -> Selection:
        """Return the samples of one table."""
        return Selection(table, Planner(self.catalog, versions, registered))

    def check_own_table(self, name: str) -> None:
        """Refuse a name that a table of the bank has, in whatever capitals."""
        if name.lower() in (t.lower() for t in self.catalog.told_tables()):
            raise InvalidInputError(f"the bank has a table {name!r} already; register under another name")

    def _planner(self, table: str, version: int | None) -> Planner:
        return Planner(self.catalog, {} if version is None else {table: version})
