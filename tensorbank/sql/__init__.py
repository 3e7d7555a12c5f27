"""DuckDB's side of SQL: its syntax trees, instances, functions and errors."""

from __future__ import annotations

from tensorbank.sql.diagnostics import Translated, tensor_type
from tensorbank.sql.functions import SqlFunctions
from tensorbank.sql.instances import Database, database
from tensorbank.sql.known_functions import (
    CLASS_FUNCTION,
    CLOCKS,
    EXACT_AGGREGATES,
    KEYWORDS,
    ORDERED_AGGREGATES,
    OWN,
    PIXELS_FUNCTION,
    POLYGON_FUNCTION,
    RANDOM,
    SCALARS,
    SUMS,
    TABLE_FUNCTIONS,
    WINDOWS,
    is_operator,
)
from tensorbank.sql.parameters import bound
from tensorbank.sql.shows import TABLES, as_relations
from tensorbank.sql.syntax import Syntax, without_semicolon

__all__ = [
    "CLASS_FUNCTION",
    "CLOCKS",
    "Database",
    "EXACT_AGGREGATES",
    "KEYWORDS",
    "ORDERED_AGGREGATES",
    "OWN",
    "PIXELS_FUNCTION",
    "POLYGON_FUNCTION",
    "RANDOM",
    "SCALARS",
    "SUMS",
    "SqlFunctions",
    "Syntax",
    "TABLES",
    "TABLE_FUNCTIONS",
    "Translated",
    "WINDOWS",
    "as_relations",
    "bound",
    "database",
    "is_operator",
    "tensor_type",
    "without_semicolon",
]
