"""Delta tables: their logs read through delta-rs, and written by our own commits."""

from __future__ import annotations

from tensorbank.delta.actions import (
    LevelChange,
    change_between,
    commit_actions,
    creation_actions,
    metadata_action,
    readded,
)
from tensorbank.delta.checkpoints import CHECKPOINT_INTERVAL, write_checkpoint
from tensorbank.delta.history import SnapshotInfo, read_history
from tensorbank.delta.known_versions import KnownVersions
from tensorbank.delta.lifetimes import Lifetimes, read_lifetimes
from tensorbank.delta.log_reader import LogReader
from tensorbank.delta.log_writer import LostCommitError, append_commit
from tensorbank.delta.reading import VersionState, read_version

__all__ = [
    "CHECKPOINT_INTERVAL",
    "KnownVersions",
    "LevelChange",
    "Lifetimes",
    "LogReader",
    "LostCommitError",
    "SnapshotInfo",
    "VersionState",
    "append_commit",
    "change_between",
    "commit_actions",
    "creation_actions",
    "metadata_action",
    "read_history",
    "read_lifetimes",
    "read_version",
    "readded",
    "write_checkpoint",
]
