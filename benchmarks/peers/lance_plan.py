"""LanceDB's answers to the questions of planning, in its own environment: ``python -P -m peers.lance_plan``.

``{"parquet": FILE, "folder": FOLDER, "columns": [...], "where": [...], "repeats": N}`` on standard input writes the rows as a
Lance table with scalar indexes on every column that is asked about, and answers each condition with the columns, warm.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import lance
import pyarrow.parquet as pq

INDEXED = {
    "season": "BITMAP",
    "cloud_cover": "BTREE",
    "ndvi_mean": "BTREE",
    "lon": "BTREE",
    "lat": "BTREE",
    "sample_id": "BTREE",
}


def main() -> None:
    """Write, index, ask."""
    given: dict[str, Any] = json.load(sys.stdin)
    folder = Path(given["folder"])
    started = time.monotonic()
    if not folder.exists():
        data = lance.write_dataset(pq.read_table(given["parquet"]), str(folder))
        for column, kind in INDEXED.items():
            data.create_scalar_index(column, kind)
    written_s = time.monotonic() - started
    data = lance.dataset(str(folder))
    answers = []
    for where in given["where"]:
        times = []
        for _ in range(given["repeats"] + 1):
            began = time.monotonic()
            rows = data.to_table(columns=given["columns"], filter=where)
            times.append(time.monotonic() - began)
        ids = "\n".join(sorted(rows["sample_id"].to_pylist()))
        answers.append({"n": len(rows), "crc32": zlib.crc32(ids.encode()), "seconds": times[1:]})
    sys.stdout.write(
        json.dumps({"version": lance.__version__, "written_s": written_s, "answers": answers}) + "\n"
    )


if __name__ == "__main__":
    main()
