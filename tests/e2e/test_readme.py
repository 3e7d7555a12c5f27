"""The README's examples run as they are printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_lines_run_as_printed(tmp_path):
    (command,) = blocks("bash")
    code = "\n".join(blocks("python"))
    words = shlex.split(command)
    assert words[0] == "tensorbank"
    made = subprocess.run(
        [sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert "equals its source: 448 of 448" in made.stdout
    assert (tmp_path / "demo-output" / "contact-sheet.png").stat().st_size > 10_000
    # the user's cache of index files stays out of the test: a folder bank has none
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "samples" in done.stdout
    assert "torch.Size([8, 12, 264, 264]) torch.int16" in done.stdout
    assert "torch.Size([8, 12, 224, 224]) torch.float32" in done.stdout


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"^ {4}tensorbank (\w+)", README, re.MULTILINE))
    listed = subprocess.run(
        [sys.executable, "-m", "tensorbank", "--help"], capture_output=True, text=True, check=True
    )
    assert named
    assert all(name in listed.stdout for name in named)


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).parents[2] / target).exists(), target
