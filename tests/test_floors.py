"""Imports go down: the contracts of ``pyproject.toml`` hold, and they would notice if they did not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "tensorbank": ".",
    "tensorbank_indexer": "indexer",
    "tensorbank_loader": "loader",
    "tensorbank_server": "server",
}


def lint_imports(root: Path) -> tuple[int, str]:
    """Exit status and words of import-linter on the packages under a root."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=root,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(root / room) for room in PACKAGES.values()),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copied_root(tmp_path: Path) -> Path:
    for package, room in PACKAGES.items():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room / package, tmp_path / room / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Violation:
    id: str
    path: str
    line: str
    words: tuple[str, ...]


VIOLATIONS = [
    Violation(
        "sideways",
        "loader/tensorbank_loader/__init__.py",
        "import tensorbank_server",
        ("tensorbank_loader -> tensorbank_server",),
    ),
    Violation(
        "second-importer-of-obstore",
        "indexer/tensorbank_indexer/source.py",
        "import obstore",
        ("one module knows obstore BROKEN", "tensorbank_indexer.source"),
    ),
    Violation(
        "second-importer-of-duckdb",
        "tensorbank/catalog/catalog.py",
        "def late():\n    import duckdb",
        ("sessions know duckdb, and what its errors mean BROKEN", "tensorbank.catalog.catalog"),
    ),
    Violation(
        "second-importer-of-deltalake",
        "tensorbank/bank.py",
        "import deltalake",
        ("one module knows deltalake BROKEN", "tensorbank.bank"),
    ),
    Violation(
        "torch",
        "tensorbank/reading/codec.py",
        "import torch",
        ("torch lives in the loader BROKEN", "tensorbank.reading.codec"),
    ),
    Violation(
        "web",
        "tensorbank/bank.py",
        "import fastapi",
        ("web frameworks live in the server BROKEN", "tensorbank.bank"),
    ),
]


def test_the_tree_keeps_its_floors():
    status, words = lint_imports(ROOT)
    assert status == 0, words


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda v: v.id)
def test_a_planted_violation_is_reported_by_name(copied_root: Path, violation: Violation):
    with (copied_root / violation.path).open("a") as module:
        module.write(f"\n{violation.line}\n")
    status, words = lint_imports(copied_root)
    assert status != 0
    for expected in violation.words:
        assert expected in words, words
