"""The README's examples run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(*command: str, cwd: Path) -> str:
    """Run a command as somebody does who has the environment on the PATH, and return what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute where the machine is quiet
def test_the_lines_run_as_printed_and_again(tmp_path):
    (commands,) = blocks("bash")
    code = "\n".join(blocks("python"))
    # the user's cache of index files stays out of the test: a folder bank has none
    for _ in range(2):
        made = run("bash", "-euc", commands, cwd=tmp_path)
        assert "equals its source: 448 of 448" in made
        assert (tmp_path / "demo-output" / "contact-sheet.png").stat().st_size > 10_000
        shown = run("python", "-W", "error", "-c", code, cwd=tmp_path)
        assert "samples" in shown
        assert "torch.Size([8, 12, 264, 264]) torch.int16" in shown
        assert "torch.Size([8, 12, 224, 224]) torch.float32" in shown


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"^ {4}tensorbank (\w+)", README, re.MULTILINE))
    listed = subprocess.run(
        [sys.executable, "-m", "tensorbank", "--help"], capture_output=True, text=True, check=True
    )
    assert named
    assert all(name in listed.stdout for name in named)


def test_every_link_of_the_readme_leads_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (Path(__file__).parents[2] / target).exists(), target
