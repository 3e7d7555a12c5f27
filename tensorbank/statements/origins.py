"""The origins of handles, and of the columns of a query. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from tensorbank.layout import Level
from tensorbank.schema import Modality

__all__ = ["Columns", "Handles", "Origin", "Origins", "joined", "matched_by_name", "matched_by_place", "only"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a handle; ``bands`` are those that ``bands()`` chose, None where the handle is whole."""

    table: str
    level: Level
    modality: Modality = field(hash=False)
    bands: tuple[str, ...] | None = None

    def is_like(self, other: Origin) -> bool:
        """Tell whether tensors of another origin mean the same, so that both may be in one column."""
        return (self.level, self.modality, self.bands) == (other.level, other.modality, other.bands)


Origins = tuple[Origin, ...]
Handles = Mapping[str, Origins]
"""The origins of the handle columns of a relation, by lower-case name. A column that is not here may be one of any origin."""

Columns = list[tuple[bool, dict[str, Origins | None]]]
"""The columns of a query, in their order: True and all of its handles for a star, False and the one column for anything else.
The origins of a column are None where they are not known, none where it is NULL."""


def only(column: tuple[bool, dict[str, Origins | None]]) -> Origins:
    """Return the origins of a column that is no star."""
    return next(iter(column[1].values())) or ()


def joined(many: Iterable[Origins | None]) -> Origins | None:
    """Return the origins of a column that holds the tensors of several; None where those of one are not known."""
    found = list(many)
    known = [origins for origins in found if origins is not None]
    return tuple(dict.fromkeys(chain.from_iterable(known))) if len(known) == len(found) else None


def matched_by_place(branches: Sequence[Columns]) -> Columns:
    """Return the columns of a set operation, which have the names of the first branch.

    How many columns a star has is not known here. So a claim needs stars at the same places, of the same handles.
    """
    first, *others = branches
    if any([is_star for is_star, _ in b] != [is_star for is_star, _ in first] for b in others):
        return []
    found: Columns = []
    for (is_star, columns), *rest in zip(first, *others, strict=True):
        if is_star:
            same = all(list(c) == list(columns) for _, c in rest)
            names = columns if same else ()
            found.append((True, {n: joined([columns[n], *(c[n] for _, c in rest)]) for n in names}))
        else:
            ((name, origins),) = columns.items()
            found.append((False, {name: joined([origins, *(o for _, c in rest for o in c.values())])}))
    return found


def matched_by_name(branches: Sequence[Columns]) -> Columns:
    """Return the columns of a set operation that matches them by name; a branch without the column gives NULL for it."""
    if any(is_star for branch in branches for is_star, _ in branch):
        return []
    named = [{name: o for _, columns in branch for name, o in columns.items()} for branch in branches]
    names = dict.fromkeys(chain.from_iterable(named))
    return [(False, {name: joined(columns.get(name, ()) for columns in named)}) for name in names]
