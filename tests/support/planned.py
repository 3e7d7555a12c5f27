"""Plan statements in a process of its own: ``python planned.py BANK STATEMENTS [THREADS [MEMORY_LIMIT]]``.

Prints JSON: for each statement its fingerprint, and a digest of its samples in their order. Statements are planned in the
order given, and the first of them once more at the end, by an instance that has seen them all.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import partial
from pathlib import Path

import duckdb

import tensorbank as tb


def main() -> None:
    """Run the process."""
    bank_url, statements, *limits = sys.argv[1:]
    if limits:
        limited = dict(zip(("threads", "memory_limit"), limits, strict=False))
        connect = duckdb.connect
        duckdb.connect = lambda where, config: connect(where, config={**config, **limited})
    pick = (duckdb, partial, hashlib)  # noqa: F841 - a variable that is called as a table might be
    bank = tb.open(bank_url)
    rows = bank.sql("SELECT location_id, count(*) AS n FROM tied GROUP BY ALL ORDER BY ALL").arrow()
    bank.register("mine", rows.slice(0, 50))
    found = []
    for sql in json.loads(Path(statements).read_text()):
        plan = bank.sql(sql).plan()
        again = bank.sql(sql).plan()
        ids = plan.table["sample_id"].to_pylist() if "sample_id" in plan.table.column_names else []
        others = repr(
            plan.table.drop_columns([c for c in plan.table.column_names if c.startswith("NDVI.")]).to_pylist()
        )
        starts = plan.table["NDVI.starts"].to_pylist() if "NDVI.starts" in plan.table.column_names else []
        digest = hashlib.sha256(repr((ids, starts, others)).encode()).hexdigest()
        found.append(
            {"fingerprint": plan.fingerprint, "again": again.fingerprint, "digest": digest, "n": len(plan)}
        )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
