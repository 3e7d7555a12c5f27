"""The filter language of remote callers: CQL2 (OGC 21-065r2), as JSON and as text, compiled to SQL.

A caller's words never become SQL: names are looked up among the queryables of a table, operators are those of a list, and every
literal is a parameter.
"""

from __future__ import annotations

from tensorbank_server.filters.cql2 import compile_filter
from tensorbank_server.filters.filter_bounds import FilterBounds, measure
from tensorbank_server.filters.literals import FilterError, Json, Literal
from tensorbank_server.filters.queryables import Queryable, queryables, queryables_document, quoted
from tensorbank_server.filters.text import parse_text

__all__ = [
    "FilterBounds",
    "FilterError",
    "Json",
    "Literal",
    "Queryable",
    "compile_filter",
    "measure",
    "parse_text",
    "queryables",
    "queryables_document",
    "quoted",
]
