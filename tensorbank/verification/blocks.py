"""Checks of stored blocks: each is read, its checksum compared, and its pixels decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.bank import Bank
from tensorbank.catalog import TableVersion
from tensorbank.errors import IntegrityError, NotFoundError, StorageError
from tensorbank.fetch import Fetcher
from tensorbank.plans import Addresses, Plan
from tensorbank.reading import SampleReader
from tensorbank.verification.findings import Finding, FindingKind, VerifyReport

__all__ = ["damaged_blocks"]

SAMPLES_AT_ONCE = 16


def damaged_blocks(
    bank: Bank,
    table: str,
    version: TableVersion,
    report: VerifyReport,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Finding]:
    """Read every block of a version, and yield the damage; ``report`` gets their number."""
    modalities = ", ".join(f'"{name}"' for name in version.schema.names)
    pinned = bank.at({table: version.version})
    plan = pinned.sql(f'SELECT sample_id, {modalities} FROM "{table}"').plan()
    addresses = _possible_addresses(plan)
    report.n_blocks, report.n_bytes = addresses.n_blocks, addresses.read_bytes
    reader = SampleReader(addresses, Fetcher(bank.catalog.store))
    try:
        for start in range(0, len(plan), SAMPLES_AT_ONCE):
            positions = np.arange(start, min(start + SAMPLES_AT_ONCE, len(plan)))
            yield from _damage(reader, positions, plan.table["sample_id"])
            if progress is not None:
                progress(int(positions[-1]) + 1, len(plan))
    finally:
        reader.close()


def _possible_addresses(plan: Plan) -> Addresses:
    """Return the addresses of the modalities whose addresses can be; the others are found among the rows."""
    sound = []
    for handle in plan.handles:
        try:
            Addresses.of(plan.table, [handle], plan.bank)
        except IntegrityError:
            continue
        sound.append(handle)
    return Addresses.of(plan.table, sound, plan.bank)


def _damage(
    reader: SampleReader, positions: npt.NDArray[np.int64], ids: pa.ChunkedArray
) -> Iterator[Finding]:
    """Yield the damage among some samples, which are read all at once, and where that fails, each tensor for itself."""
    try:
        reader.read(positions)
    except (IntegrityError, NotFoundError, StorageError):
        for name, addresses in reader.addresses.items():
            one = SampleReader(reader.addresses.only(name), reader.fetcher)
            for position in positions.tolist():
                try:
                    one.read([position])
                except (IntegrityError, StorageError) as error:
                    sample_id = str(ids[position].as_py())
                    key = addresses.shard_keys[addresses.shard_of[position]]
                    yield Finding(FindingKind.DAMAGED_BLOCK, key, str(error), name, (sample_id,))
                except NotFoundError:
                    continue  # the shard was missed before
