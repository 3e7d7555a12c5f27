"""The guide to deployment tells the same times as the module that owns them."""

from __future__ import annotations

import re
from pathlib import Path

from tensorbank.storage import retries

GUIDE = Path(__file__).parents[2] / "deploy" / "README.md"


def words(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def rows_of_the_module() -> list[list[str]]:
    """Return the rows of the last table of the module's docstring; a row that has no numbers goes on with the one before."""
    rule = re.compile(r"^(?:=+ +)+=+$", re.MULTILINE)
    rules = list(rule.finditer(retries.__doc__ or ""))
    assert len(rules) >= 3
    columns = [m.start() for m in re.finditer(r"=+", rules[-1][0])]
    rows: list[list[str]] = []
    for line in (retries.__doc__ or "")[rules[-2].end() : rules[-1].start()].strip("\n").splitlines():
        cells = [line[a:b].strip() for a, b in zip(columns, [*columns[1:], None], strict=True)]
        if any(cells[1:]):
            rows.append(cells)
        else:
            rows[-1][0] += " " + cells[0]
    return rows


def test_times_until_an_error_are_those_of_the_module():
    section = GUIDE.read_text().split("<!-- patience -->")[1].split("<!-- /patience -->")[0].strip()
    told = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in section.splitlines()[2:]]
    expected = rows_of_the_module()
    assert len(expected) > 4
    assert [[words(c) for c in row] for row in told] == [[words(c) for c in row] for row in expected]
