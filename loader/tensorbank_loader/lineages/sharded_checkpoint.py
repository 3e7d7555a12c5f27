"""Checkpoints that torch.distributed.checkpoint wrote: a folder with a file ``.metadata``, which says where each value lies, and
files of the ranks.

A mapping is saved value by value, each under a name made of its keys, so that a state of a loader is some twenty entries. Only
these are read. No process group is needed, and the number of ranks does not matter.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorbank.errors import FormatError
from tensorbank_loader.lineages.opaque_pickles import FIELDS, read_torch_file, unpickled

__all__ = ["METADATA", "read_sharded"]

METADATA = ".metadata"
MAX_ENTRY_BYTES = 16 << 20
"""The most bytes of an entry that is read where no name looks like that of a state."""
Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """The place of a value in a folder: bytes of a file, and the keys that lead to it in what was saved."""

    keys: Keys
    file: str
    offset: int
    length: int


def read_sharded(folder: Path, marks: Collection[str]) -> Any:
    """Return what a folder holds of mappings with certain keys, as a tree; of all small values if it names no such mapping.

    Parameters
    ----------
    marks
        Keys that the mappings have.

    Raises
    ------
    FormatError
        The folder is damaged, or of a kind that is not read here.
    """
    entries = _entries(folder)
    below: dict[Keys, set[str | int]] = {}
    for entry in entries:
        below.setdefault(entry.keys[:-1], set()).add(entry.keys[-1])
    prefixes = [keys for keys, names in below.items() if names >= set(marks)]
    wanted = [e for e in entries if any(e.keys[: len(p)] == p for p in prefixes)]
    if not prefixes:  # a state may have been saved as one value
        wanted = [e for e in entries if e.length <= MAX_ENTRY_BYTES]
    tree: dict[str | int, Any] = {}
    for entry in wanted:
        at = tree
        for key in entry.keys[:-1]:
            at = at.setdefault(key, {})
        at[entry.keys[-1]] = _value(folder, entry)
    return _with_lists(tree)


def _entries(folder: Path) -> list[_Entry]:
    """Return the entries of a folder that are no tensors."""
    path = folder / METADATA
    try:
        with path.open("rb") as source:
            told = unpickled(source, str(path))[FIELDS]
        where = {index[FIELDS]["fqn"]: info[FIELDS] for index, info in told["storage_data"].items()}
        keys = told["planner_data"] or {}
        return list(_found(told["state_dict_metadata"], where, keys))
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(
            f"{path} is not as torch.distributed.checkpoint writes it: {error!r}; save loader.state_dict() as a JSON file"
        ) from error


def _found(
    metadata: Mapping[str, Any], where: Mapping[str, Any], keys: Mapping[str, Any]
) -> Iterator[_Entry]:
    for name, kind in metadata.items():
        if "chunks" in kind.get(FIELDS, {}) or name not in where:  # a tensor
            continue
        info = where[name]
        if info.get("transform_descriptors"):
            raise FormatError(
                f"the entry {name} is compressed by an extension of torch.distributed.checkpoint, which is not read here; "
                "save loader.state_dict() as a JSON file"
            )
        yield _Entry(
            tuple(keys.get(name) or (name,)),
            str(info["relative_path"]),
            int(info["offset"]),
            int(info["length"]),
        )


def _value(folder: Path, entry: _Entry) -> Any:
    """Read an entry."""
    name = f"{entry.file} of {folder}"
    if Path(entry.file).name != entry.file:
        raise FormatError(f"{name} is no file of that folder")
    try:
        with (folder / entry.file).open("rb") as source:
            source.seek(entry.offset)
            data = source.read(entry.length)
    except (OSError, ValueError) as error:
        raise FormatError(f"{name} cannot be read: {error}") from error
    if len(data) != entry.length:
        raise FormatError(f"{name} ends before its entries do; the checkpoint is incomplete")
    return read_torch_file(io.BytesIO(data), name)


def _with_lists(tree: Any) -> Any:
    """Return a tree with lists where mappings have numbers for keys."""
    if not isinstance(tree, dict):
        return tree
    found = {key: _with_lists(value) for key, value in tree.items()}
    if found and all(isinstance(key, int) for key in found):
        return [found[key] for key in sorted(found)]
    return found
