"""States of loaders in the files of checkpoints: JSON, and files of ``torch.save``."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tensorbank.errors import ErrorKind, FormatError, InvalidInputError, NotFoundError
from tensorbank_loader.epochs import check_state

__all__ = ["State", "states_in"]

State = Mapping[str, Any]
MAX_DEPTH = 64
"""The depth to which a checkpoint is searched."""
MARKS = frozenset({"version", "fingerprint", "position", "digest"})
"""The fields that tell the state of a loader from other mappings."""


def states_in(checkpoint: str | Path | State) -> list[State]:
    """Return the states of loaders in a checkpoint, one for each run of a plan.

    States of several ranks or workers of one run are one: the one that has come furthest.

    Parameters
    ----------
    checkpoint
        A state, or whatever holds one somewhere in its lists and mappings; or a file of it: JSON, or written by ``torch.save``,
        of which only tensors and plain values are loaded.

    Raises
    ------
    NotFoundError
        There is no such file.
    FormatError
        It is neither JSON nor a file of ``torch.save``, holds classes that are not loaded, or is a folder.
    InvalidInputError
        It holds no state (kind ``other-state``), or one that is damaged (kind ``damaged-state``) or of another version.
    """
    content = checkpoint if isinstance(checkpoint, Mapping) else _content(Path(checkpoint))
    found = list(_states(content, MAX_DEPTH))
    if not found:
        raise InvalidInputError(
            "the checkpoint holds no state of a loader; save loader.state_dict() in it",
            kind=ErrorKind.OTHER_STATE,
        )
    runs: dict[tuple[Any, ...], list[State]] = {}
    for state in found:
        check_state(state)
        runs.setdefault((state["fingerprint"], state["seed"], state.get("shuffle")), []).append(state)
    for states in runs.values():
        _check_all_workers(states)
    return [max(states, key=_place) for states in runs.values()]


def _place(state: State) -> tuple[int, int, int]:
    return state["epoch"], state["position"], state["skip"]


def _check_all_workers(states: list[State]) -> None:
    """Refuse states of some of a loader's workers: batches come from all in turn, so that the furthest tells what came."""
    n_workers = max(int(state["n_workers"]) for state in states)
    if 1 < len(states) < n_workers or len(states) == 1 < n_workers:
        raise InvalidInputError(
            f"the checkpoint holds the states of {len(states)} of {n_workers} workers, and what a run has seen is known from all "
            "of them; give the whole state of torchdata's StatefulDataLoader",
            kind=ErrorKind.OTHER_STATE,
        )


def _states(content: Any, depth: int) -> Iterator[State]:
    """Yield the states in a tree of mappings and lists."""
    if isinstance(content, Mapping):
        if content.keys() >= MARKS:
            yield content
            return
        content = list(content.values())
    if isinstance(content, list | tuple) and depth:
        for item in content:
            yield from _states(item, depth - 1)


def _content(path: Path) -> Any:
    if path.is_dir():
        raise FormatError(
            f"{path} is a folder; one of torch.distributed.checkpoint becomes a file with "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`, which runs what its pickles say"
        )
    try:
        data = path.read_bytes()[:1] if path.is_file() else None
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    if data is None:
        raise NotFoundError(f"there is no checkpoint {path}; give a file or folder that a run has saved")
    if data in (b"{", b"["):
        try:
            return json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path} is no JSON: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(
            f"{path} is neither JSON nor a file of torch.save whose content is plain values and tensors ({reason}); "
            "save loader.state_dict() as a JSON file beside it"
        ) from error
