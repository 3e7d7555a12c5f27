"""The schema of a table, from a look at the first samples of each kind of archive.

The majority of the looked-at samples decides, so that one damaged member cannot. Of dates it is the largest number that two of
them have, since a sample may have fewer than its table, but not more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, FormatError, InvalidInputError
from tensorbank.schema import Modality, TableSchema
from tensorbank_indexer.guarded_source import read_each
from tensorbank_indexer.modalities import describe
from tensorbank_indexer.parts import stored_numbers
from tensorbank_indexer.reports import HARMLESS
from tensorbank_indexer.source import Finding, SampleRef, Source

__all__ = ["ORDER", "extend", "require_fit", "survey"]

ORDER: tuple[str, ...] = ("S2L2A", "S2L1C", "S2RGB", "S1RTC", "S1GRD", "DEM", "NDVI", "LULC", "cloud_mask")
"""The order of the known modalities in a schema; others follow by name."""

SAMPLES_PER_KIND = 5
MAX_REASONS = 3


Look = Callable[[Modality, npt.NDArray[np.generic]], None]
"""A callback that takes a modality as one sample has it, and its pixels (time, band, y, x)."""


def _no_look(_modality: Modality, _pixels: npt.NDArray[np.generic]) -> None:
    return None


def survey(source: Source, refs: Iterable[SampleRef], *, look: Look = _no_look) -> TableSchema:
    """Return the modalities of the first samples of every (split, subset) that have them.

    Parameters
    ----------
    look
        A callback for each modality of each sample that is looked at, so that nothing is read twice.

    Raises
    ------
    FormatError
        None of them could be read.
    InvalidInputError
        A modality cannot be one of a table, such as one with two bands of one name.
    """
    seen: dict[str, list[Modality]] = defaultdict(list)
    refused: dict[str, InvalidInputError] = {}
    findings: list[Finding] = []
    for kind in _first_of_each(refs):
        for raw in read_each(source, kind):
            if isinstance(raw, Finding):  # reported by the ingest itself, which reads the sample again
                findings.append(raw)
                continue
            findings += raw.findings
            for name, given in raw.modalities.items():
                try:
                    pixels = stored_numbers(given.pixels)
                    modality = describe(name, pixels.dtype.name, given.bands, pixels.shape)
                except InvalidInputError as error:
                    refused[name] = error
                    continue
                seen[name].append(modality)
                look(modality, pixels)
    described = {name for name, modalities in seen.items() if modalities}
    for name, refusal in refused.items():
        if name not in described:  # otherwise it is one odd member among sound ones
            raise refusal
    if not described:
        raise FormatError(
            f"none of the first samples of {source.root} has a readable modality{_reasons(findings)}"
        )
    return TableSchema(tuple(_elected(seen[name]) for name in _ordered(described)))


def _reasons(findings: Sequence[Finding]) -> str:
    """Say why, in the words of the commonest findings, with one member for each."""
    first = {(f.modality, f.kind, f.reason): f for f in reversed(findings) if f.kind not in HARMLESS}
    counts = Counter((f.modality, f.kind, f.reason) for f in findings)
    told = [
        f"{f.modality or 'sample'} {f.member}: {f.reason.rstrip('.')} ({f.kind})"
        for f in (first[key] for key, _ in counts.most_common() if key in first)
    ]
    return (": " + "; ".join(told[:MAX_REASONS])) if told else ""


def _first_of_each(refs: Iterable[SampleRef]) -> list[list[SampleRef]]:
    """Choose for each (split, subset) its first samples, so many that each modality is among them often enough."""
    chosen: dict[tuple[str, str], list[SampleRef]] = defaultdict(list)
    n_with: Counter[tuple[str, str, str]] = Counter()
    for ref in refs:
        having = [(ref.split, ref.subset, modality) for modality in ref.members] or [
            (ref.split, ref.subset, "")
        ]
        if any(n_with[key] < SAMPLES_PER_KIND for key in having):
            n_with.update(having)
            chosen[ref.split, ref.subset].append(ref)
    return list(chosen.values())


def _elected(seen: Sequence[Modality]) -> Modality:
    """Return the modality that most of them are, dates aside, with the largest number of dates that two or more have."""
    alike: dict[str, list[Modality]] = defaultdict(list)
    for modality in seen:
        alike[replace(modality, n_times=1).to_json()].append(modality)
    majority = max(alike.values(), key=len)
    n_with = Counter(m.n_times for m in majority)
    agreed = [n for n, count in n_with.items() if count > 1]
    return replace(majority[0], n_times=max(agreed or n_with))


def require_fit(table: TableSchema, found: TableSchema, name: str) -> None:
    """Refuse an archive of which most modalities differ from those of the table.

    Otherwise its samples would be ingested with what is left of them, and stay so.

    Raises
    ------
    FormatError
        Of kind ``other-table``: no more of the modalities that both have fit than do not.
    """
    shared = [m for m in found if m.name in table]
    differences = {m.name: difference for m in shared if (difference := _difference(m, table[m.name]))}
    fitting = [m.name for m in shared if m.name not in differences]
    if differences and len(fitting) <= len(differences):
        raise FormatError(
            f"this archive does not fit table {name}, and nothing of it is written: "
            + "; ".join(f"{modality} {difference}" for modality, difference in differences.items())
            + f"; what fits: {', '.join(fitting) or 'nothing'}. Ingest it into a table of its own",
            kind=ErrorKind.OTHER_TABLE,
        )


def _difference(found: Modality, wanted: Modality) -> str | None:
    """Describe what keeps a modality of an archive from being stored as one of a table; fewer dates do not."""
    if found.n_times > wanted.n_times:
        return f"has {found.n_times} dates, in the table {wanted.n_times}"
    for what, got, there in (
        ("bands", found.band_names, wanted.band_names),
        ("dtype", found.dtype, wanted.dtype),
        ("pixels", (found.height, found.width), (wanted.height, wanted.width)),
    ):
        if got != there:
            texts = [" x ".join(map(str, v)) if what == "pixels" else str(v) for v in (got, there)]
            return f"has {what} {texts[0]}, in the table {texts[1]}"
    return None


def extend(table: TableSchema, found: TableSchema) -> TableSchema:
    """Return the table's schema with modalities that it does not have yet; what it has stays as it is."""
    return TableSchema((*table.modalities, *(m for m in found if m.name not in table)))


def _ordered(names: Iterable[str]) -> Sequence[str]:
    return sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))
