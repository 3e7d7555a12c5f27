"""Deep Lake's answers to the questions of planning, in its own environment: ``python -P -m peers.deeplake_plan``.

Takes and gives what :mod:`peers.lance_plan` does. The rows become a dataset of typed columns with inverted indexes on those that
are asked about (https://docs.deeplake.ai/latest, "Types" and "TQL"); conditions are TQL, which has no BETWEEN.
"""

from __future__ import annotations

import json
import re
import sys
import time
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import deeplake
import pyarrow as pa
import pyarrow.parquet as pq

NUMBERS = ("ndvi_mean", "lon", "lat")
WORDS = ("season",)
MAX_REPEATS_S = 60.0
"""Seconds after which a question is not repeated again."""


def write(parquet: str, folder: Path, columns: Sequence[str]) -> None:
    """Append the rows, some hundred thousand at a time, and index."""
    file = pq.ParquetFile(parquet)
    wanted = [*columns, *WORDS, *NUMBERS]
    data = deeplake.create(f"file://{folder}")
    for field in (file.schema_arrow.field(name) for name in wanted):
        kind = deeplake.types.Int64() if pa.types.is_integer(field.type) else deeplake.types.Float64()
        data.add_column(field.name, deeplake.types.Text() if _is_text(field.type) else kind)
    for batch in file.iter_batches(500_000, columns=wanted):
        rows = {
            name: batch[name].to_pylist() if _is_text(batch[name].type) else batch[name].to_numpy()
            for name in wanted
        }
        data.append(rows)
    data.commit()
    for name in NUMBERS:
        data[name].create_index(deeplake.types.NumericIndex(deeplake.types.Inverted))
    for name in WORDS:
        data[name].create_index(deeplake.types.TextIndex(deeplake.types.Inverted))
    data.commit()


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind) or pa.types.is_large_string(kind))


def _either(found: re.Match[str]) -> str:
    """Return a list of constants as comparisons joined by OR."""
    return " OR ".join(f"{found[1]} == {constant}" for constant in found[2].split(", "))


def main() -> None:
    """Write, index, ask."""
    given: dict[str, Any] = json.load(sys.stdin)
    folder = Path(given["folder"])
    started = time.monotonic()
    if not folder.exists():
        write(given["parquet"], folder, given["columns"])
    written_s = time.monotonic() - started
    data = deeplake.open_read_only(f"file://{folder}")
    chosen = ", ".join(f'"{name}"' for name in given["columns"])
    answers = []
    for where in given["where"]:
        plain = re.sub(r"(\w+) BETWEEN (\S+) AND (\S+)", r"\1 >= \2 AND \1 <= \3", where)
        plain = re.sub(r"(\w+) IN \((.*)\)", _either, plain)
        times: list[float] = []
        while len(times) <= given["repeats"] and sum(times) < MAX_REPEATS_S:
            began = time.monotonic()
            rows = data.query(f"SELECT {chosen} WHERE {plain}")
            found = {name: rows[name][:] for name in given["columns"]}
            times.append(time.monotonic() - began)
        ids = "\n".join(sorted(found["sample_id"]))
        answers.append({"n": len(rows), "crc32": zlib.crc32(ids.encode()), "seconds": times[1:] or times})
    sys.stdout.write(
        json.dumps({"version": version("deeplake"), "written_s": written_s, "answers": answers}) + "\n"
    )


if __name__ == "__main__":
    main()
