"""Commits to the log of a Delta table where it lies: one object, which nobody may have created before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorbank.index_files import LOG, commit_name, sealed_commit
from tensorbank.storage import Store

__all__ = ["LostCommitError", "append_commit"]


class LostCommitError(Exception):
    """Another writer's commit has the version."""


def append_commit(
    store: Store, folder: str, version: int, actions: Sequence[Mapping[str, Any]], info: Mapping[str, Any]
) -> None:
    """Create the commit of one version of the table below a key.

    ``info`` holds a number that is drawn for each commit, so that a writer whose answer was lost knows its own.

    Raises
    ------
    LostCommitError
        Another writer has committed the version.
    StorageError
        The store cannot be written; whether the commit is there, is not known.
    """
    key = f"{folder}/{LOG}/{commit_name(version)}"
    if not store.claim(key, sealed_commit(actions, info, key)):
        raise LostCommitError(f"{store.url}/{key} is another writer's")
