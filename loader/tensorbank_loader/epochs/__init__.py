"""Epochs shared by many processes: who reads which batch, and the state that resumes a run."""

from __future__ import annotations

from tensorbank_loader.epochs.cursor import Cursor, OnIter
from tensorbank_loader.epochs.epoch import Epochs, Share, State, Step
from tensorbank_loader.epochs.group_store import store_of_group
from tensorbank_loader.epochs.launchers import is_one_node
from tensorbank_loader.epochs.saved_state import STATE_VERSION, check_state, loaded
from tensorbank_loader.epochs.trail import Stretch, Trail
from tensorbank_loader.epochs.worker_epochs import Iteration, WorkerEpochs
from tensorbank_loader.epochs.world import World

__all__ = [
    "STATE_VERSION",
    "Cursor",
    "Epochs",
    "Iteration",
    "OnIter",
    "Share",
    "State",
    "Step",
    "Stretch",
    "Trail",
    "WorkerEpochs",
    "World",
    "check_state",
    "is_one_node",
    "loaded",
    "store_of_group",
]
