"""One task of a change: a new shard of the modality, for all samples of one shard of a part.

Samples that are not given anew keep what they have: their pixels are read, measured and stored again beside the new ones, so that
the samples of a shard lie in one object, and its roll-up is that of all of them. Where all that are given anew are given what
they have, since an archive was copied or written again, no shard is written: only what rows say of the archive changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorbank.errors import FormatError, NotFoundError
from tensorbank.layout import shard_key
from tensorbank.reading import ShardAssembler
from tensorbank.schema import Modality, TableSchema
from tensorbank.storage import Store
from tensorbank_indexer.guarded_source import read_each
from tensorbank_indexer.modality_changes.table_rows import StoredRow
from tensorbank_indexer.parts import EncodedModality, IngestSetting, ShardResult, encode_sample
from tensorbank_indexer.parts.stored_pixels import StoredPixels
from tensorbank_indexer.reports import StageClock
from tensorbank_indexer.rows import StoredModality, StoredSample, index_rows
from tensorbank_indexer.source import Finding, MemberAddress, RawModality, RawSample, SampleRef

__all__ = ["Given", "GroupTask", "fill", "run"]

KEPT_AT_ONCE = 16
"""The number of samples whose pixels are read from the bank at a time."""

Given = Iterable[tuple[int, RawSample | Finding]]
"""The pixels that samples get, each with its number among the rows of the task."""


@dataclass(frozen=True, slots=True)
class GroupTask:
    """The task of writing one shard of a part that has one modality.

    ``rows`` are all samples of a shard of the part ``base``, ``refs`` those of a source by their number among them. The shard of
    ``part`` has the same number and as many slots, and each sample the same row.
    """

    table: str
    part: str
    base: str
    shard: int
    samples_per_shard: int
    modality: Modality
    profile: str
    n_tiles: int
    rows: tuple[StoredRow, ...]
    refs: tuple[tuple[int, SampleRef], ...] = ()

    @property
    def label(self) -> str:
        """See ``Task.label``."""
        first = self.refs[0][1] if self.refs else None
        read = "" if first is None else f", samples from {first.stem} of {first.archive} on"
        return f"{self.modality.name} of shard {self.shard} of {self.base}{read}"

    @property
    def first_paths(self) -> tuple[str, ...]:
        """See ``SourceTask.first_paths``."""
        return tuple(member.path for _, ref in self.refs[:1] for member in ref.members.values())

    @property
    def key(self) -> str:
        """The key of the new shard."""
        return shard_key(self.table, self.part, self.modality.name, self.shard)


def run(task: GroupTask, setting: IngestSetting) -> ShardResult:
    """Execute a task with samples of a source.

    Raises
    ------
    StorageError
        The store failed, or the source is out of reach.
    IntegrityError
        Pixels that samples keep are damaged.
    """
    clock = StageClock()
    numbers = (number for number, _ in task.refs)
    read = clock.reading(read_each(setting.source, [ref for _, ref in task.refs]))
    return fill(task, zip(numbers, read, strict=True), setting.store, clock)


def fill(task: GroupTask, given: Given, store: Store, clock: StageClock) -> ShardResult:
    """Write the shard of a task, from what some of its samples are given, and what the others have.

    Raises
    ------
    IntegrityError
        Pixels that samples keep are damaged.
    StorageError
        The store failed.
    """
    schema = TableSchema((task.modality,))
    findings: list[Finding] = []
    encoded: dict[int, EncodedModality] = {}
    for number, raw in given:
        if isinstance(raw, Finding):
            findings.append(raw)
            continue
        sample = encode_sample(raw, schema, profile=task.profile, n_tiles=task.n_tiles, clock=clock)
        findings += [*raw.findings, *sample.findings]
        if task.modality.name in sample.modalities:
            encoded[number] = sample.modalities[task.modality.name]
            findings += _other_times(raw, task.modality.name, task.rows[number])
    new = frozenset(encoded)
    for number, raw in _kept(task, store, encoded):
        sample = encode_sample(raw, schema, profile=task.profile, n_tiles=task.n_tiles, clock=clock)
        if not sample.modalities:
            raise FormatError(
                f"{task.modality.name} of sample {task.rows[number].sample_id} cannot be kept: {sample.findings[0].reason}"
            )
        encoded[number] = sample.modalities[task.modality.name]
    with clock.stage("write"):
        stored, stored_bytes = _stored(task, encoded, new, store)
    with clock.stage("statistics"):
        rows = index_rows(stored, schema, part=task.base, shard=task.shard, n_tiles=task.n_tiles)
    tensor_bytes = sum(one.tensor_bytes for one in encoded.values()) if stored_bytes else 0
    return ShardResult(task.shard, rows, findings, tensor_bytes, stored_bytes, clock.seconds)


def _other_times(raw: RawSample, modality: str, row: StoredRow) -> list[Finding]:
    """Return a finding if pixels are of other dates than the columns of the sample say."""
    given = raw.modalities[modality].times_ns
    if given is None or not row.times:
        return []
    said = [round(time.timestamp() * 1e6) for time in row.times]
    if said == [int(time) // 1000 for time in given]:
        return []
    found = ", ".join(map(str, given.astype("datetime64[ns]").astype("datetime64[s]")))
    there = ", ".join(time.strftime("%Y-%m-%dT%H:%M:%S") for time in row.times)
    reason = f"the dates are {found}, and the columns of the sample say {there}"
    action = "stored; what columns say of time stays"
    return [Finding("other-times", raw.ref.archive, reason, action, row.stem, modality)]


def _kept(task: GroupTask, store: Store, given: Mapping[int, Any]) -> Iterator[tuple[int, RawSample]]:
    """Yield the samples that have the modality and are not given it anew, as a source would."""
    numbers = [n for n, row in enumerate(task.rows) if row.ref is not None and n not in given]
    if not numbers:
        return
    with StoredPixels(store) as stored:
        for start in range(0, len(numbers), KEPT_AT_ONCE):
            some = numbers[start : start + KEPT_AT_ONCE]
            refs = [ref for n in some if (ref := task.rows[n].ref) is not None]
            pixels, n_times = stored.read(task.modality, refs)
            for number, one, n in zip(some, pixels, n_times, strict=True):
                yield number, _as_read(task, task.rows[number], one[:n])


def _as_read(task: GroupTask, row: StoredRow, pixels: Any) -> RawSample:
    source = row.source or {}
    address = MemberAddress(
        source.get("path") or "",
        source.get("offset") or 0,
        source.get("length") or 0,
        source.get("etag") or "",
    )
    raw = RawModality(pixels, task.modality.band_names, None, row.product_ids, address)
    ref = SampleRef(task.base, row.split, "", row.stem, row.sample_id, 0.0, 0.0, 0, {})
    return RawSample(ref, row.sample_id, None, None, None, None, None, {task.modality.name: raw})


def _stored(
    task: GroupTask, encoded: Mapping[int, EncodedModality], given: Collection[int], store: Store
) -> tuple[list[StoredSample], int]:
    """Write the shard, unless those that are given anew have what they are given; return the samples in order, and the bytes."""
    new = sorted(given)
    same = _are_stored([task.rows[n] for n in new], [encoded[n] for n in new], store)
    assembler = ShardAssembler(task.samples_per_shard, task.modality.n_blocks)
    stored = []
    for number, row in enumerate(task.rows):
        one = encoded.get(number)
        if one is None:
            continue
        if same and row.ref is not None:
            ref = row.ref
        else:
            start, end = assembler.add(row.row - task.shard * task.samples_per_shard, one.blocks)
            ref = {
                "key": task.key,
                "row": row.row,
                "offset": start,
                "length": end - start,
                "block_bytes": [len(block) for block in one.blocks],
            }
        facts = {
            "sample_id": row.sample_id,
            "split": row.split,
            "stem": row.stem,
            "part": task.base,
            "key": row.key,
        }
        modality = StoredModality(ref, one.source, one.product_ids, one.radiometric_offset, one.measure)
        stored.append(StoredSample(row.row, facts, {task.modality.name: modality}))
    if same:
        return stored, 0
    n_bytes = assembler.n_bytes
    store.put(task.key, assembler.finish())
    return stored, n_bytes


def _are_stored(rows: Sequence[StoredRow], given: Sequence[EncodedModality], store: Store) -> bool:
    """Tell whether samples of one shard have the very blocks that they are given: the same lengths, and then the same bytes."""
    refs = [row.ref for row in rows if row.ref is not None]
    lengths = [[len(block) for block in one.blocks] for one in given]
    if [list(ref["block_bytes"]) for ref in refs] != lengths:
        return False
    keys = {ref["key"] for ref in refs}
    try:
        shards = {key: memoryview(store.get(key)) for key in keys}
    except NotFoundError:
        return False
    places = ((shards[ref["key"]], ref["offset"], ref["offset"] + ref["length"]) for ref in refs)
    return all(
        data[start:end] == b"".join(one.blocks) for (data, start, end), one in zip(places, given, strict=True)
    )
