"""One task of an ingest: read the samples of one shard, measure, encode and store them, return their index rows.

Pure but for the store: the same references give the same objects and rows, so a task may be run twice. It runs in any
process; nothing but values goes in and out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tensorbank.codec import codec_for
from tensorbank.layout import shard_key
from tensorbank.schema import Modality, TableSchema
from tensorbank.store import Store
from tensorbank_indexer.conform import conform, plain_columns
from tensorbank_indexer.measure import CategoryMeasure, PixelMeasure, measure
from tensorbank_indexer.modalities import KNOWN, radiometric_offset
from tensorbank_indexer.rows import MeasuredModality, MeasuredSample, sample_rows, shard_row, tile_rows
from tensorbank_indexer.shard import ShardAssembler
from tensorbank_indexer.source import Finding, RawModality, RawSample, SampleRef, Source

__all__ = ["ShardResult", "ShardTask", "StageSeconds", "run"]


@dataclass(slots=True)
class StageSeconds:
    """Seconds of one or more tasks by stage; ``read`` includes decoding the archive."""

    read: float = 0.0
    statistics: float = 0.0
    encode: float = 0.0
    write: float = 0.0

    def add(self, other: StageSeconds) -> None:
        self.read += other.read
        self.statistics += other.statistics
        self.encode += other.encode
        self.write += other.write

    @property
    def total(self) -> float:
        return self.read + self.statistics + self.encode + self.write


@dataclass(frozen=True, slots=True)
class ShardTask:
    """What one task is given. Sample ``i`` of ``refs`` takes row ``shard * samples_per_shard + i`` of the part."""

    table: str
    part: str
    shard: int
    samples_per_shard: int
    refs: tuple[SampleRef, ...]
    schema: TableSchema
    profile: str
    n_tiles: int


@dataclass(slots=True)
class ShardResult:
    """What one task gives back."""

    shard: int
    samples: pa.Table
    tiles: pa.Table
    shards: pa.Table
    findings: list[Finding]
    tensor_bytes: int = 0
    stored_bytes: int = 0
    seconds: StageSeconds = field(default_factory=StageSeconds)


def run(task: ShardTask, source: Source, store: Store) -> ShardResult:
    """Execute a task.

    Raises
    ------
    StorageError
        The store failed; what was written is overwritten by the next try.
    """
    clock = _Clock()
    assemblers = {m.name: ShardAssembler(task.samples_per_shard, m.n_blocks) for m in task.schema}
    measured: list[MeasuredSample] = []
    findings: list[Finding] = []
    tensor_bytes = 0
    for slot, raw in enumerate(clock.around_each(source.read(task.refs))):
        sample, found = _place(task, slot, raw, assemblers, clock)
        findings += [*raw.findings, *found]
        if sample.modalities:
            measured.append(sample)
            tensor_bytes += sum(raw.modalities[name].pixels.nbytes for name in sample.modalities)
        else:
            findings.append(_left_out(raw))
    with clock.stage("write"):
        stored_bytes = _store(task, assemblers, store)
    with clock.stage("statistics"):
        samples = sample_rows(measured, task.schema)
        tiles = tile_rows(measured, task.schema, task.n_tiles)
        shards = shard_row(measured, task.schema, task.part, task.shard)
    return ShardResult(
        task.shard,
        samples,
        tiles,
        shards if measured else shards[:0],
        findings,
        tensor_bytes,
        stored_bytes,
        clock.seconds,
    )


def _place(
    task: ShardTask, slot: int, raw: RawSample, assemblers: dict[str, ShardAssembler], clock: _Clock
) -> tuple[MeasuredSample, list[Finding]]:
    """Measure and encode one sample into the assemblers."""
    row = task.shard * task.samples_per_shard + slot
    modalities: dict[str, MeasuredModality] = {}
    findings: list[Finding] = []
    for name, given in raw.modalities.items():
        modality = task.schema[name]
        misfit = conform(given, modality, raw.ref)
        if misfit is not None:
            findings.append(misfit)
            continue
        with clock.stage("statistics"):
            statistics = measure(given.pixels, modality, task.n_tiles)
            findings += _suspicions(statistics, modality, raw.ref)
        with clock.stage("encode"):
            blocks = _encode(given, modality, task.profile)
            start, end = assemblers[name].add(slot, blocks)
        modalities[name] = MeasuredModality(
            ref={
                "key": shard_key(task.table, task.part, name, task.shard),
                "row": row,
                "offset": start,
                "length": end - start,
                "block_bytes": [len(b) for b in blocks],
            },
            source={
                "path": given.address.path,
                "offset": given.address.offset,
                "length": given.address.length_bytes,
                "etag": given.address.etag,
            },
            product_ids=given.product_ids,
            radiometric_offset=_offset(statistics, modality),
            measure=statistics,
        )
    columns = plain_columns(raw, task.part, modalities)
    return MeasuredSample(row, columns, modalities), findings


def _encode(given: RawModality, modality: Modality, profile: str) -> list[bytes]:
    """Blocks as stored; those of dates that the sample does not have are empty."""
    codec = codec_for(profile, modality)
    pixels = np.ascontiguousarray(given.pixels, dtype=np.dtype(modality.dtype).newbyteorder("<"))
    blocks = [codec.encode(band) for date in pixels for band in date]
    return blocks + [b""] * (modality.n_blocks - len(blocks))


def _offset(statistics: PixelMeasure | CategoryMeasure, modality: Modality) -> dict[str, object] | None:
    if not isinstance(statistics, PixelMeasure):
        return None
    found = radiometric_offset(modality, statistics.low)
    return None if found is None else {"value": found[0], "method": found[1]}


def _suspicions(
    statistics: PixelMeasure | CategoryMeasure, modality: Modality, ref: SampleRef
) -> list[Finding]:
    """Values that are kept bit for bit but that somebody should know of."""

    def suspicion(kind: str, reason: str, action: str) -> Finding:
        return Finding(kind, ref.archive, reason, action, member=ref.stem, modality=modality.name)

    if isinstance(statistics, CategoryMeasure):
        unknown = statistics.count - int(statistics.classes.sum())
        if not unknown:
            return []
        return [
            suspicion(
                "unknown-class",
                f"{unknown} pixels have a code without a name",
                "kept; they count in no share",
            )
        ]
    found = []
    for band, valid in zip(modality.band_names, statistics.valid, strict=True):
        if not valid:
            found.append(
                suspicion("nan-only-band", f"band {band} has no valid pixel", "kept; its statistics are null")
            )
    expected = KNOWN[modality.name].valid_range if modality.name in KNOWN else None
    if expected and statistics.valid.any():
        low, high = float(np.nanmin(statistics.low)), float(np.nanmax(statistics.high))
        if low < expected[0] or high > expected[1]:
            reason = f"values reach from {low:g} to {high:g}, expected are {expected[0]:g} to {expected[1]:g}"
            found.append(suspicion("value-range", reason, "kept as it is"))
    return found


def _left_out(raw: RawSample) -> Finding:
    return Finding(
        "no-modality", raw.ref.archive, "no modality could be read", "sample left out", member=raw.ref.stem
    )


def _store(task: ShardTask, assemblers: dict[str, ShardAssembler], store: Store) -> int:
    stored = 0
    for name, assembler in assemblers.items():
        if not assembler.empty:
            stored += assembler.n_bytes
            store.put(shard_key(task.table, task.part, name, task.shard), assembler.finish())
    return stored


class _Clock:
    """Adds up the seconds of stages."""

    def __init__(self) -> None:
        self.seconds = StageSeconds()

    def stage(self, name: str) -> _Stage:
        return _Stage(self.seconds, name)

    def around_each(self, samples: Iterator[RawSample]) -> Iterator[RawSample]:
        """Samples, with the time it takes to get each counted as ``read``."""
        while True:
            with self.stage("read"):
                sample = next(samples, None)
            if sample is None:
                return
            yield sample


class _Stage:
    def __init__(self, seconds: StageSeconds, name: str) -> None:
        self._seconds, self._name, self._start = seconds, name, 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        spent = time.perf_counter() - self._start
        setattr(self._seconds, self._name, getattr(self._seconds, self._name) + spent)
