"""Archives for tests, written by shared/sources/make_sources.py, which knows nothing of our code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

SHARED = Path(__file__).parents[2].parent / "shared"


@dataclass(frozen=True)
class MadeArchives:
    """A dataset root and what is known of it: rows by key and date, planted defects."""

    root: Path
    truth: dict[str, dict[int, dict[str, Any]]]
    by_id: dict[str, dict[int, dict[str, Any]]]
    traps: list[dict[str, Any]]

    def trap(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.traps if entry["trap"] == name]


def make_archives(folder: Path, command: str, *options: str, split: str = "train") -> MadeArchives:
    """Write archives below ``folder``; skips, or in CI fails, without the maker."""
    maker = SHARED / "sources" / "make_sources.py"
    if not maker.exists():
        reason = f"{maker} is needed to write test archives"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    root = folder / "root"
    call = [sys.executable, str(maker), command, "--realdata", str(SHARED / "realdata"), "--out", str(root)]
    subprocess.run(
        [*call, "--split", split, "--checksums", *options], check=True, capture_output=True, cwd=maker.parent
    )
    truth: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    by_id: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in pq.read_table(folder / "root_truth" / f"{split}_samples.parquet").to_pylist():
        truth[row["key"]][row["time_index"]] = row
        by_id[row["sample_id"]].setdefault(row["time_index"], row)
    traps = json.loads((folder / "root_truth" / f"{split}_traps.json").read_text())
    return MadeArchives(root, dict(truth), dict(by_id), traps)


def checksums(pixels: Any) -> list[int]:
    """Return the CRC-32 of each date of (time, band, y, x)."""
    return [zlib.crc32(date.tobytes()) for date in pixels]
