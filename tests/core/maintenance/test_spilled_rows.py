"""Rows that wait on the disk: what was added comes back sorted, whatever its columns look like."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.handmade_index import NDVI, S1
from tensorbank.index_files import parquet_writer
from tensorbank.index_schema import tiles_schema
from tensorbank.maintenance.level_columns import compact_schema, conformed, repeating_texts
from tensorbank.maintenance.spilling import spilled_rows
from tensorbank.maintenance.spilling.spilled_rows import SpilledTiles
from tensorbank.schema import TableSchema

SCHEMA = tiles_schema(TableSchema((S1, NDVI)))


def ref_of(rng: np.random.Generator) -> dict:
    blocks = None if rng.random() < 0.1 else rng.integers(0, 3, rng.integers(0, 4)).tolist()
    if blocks and rng.random() < 0.1:
        blocks[0] = None
    key = ["a", "b", None][rng.integers(3)]
    return {"key": key, "row": int(rng.integers(3)), "offset": None, "length": 7, "block_bytes": blocks}


def tiles_of(rng: np.random.Generator, n: int) -> list[dict]:
    """Rows of n samples, most of which share what tiles of a sample share, and some do not."""
    rows = []
    for sample in range(n):
        shared = {"sample_id": f"s{sample}" * int(rng.integers(1, 3)), "key": sample, "lon": float(sample)}
        refs = {name: ref_of(rng) for name in ("S1GRD", "NDVI")}
        for tile in range(int(rng.integers(1, 6))):
            if rng.random() < 0.1:
                refs["NDVI"] = ref_of(rng)
            row = {**shared, "tile": tile, "part": None if rng.random() < 0.1 else "p"}
            row["NDVI"] = {"ref": {**refs["NDVI"], "y0": tile}, "mean": float(rng.random())}
            row["S1GRD"] = None if rng.random() < 0.1 else {"ref": {**refs["S1GRD"], "x1": tile}}
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA).to_pylist()


def words_of(rows: pa.Table, name: str) -> list[str]:
    """Return all words of the dictionary of a column."""
    (chunk,) = rows[name].chunks
    return chunk.dictionary.to_pylist()


def footer_of(rows: pa.Table, folder: Path) -> list[dict]:
    """Return what the footer of a file of these rows says of each column, but for places."""
    path = folder / "piece.parquet"
    with parquet_writer(
        path, SCHEMA, rows.num_rows, rows.schema if rows.schema != SCHEMA else None
    ) as writer:
        writer.write_table(rows)
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(i).to_dict() for i in range(group.num_columns)]
    assert pq.read_table(path).equals(rows.cast(SCHEMA))
    return [{k: v for k, v in column.items() if not k.endswith(("_offset", "_size"))} for column in columns]


@pytest.mark.parametrize("n_bytes", [1, 20_000, 1 << 30])
def test_tiles_come_back_sorted_and_whole(tmp_path, monkeypatch, n_bytes):
    monkeypatch.setattr(spilled_rows, "GATHERED_BYTES", n_bytes)
    rng = np.random.default_rng(n_bytes % 97)
    parts = [tiles_of(rng, 15) for _ in range(6)]
    places = [np.array([r["key"] * 1000 + r["tile"] * 10 + i for r in rows]) for i, rows in enumerate(parts)]
    edges = [4000, 9000]
    with SpilledTiles(tmp_path, compact_schema(SCHEMA), edges) as aside:
        for rows, numbers in zip(parts, places, strict=True):
            shuffled = rng.permutation(len(rows))
            given = pa.Table.from_pylist([rows[i] for i in shuffled], schema=SCHEMA)
            aside.add(conformed(given, compact_schema(SCHEMA)), numbers[shuffled])
        aside.add(conformed(SCHEMA.empty_table(), compact_schema(SCHEMA)), np.zeros(0, np.int64))
    all_places = np.concatenate(places)
    all_rows = [row for rows in parts for row in rows]
    expected = [all_rows[i] for i in np.argsort(all_places)]
    assert aside.n_rows.tolist() == [
        int(((all_places >= low) & (all_places < high)).sum())
        for low, high in ((0, 4000), (4000, 9000), (9000, 10**9))
    ]
    pieces = [piece for number in range(3) for piece in aside.pieces(number, 25)]
    assert max(piece.num_rows for piece in pieces) == 25
    assert all(set(words_of(piece, "sample_id")) == set(piece["sample_id"].to_pylist()) for piece in pieces)
    assert [row for piece in pieces for row in piece.cast(SCHEMA).to_pylist()] == expected
    for piece in pieces:
        assert footer_of(piece, tmp_path) == footer_of(piece.cast(SCHEMA), tmp_path)


def test_keys_deep_in_columns_of_others_stay_texts():
    """Parquet's statistics of numbers of texts would count no NULL of what they lie in."""
    ref = pa.struct([("ref", pa.struct([("key", pa.string())]))])
    schema = pa.schema(
        [("tile", pa.int64()), ("part", pa.string()), ("NDVI", ref), ("of_others", pa.struct([("x", ref)]))]
    )
    compact = compact_schema(schema)
    assert repeating_texts(schema) == ["part", "NDVI.ref.key"]
    assert compact.field("of_others") == schema.field("of_others")
    assert pa.types.is_dictionary(compact.field("NDVI").type[0].type[0].type)


def test_what_tiles_of_a_sample_share_is_kept_once():
    rng = np.random.default_rng(1)
    rows = [r for r in tiles_of(rng, 30) if r["part"] == "p" and r["S1GRD"]]
    first = {r["key"]: r for r in reversed(rows)}
    for row in rows:
        for name in ("S1GRD", "NDVI"):
            row[name]["ref"] = {**first[row["key"]][name]["ref"], "y0": row["tile"]}
            blocks = row[name]["ref"]["block_bytes"]
            row[name]["ref"]["block_bytes"] = [b or 1 for b in blocks or []]
    compact = compact_schema(SCHEMA)
    given = conformed(pa.Table.from_pylist(rows, schema=SCHEMA), compact)
    starts = spilled_rows.TileHalves(compact).starts(given)
    keys = [r["key"] for r in rows]
    assert starts.tolist() == [i for i in range(len(keys)) if i == 0 or keys[i] != keys[i - 1]]


SCRIPT = """
import resource, signal, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from tensorbank import StorageError
from tensorbank.maintenance.spilling.spilled_rows import SpilledRows

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
numbers = np.random.default_rng(1).integers(0, 2**60, 1000)
rows = pa.table({"n": numbers})
try:
    with SpilledRows(Path(sys.argv[1]), rows.schema, [500]) as aside:
        aside.add(rows, np.arange(1000))
except StorageError as error:
    print(error.kind, "where compact keeps rows on their way" in str(error))
"""


def test_a_disk_that_takes_no_more_is_named_even_if_only_the_last_bytes_do_not_fit(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["disk-full", "True"], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("n_files", "of_rows", "of_tiles"),
    [(1024, 384, 192), (20_000, 512, 512), (300, 22, 11), (64, 1, 1), (resource.RLIM_INFINITY, 512, 512)],
)
def test_no_more_files_are_open_than_the_system_allows(monkeypatch, n_files, of_rows, of_tiles):
    monkeypatch.setattr(spilled_rows.resource, "getrlimit", lambda _: (n_files, n_files))
    assert spilled_rows.max_ranges(spilled_rows.SpilledRows.FILES_PER_RANGE) == of_rows
    assert spilled_rows.max_ranges(SpilledTiles.FILES_PER_RANGE) == of_tiles
