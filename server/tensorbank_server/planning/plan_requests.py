"""Requests for plans: statements over one table at one version, and the ids that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorbank.planning import PLANNER_VERSION
from tensorbank_server.digests import digest
from tensorbank_server.filters import Literal, quoted

__all__ = ["PlanRequest", "plan_sql"]


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A request for a plan: the statement over a table at a version, and the caller's words that it was made from."""

    bank: str
    table: str
    version: int
    table_id: str
    sql: str
    asked: Mapping[str, object]
    by_date: bool = False

    @property
    def id(self) -> str:
        """The id of a plan: 32 hexadecimal digits."""
        apart = ("by date",) if self.by_date else ()
        return digest(PLANNER_VERSION, self.bank, self.table_id, self.version, self.sql, *apart)


def plan_sql(
    table: str,
    modalities: Sequence[tuple[str, Sequence[str] | None]],
    columns: Sequence[tuple[str, str]],
    where: str | None,
    n_max: int | None,
) -> str:
    """Return the statement of a plan.

    Names must have been checked; ``columns`` are names and expressions of ours, and so is ``where``.
    """
    handles = []
    for name, bands in modalities:
        listed = ", ".join(Literal(b).sql for b in bands or ())
        handles.append(f"bands({quoted(name)}, [{listed}])" if bands else quoted(name))
    named = (sql if sql == quoted(name) else f"{sql} AS {quoted(name)}" for name, sql in columns)
    selected = ", ".join([*named, *handles])
    condition = f" WHERE {where}" if where is not None else ""
    first = f" ORDER BY sample_id, split LIMIT {int(n_max)}" if n_max is not None else ""
    return f"SELECT {selected} FROM {quoted(table)}{condition}{first}"
