"""The meaning of a statement: its names, what it may ask, and what its predicates become. No table is opened."""

from __future__ import annotations

from tensorbank.statements.handle_uses import check_handles
from tensorbank.statements.long_lists import shorten
from tensorbank.statements.names import Item, Visible, in_scopes, origins_of_result, outputs
from tensorbank.statements.origins import Origin
from tensorbank.statements.own_predicates import functions_of, n_predicates, rewrite
from tensorbank.statements.pixel_bounds import Bounds, bounds, decision
from tensorbank.statements.pixel_predicates import PixelPredicate, Verdicts, n_matching, parse_comparison
from tensorbank.statements.relations import check_inside, check_known, common_names, mention_of, mentions
from tensorbank.statements.repeatable import check_repeatable
from tensorbank.statements.suggestions import find_slip, unknown_column
from tensorbank.statements.tie_breaks import settle

__all__ = [
    "Bounds",
    "Item",
    "Origin",
    "PixelPredicate",
    "Verdicts",
    "Visible",
    "bounds",
    "check_handles",
    "check_inside",
    "check_known",
    "check_repeatable",
    "common_names",
    "decision",
    "find_slip",
    "functions_of",
    "in_scopes",
    "mention_of",
    "mentions",
    "n_matching",
    "n_predicates",
    "origins_of_result",
    "outputs",
    "parse_comparison",
    "rewrite",
    "settle",
    "shorten",
    "unknown_column",
]
