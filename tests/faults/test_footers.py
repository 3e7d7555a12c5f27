"""One flipped bit in the footer of an index file: an answer, or an error that names the file; never the end of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.handmade_index import make_table
from tensorbank.pruning import Compare, count_row_groups
from tensorbank.pruning.row_groups import _extremes, _of_footer

PLAN = """
import os, random, sys
from pathlib import Path
import tensorbank as tb
import tensorbank.opening, tensorbank.planning.planner
folder, name, footer, n, seed = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
sound = name.read_bytes()
draws = random.Random(seed)
SQL = "SELECT sample_id, S2L2A FROM a WHERE cloud_cover < 0.5 AND NDVI.mean > 0.0 AND lon > -100"
for _ in range(n):
    bit = draws.randrange(8 * (len(sound) - 8 - footer), 8 * len(sound))
    body = bytearray(sound)
    body[bit // 8] ^= 1 << bit % 8
    name.write_bytes(body)
    child = os.fork()
    if not child:
        try:
            tb.open(folder).sql(SQL).plan().explain()
        except tb.TensorBankError as error:
            os._exit(0 if name.name in str(error) else 4)
        except BaseException:
            os._exit(3)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        print(bit, status, flush=True)
print("done", flush=True)
"""


@pytest.fixture
def index_file(tmp_path) -> Path:
    bank = tb.create(tmp_path / "bank")
    make_table(bank, "a", parts=1, n=30)
    (file,) = bank.catalog.files("a", "samples").files
    return tmp_path / "bank" / file.key


def test_flips_in_a_footer_end_no_process(index_file, tmp_path):
    """The children are forked by a process that has used neither store nor database, which do not survive it."""
    footer = int.from_bytes(index_file.read_bytes()[-8:-4], "little")
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(tmp_path / "bank"), str(index_file), str(footer), "20", "5"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.stdout.splitlines()[-1:] == ["done"], done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if line.split()[-1] == "-6"] == []


def test_a_footer_that_ends_a_process_in_pyarrow_ends_none_here(index_file, tmp_path):
    """The size statistics of a column are of another type than its own: pyarrow calls ``std::terminate`` when asked for it."""
    sound = index_file.read_bytes()
    footer = int.from_bytes(sound[-8:-4], "little")
    asks = (
        "import sys, pyarrow.parquet as p\ng = p.read_metadata(sys.argv[1]).row_group(0)\n"
        "[g.column(i) for i in range(g.num_columns)]"
    )
    for bit in deadly(index_file, sound, footer):
        body = bytearray(sound)
        body[bit // 8] ^= 1 << bit % 8
        index_file.write_bytes(body)
        if (
            subprocess.run([sys.executable, "-c", asks, str(index_file)], capture_output=True).returncode
            == -6
        ):
            break
    else:
        pytest.fail("no footer was found that pyarrow cannot survive: is the workaround still needed?")
    script = (
        "import sys, tensorbank as tb\ntry:\n    tb.open(sys.argv[1]).sql("
        "'SELECT sample_id, S2L2A FROM a WHERE cloud_cover < 0.9 AND NDVI.mean > -1000').plan().explain()\n"
        "except tb.TensorBankError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "bank")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-500:]


def deadly(path: Path, sound: bytes, footer: int) -> list[int]:
    """Return the numbers of the bits that turn the physical types of some columns' metadata into others."""
    start = len(sound) - 8 - footer
    assert pq.read_metadata(path).num_columns > 100
    # In Thrift's compact protocol a column's metadata begins with its type: the header 0x15 of a field, then a zigzag number.
    types = [i + 1 for i in range(start, len(sound) - 8) if sound[i] == 0x15 and sound[i + 1] in (4, 8, 12)]
    return [8 * i + bit for i in types for bit in (2, 3, 1)][:: max(1, 3 * len(types) // 60)]


def test_extremes_of_row_groups_are_those_that_pyarrow_finds(tmp_path):
    n, path = 100, tmp_path / "x.parquet"
    rng = np.random.default_rng(0)
    when = rng.integers(0, 1 << 50, n)
    table = pa.table(
        {
            "d": rng.normal(size=n),
            "f": rng.normal(size=n).astype(np.float32),
            "i": rng.integers(-50, 50, n),
            "s": [f"s{k:03d}" for k in rng.permutation(n)],
            "t": pa.array(when, pa.timestamp("us", "UTC")),
            "none": pa.nulls(n, pa.float64()),
            "B": pa.array([{"Mean": float(k)} for k in range(n)]),
        }
    )
    pq.write_table(table, path, row_group_size=30)
    leaves = {("d",), ("f",), ("i",), ("s",), ("t",), ("none",), ("b", "mean"), ("nowhere",)}
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        (found,) = _extremes(con, [str(path)], frozenset(leaves)).values()
    n_groups, minima, maxima = found
    footer = pq.read_metadata(path)
    assert n_groups == footer.num_row_groups == 4
    columns = {tuple(footer.schema.column(i).path.lower().split(".")): i for i in range(footer.num_columns)}
    for leaf in leaves - {("nowhere",), ("none",)}:
        known = [footer.row_group(g).column(columns[leaf]).statistics for g in range(4)]
        for mine, theirs in ((minima[leaf], [k.min for k in known]), (maxima[leaf], [k.max for k in known])):
            assert mine == (pytest.approx(theirs) if leaf == ("f",) else theirs), leaf
    assert minima["none",] == [None] * 4
    assert ("nowhere",) not in minima
    of_footer = _of_footer(footer, frozenset(leaves))
    assert of_footer[0] == n_groups
    for mine, theirs in zip(of_footer[1:], (minima, maxima), strict=True):
        assert mine.keys() == theirs.keys()
        assert all(
            mine[leaf] == pytest.approx(theirs[leaf]) for leaf in theirs if leaf not in {("s",), ("t",)}
        )
        assert all(mine[leaf] == theirs[leaf] for leaf in (("s",), ("t",)))


def test_footers_of_checked_files_are_counted_as_duckdb_counts_them(index_file, tmp_path):
    bank = tb.open(tmp_path / "bank")
    mirror = bank.catalog.mirror
    assert mirror.footer(str(index_file)) is None, "nobody has looked at it"
    (path,) = mirror.readable(bank.catalog.files("a", "samples").files)
    assert mirror.footer(str(path)).num_rows == 30
    for op, value, n_kept in ((">", -1.0, 1), (">", 2.0, 0)):
        condition = Compare(("cloud_cover",), op, value)
        assert count_row_groups(None, [str(path)], condition, mirror.footer) == (1, n_kept)
    unnamed = path.with_name("other.parquet")
    unnamed.write_bytes(path.read_bytes())
    assert mirror.footer(str(unnamed)) is None
