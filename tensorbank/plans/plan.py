"""Plans: frozen answers of queries.

A plan holds the selected samples in order and, for every handle the query selected, the bytes to read: no listing, no
footer and no metadata request stands between it and the pixels. It is Arrow in memory and on disk, and a value: two plans
with one fingerprint select the same samples of the same snapshots.

Columns of ``Plan.table`` for a handle named ``S2L2A``:

``S2L2A.key``
    dictionary<string>: shard key in the bank; null where the sample lacks the modality.
``S2L2A.starts``, ``S2L2A.lengths``
    fixed-size lists, one entry a run of consecutive blocks: ``[start, start + length)`` in bytes of the object.
``S2L2A.corner``
    fixed-size list (y0, x0), only where tiles were selected: the first row and column of the window in the sample's grid.
``S2L2A.n_times``
    int16, only where a selected sample has fewer dates than its table: how many it has, the first ones; 0 where it lacks the
    modality.

All other columns are the query's own and are handed out beside the tensors.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.errors import ErrorKind, FormatError, InvalidInputError, TensorBankError
from tensorbank.plans.addresses import Addresses
from tensorbank.plans.explanation import as_html, as_text
from tensorbank.plans.forecast import Forecast, Price, forecast
from tensorbank.plans.handle import Handle
from tensorbank.plans.origin import Origin, origin_from_json, origin_to_json, trusted
from tensorbank.plans.plan_source import PlanSource
from tensorbank.plans.sealed_table import load_table, save_table
from tensorbank.plans.shared_table import SharedTable, can_share
from tensorbank.plans.streaming import LoaderOptions, loader_of

if TYPE_CHECKING:
    from tensorbank_loader import DataLoader

__all__ = [
    "Plan",
]

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
FORMAT_VERSION = 3
"""The version of the format of plans. 3: sealed by a checksum.
Files of older versions are refused, since nothing tells whether they are sound."""
_METADATA_KEY = b"tensorbank.plan"


@dataclass(frozen=True)
class Plan:
    """The plan: samples to read and where they lie, pinned to snapshots. Frozen and picklable.

    Parameters
    ----------
    fingerprint
        Hash of snapshots, canonical query, registered tables, planner version and the samples with their addresses in their
        order, 32 hexadecimal digits.
    source
        Facts that the plan was made from, and what was pruned.
    handles
        Selected modalities in the order of the SELECT list.
    table
        One row a sample; see the module's documentation.
    origin
        Where the bytes are read from, with the keys for it, which are never written to disk.
    """

    fingerprint: str
    source: PlanSource
    handles: tuple[Handle, ...]
    table: pa.Table
    origin: Origin

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        names = ", ".join(h.name for h in self.handles)
        return f"Plan({self.fingerprint}, {len(self)} samples of [{names}])"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the views of the table, which are made again where they are used;
        a worker maps the table.
        """
        made = ("addresses", "weights", "_shared")
        state = {name: value for name, value in self.__dict__.items() if name not in made}
        if can_share(self.table):
            state["table"] = self._shared
        return state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and (self.fingerprint, self.table) == (other.fingerprint, other.table)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def bank(self) -> str:
        """The URL of the bank."""
        return self.origin.url

    @property
    def metadata_columns(self) -> tuple[str, ...]:
        """The columns of the query that are not tensors."""
        mine = {name for h in self.handles for name in h.columns.possible}
        return tuple(name for name in self.table.column_names if name not in mine)

    @property
    def weight_column(self) -> str | None:
        """The name of the column of sampling weights, with the capitals that the query has given it; None if there is none."""
        named = [name for name in self.metadata_columns if name.lower() == "weight"]
        return "weight" if "weight" in named else next(iter(named), None)

    @cached_property
    def weights(self) -> npt.NDArray[np.float64] | None:
        """The sampling weights, (n,) float64: the query's column ``weight``, or None if it has none.

        Raises
        ------
        InvalidInputError
            A weight is no number, missing, negative or not finite, or all are 0; the kind is ``weights``.
        """
        name = self.weight_column
        if name is None:
            return None
        column = self.table[name]
        kind = column.type
        if not any(is_one(kind) for is_one in _NUMBERS):
            raise InvalidInputError(
                f"column {name!r} is the sampling weight and must be a number, it is {kind}; cast it, or rename it with AS",
                kind=ErrorKind.WEIGHTS,
            )
        weights: npt.NDArray[np.float64] = as_numpy(column.cast(pa.float64(), safe=False))
        sound = np.isfinite(weights) & (weights >= 0)
        if not sound.all():
            at = int(np.argmin(sound))
            raise InvalidInputError(
                f"column {name!r} is the sampling weight and must be a finite number of at least 0, "
                f"it is {column[at].as_py()} at sample {at}",
                kind=ErrorKind.WEIGHTS,
            )
        if len(weights) and not weights.any():
            raise InvalidInputError(
                f"column {name!r} is the sampling weight and is 0 for all samples, so that none can be drawn",
                kind=ErrorKind.WEIGHTS,
            )
        return weights

    @cached_property
    def _shared(self) -> SharedTable:
        """The table for all workers."""
        return SharedTable(self.table)

    @cached_property
    def addresses(self) -> Addresses:
        """The addresses by handle name.

        Raises
        ------
        IntegrityError
            One cannot be: it leads outside of the bank, or to bytes that no object has.
        """
        return Addresses.of(self.table, self.handles, self.bank)

    @property
    def n_blocks(self) -> int:
        """The number of blocks to deliver."""
        return self.addresses.n_blocks

    @property
    def read_bytes(self) -> int:
        """The number of stored bytes of those blocks."""
        return self.addresses.read_bytes

    @property
    def tensor_bytes(self) -> int:
        """The number of decoded bytes of those blocks."""
        return self.addresses.tensor_bytes

    @property
    def n_reads(self) -> int:
        """The number of requests of one shuffled epoch; see :attr:`Addresses.n_reads`."""
        return self.addresses.n_reads

    def take(self, positions: npt.NDArray[np.int64]) -> Plan:
        """Return a plan of some of the samples, in the order of their (n,) positions; one may come several times."""
        digest = hashlib.sha256(f"take {self.fingerprint}".encode())
        digest.update(np.ascontiguousarray(positions, "<i8").tobytes())
        rows = self.table.take(as_arrow(positions))
        return replace(self, fingerprint=digest.hexdigest()[:32], table=rows)

    def without(self, column: str) -> Plan:
        """Return the plan without one of its metadata columns."""
        digest = hashlib.sha256(f"without {column} {self.fingerprint}".encode())
        return replace(self, fingerprint=digest.hexdigest()[:32], table=self.table.drop_columns([column]))

    def explain(self) -> str:
        """Return a text for people: what was considered, pruned and kept, and what reading will take."""
        return as_text(self.explain_json())

    def explain_json(self) -> dict[str, Any]:
        """Return the facts of :meth:`explain` for programs."""
        s = self.source
        return {
            "fingerprint": self.fingerprint,
            "bank": self.bank,
            "sql": s.sql,
            "snapshots": {table: {"id": i, "version": v} for table, (i, v) in s.snapshots.items()},
            "levels": [
                {"level": r.level, "considered": r.considered, "pruned": r.pruned, "kept": r.kept}
                for r in s.levels
            ],
            "sorted_copies": s.sorted_copies,
            "pixels": {
                "predicates": s.pixel_predicates,
                "by_tiles": s.pixels_by_tiles,
                "read": s.pixels_read,
                "read_bytes": s.pixels_read_bytes,
                "undecided": s.pixels_undecided,
            },
            "tensors": [_describe(h) for h in self.handles],
            "n_samples": len(self),
            "n_blocks": self.n_blocks,
            "scan_blocks": s.scan_blocks,
            "read_bytes": self.read_bytes,
            "scan_bytes": s.scan_bytes,
            "tensor_bytes": self.tensor_bytes,
        }

    def _repr_html_(self) -> str:
        """Return the explanation as HTML for notebooks."""
        return as_html(self.explain_json())

    def forecast(
        self,
        *,
        network_gbps: float,
        rtt_ms: float,
        cores: int,
        n_inflight: int = 64,
        price: Price | None = None,
    ) -> Forecast:
        """Forecast the seconds and cost of streaming the plan once;
        :mod:`tensorbank.plans.forecast` has the model.
        """
        return forecast(
            read_bytes=self.read_bytes,
            tensor_bytes=self.tensor_bytes,
            n_requests=self.n_reads,
            network_gbps=network_gbps,
            rtt_ms=rtt_ms,
            cores=cores,
            n_inflight=n_inflight,
            price=price or Price(),
        )

    def save(self, path: str | Path) -> Path:
        """Write the plan as one file that closes with a checksum, without credentials.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        described = {
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "source": {"bank": self.bank, **self.source.to_json()},
            **origin_to_json(self.origin),
            "handles": [handle.to_json() for handle in self.handles],
        }
        table = self.table.replace_schema_metadata({_METADATA_KEY: json.dumps(described).encode()})
        path = Path(path)
        save_table(path, table)
        return path

    @classmethod
    def load(cls, path: str | Path, *, service: str | None = None, **storage: Any) -> Plan:
        """Open a saved plan, memory-mapped.

        Parameters
        ----------
        service
            URL of the service that the plan must come from, if it comes from one. A ``key`` is sent there and to nobody else, so
            it needs this word: the file alone, which anybody may have written, does not say who may have a key.
        storage
            Fields of :class:`StorageOptions`; endpoint and region are remembered, credentials are not. Of a plan that a service
            made, ``key`` of the service; its place is remembered.

        Raises
        ------
        NotFoundError
            There is no such file.
        FormatError
            The file is not a plan, is damaged, or has another format.
        InvalidInputError
            A key is given without a service, the plan comes from another service, or a field is none of the storage's.
        StorageError
            The file cannot be read.
        """
        table = load_table(Path(path), "a saved plan")
        try:
            text = (table.schema.metadata or {}).get(_METADATA_KEY)
            described = json.loads(text) if text else {}
            version = described.get("format_version")
            if version != FORMAT_VERSION:
                raise FormatError(
                    f"{path} is not a saved plan of format {FORMAT_VERSION}, its format is {version}"
                )
            plan = cls._described(described, table.replace_schema_metadata(None))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, TensorBankError):
                raise
            raise FormatError(
                f"{path} is not a saved plan of format {FORMAT_VERSION}: {type(error).__name__} {error}"
            ) from error
        return replace(plan, origin=trusted(plan.origin, path, service, storage))

    @classmethod
    def _described(cls, described: dict[str, Any], table: pa.Table) -> Plan:
        """Return a plan by what :meth:`save` wrote of it."""
        source = dict(described["source"])
        origin = origin_from_json(source.pop("bank"), described)
        handles = tuple(map(Handle.from_json, described["handles"]))
        for handle in handles:
            for name in handle.columns.needed:
                table.schema.field(name)
        return cls(described["fingerprint"], PlanSource.from_json(source), handles, table, origin)

    def dataloader(self, **options: Unpack[LoaderOptions]) -> DataLoader:
        """Stream the plan in batches.

        Takes the options of :class:`tensorbank_loader.DataLoader`, of which one is needed: ``batch_size``, the samples of a rank,
        or ``global_batch_size``, those of all ranks together.

        Raises
        ------
        InvalidInputError
            The plan selects no tensors, an option makes no sense, or torch is not installed.
        """
        if not self.handles:
            raise InvalidInputError(
                "the query selects no modality, so there is nothing to stream; use .arrow()"
            )
        return loader_of(self, **options)


def _describe(handle: Handle) -> str:
    names = handle.modality.band_names
    some = "" if len(handle.bands) == len(names) else f"[{', '.join(names[b] for b in handle.bands)}]"
    window = f" windows of {handle.window[0]} x {handle.window[1]}" if handle.window else ""
    return f"{handle.name}{some} {handle.modality.dtype}{window}"
