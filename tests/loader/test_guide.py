"""The loader's guide: each test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "loader" / "README.md"


def names_in(name: str) -> set[str]:
    tree = ast.parse((HERE / name).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_guide_is_a_test():
    text = GUIDE.read_text()
    named = re.findall(r"`([\w/]*test_\w+\.py)::(test_\w+)`", text)
    assert len(set(named)) > 30
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(file)]
    assert not missing
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| test |" not in line]
    untested = [row for row in rows if "::test_" not in row and not row.startswith(("| `even`", '| `"'))]
    assert not untested
