"""The benchmark's synthetic index is an index: sound roll-ups, plans as brute force says, tensors that stream."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from numcodecs.blosc import Blosc

import synthetic_index
import tensorbank as tb

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
N = 3_000


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "bank"
    assert list(synthetic_index.write(folder, N, 3, 11, 1)) == [1000, 2000, 3000]
    bank = tb.open(str(folder))
    levels = {
        level: pa.concat_tables(
            pa.parquet.read_table(p) for p in sorted((folder / "world" / "index" / level).glob("*.parquet"))
        )
        for level in ("samples", "tiles", "shards")
    }
    return bank, levels, folder


def leaf(table: pa.Table, path: str) -> np.ndarray:
    names = path.split(".")
    array = table[names[0]].combine_chunks()
    for name in names[1:]:
        array = array.field(name)
    return array.to_numpy(zero_copy_only=False)


@pytest.mark.parametrize("band", ["S2L2A.B02", "S2L2A.B08", "S1RTC.vh", "NDVI"])
def test_samples_enclose_their_tiles_and_shards_their_samples(world, band):
    _, levels, _ = world
    samples, tiles, shards = levels["samples"], levels["tiles"], levels["shards"]
    assert (samples.num_rows, tiles.num_rows, shards.num_rows) == (N, 12 * N, 12)
    place = {name: i for i, name in enumerate(samples["sample_id"].to_pylist())}
    owner = np.array([place[name] for name in tiles["sample_id"].to_pylist()])
    for statistic, ufunc, start in (("min", np.minimum, np.inf), ("max", np.maximum, -np.inf)):
        found = np.full(N, start)
        ufunc.at(found, owner, leaf(tiles, f"{band}.{statistic}").astype(np.float64))
        np.testing.assert_array_equal(found, leaf(samples, f"{band}.{statistic}"))
    key = samples["S2L2A"].combine_chunks().field("ref").field("key").to_pylist()
    for row, name in enumerate(shards["S2L2A"].combine_chunks().field("key").to_pylist()):
        mine = np.array([k == name for k in key])
        assert leaf(shards, f"{band}.min")[row] == leaf(samples, f"{band}.min")[mine].min()
        assert leaf(shards, f"{band}.max_mean")[row] == leaf(samples, f"{band}.mean")[mine].max()
        assert leaf(shards, "min_cloud_cover")[row] == leaf(samples, "cloud_cover")[mine].min()


@pytest.mark.parametrize(
    ("where", "truth"),
    [
        ("NDVI.mean > 0.3", lambda t: leaf(t, "NDVI.mean") > 0.3),
        ("LULC.share.trees > 0.5", lambda t: leaf(t, "LULC.share.trees") > 0.5),
        (
            "season = 'summer' AND within_bbox(lon, lat, -60, -40, 60, 40)",
            lambda t: (
                (leaf(t, "season") == "summer")
                & (np.abs(leaf(t, "lon")) <= 60)
                & (np.abs(leaf(t, "lat")) <= 40)
            ),
        ),
    ],
)
def test_plans_hold_what_brute_force_finds(world, where, truth):
    bank, levels, _ = world
    expected = set(leaf(levels["samples"], "sample_id")[truth(levels["samples"])])
    plan = bank.sql(f"SELECT sample_id, S2L2A, S1RTC FROM world WHERE {where}").plan()
    assert 0 < len(plan) < N
    assert set(plan.table["sample_id"].to_pylist()) == expected
    keys = plan.table["S2L2A.key"].to_pylist()
    places = [
        (k.split("/")[2], int(k.split("/c/")[1].split("/")[0]), s[0])
        for k, s in zip(keys, plan.table["S2L2A.starts"].to_pylist(), strict=True)
    ]
    assert places == sorted(places)


def test_what_is_streamed_lies_in_the_shards(world):
    bank, _, folder = world
    sql = "SELECT S2L2A.ref.\"offset\" AS first, S2L2A.ref.block_bytes AS sizes, S2L2A FROM world WHERE part = 'part-0001'"
    batch = next(iter(bank.sql(sql).plan().dataloader(batch_size=5, seed=1)))
    stored = (folder / "stored" / "S2L2A").read_bytes()
    assert len(batch["S2L2A"]) == 5
    for sample, first, sizes in zip(batch["S2L2A"], batch["first"].tolist(), batch["sizes"], strict=True):
        for band, size in zip(sample, sizes, strict=True):
            block = Blosc().decode(stored[first : first + size - 4])  # crc32c behind it
            np.testing.assert_array_equal(np.frombuffer(block, np.int16).reshape(264, 264), band.numpy())
            first += size


def test_the_example_answers(world):
    _, _, folder = world
    script = BENCHMARKS / "examples" / "balanced_forests.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder), "world", "--samples", "20"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "row groups" in done.stdout
    assert "trees" in done.stdout
    assert "S2L2A" in done.stdout.splitlines()[-1]
