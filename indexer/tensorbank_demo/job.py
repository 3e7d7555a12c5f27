"""The whole job, small: make archives, ingest them, ask three questions, stream the answers, check every tensor."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorbank.bank import Bank
from tensorbank.errors import ErrorKind, IntegrityError, InvalidInputError
from tensorbank.plans import Plan
from tensorbank_demo.landscape import DemoTruth, write_archives
from tensorbank_demo.picture import contact_sheet
from tensorbank_indexer import IngestOptions, IngestReport, ingest, open_source

__all__ = ["QUESTIONS", "TABLE", "Answer", "Question", "check", "draw", "load_archives", "stream"]

TABLE = "terramesh"
BATCH_SIZE = 16
SEED = 7
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
"""The queries of the demo, of rising selectivity."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of streaming one question, and what it took."""

    question: Question
    plan: Plan
    samples: int
    requests: int
    read_bytes: int
    tensor_bytes: int
    elapsed_s: float


def load_archives(
    bank: Bank, folder: Path, n_samples: int, seed: int, progress: Progress
) -> tuple[DemoTruth, IngestReport | None]:
    """Make archives in ``folder`` and ingest them into the demo's table; no report where it holds these samples already.

    Raises
    ------
    InvalidInputError
        The bank holds anything else (``kind`` is ``bank-not-empty``).
    """
    there = bank.tables()
    if there not in ([], [TABLE]):
        raise _not_empty(bank, ", ".join(there[:5]))
    truth = write_archives(
        folder,
        n_samples=n_samples,
        samples_per_tar=max(1, n_samples // 2),
        seed=seed,
        progress=lambda done: progress("make", done, n_samples),
    )
    if there:
        ids = bank.sql(f"SELECT sample_id FROM {TABLE}").arrow()["sample_id"].to_pylist()
        if sorted(ids) != sorted(truth.samples):
            raise _not_empty(bank, f"{TABLE}, of other samples than these {n_samples}")
        return truth, None
    options = IngestOptions(samples_per_shard=64)
    return truth, ingest(open_source(str(truth.root)), bank, TABLE, options, progress=progress)


def _not_empty(bank: Bank, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{bank.url} has tables already ({what}); the demo needs an empty bank of its own",
        kind=ErrorKind.BANK_NOT_EMPTY,
    )


def stream(bank: Bank, question: Question) -> Answer:
    """Stream the answer to one question once, in a PyTorch loop that does nothing else.

    Raises
    ------
    IntegrityError
        The epoch is not whole.
    """
    plan = bank.sql(question.sql).plan()
    seen: list[str] = []
    with plan.dataloader(batch_size=BATCH_SIZE, seed=SEED) as loader:
        started = time.perf_counter()
        for batch in loader:
            seen += batch["sample_id"]
        elapsed_s = time.perf_counter() - started
        stats = loader.stats()
    if sorted(seen) != sorted(plan.table["sample_id"].to_pylist()):
        raise IntegrityError(
            f"{question.title}: {len(seen)} samples were delivered, {len(plan)} are in the plan"
        )
    return Answer(question, plan, len(seen), stats.requests, stats.bytes_read, plan.tensor_bytes, elapsed_s)


def check(bank: Bank, truth: DemoTruth, progress: Callable[[int], None] = lambda _: None) -> int:
    """Stream one epoch of everything and compare every tensor with the source; return how many there were.

    ``progress`` is called with the number compared so far.

    Raises
    ------
    IntegrityError
        A tensor differs from the source, or one was not delivered.
    """
    plan = bank.sql(QUESTIONS[0].sql).plan()
    with plan.dataloader(batch_size=BATCH_SIZE, seed=SEED) as loader:
        checked = 0
        for batch in loader:
            checked += _check(batch, plan, truth)
            progress(checked)
    if checked != len(truth.crc32):
        raise IntegrityError(f"{checked} of {len(truth.crc32)} tensors of the archives were delivered")
    return checked


def draw(bank: Bank, path: Path) -> None:
    """Draw the first batch of the second question."""
    plan = bank.sql(QUESTIONS[1].sql).plan()
    with plan.dataloader(batch_size=SHEET_ROWS, seed=SEED) as loader:
        batch = next(iter(loader))
    arrays = {name: batch[name].numpy() for name in SHEET_MODALITIES if name in batch}
    masks = {name: mask.numpy() for name, mask in batch.get("mask", {}).items()}
    contact_sheet(arrays, batch["sample_id"], SHEET_MODALITIES, path, masks=masks)


def _check(batch: Mapping[str, Any], plan: Plan, truth: DemoTruth) -> int:
    """Compare the tensors of a batch with the source; return how many there were."""
    checked = 0
    masks = batch.get("mask", {})
    for handle in plan.handles:
        for i, sample_id in enumerate(_present(batch["sample_id"], masks.get(handle.name))):
            expected = truth.crc32.get((sample_id, handle.name)) if sample_id else None
            if expected is None:
                continue
            if zlib.crc32(np.ascontiguousarray(batch[handle.name][i].numpy()).data) != expected:
                raise IntegrityError(f"{handle.name} of sample {sample_id} is not what the archive holds")
            checked += 1
    return checked


def _present(sample_ids: Iterable[str], mask: Any) -> list[str]:
    """Return the sample ids, with an empty text for those that lack the modality."""
    ids = list(sample_ids)
    return (
        ids
        if mask is None
        else [name if there else "" for name, there in zip(ids, mask.tolist(), strict=True)]
    )
