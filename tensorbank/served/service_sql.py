"""SQL over the index of a bank behind a service, for keys that may send it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

import pyarrow as pa
import pyarrow.ipc

from tensorbank.client import BANKS
from tensorbank.errors import ErrorKind, InvalidInputError, StorageError
from tensorbank.plans import Plan
from tensorbank.served.service_planner import ARROW, ServicePlanner
from tensorbank.statistics import Statistics

if TYPE_CHECKING:
    import xarray

__all__ = ["ServiceSql"]


@dataclass(frozen=True, slots=True)
class ServiceSql:
    """An engine that answers SQL with rows. A :class:`tensorbank.queries.query.QueryEngine` that plans nothing:
    a service plans filters only.
    """

    planner: ServicePlanner
    versions: Mapping[str, int] = field(hash=False)

    def arrow(self, sql: str) -> pa.Table:
        """Return all rows of a statement.

        Raises
        ------
        InvalidInputError
            The SQL is wrong, or there are more rows than the service gives.
        StorageError
            The service or the key does not allow SQL, or it took too long.
        """
        path = f"{BANKS}{quote(self.planner.bank)}/sql"
        answer = self.planner.service.ask(path, {"sql": sql, "snapshots": dict(self.versions)}, ARROW)
        try:
            rows = pa.ipc.open_stream(pa.py_buffer(answer.body)).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise StorageError(
                f"{self.planner.url} sent an incomplete answer", kind=ErrorKind.SHORT_READ
            ) from error
        if answer.headers.get("X-Truncated") == "true":
            raise InvalidInputError(
                f"{self.planner.url} gives no more than {rows.num_rows:,} rows of a statement; ask for fewer, or aggregate",
                kind=ErrorKind.TRUNCATED,
            )
        return rows

    @property
    def scope(self) -> str:
        """See :attr:`tensorbank.queries.query.QueryEngine.scope`."""
        return json.dumps([self.planner.url, dict(self.versions)], sort_keys=True)

    def adopted(self, plan: Plan) -> Plan:
        """See :meth:`ServicePlanner.adopted`."""
        return self.planner.adopted(plan)

    def plan(self, sql: str, *, by_date: bool = False) -> Plan:  # noqa: ARG002
        self._refuse()

    def statistics(self, sql: str, name: str) -> Statistics:  # noqa: ARG002
        self._refuse()

    def dataset(self, plan: Plan, max_bytes: int) -> xarray.Dataset:  # noqa: ARG002
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InvalidInputError(
            f"{self.planner.url} answers SQL with rows only, and makes plans of filters: "
            "use .query(table).where(...) with conditions in CQL2",
            kind=ErrorKind.UNSUPPORTED,
        )
