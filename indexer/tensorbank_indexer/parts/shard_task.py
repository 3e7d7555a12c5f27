"""One task of an ingest: read the samples of one shard, encode and store them, return their index rows.

A sample goes ``SampleRef`` -> ``RawSample`` (the source reads it) -> ``EncodedSample`` (measured and encoded) -> ``StoredSample``
(its blocks have a place in the shard) -> ``IndexRows``. One that fails on this way, whatever the cause, is a finding: the others
go on.

Pure but for the store: the same references give the same objects and rows, so a task may be run twice. It runs in any
process; nothing but values goes in and out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorbank.layout import shard_key
from tensorbank.reading import ShardAssembler
from tensorbank.schema import TableSchema
from tensorbank.storage import Store
from tensorbank_indexer.guarded_source import cause_of, read_each
from tensorbank_indexer.parts.encoded_sample import EncodedModality, EncodedSample, encode_sample
from tensorbank_indexer.parts.ingest_setting import IngestSetting
from tensorbank_indexer.reports import StageClock, StageSeconds
from tensorbank_indexer.rows import IndexRows, StoredModality, StoredSample, index_rows, sample_facts
from tensorbank_indexer.source import Finding, RawSample, SampleRef

__all__ = ["ShardResult", "ShardTask", "run"]


@dataclass(frozen=True, slots=True)
class ShardTask:
    """The task of writing one shard.

    Sample ``i`` of ``refs`` takes row ``shard * samples_per_shard + i`` of the part; the rows of samples that cannot be read stay
    empty.
    """

    table: str
    part: str
    shard: int
    samples_per_shard: int
    refs: tuple[SampleRef, ...]
    schema: TableSchema
    profile: str
    n_tiles: int

    @property
    def label(self) -> str:
        """See ``Task.label``."""
        first, last = self.refs[0], self.refs[-1]
        return f"shard {self.shard} of {self.part}, samples {first.stem} of {first.archive} to {last.stem} of {last.archive}"

    @property
    def first_paths(self) -> tuple[str, ...]:
        """See ``SourceTask.first_paths``."""
        return tuple(member.path for member in self.refs[0].members.values())

    def key(self, modality: str) -> str:
        """Return the key of the shard's object of a modality."""
        return shard_key(self.table, self.part, modality, self.shard)


@dataclass(frozen=True, slots=True)
class ShardResult:
    """The result of one task: index rows, findings, and the bytes of its tensors decoded and stored."""

    shard: int
    rows: IndexRows
    findings: list[Finding]
    tensor_bytes: int = 0
    stored_bytes: int = 0
    seconds: StageSeconds = field(default_factory=StageSeconds)

    @property
    def keys(self) -> list[str]:
        """See ``Result.keys``: the objects in which samples of the shard lie."""
        columns = (column for row in self.rows.shards.to_pylist() for column in row.values())
        return [str(c["key"]) for c in columns if isinstance(c, dict) and "key" in c]


def run(task: ShardTask, setting: IngestSetting) -> ShardResult:
    """Execute a task.

    Raises
    ------
    StorageError
        The store failed, or the source is out of reach; what was written is overwritten by the next try.
    """
    clock = StageClock()
    shard = _Shard(task)
    findings: list[Finding] = []
    for slot, raw in enumerate(clock.reading(read_each(setting.source, task.refs))):
        if isinstance(raw, Finding):
            findings.append(raw)
            continue
        encoded = encode_sample(raw, task.schema, profile=task.profile, n_tiles=task.n_tiles, clock=clock)
        findings += [*raw.findings, *encoded.findings, *shard.add(slot, raw, encoded)]
    with clock.stage("write"):
        stored_bytes = shard.store(setting.store)
    with clock.stage("statistics"):
        rows = index_rows(shard.samples, task.schema, part=task.part, shard=task.shard, n_tiles=task.n_tiles)
    return ShardResult(task.shard, rows, findings, shard.tensor_bytes, stored_bytes, clock.seconds)


class _Shard:
    """A shard that is being filled: one assembler a modality, and the samples that have their place."""

    def __init__(self, task: ShardTask) -> None:
        self.task = task
        self.samples: list[StoredSample] = []
        self.tensor_bytes = 0
        self._assemblers = {m.name: ShardAssembler(task.samples_per_shard, m.n_blocks) for m in task.schema}

    def add(self, slot: int, raw: RawSample, encoded: EncodedSample) -> list[Finding]:
        """Give the blocks of a sample their place, if anything can be kept of it; return findings about its facts."""
        if not encoded.modalities:
            return [_left_out(raw.ref, "no modality could be read")]
        measures = {name: modality.measure for name, modality in encoded.modalities.items()}
        try:  # before any block has its place: a sample without a row must leave none
            facts, doubts = sample_facts(raw, self.task.part, measures)
        except Exception as error:  # noqa: BLE001 - one sample's row: any cause costs that sample only
            return [_left_out(raw.ref, cause_of(error))]
        row = self.task.shard * self.task.samples_per_shard + slot
        modalities = {
            name: self._placed(name, slot, row, modality) for name, modality in encoded.modalities.items()
        }
        self.samples.append(StoredSample(row, facts, modalities))
        self.tensor_bytes += sum(m.tensor_bytes for m in encoded.modalities.values())
        return doubts

    def _placed(self, name: str, slot: int, row: int, encoded: EncodedModality) -> StoredModality:
        start, end = self._assemblers[name].add(slot, encoded.blocks)
        ref = {
            "key": self.task.key(name),
            "row": row,
            "offset": start,
            "length": end - start,
            "block_bytes": [len(block) for block in encoded.blocks],
        }
        return StoredModality(
            ref, encoded.source, encoded.product_ids, encoded.radiometric_offset, encoded.measure
        )

    def store(self, store: Store) -> int:
        """Write the objects of the modalities that have a block; return their bytes."""
        stored_bytes = 0
        for name, assembler in self._assemblers.items():
            if not assembler.empty:
                stored_bytes += assembler.n_bytes
                store.put(self.task.key(name), assembler.finish())
        return stored_bytes


def _left_out(ref: SampleRef, reason: str) -> Finding:
    return Finding("no-modality", ref.archive, reason, "sample left out", member=ref.stem)
