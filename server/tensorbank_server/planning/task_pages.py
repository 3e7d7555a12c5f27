"""Pages of a plan's tasks on the wire: NDJSON, one record a line, or an Arrow stream. Each ends with an end record.

The end record has the token of the next page, or the error that came up after the answer had begun; a client that does not see it
has not seen the page. In an Arrow stream it is the metadata ``tensorbank.end`` of a last batch without rows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tensorbank.plans import Handle, Plan
from tensorbank_server.documents import plain, readable

__all__ = ["ARROW", "END_KEY", "NDJSON", "as_arrow", "as_ndjson", "described", "shard_keys"]

NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
END_KEY = b"tensorbank.end"
PLAN_KEY = b"tensorbank.plan"
BATCH_ROWS = 65_536
LINES_ROWS = 1_000
WIRE_VERSION = 1


def described(plan: Plan) -> list[dict[str, object]]:
    """Describe the handles of a plan: what the bytes of its ranges mean."""
    return [
        {
            "name": h.name,
            "modality": json.loads(h.modality.to_json()),
            "bands": [h.modality.band_names[b] for b in h.bands],
            "shape": list(h.shape),
            "window": h.window and list(h.window),
            "by_date": h.by_date,
            "runs": [list(run) for run in h.runs],
        }
        for h in plan.handles
    ]


def shard_keys(plan: Plan, start: int = 0, end: int | None = None) -> list[str]:
    """Return the shards that some samples lie in, sorted."""
    end = len(plan) if end is None else end
    found: set[str] = set()
    for h in plan.handles:
        a = plan.addresses[h.name]
        codes = np.unique(a.shard_of[start:end])
        found.update(a.shard_keys[c] for c in codes if c >= 0)
    return sorted(found)


def as_ndjson(
    plan: Plan, start: int, end: int, shards: Iterator[Mapping[str, object]], last: Mapping[str, object]
) -> Iterator[bytes]:
    """Yield a page as lines: shards and their addresses, then the tasks ``[start, end)``, then the end record."""
    yield from (_line({"shard": shard}) for shard in shards)
    columns = list(plan.metadata_columns)
    for first in range(start, end, LINES_ROWS):
        until = min(first + LINES_ROWS, end)
        rows = (
            readable(plan.table.select(columns).slice(first, until - first))
            if columns
            else [{}] * (until - first)
        )
        tensors = {h.name: _tensors(plan, h, first, until) for h in plan.handles}
        lines = []
        for i, row in enumerate(rows):
            task = {
                "position": first + i,
                "columns": plain(row),
                "tensors": {name: t for name, each in tensors.items() if (t := each[i]) is not None},
            }
            lines.append(_line({"task": task}))
        yield b"".join(lines)
    yield _line({"end": dict(last)})


def _tensors(plan: Plan, handle: Handle, start: int, end: int) -> list[dict[str, object] | None]:
    a = plan.addresses[handle.name]
    starts, lengths, codes = (
        a.starts[start:end].tolist(),
        a.lengths[start:end].tolist(),
        a.shard_of[start:end].tolist(),
    )
    none = [None] * (end - start)
    corners = a.corners[start:end].tolist() if a.corners is not None else none
    n_times = a.n_times[start:end].tolist() if a.n_times is not None else none
    return [
        None
        if code < 0
        else {
            "shard": a.shard_keys[code],
            "ranges": [[s, s + n] for s, n in zip(first, size, strict=True)],
            **({"corner": corner} if corner is not None else {}),
            **({"n_times": n} if n is not None else {}),
        }
        for code, first, size, corner, n in zip(codes, starts, lengths, corners, n_times, strict=True)
    ]


def _line(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def as_arrow(
    plan: Plan, start: int, end: int, described_plan: Mapping[str, object], last: Mapping[str, object]
) -> Iterator[bytes]:
    """Yield a page as an Arrow stream of :attr:`Plan.table`; the metadata ``tensorbank.plan`` say what its columns mean."""
    sink = _Sink()
    metadata = {PLAN_KEY: json.dumps({"wire_version": WIRE_VERSION, **described_plan}).encode()}
    schema = plan.table.schema.with_metadata(metadata)
    with pa.ipc.new_stream(sink, schema) as writer:
        page = plan.table.slice(start, end - start).replace_schema_metadata(metadata).unify_dictionaries()
        end_of = _empty_batch(schema)
        for batch in page.to_batches(max_chunksize=BATCH_ROWS):
            writer.write_batch(batch)
            end_of = batch.slice(0, 0)  # with the dictionaries that were sent
            yield sink.take()
        writer.write_batch(end_of, custom_metadata={END_KEY: json.dumps(dict(last)).encode()})
    yield sink.take()


def _empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch([pa.array([], f.type) for f in schema], schema)


class _Sink(io.RawIOBase):
    """A file for Arrow to write to, which is emptied as it fills."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        found, self._parts = b"".join(self._parts), []
        return found
