"""Saved states: the position of a run as a few numbers of JSON, sealed with a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.epochs.epoch import Epochs, State
from tensorbank_loader.epochs.trail import Trail
from tensorbank_loader.epochs.world import World

__all__ = ["STATE_VERSION", "check_state", "check_world", "loaded", "saved"]

STATE_VERSION = 4
"""The version of saved states that is written. 4: a state tells its source, and the batches that the run has had."""
TAKEN_VERSIONS = (3, 4)
"""The versions of saved states that a run goes on with. 3 had the same position, and no word on where it comes from."""
DIGEST = "digest"
"""The field of a saved state with a hash of all others, which tells damage from a state of something else."""


def saved(epochs: Epochs, state: State, world: World, trail: Trail | None = None) -> dict[str, Any]:
    """Return a state of a run as JSON-able values: below 1 KiB, but for a long statement.

    Parameters
    ----------
    trail
        Way that the run has come; None: through all batches before the state.
    """
    fields: dict[str, Any] = {
        "version": STATE_VERSION,
        **epochs.identity,
        "even": epochs.even,
        "global_batch_size": epochs.global_batch_size,
        **epochs.order.to_dict(),
        "epoch": state.epoch,
        "position": state.position,
        "skip": state.skip,
        "origin": state.origin,
        "n_ranks": int(world.n_ranks),
        "n_workers": int(world.n_workers),
        **({} if trail is None else trail.to_dict()),
    }
    fields["source"] = dict(epochs.source)
    return {**fields, DIGEST: _digest(fields)}


def loaded(
    epochs: Epochs,
    given: Mapping[str, Any],
    world: World | None,
    *,
    single: bool = False,
    whatever: Collection[str] = (),
) -> tuple[Epochs, State]:
    """Return the epochs that go on, and the state, from what :func:`saved` wrote.

    The state's global batch size is taken over, and a mix's weights: a run keeps its batches on whatever ranks it goes on.

    Parameters
    ----------
    epochs
        Epochs of the loader that goes on.
    given
        Saved state.
    world
        World that goes on; None if it is not known yet, and :func:`check_world` is called when it is.
    single
        True if the state may stand inside of a batch.
    whatever
        Fields of the identity that do not matter, where nothing is read.

    Raises
    ------
    InvalidInputError
        The state is damaged (kind ``damaged-state``), or of another plan, seed, order or version (kind ``other-state``):
        resuming would skip or repeat samples.
    """
    check_state(given)
    for name, mine in epochs.identity.items():
        if name not in whatever and given.get(name) != mine:
            raise InvalidInputError(
                f"this state has {name} {given.get(name)!r}, the loader has {mine!r}; "
                "make the loader with the same plan and options",
                kind=ErrorKind.OTHER_STATE,
            )
    Trail.of_state(given)
    numbers: list[Any] = [given.get(name) for name in ("epoch", "position", "skip", "origin")]
    size = given.get("global_batch_size")
    unsound = InvalidInputError(
        f"this state points at no batch of the loader: {dict(given)}", kind=ErrorKind.OTHER_STATE
    )
    counts = [*numbers, size, given.get("n_ranks"), given.get("n_workers")]
    if not all(type(n) is int and n >= 0 for n in counts) or size == 0:
        raise unsound
    assert isinstance(size, int)
    resized = epochs.resized(size)
    resumed = replace(resized, order=resized.order.from_dict(given))
    if numbers[1] > resumed.n_batches or (numbers[2] and not single):
        raise unsound
    if world is not None:
        check_world(resumed, given, world)
    return resumed, State(*numbers)


def check_world(epochs: Epochs, given: Mapping[str, Any], world: World) -> None:
    """Refuse a saved state that the ranks or workers of a world cannot go on with.

    Raises
    ------
    InvalidInputError
        They would leave all samples out, or the state is of another number of them where that matters.
    """
    if epochs.even == "drop" and epochs.global_batch_size < world.n_ranks:
        raise InvalidInputError(
            f"this run has global batches of {epochs.global_batch_size} samples, fewer than the {world.n_ranks} ranks, so that "
            "even='drop' leaves out all of them; go on with even='exact' or 'pad', or with fewer ranks"
        )
    if given["skip"] and given["n_ranks"] != world.n_ranks:
        raise InvalidInputError(
            f"this state stands inside of a batch as {given['n_ranks']} ranks share it, and here are {world.n_ranks}; "
            "save it after a batch, or hand out batches with global_batch_size",
            kind=ErrorKind.OTHER_STATE,
        )
    if given["n_workers"] > 1 and given["n_workers"] != world.n_workers:
        raise InvalidInputError(
            f"this state is of one of {given['n_workers']} workers, and here are {world.n_workers}; "
            "keep num_workers, or save the state of a loader without workers",
            kind=ErrorKind.OTHER_STATE,
        )


def _digest(fields: Mapping[str, Any]) -> str:
    """Return the first 16 hexadecimal digits of a hash over all fields but the digest."""
    text = json.dumps({k: v for k, v in fields.items() if k != DIGEST}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_state(given: Any) -> None:
    """Refuse what is no saved state, is not as it was saved, or is of a version that is not read.

    Raises
    ------
    InvalidInputError
        It is no mapping or does not fit its digest (kind ``damaged-state``), or it has no digest or another version (kind
        ``other-state``).
    """
    if not isinstance(given, Mapping):
        raise InvalidInputError(
            f"a state is what state_dict() gave, a mapping, got {type(given).__name__}",
            kind=ErrorKind.DAMAGED_STATE,
        )
    if DIGEST not in given:
        raise InvalidInputError(
            f"this state has version {given.get('version')!r} and no digest, the loader writes version {STATE_VERSION}: "
            "it is of an older TensorBank, or of something else",
            kind=ErrorKind.OTHER_STATE,
        )
    try:
        sound = given[DIGEST] == _digest(given)
    except (TypeError, ValueError):  # keys or values that no state has
        sound = False
    if not sound:
        raise InvalidInputError(
            "this state was changed after state_dict() made it: its content is not that of its digest; "
            "go on from another checkpoint",
            kind=ErrorKind.DAMAGED_STATE,
        )
    if given.get("version") not in TAKEN_VERSIONS:
        raise InvalidInputError(
            f"this state has version {given.get('version')!r}, and versions {' and '.join(map(str, TAKEN_VERSIONS))} are read; "
            "finish the run with the TensorBank that began it, or begin anew",
            kind=ErrorKind.OTHER_STATE,
        )
