"""The check of an archive with one hostile stretch: sound samples are exact, the rest ends, and is named."""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import Random

import numpy as np

import tensorbank as tb
from support.hostile.locations import IDS, entries_of, write
from support.hostile.locations import pixels_of as location_pixels
from support.hostile.members import SIDE, pixels_of, sample_of, sound_members, stem_of
from support.hostile.mutations import HOSTILE, mutated_locations, mutated_member, mutated_table, mutated_tar
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.containers.limits import ReadLimits
from tensorbank_indexer.reports.finding_kinds import FINDING_KINDS
from tensorbank_indexer.source import Finding, RawSample

LIMITS = ReadLimits(max_sample_bytes=8 << 20, max_metadata_bytes=1 << 20, max_sample_s=10.0)
MAX_S = 15.0
MAX_GROWN_BYTES = 300 << 20
SOUND = range(3)
_sound: dict[str, bytes] = {}


class Archive:
    """An archive of sound members and hostile ones below a folder, written anew for each case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sound = _sound or sound_members(SOUND)
        _sound.update(self.sound)
        self.path = folder / "source" / "train" / "DEM" / "majortom_shard_000001.tar"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, rng: Random) -> tuple[int, bool]:
        """Write a case; how many sound members lie before its hostile stretch, and whether only a member is hostile."""
        kind = rng.randrange(3)
        hostile = mutated_member(rng) if kind < 2 else b"x" * 300
        if kind == 1:
            data, before = mutated_tar(rng, self.sound, hostile)
        else:
            data, before = mutated_tar(_Plain(rng), self.sound, hostile)
        self.path.write_bytes(data)
        table = self.folder / "source" / "train_metadata.parquet"
        table.unlink(missing_ok=True)
        if kind == 2:
            table.write_bytes(mutated_table(rng, list(self.sound)))
        return before, kind != 1

    def read(self) -> tuple[list[RawSample], list[Finding]]:
        """Return all samples and findings of the case."""
        source = open_source(str(self.folder / "source"), format="terramesh", limits=LIMITS)
        archives, findings = source.archives()
        samples: list[RawSample] = []
        for archive in archives:
            scan = source.scan(archive)
            found = list(source.read(scan.samples))
            assert len(found) == len(scan.samples)
            samples += found
            findings = [*findings, *scan.findings, *(f for raw in found for f in raw.findings)]
        return samples, findings


class Locations:
    """Two files of many locations below a folder, of which one is written anew for each case."""

    def __init__(self, folder: Path) -> None:
        self.root = write(folder / "locations", S2L2A=entries_of("S2L2A"))

    def check(self, rng: Random) -> str:
        """Say what is wrong with how the sound file is read beside a hostile one; empty if all is well."""
        write(self.root, S1GRD=mutated_locations(rng))
        began = time.monotonic()
        source = open_source(str(self.root), format="ssl4eo-s12-zarr", limits=LIMITS)
        archives, _ = source.archives()
        (scan,) = [source.scan(archive) for archive in archives]
        samples = {raw.ref.stem: raw for raw in source.read(scan.samples)}
        if time.monotonic() - began > MAX_S:
            return f"reading took {time.monotonic() - began:.1f} s"
        for i, sample_id in enumerate(IDS):
            raw = samples.get(sample_id)
            if raw is None or "S2L2A" not in raw.modalities:
                return f"sound location {sample_id} is missing"
            if not np.array_equal(raw.modalities["S2L2A"].pixels, location_pixels("S2L2A")[i]):
                return f"sound location {sample_id} has other pixels"
        for raw in samples.values():
            if "S1GRD" not in raw.modalities and not (raw.findings or scan.findings):
                return f"{raw.ref.stem} lacks S1GRD without a finding"
        texts = [f.reason for raw in samples.values() for f in raw.findings] + [
            f.reason for f in scan.findings
        ]
        return next((f"{ascii(t)[:200]} is not for people" for t in texts if not t.isprintable()), "")


class _Plain(Random):
    """The choices of another generator, but for the kind of tar, which is a sound one."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng.getrandbits(30))
        self._n_asked = 0

    def randrange(self, *args: int) -> int:
        self._n_asked += 1
        return 3 if self._n_asked == 2 else super().randrange(*args)


def _memory() -> tuple[int, int]:
    """Return the bytes of memory that this process has, and its peak."""
    status = Path("/proc/self/status").read_text()
    now, peak = (int(re.search(rf"{n}:\s+(\d+) kB", status)[1]) << 10 for n in ("VmRSS", "VmHWM"))  # type: ignore[index]
    return now, peak


def check(archive: Archive, rng: Random) -> str:
    """Say what is wrong with how a case is read; empty if all is well."""
    before, is_tar_sound = archive.write(rng)
    began = time.monotonic()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew with each case
    before_bytes, _ = _memory()
    samples, findings = archive.read()
    took = time.monotonic() - began
    if took > MAX_S:
        return f"reading took {took:.1f} s"
    grown_bytes = _memory()[1] - before_bytes
    if grown_bytes > MAX_GROWN_BYTES:
        return f"memory grew by {grown_bytes >> 20} MiB"
    by_stem = {raw.ref.stem: raw for raw in samples}
    needed = SOUND if is_tar_sound else list(SOUND)[:before]
    for number in needed:
        raw = by_stem.get(stem_of(number))
        if raw is None or "DEM" not in raw.modalities:
            return f"sound member {number} is missing"
    for number in SOUND:
        raw = by_stem.get(stem_of(number))
        if raw is None or (number not in needed and raw.findings and not raw.modalities):
            continue  # behind the stretch, whose global records may count for what follows
        if raw.sample_id != sample_of(number) or raw.epsg != 32633 or raw.x is None or len(raw.x) != SIDE:
            return f"sound member {number} is {raw.sample_id}, EPSG {raw.epsg}"
        if not np.array_equal(raw.modalities["DEM"].pixels, pixels_of(number)):
            return f"sound member {number} has other pixels"
    for raw in samples:
        if not raw.modalities and not raw.findings:
            return f"{raw.ref.stem} has no modality and no finding"
    for text in [f.reason + f.member for f in findings] + [raw.sample_id for raw in samples]:
        if not text.isprintable() or len(text) > 1000:
            return f"{ascii(text)[:200]} is not for people"
    unexplained = {f.kind for f in findings} - FINDING_KINDS.keys()
    return f"the kinds {sorted(unexplained)} are explained nowhere" if unexplained else ""


def check_ingest(archive: Archive, rng: Random) -> str:
    """Check a case as :func:`check` does, through the whole ingest into a bank."""
    wrong = check(archive, rng)
    if wrong:
        return wrong
    samples, _ = archive.read()
    readable = {raw.ref.stem for raw in samples if raw.modalities}
    bank = archive.folder / f"bank-{time.monotonic_ns()}"
    source = open_source(str(archive.folder / "source"), format="terramesh", limits=LIMITS)
    if not readable & {stem_of(number) for number in SOUND}:
        return ""
    report = ingest(source, tb.create(bank), "t", IngestOptions(n_workers=1, samples_per_shard=8))
    rows = tb.open(bank).sql("SELECT stem FROM t").arrow().to_pylist()
    found = {row["stem"] for row in rows}
    sound = {stem_of(number) for number in SOUND} & readable
    if not sound <= found:
        return f"{sorted(sound - found)} were not ingested"
    missing = readable - found - {f.member for f in report.findings}
    return f"{sorted(missing)} are missing without a finding" if missing else ""


__all__ = ["HOSTILE", "Archive", "Locations", "check", "check_ingest"]
