"""Samples of a batch of archives that a table has already, those that are new, and those that occur twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.catalog import Catalog, key_of
from tensorbank.errors import NotFoundError
from tensorbank_indexer.source import Finding, SampleRef

__all__ = ["Presence", "deleted_from", "presence_of"]


@dataclass(frozen=True, slots=True)
class Presence:
    """The references of a batch that are in the snapshot, those that are new, and findings about the rest."""

    present: tuple[SampleRef, ...]
    fresh: tuple[SampleRef, ...]
    findings: tuple[Finding, ...]


def presence_of(refs: Sequence[SampleRef], catalog: Catalog, table: str) -> Presence:
    """Sort references by what the newest snapshot of a table has of them.

    A sample is known by its id and by its stem, each within its split. If the table has both, it has the sample; if it has one of
    them only, another sample has that name, and this one is left out, as a repetition within the batch is. Pure but for the read.
    """
    present: list[SampleRef] = []
    fresh: list[SampleRef] = []
    findings: list[Finding] = []
    stems: set[tuple[str, str, str]] = set()
    samples: set[tuple[str, str]] = set()
    for ref, has_id, has_stem in zip(refs, *_committed(refs, catalog, table), strict=True):
        stem, sample = (ref.split, ref.subset, ref.stem), (ref.split, ref.sample_id)
        if has_id and has_stem:
            present.append(ref)
        elif has_id or has_stem or stem in stems or sample in samples:
            findings.append(_repeated(ref))
        else:
            stems.add(stem)
            samples.add(sample)
            fresh.append(ref)
    return Presence(tuple(present), tuple(fresh), tuple(findings))


def deleted_from(refs: Sequence[SampleRef], catalog: Catalog, table: str) -> frozenset[str]:
    """Return the parts of which some samples were deleted, as far as they are in the newest snapshot of a table still."""
    try:
        gone = catalog.deleted(catalog.version(table))
    except NotFoundError:
        return frozenset()
    if gone is None:
        return frozenset()
    keys = pa.array([key_of(r.split, r.sample_id) for r in refs], pa.int64())
    return frozenset(pc.unique(gone["part"].filter(pc.is_in(gone["key"], keys))).to_pylist())


def _committed(refs: Sequence[SampleRef], catalog: Catalog, table: str) -> tuple[list[bool], list[bool]]:
    """Tell for each reference whether the table has its id, and whether it has its stem."""
    try:
        known = catalog.membership(catalog.version(table))
    except NotFoundError:
        return [False] * len(refs), [False] * len(refs)
    ids = np.array([key_of(r.split, r.sample_id) for r in refs], np.int64)
    stems = np.array([key_of(r.split, r.subset, r.stem) for r in refs], np.int64)
    return known.has_samples(ids).tolist(), known.has_stems(stems).tolist()


def _repeated(ref: SampleRef) -> Finding:
    reason = f"{ref.stem} (sample {ref.sample_id}) occurs more than once in split {ref.split}"
    return Finding(
        "duplicate-sample", ref.archive, reason, "the first one kept, this one left out", member=ref.stem
    )
