"""The statement and snapshots that a run's samples come from, as far as its states say them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.plans import Plan
from tensorbank.queries import Mix

__all__ = ["MAX_SOURCE_BYTES", "Mixing", "RunSource", "StatedPlan"]

MAX_SOURCE_BYTES = 480
"""The most bytes of JSON that a source takes in a state, which stays below 1 KiB with it."""


@dataclass(frozen=True, slots=True)
class StatedPlan:
    """The question that a plan answers.

    Parameters
    ----------
    sql
        Statement.
    snapshots
        Id and version of each table that it names.
    by_date
        True if the plan addresses each date of a sample alone.
    """

    sql: str
    snapshots: Mapping[str, tuple[str, int]]
    by_date: bool = False


@dataclass(frozen=True, slots=True)
class Mixing:
    """The arguments that made a mix of its plans, as :class:`tensorbank.queries.Mix` has them."""

    weights: tuple[float, ...]
    seed: int
    homogeneous: bool
    length: int | Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class RunSource:
    """The source of a run: the plans that are streamed, and how they are mixed.

    Parameters
    ----------
    plans
        Questions of the plans, in the order of a mix; none if they are too long to be stated.
    mixing
        Arguments of the mix; None for one plan, or if they are too long.
    """

    plans: tuple[StatedPlan, ...] = ()
    mixing: Mixing | None = None

    @classmethod
    def of(cls, streamed: Plan | Mix) -> RunSource:
        """Return the source of a run of a plan or a mix."""
        if isinstance(streamed, Plan):
            return cls((_stated(streamed),))
        mixing = Mixing(streamed.weights, streamed.seed, streamed.homogeneous, streamed.length)
        return cls(tuple(map(_stated, streamed.plans)), mixing)

    def to_json(self) -> dict[str, Any]:
        """Return what a state says of it: at most :data:`MAX_SOURCE_BYTES` as JSON.

        Plans without snapshots have those of the first one. A source that is longer is told without its statements; one that
        still is, not at all.
        """
        mixing: dict[str, Any] = {}
        if self.mixing is not None:
            m = self.mixing
            mixing["mixing"] = {
                "weights": list(m.weights),
                "seed": m.seed,
                "homogeneous": m.homogeneous,
                "length": m.length,
            }
        plans = [_told(p, self.plans[0] if i else None) for i, p in enumerate(self.plans)]
        for told in ({"plans": plans, **mixing}, mixing):
            if len(json.dumps(told)) <= MAX_SOURCE_BYTES:
                return told
        return {}

    @classmethod
    def from_json(cls, told: Any) -> RunSource:
        """Return what :meth:`to_json` wrote, or an empty source for a state without one.

        Raises
        ------
        InvalidInputError
            It is no such thing; the kind is ``other-state``.
        """
        try:
            listed = (told or {}).get("plans", [])
            plans = tuple(
                StatedPlan(
                    str(p["sql"]),
                    {
                        str(t): (str(i), int(v))
                        for t, (i, v) in p.get("snapshots", listed[0]["snapshots"]).items()
                    },
                    bool(p.get("by_date", False)),
                )
                for p in listed
            )
            m = (told or {}).get("mixing")
            mixing = m and Mixing(
                tuple(map(float, m["weights"])), int(m["seed"]), bool(m["homogeneous"]), m["length"]
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"this state tells no source that is understood: {told!r}", kind=ErrorKind.OTHER_STATE
            ) from error
        return cls(plans, mixing or None)


def _stated(plan: Plan) -> StatedPlan:
    by_date = any(handle.by_date for handle in plan.handles)
    return StatedPlan(plan.source.sql, plan.source.snapshots, by_date)


def _told(plan: StatedPlan, first: StatedPlan | None) -> dict[str, Any]:
    """Return what a state says of a plan, without snapshots if they are those of the first one."""
    told: dict[str, Any] = {"sql": plan.sql}
    if first is None or plan.snapshots != first.snapshots:
        told["snapshots"] = {table: list(snapshot) for table, snapshot in plan.snapshots.items()}
    return told | ({"by_date": True} if plan.by_date else {})
