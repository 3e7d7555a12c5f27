"""The packages of the project: their sentences, sizes and floors, taken from the code and from pyproject.toml.

python -m support.architecture            writes the table of tensorbank/ARCHITECTURE.md anew
python -m support.architecture floors     prints the floors of packages, upper ones first
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "tensorbank" / "ARCHITECTURE.md"
HOUSES = {
    "tensorbank": ROOT / "tensorbank",
    "tensorbank_indexer": ROOT / "indexer" / "tensorbank_indexer",
    "tensorbank_demo": ROOT / "indexer" / "tensorbank_demo",
    "tensorbank_gpu": ROOT / "loader" / "tensorbank_gpu",
    "tensorbank_loader": ROOT / "loader" / "tensorbank_loader",
    "tensorbank_floods": ROOT / "loader" / "tensorbank_floods",
    "tensorbank_lightning": ROOT / "loader" / "tensorbank_lightning",
    "tensorbank_pretraining": ROOT / "loader" / "tensorbank_pretraining",
    "tensorbank_simulation": ROOT / "loader" / "tensorbank_simulation",
    "tensorbank_server": ROOT / "server" / "tensorbank_server",
}
"""The import packages, and where they lie."""
START, END = "<!-- packages -->", "<!-- /packages -->"


@dataclass(frozen=True)
class Package:
    """A folder of modules: its import path, the first sentence of its docstring, and how large it is."""

    name: str
    sentence: str
    n_files: int
    n_lines: int


def packages() -> list[Package]:
    """Return all packages: those of an import package after itself, from its upper floors to its lower ones."""
    listed = []
    for name, folder in HOUSES.items():
        floor = floors_of(name)
        found = {init: init.parent.relative_to(folder).parts for init in folder.rglob("__init__.py")}
        for init in sorted(found, key=lambda init: _place(found[init], floor)):
            files = sorted(init.parent.glob("*.py"))
            lines = sum(len(file.read_text().splitlines()) for file in files)
            path = ".".join((name, *found[init]))
            listed.append(Package(path, first_sentence(init), len(files), lines))
    return listed


def _place(parts: tuple[str, ...], floor: dict[str, int]) -> tuple[int, tuple[str, ...]]:
    """Return what packages are sorted by: their floor and their path; an import package itself comes first."""
    return (floor.get(parts[0], 0) if parts else -1, parts)


def contracts() -> list[dict[str, Any]]:
    """Return the contracts of import-linter."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def floors_of(house: str) -> dict[str, int]:
    """Return the floor of each package and module of an import package, the uppermost being 0."""
    mine = (contract for contract in contracts() if contract.get("containers") == [house])
    return {
        name: floor
        for contract in mine
        for floor, layer in enumerate(contract["layers"])
        for name in re.findall(r"\w+", layer)
    }


def first_sentence(module: Path) -> str:
    """Return the first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(module.read_text())) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph, maxsplit=1)[0]


def as_table(found: Sequence[Package]) -> str:
    """Return the table of the page."""
    rows = ["| package | is | files | lines |", "|---|---|---|---|"]
    for p in found:
        rows.append(
            f"| `{p.name}` | {p.sentence.replace('|', chr(92) + '|')} | {p.n_files} | {p.n_lines:,} |"
        )
    return "\n".join(rows)


def table_of_page() -> str:
    """Return the table as the page has it."""
    return PAGE.read_text().split(START)[1].split(END)[0].strip()


def without_sizes(table: str) -> list[str]:
    """Return the rows of a table without what changes with every edit."""
    return [row.rsplit(" | ", 2)[0] for row in table.splitlines()]


def write_page() -> None:
    """Put the table of today into the page."""
    before, rest = PAGE.read_text().split(START)
    PAGE.write_text(f"{before}{START}\n{as_table(packages())}\n{END}{rest.split(END)[1]}")


def floors() -> str:
    """Return the floors as import-linter checks them: a package imports from the lines below its own only."""
    text = []
    for contract in contracts():
        if contract["type"] == "layers":
            text.append(f"{contract['name']}:")
            text += [f"    {layer}" for layer in contract["layers"]]
        elif contract["type"] == "protected":
            allowed = ", ".join(contract["allowed_importers"])
            text.append(f"{', '.join(contract['protected_modules'])} is imported by {allowed} only")
        else:
            sources, targets = (", ".join(contract[k]) for k in ("source_modules", "forbidden_modules"))
            text.append(f"{targets} is imported by none of {sources}")
    return "\n".join(text)


if __name__ == "__main__":
    if sys.argv[1:] == ["floors"]:
        print(floors())
    else:
        write_page()
