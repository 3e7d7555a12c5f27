"""One task of an ingest: read the samples of one shard, measure, encode and store them, return their index rows.

Pure but for the store: the same references give the same objects and rows, so a task may be run twice. It runs in any
process; nothing but values goes in and out. One sample that cannot be read, measured or encoded is a finding, whatever its
cause: the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.layout import shard_key
from tensorbank.reading import codec_for
from tensorbank.schema import Modality, TableSchema
from tensorbank.storage import Store
from tensorbank_indexer.boundary import cause_of, is_text, read_each
from tensorbank_indexer.measures import CategoryMeasure, PixelMeasure, measure, radiometric_offset, suspicions
from tensorbank_indexer.parts.conform import conform, in_type
from tensorbank_indexer.parts.index_rows import (
    MeasuredModality,
    MeasuredSample,
    sample_rows,
    shard_row,
    tile_rows,
)
from tensorbank_indexer.parts.sample_columns import plain_columns
from tensorbank_indexer.parts.shard_assembler import ShardAssembler
from tensorbank_indexer.source import Finding, RawModality, RawSample, SampleRef, Source

__all__ = ["ShardResult", "ShardTask", "StageSeconds", "run", "stored_numbers"]


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
    """The task of writing one shard. Sample ``i`` of ``refs`` takes row ``shard
    * samples_per_shard + i`` of the part."""

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
    """The result of one task."""

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
        The store failed, or the source is out of reach; what was written is overwritten by the next try.
    """
    clock = _Clock()
    assemblers = {m.name: ShardAssembler(task.samples_per_shard, m.n_blocks) for m in task.schema}
    measured: list[MeasuredSample] = []
    findings: list[Finding] = []
    tensor_bytes = 0
    for slot, raw in enumerate(clock.around_each(read_each(source, task.refs))):
        if isinstance(raw, Finding):
            findings.append(raw)
            continue
        sample, found = _place(task, slot, raw, assemblers, clock)
        findings += [*raw.findings, *found]
        if sample is not None:
            measured.append(sample)
            tensor_bytes += sum(raw.modalities[name].pixels.nbytes for name in sample.modalities)
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
) -> tuple[MeasuredSample | None, list[Finding]]:
    """Measure and encode one sample into the assemblers; None where nothing of it can be kept."""
    row = task.shard * task.samples_per_shard + slot
    encoded: dict[str, _Encoded] = {}
    findings: list[Finding] = []
    for name, given in raw.modalities.items():
        try:
            result = _encode(task, name, given, raw.ref, clock)
        except Exception as error:  # noqa: BLE001 - one modality of one sample: any cause costs it only
            result = _modality_finding("unusable-modality", name, raw.ref, cause_of(error))
        if isinstance(result, Finding):
            findings.append(result)
        else:
            encoded[name] = result
            findings += result.findings
    modalities = {
        name: MeasuredModality(
            ref={
                "key": shard_key(task.table, task.part, name, task.shard),
                "row": row,
                "offset": 0,
                "length": 0,
                "block_bytes": [len(b) for b in found.blocks],
            },
            source=found.source,
            product_ids=found.product_ids,
            radiometric_offset=found.offset,
            measure=found.measure,
        )
        for name, found in encoded.items()
    }
    if not modalities:
        return None, [*findings, _left_out(raw.ref, "no modality could be read")]
    try:
        columns, doubts = plain_columns(raw, task.part, modalities)
    except Exception as error:  # noqa: BLE001 - one sample's row: any cause costs that sample only
        return None, [*findings, _left_out(raw.ref, cause_of(error))]
    for name, modality in modalities.items():
        start, end = assemblers[name].add(slot, encoded[name].blocks)
        modality.ref |= {"offset": start, "length": end - start}
    return MeasuredSample(row, columns, modalities), [*findings, *doubts]


@dataclass(slots=True)
class _Encoded:
    """One modality of one sample, ready to be stored."""

    blocks: list[bytes]
    measure: PixelMeasure | CategoryMeasure
    source: dict[str, object]
    product_ids: tuple[str, ...]
    offset: dict[str, object] | None
    findings: list[Finding]


def stored_numbers(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return the pixels as a table stores them: truth values become the bytes that they are."""
    return pixels.view(np.uint8) if pixels.dtype == np.bool_ else pixels


def _encode(
    task: ShardTask, name: str, given: RawModality, ref: SampleRef, clock: _Clock
) -> _Encoded | Finding:
    """Measure and encode one modality, or say why it does not fit its table."""
    if name not in task.schema:
        return _modality_finding("unknown-modality", name, ref, f"the table has no modality {name!a}")
    modality = task.schema[name]
    given.pixels = stored_numbers(given.pixels)
    came_as = given.pixels.dtype.name
    given.pixels = in_type(given.pixels, modality.dtype)
    misfit = conform(given, modality, ref)
    if misfit is not None:
        return misfit
    with clock.stage("statistics"):
        statistics = measure(given.pixels, modality, task.n_tiles)
    with clock.stage("encode"):
        blocks = _blocks(given, modality, task.profile)
    ids = tuple(i for i in given.product_ids if is_text(i))
    findings = [*_converted(came_as, modality, ref), *suspicions(statistics, modality, ref)]
    offset = None
    if isinstance(statistics, PixelMeasure):
        offset = radiometric_offset(modality, statistics, ids)
    if offset is not None and offset.contradiction:
        action = "the offset of the pixels is stated"
        findings.append(
            Finding(
                "offset-baseline", ref.archive, offset.contradiction, action, member=ref.stem, modality=name
            )
        )
    return _Encoded(
        blocks,
        statistics,
        {
            "path": given.address.path if is_text(given.address.path) else ascii(given.address.path),
            "offset": given.address.offset,
            "length": given.address.length_bytes,
            "etag": given.address.etag,
        },
        ids if len(ids) == len(given.product_ids) else (),
        None if offset is None else {"value": offset.value, "method": offset.method},
        findings,
    )


def _converted(came_as: str, modality: Modality, ref: SampleRef) -> list[Finding]:
    if came_as == modality.dtype:
        return []
    reason, action = (
        f"the pixels are {came_as}",
        f"stored as {modality.dtype}, which holds each of them exactly",
    )
    return [Finding("other-type", ref.archive, reason, action, member=ref.stem, modality=modality.name)]


def _modality_finding(kind: str, name: str, ref: SampleRef, reason: str) -> Finding:
    action = "modality left out, the sample's others kept"
    return Finding(kind, ref.archive, reason, action, member=ref.stem, modality=name)


def _blocks(given: RawModality, modality: Modality, profile: str) -> list[bytes]:
    """Return the blocks as stored; those of dates that the sample does not have are empty."""
    codec = codec_for(profile, modality)
    pixels = np.ascontiguousarray(given.pixels, dtype=np.dtype(modality.dtype).newbyteorder("<"))
    blocks = [codec.encode(band) for date in pixels for band in date]
    return blocks + [b""] * (modality.n_blocks - len(blocks))


def _left_out(ref: SampleRef, reason: str) -> Finding:
    return Finding("no-modality", ref.archive, reason, "sample left out", member=ref.stem)


def _store(task: ShardTask, assemblers: dict[str, ShardAssembler], store: Store) -> int:
    stored = 0
    for name, assembler in assemblers.items():
        if not assembler.empty:
            stored += assembler.n_bytes
            store.put(shard_key(task.table, task.part, name, task.shard), assembler.finish())
    return stored


class _Clock:
    """A clock that adds up the seconds of stages."""

    def __init__(self) -> None:
        self.seconds = StageSeconds()

    def stage(self, name: str) -> _Stage:
        return _Stage(self.seconds, name)

    def around_each(self, samples: Iterator[RawSample | Finding]) -> Iterator[RawSample | Finding]:
        """Yield samples, with the time it takes to get each counted as ``read``."""
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
