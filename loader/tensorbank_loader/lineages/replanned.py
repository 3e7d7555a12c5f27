"""The plan or mix that a saved state is of, made again from what the state says of it, or taken from saved plans."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tensorbank.bank import Bank
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError
from tensorbank.plans import Plan
from tensorbank.queries import Mix
from tensorbank_loader.epochs import Epochs, State, loaded
from tensorbank_loader.order import OrderOptions
from tensorbank_loader.run_source import Mixing, RunSource, StatedPlan
from tensorbank_loader.streamed import Streamed, epochs_of

__all__ = ["epochs_of_state", "streamed_of"]

GIVE_PLANS = "give its saved plan with --plan, or plans= in Python"


def streamed_of(state: Mapping[str, Any], bank: Bank, plans: Sequence[Plan]) -> Streamed:
    """Return the plan or mix of a saved state, which has its fingerprint.

    Parameters
    ----------
    bank
        Bank that the statements of the state are planned in.
    plans
        Saved plans to take instead; of a mix all of its plans, in any order.

    Raises
    ------
    InvalidInputError
        The state tells no statement and no saved plan is given, or what is planned or given has another fingerprint. The kind is
        ``other-plan``.
    """
    source, wanted = RunSource.from_json(state.get("source")), state["fingerprint"]
    is_mix = "n_sources" in state
    if is_mix and source.mixing is None:
        raise _other(
            "the state does not tell how its mix was made, which is too long for a state; it cannot be explained"
        )
    for streamed in _given(state, source.mixing, plans):
        if streamed.fingerprint == wanted:
            return streamed
    if not source.plans:
        got = (
            f"of the {len(plans)} plans given none fits its fingerprint {wanted}"
            if plans
            else "none is given"
        )
        raise _other(f"the state tells no statement of its plan, and {got}; {GIVE_PLANS}")
    made = tuple(_planned(stated, bank) for stated in source.plans)
    streamed = made[0] if source.mixing is None else _mixed(made, source.mixing)
    if streamed.fingerprint != wanted:
        raise _other(
            f"the statement of the state gives a plan with the fingerprint {streamed.fingerprint} here, the run had {wanted}: "
            f"another planner made it, or it was changed after planning; {GIVE_PLANS}"
        )
    return streamed


def _given(state: Mapping[str, Any], mixing: Mixing | None, plans: Sequence[Plan]) -> list[Streamed]:
    """Return what saved plans may be: each alone, or a mix of as many as the state has sources, in any order."""
    if mixing is None:
        return list(plans)
    n = state["n_sources"]
    if len(plans) < n or n > 5:  # more orders than are tried
        return [_mixed(tuple(plans), mixing)] if len(plans) == n else []
    return [_mixed(chosen, mixing) for chosen in itertools.permutations(plans, n)]


def _mixed(plans: tuple[Plan, ...], mixing: Mixing) -> Mix:
    return Mix(plans, mixing.weights, mixing.seed, mixing.homogeneous, mixing.length)


def _planned(stated: StatedPlan, bank: Bank) -> Plan:
    """Return the plan of a statement at the snapshots that it was planned at."""
    # A version that a statement names itself, beside the newest one that it reads, has a name with a mark.
    versions = {table: version for table, (_, version) in stated.snapshots.items() if "@" not in table}
    try:
        plan = bank.at(versions).sql(stated.sql).plan(by_date=stated.by_date)
    except (InvalidInputError, NotFoundError) as error:
        raise _other(
            f"the statement of the state cannot be planned in {bank.url}: {error}; {GIVE_PLANS}"
        ) from error
    for table, (table_id, version) in plan.source.snapshots.items():
        told = stated.snapshots.get(table, (table_id, version))
        if told[0] != table_id:
            raise InvalidInputError(
                f"the run has read table {table!r} with the id {told[0]}, and that of {bank.url} has the id {table_id}: it was "
                "made anew, or this is another bank; give the bank of the run",
                kind=ErrorKind.OTHER_TABLE,
            )
    return plan


def epochs_of_state(streamed: Streamed, given: Mapping[str, Any]) -> tuple[Epochs, State]:
    """Return the epochs of the run of a saved state, and the place in them.

    Raises
    ------
    InvalidInputError
        The state is of a mix with weights of samples and does not tell how they are drawn, or makes no sense for the plan.
    """
    weighted = given.get("shuffle") == "weighted"
    replacement = given.get("replacement")
    if isinstance(streamed, Mix):
        replacement = (given.get("mix") or {}).get("replacement")
        if replacement is None and any(plan.weights is not None for plan in streamed.plans):
            raise InvalidInputError(
                "this state is of a version that does not tell how the sources of its mix are drawn; save it anew from a run "
                "that has loaded it",
                kind=ErrorKind.OTHER_STATE,
            )
    times = given.get("times")
    options = OrderOptions(
        seed=given["seed"],
        shuffle=True if weighted else given.get("shuffle"),
        replacement=replacement,
        n_draws=given.get("n_places") if weighted and isinstance(streamed, Plan) else None,
        drop_last=given["drop_last"],
        even=given.get("even", "exact"),
        times=tuple(times) if isinstance(times, list) else times,
    )
    epochs = epochs_of(streamed, options, given["global_batch_size"])
    return loaded(epochs, given, None, single=True, whatever=("budget",))  # it decides tokens, not samples


def _other(sentence: str) -> InvalidInputError:
    return InvalidInputError(sentence, kind=ErrorKind.OTHER_PLAN)
