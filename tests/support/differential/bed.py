"""A small bank of clustered samples, and a DuckDB that knows all of its rows and the truth about its pixels."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet

import tensorbank as tb
from support.differential.rows import SCHEMA, Facts, make_part, places, spoil
from tensorbank import TableSchema
from tensorbank.catalog import Commit
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.storage.store import Store

__all__ = ["Bed", "make_bed", "open_bed", "write_bed"]

ROW_GROUP_ROWS = 16
SORTED = ("NDVI.mean", "S2L2A.B08.mean", "cloud_cover", "lon", "sample_id")
"""The columns by which ``tm`` has sorted copies, so that any condition on them may be answered from one."""
LEVELS = ("samples", "tiles", "shards")


@dataclass
class Bed:
    """The bank, the truth, and what may be asked.

    ``numbers``, ``texts`` and ``times`` are the values of each column of a level, to compare with.
    """

    bank: tb.Bank
    truth: duckdb.DuckDBPyConnection
    numbers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    texts: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def reopened(self) -> Bed:
        """Return the same bed with nothing remembered of the bank."""
        bank = tb.open(self.bank.catalog.store.url)
        bank.register("pick", self.truth.sql("SELECT * FROM pick").to_arrow_table())
        return replace(self, bank=bank)


NEW_COLUMNS = ("min_lon", "max_lon", "min_lat", "max_lat")


def old_shards_schema(schema: TableSchema) -> pa.Schema:
    """Return the columns of shards before they had extremes of centres."""
    return pa.schema([f for f in shards_schema(schema) if f.name not in NEW_COLUMNS])


@contextmanager
def written(*, old: bool) -> Iterator[None]:
    """Write small row groups; and if ``old``, as banks were written that may hold NaN."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("tensorbank.index_files.written_files.ROW_GROUP_ROWS", ROW_GROUP_ROWS))
        copies = "tensorbank.maintenance.sorting.sorted_copies"
        stack.enter_context(mock.patch(f"{copies}.FILE_ROWS", ROW_GROUP_ROWS))
        if old:
            stack.enter_context(mock.patch("tensorbank.catalog.publishing.FINITE", "nothing.known"))
            stack.enter_context(mock.patch("tensorbank.catalog.commits.with_nan", return_value=()))
            makers = {"shards": old_shards_schema}
            stack.enter_context(mock.patch.dict("tensorbank.catalog.publishing.SCHEMA_OF", makers))
        yield


@contextmanager
def make_bed(folder: Path) -> Iterator[Bed]:
    """Write a bank, and open it."""
    write_bed(folder)
    with open_bed(folder) as bed:
        yield bed


def write_bed(
    folder: Path, seed: int = 5, *, parts: int = 10, n: int = 30, old: bool = False, copies: bool = False
) -> None:
    """Make the tables ``tm`` and ``sw``, which share some names of samples, and beside the bank a file of what is known of it.

    An ``old`` bank has NaN for some of the numbers that are missing, and roll-ups that NaN has spoilt. With ``copies``, all but
    the last part of ``tm`` are in sorted copies, too.
    """
    rng = np.random.default_rng(seed)
    bank = tb.create(str(folder))
    store = Store(folder.as_uri())
    samples: Facts = {}
    tiles: Facts = {}
    areas: Facts = {}
    shards_of = old_shards_schema if old else shards_schema
    with written(old=old):
        for table, n_parts, prefix in (("tm", parts, "s"), ("sw", 3, "s")):
            bank.catalog.create(table, SCHEMA, single_writer=True)
            for number, rows in enumerate(places(rng, n_parts, n, prefix, table)):
                made = make_part(store, table, f"part-{number}", rows, rng, (samples, tiles, areas), old=old)
                if old:
                    spoil(made, rng)
                bank.catalog.commit(
                    table,
                    Commit(
                        f"part-{number}",
                        pa.Table.from_pylist(made.samples, schema=samples_schema(SCHEMA)),
                        pa.Table.from_pylist(made.tiles, schema=tiles_schema(SCHEMA)),
                        pa.Table.from_pylist(made.shards, schema=shards_of(SCHEMA)),
                    ),
                )
                if copies and table == "tm" and number == parts - 2:
                    for column in SORTED:
                        bank.table(table).add_sorted_copy(column)
    _beside(folder).write_bytes(pickle.dumps((_pick(rng), samples, tiles, areas)))


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.known")


@contextmanager
def open_bed(folder: Path) -> Iterator[Bed]:
    """Open a bank that was written, register ``pick``, and read all of it."""
    pick, samples, tiles, areas = pickle.loads(_beside(folder).read_bytes())
    bank = tb.open(str(folder))
    bank.register("pick", pick)
    con = duckdb.connect()
    try:
        _read_whole(con, folder, pick)
        for name, facts in (("px", samples), ("px_tile", tiles), ("poly", areas)):
            con.create_function(
                name,
                _answer_of(facts),
                ["INTEGER", "VARCHAR"],
                "BOOLEAN",
                null_handling="special",
            )
        bed = Bed(bank, con)
        _values(bed)
        yield bed
    finally:
        con.close()


def _answer_of(facts: Facts) -> Callable[[int, str], bool | None]:
    return lambda k, row: facts.get((k, row))


def _read_whole(con: duckdb.DuckDBPyConnection, folder: Path, pick: pa.Table) -> None:
    """Copy every index file into tables, part by part; there is nothing in them that could be pruned."""
    con.execute("SET TimeZone = 'UTC'")
    con.execute("CREATE TABLE pick AS SELECT * FROM pick")
    con.execute(
        """
        CREATE MACRO within_bbox(lon, lat, west, south, east, north) AS
            lat >= south AND lat <= north
            AND ((west <= east AND lon >= west AND lon <= east) OR (west > east AND (lon >= west OR lon <= east)))
        """
    )
    for table in ("tm", "sw"):
        con.execute(f"CREATE SCHEMA {table}")
        for level in LEVELS:
            files = sorted(map(str, (folder / table / "index" / level).glob("*.parquet")), key=_part_of)
            con.execute(
                f"CREATE TABLE {table}.{level} AS SELECT * FROM read_parquet({files!r}, union_by_name = true)"
            )
            for name in ("lon", "lat", "cloud_cover", "min_cloud_cover", "max_cloud_cover"):
                with suppress(duckdb.BinderException):
                    con.execute(f"UPDATE {table}.{level} SET {name} = NULL WHERE {name}::VARCHAR = 'nan'")
        con.execute(f"CREATE VIEW main.{table} AS SELECT * FROM {table}.samples")


def _part_of(path: str) -> str:
    """The part of an index file: a bank's rows come part by part."""
    return str(pyarrow.parquet.read_table(path, columns=["part"])["part"][0])


def _pick(rng: np.random.Generator) -> pa.Table:
    """A table of the user's own: names of its columns are names of the bank's, too."""
    n = 24
    times = np.datetime64("2020-01-01", "us") + rng.integers(0, 360 * 86_400, n) * np.timedelta64(
        1_000_000, "us"
    )
    return pa.table(
        {
            "sample_id": pa.array([f"s{i:04d}" for i in rng.permutation(300)[:n]]),
            "lon": pa.array(rng.uniform(-180, 180, n)),
            "split": pa.array(rng.choice(["train", "val", "test"], n).tolist()),
            "rank": pa.array(np.arange(n), pa.int32()),
            "at": pa.array(times, pa.timestamp("us", "UTC")),
        }
    )


NUMBERS = {
    "samples": (
        "lon",
        "lat",
        "cloud_cover",
        "hilbert",
        "NDVI.mean",
        "NDVI.min",
        "NDVI.p50",
        "S2L2A.B08.mean",
        "S2L2A.B08.max",
        "S2L2A.B04.p98",
        "S1GRD.vv.min",
        "S1GRD.vh.mean",
        "LULC.share.trees",
        "LULC.share.water",
        "bbox.west",
        "bbox.east",
    ),
    "tiles": ("lon", "lat", "NDVI.mean", "NDVI.max", "S2L2A.B08.min", "LULC.share.trees", "tile"),
    "shards": ("n_samples", "shard", "NDVI.min_mean", "max_cloud_cover"),
}
TEXTS = {
    "samples": ("season", "part", "split", "sample_id", "cell_id"),
    "tiles": ("season", "part", "split", "sample_id"),
    "shards": ("part",),
}


def _values(bed: Bed) -> None:
    for level in LEVELS:
        bed.numbers[level] = {
            c: bed.truth.execute(
                f"SELECT quantile_disc({c}, [0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 1.0]) FROM tm.{level}"
                f" WHERE isfinite({c}::DOUBLE)"
            ).fetchall()[0][0]
            or [0.0]
            for c in NUMBERS[level]
        }
        bed.texts[level] = {
            c: [
                r[0]
                for r in bed.truth.execute(
                    f"SELECT DISTINCT {c} FROM tm.{level} WHERE {c} IS NOT NULL ORDER BY 1 LIMIT 40"
                ).fetchall()
            ]
            for c in TEXTS[level]
        }
    bed.numbers["pick"] = {"lon": [-150.0, -20.0, 0.0, 60.0, 170.0], "rank": [0, 3, 11, 23]}
    bed.texts["pick"] = {"split": ["train", "val", "test"]}
