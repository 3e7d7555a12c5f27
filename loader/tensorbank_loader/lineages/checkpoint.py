"""States of loaders in checkpoints: JSON, files of ``torch.save``, and folders of torch.distributed.checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorbank.errors import ErrorKind, FormatError, InvalidInputError, NotFoundError
from tensorbank_loader.epochs import STATE_VERSION, check_state
from tensorbank_loader.lineages.opaque_pickles import read_torch_file
from tensorbank_loader.lineages.sharded_checkpoint import METADATA, read_sharded

__all__ = ["State", "states_in"]

State = Mapping[str, Any]
MAX_DEPTH = 64
"""The depth to which a checkpoint is searched."""
MARKS = frozenset({"version", "fingerprint", "position", "digest"})
"""The fields that tell the state of a loader from other mappings."""
BESIDE = "meta.pt"
"""The file in which Lightning keeps what is no tensor beside a folder of torch.distributed.checkpoint."""


def states_in(checkpoint: str | Path | State) -> list[State]:
    """Return the states of loaders in a checkpoint, one for each run of a plan.

    States of several ranks or workers of one run are one: the one that has come furthest.

    Parameters
    ----------
    checkpoint
        A state, or whatever holds one somewhere in its lists and mappings; or a file of it: JSON, or written by ``torch.save``,
        as Lightning's are; or a folder of torch.distributed.checkpoint. No class that it names is loaded, and no tensor.

    Raises
    ------
    NotFoundError
        There is no such file.
    FormatError
        It is neither JSON nor a file of ``torch.save``, or a folder of something else.
    InvalidInputError
        It holds no state (kind ``other-state``), or one that is damaged (kind ``damaged-state``) or of another version.
    """
    content = checkpoint if isinstance(checkpoint, Mapping) else _content(Path(checkpoint))
    found = [_whole(state) for state in _states(content, MAX_DEPTH, set())]
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


def _whole(state: State) -> State:
    """Return a state with the empty mapping that torch.distributed.checkpoint leaves out, as it does all that are empty."""
    if "source" in state or state.get("version") != STATE_VERSION:
        return state
    return {**state, "source": {}}


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


def _states(content: Any, depth: int, met: set[int]) -> Iterator[State]:
    """Yield the states in a tree of mappings and lists, each once."""
    if not isinstance(content, Mapping | list | tuple) or id(content) in met or not depth:
        return
    met.add(id(content))
    if isinstance(content, Mapping):
        if content.keys() >= MARKS:
            yield content
            return
        content = list(content.values())
    for item in content:
        yield from _states(item, depth - 1, met)


def _content(path: Path) -> Any:
    if path.is_dir():
        return _of_folder(path)
    try:
        if not path.is_file():
            raise NotFoundError(f"there is no checkpoint {path}; give a file or folder that a run has saved")
        with path.open("rb") as source:
            if source.read(1) in (b"{", b"["):
                return json.loads(path.read_text())
            source.seek(0)
            return read_torch_file(source, "it")
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    except FormatError as error:  # a ValueError as well
        raise FormatError(
            f"{path} is neither JSON nor a file of torch.save: {error}; save loader.state_dict() as a JSON file beside it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON: {error}") from error


def _of_folder(path: Path) -> Any:
    """Return what a folder holds: entries of torch.distributed.checkpoint, and the file that Lightning writes beside them."""
    if not (path / METADATA).is_file():
        raise FormatError(
            f"{path} is a folder, but none of torch.distributed.checkpoint, which has a file {METADATA}; give the file with the "
            "state of the loader"
        )
    beside = path / BESIDE
    return [read_sharded(path, MARKS), *([_content(beside)] if beside.is_file() else [])]
