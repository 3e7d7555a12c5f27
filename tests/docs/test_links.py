"""Links of the guides lead to files that are there, and to headings that these have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
ROOMS = ("benchmarks", "deploy", "indexer", "loader", "server", "tensorbank")
CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def guides() -> list[Path]:
    """Return the pages of the repository, at its top and in its rooms."""
    found = [*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))]
    return sorted(found)


GUIDES = guides()


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = CODE.sub("", page.read_text())
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_there_are_guides():
    assert {"README.md", "tensorbank/FORMAT.md"} <= {str(g.relative_to(ROOT)) for g in GUIDES}


@pytest.mark.parametrize("guide", GUIDES, ids=[str(g.relative_to(ROOT)) for g in GUIDES])
def test_every_link_leads_somewhere(guide):
    targets = [t for t in LINK.findall(CODE.sub("", guide.read_text())) if not re.match(r"\w+:", t)]
    broken = []
    for target in targets:
        path, _, anchor = target.partition("#")
        page = (guide.parent / path).resolve() if path else guide
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    assert not broken
