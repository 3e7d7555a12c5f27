"""Adds the guides of the repository to the pages of the site, under the paths that they have, so that their links hold.

A hook of mkdocs (https://www.mkdocs.org/user-guide/configuration/#hooks). Files that guides link to, such as pictures and
examples, are copied beside them.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("benchmarks", "deploy", "indexer", "loader", "server", "tensorbank")
CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)")


def guides() -> list[Path]:
    """Return the pages that lie in the repository, at its top and in its rooms."""
    found = [*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))]
    return sorted(page for page in found if Path(__file__).parent not in page.parents)


def linked_by(guide: Path) -> set[Path]:
    """Return the files of the repository that a guide links to, or shows."""
    targets = LINK.findall(CODE.sub("", guide.read_text()))
    found = {(guide.parent / target).resolve() for target in targets}
    return {path for path in found if path.is_file() and ROOT in path.parents}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the guides and what they link to."""
    pages = guides()
    for path in sorted({*pages, *(linked for page in pages for linked in linked_by(page))}):
        name = path.relative_to(ROOT).as_posix()
        added = File(name, str(ROOT), config.site_dir, config.use_directory_urls)
        files.append(added)
    return files
