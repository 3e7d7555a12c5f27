"""Checkpoints of a run: model, optimiser, moving average and the place of the loader together, for any number of ranks.

A checkpoint is a folder ``step-00000120`` of ``torch.distributed.checkpoint``. It is written beside its place and renamed when
all ranks are done, so that one that has its name is whole, and a run that was killed while it wrote one goes on from the last.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from tensorbank.errors import InvalidInputError

__all__ = ["Checkpoints"]

RUN = "run.json"
"""The file with the values of a run, beside the tensors. The state of the loader is an entry of the checkpoint too, where
``tensorbank lineage`` finds it."""


class Checkpoints:
    """The checkpoints of one run in a folder that all ranks see.

    Parameters
    ----------
    folder
        Folder of the run.
    n_kept
        The newest checkpoints that stay.
    """

    def __init__(self, folder: Path, *, n_kept: int = 3) -> None:
        self.folder = folder
        self.n_kept = n_kept

    def newest(self) -> Path | None:
        """Return the newest checkpoint that is whole; None if there is none."""
        return max(self._whole(), default=None)

    def save(
        self,
        step: int,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Mapping[str, torch.Tensor],
        run: Mapping[str, Any],
    ) -> None:
        """Write the state after a step; all ranks call it.

        Parameters
        ----------
        average
            Moving average of the parameters, by name.
        run
            JSON-able values of the run, among them the state of the ``loader``; rank 0's are kept.
        """
        place = self.folder / f"step-{step:08d}"
        half = place.with_name(f".{place.name}")
        weights, moments = get_state_dict(model, optimizer)
        state = {"model": weights, "optimizer": moments, "average": dict(average), "loader": run["loader"]}
        with _of_one_process():
            state_dict_saver.save(state, checkpoint_id=half)
        if _is_first():
            (half / RUN).write_text(json.dumps(run))
            shutil.rmtree(place, ignore_errors=True)
            half.rename(place)
            for old in sorted(self._whole())[: -self.n_kept]:
                shutil.rmtree(old, ignore_errors=True)
        _meet()

    def load(
        self,
        place: Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Mapping[str, torch.Tensor],
        recipe: str,
    ) -> dict[str, Any]:
        """Put the state of a checkpoint into model, optimiser and average, and return what :meth:`save` was told of the run.

        Raises
        ------
        InvalidInputError
            It is a checkpoint of another recipe or model.
        """
        run: dict[str, Any] = json.loads((place / RUN).read_text())
        if run.get("recipe") != recipe:
            raise InvalidInputError(
                f"{place} is of recipe {run.get('recipe')}, and this run has {recipe}: other modalities, budgets, sizes or "
                "seeds; give the same, or another folder"
            )
        weights, moments = get_state_dict(model, optimizer)
        state: dict[str, Any] = {"model": weights, "optimizer": moments, "average": dict(average)}
        with _of_one_process():
            state_dict_loader.load(state, checkpoint_id=place)
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        return run

    def _whole(self) -> list[Path]:
        return [path for path in self.folder.glob("step-*") if path.is_dir()]


@contextmanager
def _of_one_process() -> Iterator[None]:
    """Leave out torch's warning that there is one process, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _meet() -> None:
    if dist.is_initialized():
        dist.barrier()
