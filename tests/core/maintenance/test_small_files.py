"""The choice of files to merge: small ones, what lost rows, and nothing that was merged before."""

from __future__ import annotations

import pytest

from tensorbank.index_files import ROW_GROUP_ROWS, IndexFile
from tensorbank.maintenance.small_files import FULL_BYTES, choose


def files(n: int, n_rows: int, *, n_bytes: int = 1 << 20, part: bool = True) -> list[IndexFile]:
    return [IndexFile(f"{i}.parquet", n_bytes, n_rows, f"p{i}" if part else None) for i in range(n)]


@pytest.mark.parametrize("tiles_per_sample", [1, 16, 64])
def test_tiles_of_parts_are_merged_as_their_samples_are(tiles_per_sample):
    """Parts of 100,000 samples with one tile each were left as they came, and their samples sorted without them."""
    n = ROW_GROUP_ROWS - 1
    chosen = choose({"samples": files(5, n), "tiles": files(5, n * tiles_per_sample)}, {})
    assert (len(chosen.of("samples")), len(chosen.of("tiles"))) == (5, 5)


def test_what_was_merged_before_is_left_alone():
    samples, tiles = files(4, ROW_GROUP_ROWS, part=False), files(16, 4 * ROW_GROUP_ROWS, part=False)
    assert not choose({"samples": samples, "tiles": tiles}, {}), "a quarter of the samples of a file each"
    assert choose({"samples": samples, "tiles": tiles}, {"tiles": frozenset({"3.parquet"})}).of("tiles") == (
        tiles[3],
    )


def test_files_of_many_bytes_are_left_alone():
    large = files(3, 100, n_bytes=FULL_BYTES)
    assert not choose({"samples": large, "tiles": large}, {})


def test_one_small_file_has_nothing_to_be_merged_with():
    assert not choose({"samples": files(1, 100), "tiles": files(1, 1600)}, {})
    assert choose({"samples": files(2, 100), "tiles": files(2, 1600)}, {})
