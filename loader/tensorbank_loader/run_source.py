"""The statement and snapshots that a run's samples come from, as far as its states say them."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.plans import Plan
from tensorbank.queries import Mix

__all__ = ["MAX_SOURCE_BYTES", "Mixing", "RunSource", "StatedPlan"]

MAX_PLAIN_BYTES = 480
"""The most bytes of JSON that a source takes in a state as it is, which stays below 1 KiB with it; a longer one is compressed."""
MAX_SOURCE_BYTES = 64 << 10
"""The most bytes that a compressed source takes in a state."""
MAX_UNPACKED_BYTES = 16 << 20
"""The most bytes that a compressed source of a state may become."""
PACKED = "packed"


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

        Plans without snapshots have those of the first one. A source that is long is compressed: base64 of zlib of its JSON. One
        that is too long even so is told without its statements, or not at all.
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
            text = json.dumps(told)
            if len(text) <= MAX_PLAIN_BYTES:
                return told
            if len(text) <= MAX_UNPACKED_BYTES:
                packed = {PACKED: base64.b64encode(zlib.compress(text.encode(), 9)).decode()}
                if len(json.dumps(packed)) <= MAX_SOURCE_BYTES:
                    return packed
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
            if told and PACKED in told:
                told = _unpacked(told[PACKED])
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
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, zlib.error) as error:
            raise InvalidInputError(
                f"this state tells no source that is understood: {str(told)[:200]}",
                kind=ErrorKind.OTHER_STATE,
            ) from error
        return cls(plans, mixing or None)


def _unpacked(text: str) -> Any:
    """Return a source that was compressed."""
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED_BYTES)
    if not unpacking.eof:
        raise ValueError("it has no end, or is longer than any state's")
    return json.loads(data)


def _stated(plan: Plan) -> StatedPlan:
    by_date = any(handle.by_date for handle in plan.handles)
    return StatedPlan(plan.source.sql, plan.source.snapshots, by_date)


def _told(plan: StatedPlan, first: StatedPlan | None) -> dict[str, Any]:
    """Return what a state says of a plan, without snapshots if they are those of the first one."""
    told: dict[str, Any] = {"sql": plan.sql}
    if first is None or plan.snapshots != first.snapshots:
        told["snapshots"] = {table: list(snapshot) for table, snapshot in plan.snapshots.items()}
    return told | ({"by_date": True} if plan.by_date else {})
