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
    "tensorbank_demo": "indexer",
    "tensorbank_indexer": "indexer",
    "tensorbank_gpu": "loader",
    "tensorbank_loader": "loader",
    "tensorbank_server": "server",
    "tensorbank_floods": "loader",
    "tensorbank_lightning": "loader",
    "tensorbank_pretraining": "loader",
    "tensorbank_simulation": "loader",
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


@dataclass(frozen=True)
class Violation:
    id: str
    path: str
    line: str
    words: tuple[str, ...]


VIOLATIONS = [
    Violation(
        "upward", "tensorbank/errors.py", "import tensorbank.bank", ("tensorbank.errors -> tensorbank.bank",)
    ),
    Violation(
        "upward-between-packages",
        "tensorbank/pruning/conditions.py",
        "import tensorbank.catalog.catalog",
        ("tensorbank.pruning.conditions -> tensorbank.catalog.catalog",),
    ),
    Violation(
        "upward-in-the-server",
        "server/tensorbank_server/http/problems.py",
        "import tensorbank_server.routes.plans",
        ("tensorbank_server.http.problems -> tensorbank_server.routes.plans",),
    ),
    Violation(
        "a-value-that-waits",
        "tensorbank/plans/plan.py",
        "import threading",
        ("values wait for nothing BROKEN", "tensorbank.plans.plan"),
    ),
    Violation(
        "second-importer-of-numcodecs",
        "loader/tensorbank_loader/batch/form.py",
        "import numcodecs",
        ("codecs are known where blocks are BROKEN", "tensorbank_loader.batch.form"),
    ),
    Violation(
        "second-importer-of-sqlite",
        "tensorbank/index_files/mirror.py",
        "import sqlite3",
        ("the cache alone knows sqlite BROKEN", "tensorbank.index_files.mirror"),
    ),
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
        ("few modules know duckdb BROKEN", "tensorbank.catalog.catalog"),
    ),
    Violation(
        "second-importer-of-deltalake",
        "tensorbank/bank.py",
        "import deltalake",
        ("one package knows deltalake BROKEN", "tensorbank.bank"),
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
    Violation("no-floor", "tensorbank/attic.py", "", ("packages of the core BROKEN", "attic")),
    Violation(
        "no-floor-in-the-loader",
        "loader/tensorbank_loader/attic.py",
        "",
        ("packages of the loader BROKEN", "attic"),
    ),
]


def test_the_tree_keeps_its_floors():
    status, words = lint_imports(ROOT)
    assert status == 0, words


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """Exit status and words of import-linter on a copy in which all violations are planted: one run costs a second."""
    root = tmp_path_factory.mktemp("planted")
    for package, room in PACKAGES.items():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room / package, root / room / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", root)
    for violation in VIOLATIONS:
        with (root / violation.path).open("a") as module:
            module.write(f"\n{violation.line}\n")
    return lint_imports(root)


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda v: v.id)
def test_a_planted_violation_is_reported_by_name(planted: tuple[int, str], violation: Violation):
    status, words = planted
    assert status != 0
    for expected in violation.words:
        assert expected in words, words
