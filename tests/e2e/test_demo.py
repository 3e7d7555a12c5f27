"""`tensorbank demo`, the whole job over real S3, as a user runs it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_demo_checks_every_tensor_and_leaves_no_server(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tensorbank", "demo", "--samples", "24"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "equals its source: 168 of 168" in done.stdout
    rows = re.findall(r"samples +([\d,]+) +([\d,]+) +([\d,]+)", done.stdout)
    assert len(rows) == 3
    kept = [int(r[2].replace(",", "")) for r in rows]
    assert all(int(c) == int(p) + int(k) for c, p, k in rows)
    assert kept[0] == 24
    assert kept[0] > kept[1] >= kept[2], "the questions are of rising selectivity"
    assert (tmp_path / "demo-output/contact-sheet.png").exists()


@pytest.mark.thorough
def test_progress_is_shown_on_a_terminal_and_a_bank_with_tables_is_left_alone(tmp_path):
    command = [sys.executable, "-m", "tensorbank", "demo", "--samples", "8", "--bank", "b"]
    ours, theirs = pty.openpty()
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while more := os.read(ours, 65536):
            shown += more
    os.close(ours)
    assert first.stdout is not None
    said = first.stdout.read().decode()
    first.stdout.close()
    assert first.wait(timeout=240) == 0, shown[-3000:]
    assert "every tensor of one epoch equals its source" in said
    bars = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))
    for work in ("make", "scan", "write", "stream", "check"):
        assert re.search(rf"{work} [^\r\n]* (\d+)/\1 ", bars), (work, bars)
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "equals its source: 56 of 56" in again.stdout
    for name in ("b", "other"):  # one that has the demo's table, one that has another
        (tmp_path / name / "t/index/samples/_delta_log").mkdir(parents=True)
        (tmp_path / name / "t/index/samples/_delta_log/00000000000000000000.json").write_text("{}")
        second = subprocess.run(
            [*command[:-1], name], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert second.returncode == 2
        assert "already" in second.stderr
        assert "empty bank of its own" in second.stderr
        assert "Traceback" not in second.stderr
