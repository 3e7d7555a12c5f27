"""Queries: SQL over a bank, not yet answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from tensorbank.arguments import instance, number, whole_number
from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank.queries.answers import Answers
from tensorbank.statistics import Statistics

if TYPE_CHECKING:
    import xarray

__all__ = ["Query", "QueryEngine"]


class QueryEngine(Protocol):
    """The engine that answers a query; the planner of a bank is one.
    Equal engines give equal queries equal answers.
    """

    @property
    def scope(self) -> str:
        """The things that answers depend on beside the statement, as a text: bank, pinned versions, and one's own tables."""
        ...

    def plan(self, sql: str, *, by_date: bool = False) -> Plan: ...

    def adopted(self, plan: Plan) -> Plan: ...

    def arrow(self, sql: str) -> pa.Table: ...

    def statistics(self, sql: str, name: str) -> Statistics: ...

    def dataset(self, plan: Plan, max_bytes: int) -> xarray.Dataset: ...


@dataclass(frozen=True, slots=True)
class Query(Answers):
    """A relational request over one or more tables of a bank.

    Nothing is read until it is asked for: :meth:`plan` pins the snapshots and finds the bytes, :meth:`arrow` gives the
    rows, :meth:`dataloader` streams the tensors. Queries are equal that ask the same of the same bank.
    """

    sql: str
    engine: QueryEngine = field(repr=False)

    def plan(self, *, by_date: bool = False) -> Plan:
        """Return the frozen answer.

        Parameters
        ----------
        by_date
            Address each date of a sample alone: larger, and what a loader that chooses ``times`` needs.

        Raises
        ------
        InvalidInputError
            The SQL is wrong; the message has the nearest valid names.
        """
        return self.engine.plan(self.sql, by_date=by_date)

    @property
    def question(self) -> str:
        """See :attr:`Answers.question`."""
        return f"{self.engine.scope}\n{self.sql}"

    def adopted(self, plan: Plan) -> Plan:
        """See :meth:`Answers.adopted`."""
        return self.engine.adopted(plan)

    def arrow(self) -> pa.Table:
        """Return the rows as an Arrow table; a handle column holds the addresses of its tensors."""
        return self.engine.arrow(self.sql)

    def _first(self, n: int) -> pa.Table:
        return self.engine.arrow(f"SELECT * FROM (\n{self._inner}\n) AS q LIMIT {n}")

    def _count(self) -> int:
        found = self.engine.arrow(f"SELECT count(*) AS n FROM (\n{self._inner}\n) AS q")
        return int(found["n"][0].as_py())

    def _dataset(self, plan: Plan, max_bytes: int) -> xarray.Dataset:
        return self.engine.dataset(plan, max_bytes)

    @property
    def _inner(self) -> str:
        """Return the statement as the inner one of another."""
        return self.sql.rstrip().rstrip(";")

    def statistics(self, name: str) -> Statistics:
        """Summarize one selected modality over the selection, from the index alone: no pixel is read.

        Raises
        ------
        InvalidInputError
            The query does not select the modality as a whole.
        """
        return self.engine.statistics(self.sql, name)

    def split_by(self, group: str, fractions: Mapping[str, float], *, seed: int = 0) -> dict[str, Query]:
        """Cut the selection into parts that share no group, so that near-duplicates do not leak from one to another.

        A group falls to a part by a hash of its value and the seed: it stays there whatever else is ingested or selected.
        All samples whose group is NULL are one group.

        Parameters
        ----------
        group
            Column of the result or SQL expression over its columns, such as ``coalesce(cell_id, location_id)``.
        fractions
            Share of the groups by name of the part, together at most 1.

        Raises
        ------
        InvalidInputError
            A fraction is not positive, or they exceed 1.
        """
        whole_number("seed", seed, at_least=0)
        instance("group", group, str, "give a column or an SQL expression")
        instance("fractions", fractions, Mapping, "give them by name, such as {'train': 0.8, 'val': 0.2}")
        for name, fraction in fractions.items():
            number(f"fractions[{name!r}]", fraction, above=0)
        if not fractions or sum(fractions.values()) > 1 + 1e-9:
            raise InvalidInputError(
                f"fractions must be positive and at most 1 together, got {dict(fractions)}"
            )
        parts: dict[str, Query] = {}
        low = 0.0
        for name, fraction in fractions.items():
            high = low + fraction
            upper = "" if high > 1 - 1e-9 else f" AND split_fraction({group}, {seed}) < {high!r}"
            condition = f"split_fraction({group}, {seed}) >= {low!r}{upper}"
            parts[name] = Query(f"SELECT * FROM (\n{self._inner}\n) AS q WHERE {condition}", self.engine)
            low = high
        return parts
