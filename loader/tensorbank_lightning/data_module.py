"""A data module of Lightning whose splits are queries of a bank."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule

import tensorbank as tb
from tensorbank.arguments import whole_number
from tensorbank.bank import Bank
from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank.queries import Answers, Mix
from tensorbank_lightning.georeferences import Georeferences
from tensorbank_lightning.passes import Passes, SteadyLoader
from tensorbank_lightning.sample_figure import SampleFigure
from tensorbank_lightning.task_batch import DETAILS, TaskBatch
from tensorbank_lightning.worker_loader import WorkerLoader
from tensorbank_loader import DataLoader, FetchOptions, StreamingDataset, World, shared_plan
from tensorbank_loader.epochs import OnIter
from tensorbank_loader.order import Even

__all__ = ["TensorBankDataModule"]

Split = Literal["train", "val", "test", "predict"]
Question = str | Answers | Plan | Mix
"""A split: SQL, a query or selection, a plan, or a mix."""


class TensorBankDataModule(LightningDataModule):
    """A data module for any LightningModule whose batches are those of TerraTorch's tasks, as :class:`TaskBatch` describes them.

    The bank is opened and asked when the Trainer wants a loader, in a process group once for all ranks. Training is shuffled,
    anew in each epoch; the other splits come in the order of their query. Each sample of a split comes once an epoch, on any
    number of ranks and workers. Checkpoints hold the place of the training: a run that goes on from one, in the middle of an
    epoch and on other ranks too, has the batches that it would have had.

    With ``limit_train_batches`` the Trainer's epochs go through all samples one part after the other; with ``overfit_batches``
    each has the same first batches of the query.

    Parameters
    ----------
    bank
        Bank, or its address as :func:`tensorbank.open` takes it.
    train, val, test, predict
        Query of each split: SQL, a query, a plan or a mix. None: there is no such split. ``predict`` selects ``sample_id``,
        ``epsg`` and ``bounds``, and the batch's ``filename`` are GeoTIFFs with the place of each sample.
    batch_size
        Samples of a rank in a step.
    global_batch_size
        Samples of all ranks in a training step, in place of ``batch_size``: a run then has the same steps on any number of ranks.
    mask
        Modality that holds the classes of pixels; ``predict`` needs none.
    label
        Column that holds the class of a sample; ``predict`` needs none.
    normalize
        Name of a published profile of constants, or ``{modality: {"mean": [...], "std": [...]}}``.
    fill, nodata, ignore, no_label, repeat_dates
        As in :class:`TaskBatch`.
    augment
        Transform of training batches before they are a task's, such as :class:`tensorbank_loader.Augment`.
    times
        Dates that are read of each sample, as in :class:`tensorbank_loader.DataLoader`.
    seed
        Seed of the order.
    drop_last
        True to leave out the last training batch of an epoch if it is shorter.
    num_workers
        Worker processes; 0 is best unless ``augment`` takes long on the processor.
    options
        Options of reading.
    bank_options
        Options of :func:`tensorbank.open`, such as ``{"endpoint": "http://127.0.0.1:8333"}``.

    Raises
    ------
    InvalidInputError
        There is no split, or a number is out of its range.
    """

    def __init__(
        self,
        bank: str | Bank,
        train: Question | None = None,
        val: Question | None = None,
        test: Question | None = None,
        predict: Question | None = None,
        *,
        batch_size: int = 8,
        global_batch_size: int | None = None,
        mask: str | None = None,
        label: str | None = None,
        normalize: str | dict[str, dict[str, list[float]]] | None = None,
        fill: float = 0.0,
        nodata: dict[str, float] | None = None,
        ignore: int = -1,
        no_label: int | None = None,
        repeat_dates: bool = False,
        augment: torch.nn.Module | None = None,
        times: int | list[int] | None = None,
        seed: int = 0,
        drop_last: bool = True,
        num_workers: int = 0,
        options: FetchOptions | None = None,
        bank_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.questions: dict[Split, Question | None] = {
            "train": train,
            "val": val,
            "test": test,
            "predict": predict,
        }
        if not any(question is not None for question in self.questions.values()):
            raise InvalidInputError("give the query of a split at least: train=, val=, test= or predict=")
        self.bank = bank
        self.bank_options = dict(bank_options or {})
        self.batch_size = whole_number("batch_size", batch_size, at_least=1)
        self.global_batch_size = global_batch_size
        if global_batch_size is not None:
            whole_number("global_batch_size", global_batch_size, at_least=1)
        self.mask, self.label = mask, label
        self.form: dict[str, Any] = {
            "constants": normalize,
            "fill": fill,
            "nodata": nodata,
            "ignore": ignore,
            "no_label": no_label,
            "repeat_dates": repeat_dates,
        }
        self.augment = augment
        self.times = times
        self.seed = whole_number("seed", seed, at_least=0)
        self.drop_last = drop_last
        self.num_workers = whole_number("num_workers", num_workers, at_least=0)
        self.options = options
        self.aug = torch.nn.Identity()
        # Tasks of TerraTorch draw by them, and look for nothing else.
        self.val_dataset = self.test_dataset = SampleFigure(ignore=ignore)
        self._loaders: dict[Split, SteadyLoader] = {}
        self._training: Mapping[str, Any] | None = None  # where the next training begins
        self._ended: dict[str, Any] | None = None  # where the last one ended
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    # ---- what Lightning asks for

    def train_dataloader(self) -> Passes:
        """Return the batches of the training; within a run it is one loader, however often the Trainer asks."""
        if "train" not in self._loaders:
            loader = self._loader("train")
            if self._training is not None:
                loader.load_state_dict(self._training)
            self._training = self._ended = None
        return Passes(self._loaders["train"])

    def val_dataloader(self) -> Passes | list[Any]:
        return self._evaluation("val")

    def test_dataloader(self) -> Passes | list[Any]:
        return self._evaluation("test")

    def predict_dataloader(self) -> Passes | list[Any]:
        return self._evaluation("predict")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002 - Lightning's signature
        """Take away what no model takes."""
        return {name: value for name, value in batch.items() if name != DETAILS}

    def state_dict(self) -> dict[str, Any]:
        """Return the place of the training for a checkpoint; nothing if there is none."""
        loader = self._loaders.get("train")
        place = self._ended if loader is None else loader.state_dict()
        return {} if place is None else {"train": place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the training where a checkpoint stands, once a run that trains asks for its loader."""
        fits = self.trainer is None or self.trainer.state.fn == "fit"
        self._training = state_dict.get("train") if fits else None

    def teardown(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """End the threads and processes of all loaders, and remove files of georeferences."""
        self._close()
        if "train" in self._loaders:  # a checkpoint may still be saved
            self._ended = self._loaders["train"].state_dict()
        self._loaders.clear()

    def on_exception(self, exception: BaseException) -> None:  # noqa: ARG002 - Lightning's signature
        """End the threads and processes of all loaders, whose place may still be saved."""
        self._close()

    def plot(self, sample: Mapping[str, Any], split: str = "val") -> Any:  # noqa: ARG002 - TerraTorch's signature
        """Return a figure of a sample of a task's batch, by :meth:`SampleFigure.plot`: images, mask, and what was predicted."""
        return self.val_dataset.plot(sample)

    # ---- how it is made

    def _close(self) -> None:
        for loader in self._loaders.values():
            loader.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _evaluation(self, split: Split) -> Passes | list[Any]:
        if self.questions[split] is None:
            return []  # Lightning's way to say that there is none
        if split not in self._loaders:
            self._loader(split)
        return Passes(self._loaders[split])

    def _loader(self, split: Split) -> SteadyLoader:
        """Make the loader of a split."""
        plan = self._plan(split)
        self.val_dataset = self.test_dataset = self._figure(plan)
        trains = split == "train"
        shuffles = trains and not self._overfits
        on_iter: OnIter = "continue" if shuffles else "restart"
        world = World.detect()
        size = self.batch_size * world.n_ranks
        if trains and self.global_batch_size is not None:
            size = self.global_batch_size
        # A share of no sample would make the mean of the loss NaN.
        even: Even = "pad" if not trains and 0 < len(plan) % size < world.n_ranks else "exact"
        common: dict[str, Any] = {
            "global_batch_size": size,
            "seed": self.seed,
            "shuffle": shuffles or None,
            "drop_last": trains and self.drop_last,
            "even": even,
            "times": self.times,
            "options": self.options,
            "transform": self._task_batch(plan, split),
        }
        loader: SteadyLoader
        if self.num_workers:
            loader = WorkerLoader(StreamingDataset(plan, **common), self.num_workers, on_iter=on_iter)
        else:
            loader = DataLoader(plan, **common, on_iter=on_iter, device=self._device)
        self._loaders[split] = loader
        return loader

    def _plan(self, split: Split) -> Plan | Mix:
        question = self.questions[split]
        if question is None:
            raise InvalidInputError(f"there is no query of the split {split!r}; give {split}=")
        if isinstance(question, Plan | Mix):
            return question
        if isinstance(question, str):
            bank = self.bank if isinstance(self.bank, Bank) else tb.open(self.bank, **self.bank_options)
            question = bank.sql(question)
        return shared_plan(question, by_date=self.times is not None)

    def _figure(self, plan: Plan | Mix) -> SampleFigure:
        plans = (plan,) if isinstance(plan, Plan) else plan.plans
        handles = {h.name: h for p in plans for h in p.handles}
        bands = {n: [h.modality.band_names[b] for b in h.bands] for n, h in handles.items() if n != self.mask}
        classes = dict(handles[self.mask].modality.classes) if self.mask in handles else {}
        return SampleFigure(bands, classes, self.form["ignore"])

    def _task_batch(self, plan: Plan | Mix, split: Split) -> TaskBatch:
        predicts = split == "predict"
        georeferences = None
        if predicts:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="tensorbank-predict-")
            georeferences = Georeferences(Path(self._folder.name))
        return TaskBatch(
            plan,
            mask=None if predicts else self.mask,
            label=None if predicts else self.label,
            augment=self.augment if split == "train" else None,
            georeferences=georeferences,
            **self.form,
        )

    @property
    def _overfits(self) -> bool:
        return self.trainer is not None and bool(getattr(self.trainer, "overfit_batches", 0))

    @property
    def _device(self) -> torch.device | None:
        """The device of the Trainer, onto which batches are read ahead."""
        return None if self.trainer is None else self.trainer.strategy.root_device
