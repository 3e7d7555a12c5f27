"""The limit of copies of index files: what was used longest ago goes first, and nothing that may be about to be opened."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tensorbank.pieces import Room
from tensorbank.pieces.room import KEEP_S

BANK = "0123456789abcdef"
KIB = 1 << 10


def copy(folder: Path, name: str, *, hours: float, kib: int = 64, bank: str = BANK) -> Path:
    path = folder / bank / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * (kib * KIB))
    used_s = time.time() - hours * 3600
    os.utime(path, (used_s, used_s))
    return path


def there(*paths: Path) -> list[bool]:
    return [path.exists() for path in paths]


def test_what_was_used_longest_ago_goes_first_be_it_whole_or_pieces(tmp_path):
    whole = [copy(tmp_path, f"t/index/samples/{i}.parquet", hours=10 + i) for i in range(4)]
    pieces = [copy(tmp_path, f"pieces/t/index/samples/{i}.parquet", hours=10.5 + i) for i in range(4)]
    assert Room(tmp_path, 512 * KIB).make() == 0
    assert Room(tmp_path, 420 * KIB).make() == 128 * KIB
    assert there(*whole, *pieces) == [True, True, True, False, True, True, True, False]


def test_a_whole_copy_that_was_handed_out_lately_stays_and_pieces_may_go(tmp_path):
    whole = copy(tmp_path, "t/index/samples/1.parquet", hours=0.5)
    pieces = copy(tmp_path, "pieces/t/index/samples/2.parquet", hours=0)
    assert Room(tmp_path, 1).make() == 64 * KIB
    assert there(whole, pieces) == [True, False]


def test_use_of_a_whole_copy_is_noted(tmp_path):
    old, older = (copy(tmp_path, f"t/index/samples/{i}.parquet", hours=i) for i in (5, 6))
    room = Room(tmp_path, 64 * KIB)
    written_ns = older.stat().st_mtime_ns
    room.use(older)
    room.use(tmp_path / "nothing.parquet")
    assert older.stat().st_mtime_ns == written_ns
    assert time.time() - older.stat().st_atime < KEEP_S / 4
    room.make()
    assert there(old, older) == [False, True]


def test_nothing_else_is_removed(tmp_path):
    others = [
        copy(tmp_path, "t/index/samples/log-1/_delta_log/00000000000000000010.checkpoint.parquet", hours=99),
        copy(tmp_path, "checksums/t/index/samples/1.parquet.crc32c", hours=99),
        copy(tmp_path, "segments/9.parquet", hours=99, bank="v1"),
    ]
    target = copy(tmp_path, "elsewhere.parquet", hours=99, bank="v2")
    link = tmp_path / BANK / "t" / "link.parquet"
    link.symlink_to(target)
    assert Room(tmp_path, 1).make() == 0
    assert there(*others, target, link) == [True] * 5
    assert Room(tmp_path / "nothing", 1).make() == 0


def test_room_is_made_while_pieces_are_written(tmp_path):
    for i in range(40):
        copy(tmp_path, f"pieces/t/index/samples/{i:02}.parquet", hours=40 - i)
    room = Room(tmp_path, 1024 * KIB)
    room.note(1)
    left = sorted(p.name for p in tmp_path.rglob("*.parquet"))
    assert len(left) * 64 <= 1024
    assert left == [f"{i:02}.parquet" for i in range(40 - len(left), 40)]


@pytest.mark.parametrize("n_bytes", [100, 40 * KIB])
def test_one_looks_again_when_some_more_was_written(tmp_path, n_bytes):
    room = Room(tmp_path, 1024 * KIB)
    room.note(1)
    looks: list[int] = []
    room.make = lambda: looks.append(1) or 0  # type: ignore[method-assign]
    room.note(n_bytes)
    assert len(looks) == (n_bytes > 1024 * KIB // 32)
