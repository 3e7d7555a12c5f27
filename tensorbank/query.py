"""Queries: SQL over a bank, not yet answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from tensorbank.plan import Plan
from tensorbank.statistics import Statistics

if TYPE_CHECKING:
    from tensorbank_loader import DataLoader

__all__ = ["Query", "QueryEngine"]


class QueryEngine(Protocol):
    """What answers a query; the planner of a bank is one."""

    def plan(self, sql: str) -> Plan: ...

    def arrow(self, sql: str) -> pa.Table: ...

    def statistics(self, sql: str, name: str) -> Statistics: ...


@dataclass(frozen=True, slots=True)
class Query:
    """A relational request over one or more tables of a bank.

    Nothing is read until it is asked for: :meth:`plan` pins the snapshots and finds the bytes, :meth:`arrow` gives the
    rows, :meth:`dataloader` streams the tensors.
    """

    sql: str
    engine: QueryEngine = field(repr=False, compare=False)

    def plan(self) -> Plan:
        """The frozen answer.

        Raises
        ------
        InvalidInputError
            The SQL is wrong; the message has the nearest valid names.
        """
        return self.engine.plan(self.sql)

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table; a handle column holds the addresses of its tensors."""
        return self.engine.arrow(self.sql)

    def statistics(self, name: str) -> Statistics:
        """Summary of one selected modality over the selection, from the index alone: no pixel is read.

        Raises
        ------
        InvalidInputError
            The query does not select the modality as a whole.
        """
        return self.engine.statistics(self.sql, name)

    def dataloader(self, *, batch_size: int, **options: Any) -> DataLoader:
        """Plan and stream in batches; see :class:`tensorbank_loader.DataLoader` for the options."""
        return self.plan().dataloader(batch_size=batch_size, **options)
