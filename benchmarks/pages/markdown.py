"""Markdown: tables, figures in cells, and a page with something between its markers."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["digits", "last_line", "number", "placed", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def placed(page: str, text: str, name: str = "peers") -> str:
    """Return a page with the text between its markers of a name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise SystemExit(f"a page lacks {begin} ... {end}")
    inside = f"\n{text}\n" if text else "\n"
    return f"{before}{begin}{inside}{end}{after}"


def number(value: float | None, form: str, unit: float = 1.0) -> str:
    """Format a number in some form and unit, or as a dash."""
    return "-" if value is None else format(value / unit, form)


def digits(value: float) -> str:
    """Format a number with three digits, or with all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def last_line(text: str) -> str:
    """Return the last line that a program printed before it ended, fit for a cell."""
    lines = [line for line in text.splitlines() if any(c.isalpha() for c in line)]
    return lines[-1].strip().replace("`", "'")[:300] if lines else ""
