"""Banks behind a service: opened by its address and a key, used as those that are opened directly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn

import pyarrow as pa

from tensorbank.arguments import whole_number
from tensorbank.bank import Bank, Snapshot, Table
from tensorbank.catalog import SnapshotInfo
from tensorbank.client import BANKS, ServiceClient
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, StorageError, nearest
from tensorbank.layout import check_table_name
from tensorbank.plans import Query, Selection
from tensorbank.schema import TableSchema
from tensorbank.served.filter_selection import RemoteSelection
from tensorbank.served.remote_sql import RemoteSql
from tensorbank.served.service_planner import RemotePlanner, as_statistics
from tensorbank.sql import bound
from tensorbank.statistics import Statistics

__all__ = ["RemoteBank", "RemoteTable", "find_service"]


@dataclass(frozen=True, slots=True, repr=False)
class RemoteTable(Table):
    """A table of a bank behind a service."""

    bank: RemoteBank

    @property
    def schema(self) -> TableSchema:
        """See :attr:`Table.schema`."""
        return self.bank.planner.schema(self.name, self.version)

    def at(self, version: int) -> Table:
        """See :meth:`Table.at`."""
        return replace(self, version=whole_number("version", version, at_least=0))

    def history(self) -> list[SnapshotInfo]:
        """See :meth:`Table.history`; which part a version added is not told."""
        found = self._get("snapshots", versioned=False)["snapshots"]
        return [
            SnapshotInfo(s["snapshot"], _milliseconds(s["time"]), s["operation"], None, s["n_samples_added"])
            for s in found
        ]

    def snapshot(self) -> Snapshot:
        """See :meth:`Table.snapshot`."""
        return Snapshot(**self._get("size")["size"])

    def describe(self) -> dict[str, Statistics]:
        """See :meth:`Table.describe`."""
        found = self._get("statistics")["statistics"]
        return {name: as_statistics(s) for name, s in found.items()}

    def parts(self) -> NoReturn:
        """Refuse: a part's Zarr group lies in the store, not behind a service.

        Raises
        ------
        InvalidInputError
            Always.
        """
        raise InvalidInputError(
            "a service does not hand out parts; open a sample or a plan as Zarr at its own address",
            kind=ErrorKind.SERVED,
        )

    def _get(self, what: str, *, versioned: bool = True) -> Any:
        planner = self.bank.planner
        version = self.version if versioned else None
        return planner.service.get(planner.path(self.name, what), snapshot=version)


class ServedAttributeError(InvalidInputError, AttributeError):
    """An attribute that a bank behind a service does not have: ``hasattr`` says so, and whoever asks for it is told why."""


class RemoteBank(Bank):
    """A bank behind a service: what it selects is streamed from the object store, by URLs that the service hands out.

    Parameters
    ----------
    planner
        Where, which bank, and how to read it.
    versions
        Tables pinned to a version.
    """

    def __init__(self, planner: RemotePlanner, versions: Mapping[str, int] | None = None) -> None:
        self.planner = planner
        self.versions = dict(versions or {})
        self.registered: dict[str, pa.Table] = {}

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("catalog", "mirror"):
            raise ServedAttributeError(
                f"{self.url} is read through a service, which keeps the bank's {name} to itself",
                kind=ErrorKind.SERVED,
            )
        raise AttributeError(f"a bank behind a service has no attribute {name!r}")

    @property
    def url(self) -> str:
        return self.planner.url

    def at(self, versions: Mapping[str, int]) -> Bank:
        """See :meth:`Bank.at`."""
        pinned = {name: whole_number(f"version of {name}", v, at_least=0) for name, v in versions.items()}
        return RemoteBank(self.planner, {**self.versions, **pinned})

    def tables(self) -> list[str]:
        """See :meth:`Bank.tables`."""
        found = self.planner.service.get(f"{BANKS}{self.planner.bank}/tables")["tables"]
        return sorted(str(t["name"]) for t in found)

    def table(self, name: str) -> Table:
        """See :meth:`Bank.table`."""
        return RemoteTable(self, check_table_name(name), self.versions.get(name))

    def sql(self, sql: str, /, **parameters: Any) -> Query:
        """Return a query in SQL, for keys whose scope allows it: its rows.
        What is to be streamed is selected with :meth:`query`."""
        return Query(bound(sql, parameters), self._sql_engine)

    def query(self, table: str) -> Selection:
        """Return the samples of one table, to be narrowed step by step; conditions are CQL2 text."""
        name = check_table_name(table)
        return RemoteSelection(name, self._sql_engine, planner=self.planner, version=self.versions.get(name))

    def register(self, name: str, data: Any) -> NoReturn:  # noqa: ARG002
        """Refuse: tables cannot be registered at a service.

        Raises
        ------
        InvalidInputError
            Always.
        """
        raise InvalidInputError(
            "a service joins no tables of yours; filter by `sample_id IN (...)`, or open the bank itself",
            kind=ErrorKind.SERVED,
        )

    @property
    def _sql_engine(self) -> RemoteSql:
        return RemoteSql(self.planner, self.versions)


def find_service(url: str, key: str | None) -> tuple[ServiceClient, str] | None:
    """The service and the name of the bank at a URL: of the service itself, or of a bank of it; None if there is none.

    One request is made.

    Raises
    ------
    StorageError
        Nothing answers, or the key is refused.
    NotFoundError
        The service has no such bank, or several and none was named.
    """
    base, _, name = url.partition(BANKS.rstrip("/"))
    service = ServiceClient(base, key)
    names = _banks(service)
    if names is None:
        if key is not None:
            raise StorageError(
                f"{base} is no TensorBank service, so the key is of no use", kind=ErrorKind.NO_SERVICE
            )
        return None
    name = name.strip("/")
    if not name and len(names) == 1:
        return service, names[0]
    if name not in names:
        which = (
            f"no bank {name!r}.{nearest(name, names)}"
            if name
            else f"the banks {', '.join(names) or '(none)'}."
        )
        raise NotFoundError(f"{base} has {which} Open {base}{BANKS}NAME", kind=ErrorKind.UNKNOWN_BANK)
    return service, name


def _banks(service: ServiceClient) -> list[str] | None:
    """Return the names of the banks that the key opens;
    None where no service answers, but something else does."""
    try:
        return [str(b["name"]) for b in service.get("/v1/banks")["banks"]]
    except StorageError as error:
        if error.kind != ErrorKind.NO_SERVICE:
            raise
    except (KeyError, TypeError):
        pass
    return None


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
