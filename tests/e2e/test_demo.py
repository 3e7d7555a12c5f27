"""`tensorbank demo`, the whole job over real S3, as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_demo_checks_every_tensor_and_leaves_no_server(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tensorbank", "demo", "--samples", "40"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "equals its source: 280 of 280" in done.stdout
    rows = re.findall(r"samples +([\d,]+) +([\d,]+) +([\d,]+)", done.stdout)
    assert len(rows) == 3
    kept = [int(r[2].replace(",", "")) for r in rows]
    assert all(int(c) == int(p) + int(k) for c, p, k in rows)
    assert kept[0] == 40
    assert kept[0] > kept[1] >= kept[2], "the questions are of rising selectivity"
    assert (tmp_path / "demo-output/contact-sheet.png").exists()


def test_a_bank_that_has_the_table_is_left_alone(tmp_path):
    command = [sys.executable, "-m", "tensorbank", "demo", "--samples", "8", "--bank", "b"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert first.returncode == 0, first.stderr[-3000:]
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert second.returncode == 2
    assert "already" in second.stderr
    assert "Traceback" not in second.stderr
