"""The whole job, small: make archives, ingest them, ask three questions, stream the answers, check every tensor."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.bank import Bank
from tensorbank.errors import IntegrityError
from tensorbank.plan import Plan
from tensorbank_indexer.demo.archive import DemoTruth, write_archives
from tensorbank_indexer.demo.picture import contact_sheet
from tensorbank_indexer.ingest import IngestOptions, ingest
from tensorbank_indexer.report import IngestReport
from tensorbank_indexer.sources import open_source

__all__ = ["QUESTIONS", "SHEET_MODALITIES", "TABLE", "Answer", "Question", "load_archives", "stream"]

TABLE = "terramesh"
BATCH_SIZE = 16
SHEET_ROWS = 6
SHEET_MODALITIES = ("S2L2A", "S1RTC", "DEM", "NDVI", "LULC")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Question:
    """One query of the demo."""

    title: str
    sql: str


QUESTIONS = (
    Question("everything", f"SELECT * FROM {TABLE}"),
    Question(
        "clear sky", f"SELECT sample_id, S2L2A, S1RTC, DEM, NDVI, LULC FROM {TABLE} WHERE cloud_cover < 0.1"
    ),
    Question(
        "clear forest, 2 bands",
        f"SELECT sample_id, bands(S2L2A, ['B04', 'B08']) FROM {TABLE} "
        "WHERE cloud_cover < 0.1 AND NDVI.mean > 0.3 AND LULC.share.trees > 0.3",
    ),
)
"""Of rising selectivity; the first is checked tensor by tensor."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What streaming one question took. ``checked`` tensors were compared with the source, bit by bit."""

    question: Question
    plan: Plan
    samples: int
    requests: int
    read_bytes: int
    tensor_bytes: int
    elapsed_s: float
    checked: int


def load_archives(
    bank: Bank, folder: Path, n_samples: int, seed: int, progress: Progress
) -> tuple[DemoTruth, IngestReport]:
    """Make archives in ``folder`` and ingest them into the demo's table."""
    truth = write_archives(
        folder,
        n_samples=n_samples,
        samples_per_tar=max(1, n_samples // 2),
        seed=seed,
        progress=lambda done: progress("make", done, n_samples),
    )
    options = IngestOptions(samples_per_shard=64)
    return truth, ingest(open_source(str(truth.root)), bank, TABLE, options, progress=progress)


def stream(bank: Bank, question: Question, truth: DemoTruth | None, sheet: Path | None = None) -> Answer:
    """Stream the answer to one question once, in a PyTorch loop.

    Parameters
    ----------
    truth
        Where given, every delivered tensor is compared with the source.
    sheet
        Where given, a contact sheet of the first samples is drawn there.

    Raises
    ------
    IntegrityError
        A delivered tensor differs from the source, or the epoch is not whole.
    """
    plan = bank.sql(question.sql).plan()
    seen: list[str] = []
    checked = 0
    waited_s = 0.0
    with plan.dataloader(batch_size=BATCH_SIZE, seed=7) as loader:
        batches = iter(loader)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            waited_s += time.perf_counter() - started
            if batch is None:
                break
            seen += batch["sample_id"]
            if truth is not None:
                checked += _check(batch, plan, truth)
            if sheet is not None:
                contact_sheet(
                    _arrays(batch, SHEET_ROWS), batch["sample_id"][:SHEET_ROWS], SHEET_MODALITIES, sheet
                )
                sheet = None
        stats = loader.stats()
    if sorted(seen) != sorted(plan.table["sample_id"].to_pylist()):
        raise IntegrityError(
            f"{question.title}: {len(seen)} samples were delivered, {len(plan)} are in the plan"
        )
    return Answer(
        question, plan, len(seen), stats.requests, stats.bytes_read, plan.tensor_bytes, waited_s, checked
    )


def _arrays(batch: Mapping[str, Any], n: int) -> dict[str, npt.NDArray[np.generic]]:
    """First samples of the tensors of a batch that exist for all of them."""
    masks = batch.get("mask", {})
    whole = (
        name
        for name in SHEET_MODALITIES
        if name in batch and (name not in masks or bool(masks[name][:n].all()))
    )
    return {name: batch[name][:n].numpy() for name in whole}


def _check(batch: Mapping[str, Any], plan: Plan, truth: DemoTruth) -> int:
    """Compare the tensors of a batch with the source; returns how many."""
    checked = 0
    masks = batch.get("mask", {})
    for handle in plan.handles:
        for i, sample_id in enumerate(_present(batch["sample_id"], masks.get(handle.name))):
            expected = truth.crc32.get((sample_id, handle.name)) if sample_id else None
            if expected is None:
                continue
            if zlib.crc32(memoryview(np.ascontiguousarray(batch[handle.name][i].numpy()))) != expected:
                raise IntegrityError(f"{handle.name} of sample {sample_id} is not what the archive holds")
            checked += 1
    return checked


def _present(sample_ids: Iterable[str], mask: Any) -> list[str]:
    """Sample ids, empty where the modality is missing."""
    ids = list(sample_ids)
    return (
        ids
        if mask is None
        else [name if there else "" for name, there in zip(ids, mask.tolist(), strict=True)]
    )
