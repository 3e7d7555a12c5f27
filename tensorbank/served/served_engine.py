"""The engine of a bank behind a service: what it selects is streamed from the store, by URLs that the service hands out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

import pyarrow as pa

from tensorbank.bank import Snapshot
from tensorbank.catalog import SnapshotInfo
from tensorbank.client import BANKS
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.queries import Query, Selection
from tensorbank.retention import Owner, Tag, VersionName, check_tag_name, number_of
from tensorbank.schema import TableSchema
from tensorbank.served.filter_selection import FilterSelection
from tensorbank.served.service_planner import ServicePlanner, as_statistics
from tensorbank.served.service_sql import ServiceSql
from tensorbank.statistics import Statistics

__all__ = ["ServedEngine"]


class ServedAttributeError(InvalidInputError, AttributeError):
    """An attribute that a bank behind a service does not have: ``hasattr`` says so, and whoever asks for it is told why."""


class ServedEngine:
    """An :class:`tensorbank.bank.Engine` that asks a service. What a service does not do is refused here, and nowhere else.

    Parameters
    ----------
    planner
        Planner of the bank at the service.
    """

    def __init__(self, planner: ServicePlanner) -> None:
        self.planner = planner

    @property
    def url(self) -> str:
        """The URL of the bank at the service."""
        return self.planner.url

    @property
    def catalog(self) -> NoReturn:
        """Refuse: the service keeps its catalog.

        Raises
        ------
        InvalidInputError
            Always; the kind is ``served``.
        """
        raise ServedAttributeError(
            f"{self.url} is read through a service, which keeps the bank's catalog to itself; to write, or to look at its files, "
            "open the bank at its store",
            kind=ErrorKind.SERVED,
        )

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        found = self.planner.service.get(f"{BANKS}{self.planner.bank}/tables")["tables"]
        return sorted(str(t["name"]) for t in found)

    def schema(self, table: str, version: int | None) -> TableSchema:
        """Return the modalities of a table."""
        return self.planner.schema(table, version)

    def history(self, table: str) -> list[SnapshotInfo]:
        """Return the versions of a table, newest first; which part a version added is not told."""
        found = self._get(table, "snapshots", None)["snapshots"]
        return [
            SnapshotInfo(s["snapshot"], _milliseconds(s["time"]), s["operation"], None, s["n_samples_added"])
            for s in found
        ]

    def version_of(self, table: str, name: VersionName) -> int:
        """Return the number of a version that is given by its number, a tag or a time."""
        if isinstance(name, str) and not name[:1].isdigit():
            found = self.planner.service.get(self.planner.path(table, "snapshots", check_tag_name(name)))
            return int(found["snapshot"])
        return number_of(table, name, lambda: self.history(table))

    def tags(self, table: str) -> list[Tag]:
        """Return the tags of a table by their names; a service does not tell who made them."""
        found = [
            Tag(
                name=t["name"],
                id="",
                table_id="",
                version=s["snapshot"],
                message=t["message"],
                created=datetime.fromisoformat(t["created"]),
                owner=Owner("", "", 0, ""),
            )
            for s in self._get(table, "snapshots", None)["snapshots"]
            for t in s.get("tags", [])
        ]
        return sorted(found, key=lambda tag: tag.name)

    def tag(self, table: str, version: int | None, name: str, message: str) -> NoReturn:  # noqa: ARG002
        """Refuse: a service writes no tags."""
        self._refuse("writes no tags; open the bank at its store")

    def untag(self, table: str, name: str) -> NoReturn:  # noqa: ARG002
        """Refuse: a service removes no tags."""
        self._refuse("removes no tags; open the bank at its store")

    def snapshot(self, table: str, version: int | None) -> Snapshot:
        """Count what a table holds."""
        return Snapshot(**self._get(table, "size", version)["size"])

    def describe(self, table: str, version: int | None) -> dict[str, Statistics]:
        """Summarize every modality of a table."""
        found = self._get(table, "statistics", version)["statistics"]
        return {name: as_statistics(s) for name, s in found.items()}

    def parts(self, table: str, version: int | None) -> NoReturn:  # noqa: ARG002
        """Refuse: a part's Zarr group lies in the store, not behind a service."""
        self._refuse("hands out no parts; open a sample or a plan as Zarr at its own address")

    def provenance(self, table: str, version: int | None) -> NoReturn:  # noqa: ARG002
        """Refuse: the source of a part is written beside the part."""
        self._refuse("does not tell where parts come from; its STAC collections name the licence")

    def query(
        self,
        sql: str,
        versions: Mapping[str, int],
        registered: Mapping[str, pa.Table],  # noqa: ARG002 - there are none, see check_own_table
    ) -> Query:
        """Return a query in SQL, which the service answers with rows, for keys whose scope allows it."""
        return Query(sql, ServiceSql(self.planner, versions))

    def select(
        self,
        table: str,
        versions: Mapping[str, int],
        registered: Mapping[str, pa.Table],  # noqa: ARG002 - there are none, see check_own_table
    ) -> Selection:
        """Return the samples of one table, to be narrowed by conditions in CQL2."""
        sql = ServiceSql(self.planner, versions)
        return FilterSelection(table, sql, planner=self.planner, version=versions.get(table))

    def check_own_table(self, name: str) -> NoReturn:  # noqa: ARG002
        """Refuse: tables cannot be registered at a service."""
        self._refuse("joins no tables of yours; filter by `sample_id IN (...)`, or open the bank itself")

    def _get(self, table: str, what: str, version: int | None) -> Any:
        return self.planner.service.get(self.planner.path(table, what), snapshot=version)

    def _refuse(self, why: str) -> NoReturn:
        raise InvalidInputError(f"{self.url} is a service, which {why}", kind=ErrorKind.SERVED)


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
