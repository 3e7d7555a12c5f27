"""Files that the index pages of a web server link to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote

__all__ = ["walk_pages"]


def walk_pages(base: str, links: Callable[[str], Iterable[str]]) -> list[str]:
    """Return the paths of the files under a URL, relative to it and decoded.

    A link that ends with a slash, or without an extension, is taken for a folder: some servers mark them,
    some do not. Links with a query (sorting), to anchors, upwards and to elsewhere are passed over.

    Parameters
    ----------
    base
        Percent-encoded URL of the root, with a slash at its end.
    links
        Returns the absolute, percent-encoded links of a page.
    """
    paths: list[str] = []
    folders = [""]
    seen: set[str] = set()
    while folders:
        folder = folders.pop()
        for link in links(base + folder):
            address = link.partition("#")[0]
            if "?" in link or not address.startswith(base) or address in (base, base + folder):
                continue
            relative = address[len(base) :]
            if ".." in relative or relative in seen:
                continue
            seen.add(relative)
            if relative.endswith("/"):
                folders.append(relative)
            elif "." not in PurePosixPath(relative).name:
                folders.append(relative + "/")
            else:
                paths.append(unquote(relative))
    return paths
