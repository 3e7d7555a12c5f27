"""A source, read so that whatever goes wrong with one sample or one archive becomes a finding about it.

A source reports defects as findings, so an exception that leaves it is unforeseen. It must not end an ingest of millions of
samples; only a source that is out of reach does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from tensorbank.errors import FormatError, StorageError
from tensorbank_indexer.measures import normal_place
from tensorbank_indexer.source import Archive, Finding, RawSample, SampleRef, Scan, Source

__all__ = ["NAMELESS", "N_SCAN_THREADS", "cause_of", "is_text", "read_each", "scan", "scan_ahead"]

N_SCAN_THREADS = 4
"""The number of archives that are scanned at a time."""
NAMELESS = "nameless-sample"
"""The kind of the finding that stands for a sample without a usable id."""
MAX_CAUSE_CHARS = 200
"""The most characters of a foreign error's text in a finding."""


def read_each(source: Source, refs: Sequence[SampleRef]) -> Iterator[RawSample | Finding]:
    """Read samples, one result a reference, in order; a finding stands for each one at which the source failed.

    A generator is over after an error: reading begins anew behind the sample that caused it.

    Raises
    ------
    StorageError
        The source is out of reach, which is no fault of a sample.
    """
    done = 0
    while done < len(refs):
        try:
            for raw in source.read(refs[done:]):
                done += 1
                yield raw
                if done == len(refs):
                    return
            reason = "the source ended before it"
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - one sample: any cause costs that sample only
            reason = cause_of(error)
        yield Finding(
            "unreadable-sample", refs[done].archive, reason, "sample left out", member=refs[done].stem
        )
        done += 1


def cause_of(error: BaseException) -> str:
    """Describe an unforeseen error in one line."""
    text = ascii(str(error))[1:-1].split("\\n", 1)[0][:MAX_CAUSE_CHARS]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def scan(source: Source, archive: Archive) -> Scan:
    """List the samples of one archive; one that cannot be listed has none, and a finding.

    Raises
    ------
    StorageError
        The source is out of reach.
    """
    try:
        found = source.scan(archive)
        checked = [_checked(ref) for ref in found.samples]
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - one archive: any cause costs that archive only
        return Scan(
            archive, (), (Finding("unreadable-archive", archive.name, cause_of(error), "archive left out"),)
        )
    refs = tuple(ref for ref in checked if isinstance(ref, SampleRef))
    refused = tuple(ref for ref in checked if isinstance(ref, Finding))
    return Scan(archive, refs, (*found.findings, *refused))


def scan_ahead(source: Source, archives: Sequence[Archive]) -> Iterator[Scan]:
    """Yield the scans in the order of the archives, a few ahead: the references of 17 TB would not fit into memory."""
    with ThreadPoolExecutor(N_SCAN_THREADS) as pool:
        coming: deque[Future[Scan]] = deque()
        try:
            for archive in archives:
                coming.append(pool.submit(scan, source, archive))
                if len(coming) > N_SCAN_THREADS:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for scanning in coming:
                scanning.cancel()


def is_text(value: object) -> bool:
    """Tell whether a value is text that can be stored: not empty, and no half of a surrogate pair in it."""
    return isinstance(value, str) and bool(value) and not any("\ud800" <= c <= "\udfff" for c in value)


def _checked(ref: SampleRef) -> SampleRef | Finding:
    """Return the reference, with place and time unknown where they cannot be right; a finding if nothing names the sample."""
    for name, value in (("sample id", ref.sample_id), ("stem", ref.stem)):
        if not is_text(value):
            reason = f"the {name} is {value!a}, which cannot name a sample"
            return Finding(NAMELESS, ref.archive, reason, "sample left out", member=ascii(ref.stem))
    try:
        lon, lat = normal_place(float(ref.lon), float(ref.lat))
    except (FormatError, TypeError, ValueError):
        lon = lat = math.nan
    time_ns = ref.time_ns if abs(ref.time_ns) < 2**63 else 0
    if (lon, lat, time_ns) == (ref.lon, ref.lat, ref.time_ns):
        return ref
    return replace(ref, lon=lon, lat=lat, time_ns=time_ns)
