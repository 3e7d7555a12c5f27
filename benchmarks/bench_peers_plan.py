"""Planning beside LanceDB's SQL, Deep Lake's TQL and plain DuckDB on flat Parquet, over the same rows.

    python benchmarks/bench_peers_plan.py [INDEX] [--samples 10000000] [--repeats 5] [--others LanceDB] [--out FILE]

INDEX is a bank of ``benchmarks/synthetic_index.py``, made first if it is not there. The rows that the questions need are
flattened into one Parquet file in the order of the index, which DuckDB reads as it is, and LanceDB and Deep Lake as tables of
their own with indexes. TensorBank has copies of samples sorted by the columns of two questions, which are added first. All give
the same product, ids and addresses of two modalities; the ids are compared. TensorBank's plan also orders and freezes them and
counts what it pruned. Warm medians; ratios are their time to that of the plan.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
from bench_plan import N_IDS, REFS, add_copies, connect

import tensorbank as tb
from peers.environments import InstallError, python_of
from peers.stage import ROOT, PeerError, environment

SELECTIVITIES = (0.0001, 0.01, 0.2)
OTHERS = {"LanceDB": ("lancedb", "peers.lance_plan"), "Deep Lake": ("deeplake", "peers.deeplake_plan")}
COLUMNS = [f"{m}_{part}" for m in ("S2L2A", "S1RTC") for part in ("key", "offset", "length")]


def questions(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    """Name, condition over the index, and the same over flat columns."""
    found = []
    for share in SELECTIVITIES:
        limit = con.execute(f"SELECT quantile_cont(NDVI.mean, {1 - share}) FROM samples").fetchall()[0][0]
        found.append((f"greenest {share:.2%}", f"NDVI.mean > {limit:.9g}", f"ndvi_mean > {limit:.9g}"))
    lon, lat = (
        round(v)
        for v in con.execute(
            "SELECT quantile_disc(lon, 0.5), quantile_disc(lat, 0.5) FROM samples"
        ).fetchall()[0]
    )
    place = f"season = 'summer' AND lon BETWEEN {lon - 15} AND {lon + 15} AND lat BETWEEN {lat - 15} AND {lat + 15}"
    drawn = con.execute(
        f"SELECT sample_id FROM samples USING SAMPLE reservoir({N_IDS} ROWS) REPEATABLE (7)"
    ).fetchall()
    some = f"sample_id IN ({', '.join(repr(sample_id) for (sample_id,) in drawn)})"
    return [*found, ("place and season", place, place), (f"{N_IDS} ids", some, some)]


def checksum(ids: list[str]) -> int:
    """Return a checksum of a set of ids."""
    return zlib.crc32("\n".join(sorted(ids)).encode())


def timed(work: Any, repeats: int) -> tuple[list[float], Any]:
    """Time warm repeats; return their seconds and the result."""
    found, times = work(), []
    for _ in range(repeats):
        began = time.monotonic()
        found = work()
        times.append(time.monotonic() - began)
    return times, found


def answers_of(peer: str, module: str, request: Mapping[str, Any], cache: Path) -> dict[str, Any]:
    """Return the answer of a system in its own environment."""
    done = subprocess.run(
        [str(python_of(peer, cache)), "-P", "-m", module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if done.returncode:
        raise PeerError(done.stderr.strip()[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def told(row: Mapping[str, Any]) -> str:
    """Describe one question in a line."""
    ours_s = median(row["tensorbank_s"])
    text = f"{row['name']}: {row['n']:,} rows, plan {ours_s:.3f} s"
    for name, found in row["others"].items():
        text += f", {name} {median(found['s']) / ours_s:.2f} x" + ("" if found["equal"] else ", OTHER ROWS")
    return text


def main() -> int:
    """Ask everybody and print ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", nargs="?", type=Path, default=ROOT / "data" / "index")
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--others",
        nargs="+",
        choices=tuple(OTHERS),
        default=tuple(OTHERS),
        help="in environments of their own",
    )
    parser.add_argument("--cache", type=Path, default=ROOT.parent / ".cache" / "peers")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "peers_plan.json")
    args = parser.parse_args()
    if not args.index.exists():
        make = [
            sys.executable,
            str(ROOT / "synthetic_index.py"),
            str(args.index),
            "--samples",
            str(args.samples),
        ]
        subprocess.run(make, check=True)
    bank = tb.open(str(args.index))
    add_copies(bank)
    con = connect(bank)
    flat = args.index.with_name(f"{args.index.name}-flat.parquet")
    if not flat.exists():
        con.execute(
            "COPY (SELECT sample_id, season, lon, lat, cloud_cover, NDVI.mean AS ndvi_mean, "
            f"{REFS} FROM samples) TO '{flat}' (FORMAT parquet, COMPRESSION zstd)"
        )
    asked = questions(con)
    wanted = ", ".join(["sample_id", *COLUMNS])
    rows: list[dict[str, Any]] = []
    for name, where, plain in asked:
        sql = f"SELECT sample_id, S2L2A, S1RTC FROM world WHERE {where}"
        ours, plan = timed(lambda sql=sql: bank.sql(sql).plan(), args.repeats)
        query = f"SELECT {wanted} FROM read_parquet('{flat}') WHERE {plain}"
        bare, answer = timed(lambda query=query: con.sql(query).to_arrow_table(), args.repeats)
        crc = checksum(plan.table["sample_id"].to_pylist())
        if crc != checksum(answer["sample_id"].to_pylist()):
            raise SystemExit(f"{name}: the plan and DuckDB differ")
        others = {"DuckDB": {"s": bare, "equal": True}}
        rows.append({"name": name, "n": len(plan), "crc32": crc, "tensorbank_s": ours, "others": others})
    versions, failed = {"duckdb": duckdb.__version__}, {}
    request = {
        "parquet": str(flat),
        "columns": ["sample_id", *COLUMNS],
        "where": [plain for _, _, plain in asked],
        "repeats": args.repeats,
    }
    for name in args.others:
        peer, module = OTHERS[name]
        folder = args.index.with_name(f"{args.index.name}.{peer}")
        try:
            found = answers_of(peer, module, {**request, "folder": str(folder)}, args.cache)
        except (InstallError, PeerError) as error:
            failed[name] = str(error).replace(f"{ROOT.parent}/", "")
            continue
        versions[name] = found["version"]
        for row, theirs in zip(rows, found["answers"], strict=True):
            row["others"][name] = {"s": theirs["seconds"], "equal": theirs["crc32"] == row["crc32"]}
    for row in rows:
        print(told(row))
    for name, why in failed.items():
        print(f"{name} failed: {why}")
    args.out.write_text(json.dumps({"versions": versions, "rows": rows, "failed": failed}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
