"""Verification: every stored block of a snapshot read and its checksum compared, and what other readers of it go by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tensorbank.bank import Bank
from tensorbank.errors import IntegrityError, NotFoundError, StorageError
from tensorbank.plans import Plan
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
    plan, impossible = _addressed(plan)
    report = VerifyReport(table, version, len(plan), plan.n_blocks, plan.read_bytes, impossible)
    report.damage += [
        Damage("", f.modality, f.key, f.reason) for f in find_flaws(bank.at({table: version}), table, schema)
    ]
    reader = SampleReader(plan)
    try:
        for start in range(0, len(plan), SAMPLES_AT_ONCE):
            positions = np.arange(start, min(start + SAMPLES_AT_ONCE, len(plan)))
            report.damage += _damage(reader, plan, positions)
            if progress is not None:
                progress(int(positions[-1]) + 1, len(plan))
    finally:
        reader.close()
    return report


def _addressed(plan: Plan) -> tuple[Plan, list[Damage]]:
    """The plan without modalities whose addresses cannot be, and those."""
    damage = []
    for handle in plan.handles:
        try:
            _only(plan, handle.name).addresses  # noqa: B018 - looked at for its errors
        except IntegrityError as error:
            damage.append(Damage("", handle.name, "", str(error)))
    bad = {d.modality for d in damage}
    return (
        replace(plan, handles=tuple(h for h in plan.handles if h.name not in bad)) if bad else plan
    ), damage


def _damage(reader: SampleReader, plan: Plan, positions: npt.NDArray[np.int64]) -> Iterator[Damage]:
    """Damage among some samples: all at once, and where that fails, each tensor for itself."""
    try:
        reader.read(positions)
    except (IntegrityError, NotFoundError, StorageError):
        for handle in plan.handles:
            addresses = plan.addresses[handle.name]
            one = SampleReader(_only(plan, handle.name))
            try:
                for position in positions.tolist():
                    try:
                        one.read([position])
                    except (IntegrityError, NotFoundError, StorageError) as error:
                        sample_id = str(plan.table["sample_id"][position].as_py())
                        key = addresses.keys[addresses.key[position]]
                        yield Damage(sample_id, handle.name, key, str(error))
            finally:
                one.close()


def _only(plan: Plan, handle: str) -> Plan:
    """The plan with one handle."""
    return Plan(
        plan.fingerprint,
        plan.source,
        tuple(h for h in plan.handles if h.name == handle),
        plan.table,
        plan.storage,
    )
