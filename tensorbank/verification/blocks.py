"""Verification of a snapshot: every stored block is read and its checksum compared, and so are the documents of other readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.bank import Bank
from tensorbank.errors import IntegrityError, NotFoundError, StorageError
from tensorbank.fetch import Fetcher
from tensorbank.plans import Addresses, Plan
from tensorbank.reading import SampleReader
from tensorbank.verification.stored_form import find_flaws

__all__ = ["Damage", "VerifyReport", "verify"]

SAMPLES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Damage:
    """A tensor that cannot be read as it was written, or, without a ``sample_id``, an object that is not what it was."""

    sample_id: str
    modality: str
    key: str
    reason: str


@dataclass(slots=True)
class VerifyReport:
    """The result of verifying one table. ``n_blocks`` counts sound and damaged ones."""

    table: str
    version: int
    n_samples: int = 0
    n_blocks: int = 0
    n_bytes: int = 0
    damage: list[Damage] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.damage


def verify(bank: Bank, table: str, *, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Read every block of a table at its version and check it, and the shards' indices and Zarr documents beside them.

    Damage is listed, not raised.

    Parameters
    ----------
    progress
        Function that is called with the number of samples done and the number of all.

    Raises
    ------
    NotFoundError
        There is no such table.
    """
    schema = bank.table(table).schema
    modalities = ", ".join(f'"{name}"' for name in schema.names)
    plan = bank.sql(f'SELECT sample_id, {modalities} FROM "{table}"').plan()
    version = plan.source.snapshots[table][1]
    addresses, impossible = _possible_addresses(plan)
    report = VerifyReport(table, version, len(plan), addresses.n_blocks, addresses.read_bytes, impossible)
    report.damage += [
        Damage("", f.modality, f.key, f.reason) for f in find_flaws(bank.at({table: version}), table, schema)
    ]
    reader = SampleReader(addresses, Fetcher(bank.catalog.store))
    try:
        for start in range(0, len(plan), SAMPLES_AT_ONCE):
            positions = np.arange(start, min(start + SAMPLES_AT_ONCE, len(plan)))
            report.damage += _damage(reader, positions, plan.table["sample_id"])
            if progress is not None:
                progress(int(positions[-1]) + 1, len(plan))
    finally:
        reader.close()
    return report


def _possible_addresses(plan: Plan) -> tuple[Addresses, list[Damage]]:
    """Return the addresses of the modalities whose addresses can be, and the damage of the others."""
    sound, damage = [], []
    for handle in plan.handles:
        try:
            Addresses.of(plan.table, [handle], plan.bank)
        except IntegrityError as error:
            damage.append(Damage("", handle.name, "", str(error)))
        else:
            sound.append(handle)
    return Addresses.of(plan.table, sound, plan.bank), damage


def _damage(reader: SampleReader, positions: npt.NDArray[np.int64], ids: pa.ChunkedArray) -> Iterator[Damage]:
    """Yield the damage among some samples, which are read all at once, and where that fails, each tensor for itself."""
    try:
        reader.read(positions)
    except (IntegrityError, NotFoundError, StorageError):
        for name, addresses in reader.addresses.items():
            one = SampleReader(reader.addresses.only(name), reader.fetcher)
            for position in positions.tolist():
                try:
                    one.read([position])
                except (IntegrityError, NotFoundError, StorageError) as error:
                    sample_id = str(ids[position].as_py())
                    key = addresses.shard_keys[addresses.shard_of[position]]
                    yield Damage(sample_id, name, key, str(error))
