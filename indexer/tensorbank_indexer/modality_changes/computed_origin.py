"""Pixels that a callable makes of stored samples."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError, TensorBankError
from tensorbank.schema import Modality, TableSchema
from tensorbank.storage import Store
from tensorbank_indexer.guarded_source import cause_of
from tensorbank_indexer.modality_changes.group_task import GroupTask, fill
from tensorbank_indexer.modality_changes.table_rows import StoredRow, TableRows
from tensorbank_indexer.options import IngestOptions
from tensorbank_indexer.parts import ShardResult, conform, stored_numbers
from tensorbank_indexer.parts.stored_pixels import StoredPixels
from tensorbank_indexer.reports import StageClock
from tensorbank_indexer.source import Finding, MemberAddress, RawModality, RawSample, SampleRef

__all__ = ["Compute", "ComputedOrigin"]

Compute = Callable[[Mapping[str, Any]], npt.NDArray[np.generic]]
"""A callable that makes a modality of a batch: arrays ``(n, time, band, y, x)`` by modality, and ``sample_id``."""


class ComputedOrigin:
    """A callable over some modalities of the table, by which another is made."""

    format = "computed"
    n_unknown = 0
    attributes: Mapping[str, str] = {}

    def __init__(
        self,
        compute: Compute,
        store: Store,
        schema: TableSchema,
        modality: Modality,
        inputs: Sequence[str],
        options: IngestOptions,
        batch_size: int,
    ) -> None:
        if not callable(compute):
            raise InvalidInputError(f"a source or a callable is needed, got {type(compute).__name__}")
        if not inputs or batch_size < 1:
            raise InvalidInputError(
                "name the inputs of the callable, such as inputs=['S2L2A'], and batches of at least 1"
            )
        self.name = (
            f"{getattr(compute, '__module__', '')}.{getattr(compute, '__qualname__', type(compute).__name__)}"
        )
        self.revision = options.revision or f"run-{uuid.uuid4().hex}"
        self.inputs = tuple(inputs)
        self.findings: list[Finding] = []
        self.compute = compute
        self.store = store
        self.batch_size = batch_size
        self._inputs = {name: schema[name] for name in self.inputs}
        self._modality = modality
        if modality.name in self._inputs:
            raise InvalidInputError(f"{modality.name} cannot be made of itself")

    def require(self) -> None:
        """Ask nothing: what is made is known when it is made."""

    def modality(self) -> Modality:
        """Return the modality that is made."""
        return self._modality

    def having(self, rows: TableRows) -> npt.NDArray[np.int64]:
        """Return the numbers of the samples that have all inputs."""
        return np.flatnonzero(rows.live & rows.ready & (rows.row >= 0))

    def address(self, key: int) -> MemberAddress:  # noqa: ARG002 - all samples have one
        """Return what rows say of their origin: the callable and its revision."""
        return MemberAddress(self.name, 0, 0, self.revision)

    def etags(self) -> Mapping[str, str]:
        """Return no file."""
        return {}

    def results(
        self, tasks: Sequence[GroupTask], wanted: Sequence[Sequence[int]]
    ) -> Generator[ShardResult, None, None]:
        """Yield the results of tasks; the callable runs in this process."""
        with StoredPixels(self.store) as stored:
            for task, numbers in zip(tasks, wanted, strict=True):
                yield fill(task, self._given(task, numbers, stored), self.store, StageClock())

    def _given(
        self, task: GroupTask, numbers: Sequence[int], stored: StoredPixels
    ) -> Iterator[tuple[int, RawSample | Finding]]:
        for start in range(0, len(numbers), self.batch_size):
            some = numbers[start : start + self.batch_size]
            rows = [task.rows[n] for n in some]
            batch: dict[str, Any] = {"sample_id": [row.sample_id for row in rows]}
            n_dates = np.full(len(rows), self._modality.n_times)
            for name, modality in self._inputs.items():
                refs = [ref for row in rows if (ref := row.inputs[name]) is not None]
                batch[name], n_times = stored.read(modality, refs)
                if modality.n_times == self._modality.n_times:
                    n_dates = np.minimum(n_dates, n_times)
            made = self._checked(self._computed(batch), batch["sample_id"])
            for number, row, pixels, n in zip(some, rows, made, n_dates.tolist(), strict=True):
                yield number, self._as_read(row, pixels[:n])

    def _computed(self, batch: Mapping[str, Any]) -> Any:
        """Call the callable.

        Raises
        ------
        InvalidInputError
            It failed; the first sample at which it fails alone is named.
        """
        try:
            return self.compute(batch)
        except TensorBankError:
            raise
        except Exception as error:
            ids = batch["sample_id"]
            which, cause = f"one of {len(ids)} samples from {ids[0]} on", error
            for i, sample_id in enumerate(ids):
                try:
                    self.compute({name: values[i : i + 1] for name, values in batch.items()})
                except Exception as alone:  # noqa: BLE001 - whatever the callable raises names the sample
                    which, cause = f"sample {sample_id}", alone
                    break
            raise InvalidInputError(
                f"{self.name} failed at {which}: {cause_of(cause)}; nothing is committed"
            ) from error

    def _checked(self, made: Any, ids: Sequence[str]) -> npt.NDArray[np.generic]:
        """Return what the callable made, in the dtype of the modality.

        Raises
        ------
        InvalidInputError
            It is of another shape, or of a type whose values the dtype does not hold.
        """
        m = self._modality
        pixels = stored_numbers(np.asarray(made))
        wanted = (len(ids), *m.sample_shape)
        if pixels.shape != wanted:
            raise InvalidInputError(
                f"{self.name} made {m.name} of shape {pixels.shape} for {len(ids)} samples from {ids[0]} on, and {wanted} "
                "is needed: samples, times, bands, height, width; nothing is committed"
            )
        same = conform(pixels, m.dtype)
        if same.dtype != np.dtype(m.dtype):
            raise InvalidInputError(
                f"{self.name} made {m.name} as {pixels.dtype} from {ids[0]} on, values that {m.dtype} does not hold; "
                f"return .astype({m.dtype!r}), or describe the modality with another dtype; nothing is committed"
            )
        return same

    def _as_read(self, row: StoredRow, pixels: npt.NDArray[np.generic]) -> RawSample:
        m = self._modality
        raw = RawModality(pixels, m.band_names, None, (), self.address(row.key))
        ref = SampleRef(self.name, row.split, "", row.stem, row.sample_id, 0.0, 0.0, 0, {})
        return RawSample(ref, row.sample_id, None, None, None, None, None, {m.name: raw})
