"""The functions that TensorBank adds to SQL: macros, and functions that DuckDB calls back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.func import ARROW, SPECIAL

from tensorbank.errors import TensorBankError
from tensorbank.index_schema import HILBERT_ORDER
from tensorbank.polygons import as_geojson, intersects
from tensorbank.sql.known_functions import PIXELS_FUNCTION, POLYGON_FUNCTION

__all__ = ["MACROS", "MACRO_NAMES", "SqlFunctions"]

MACROS = f"""
CREATE MACRO bands(handle, names) AS struct_pack(ref := handle.ref, bands := names);
CREATE MACRO split_fraction(value, seed) AS
    md5_number_lower(concat(value, ':', seed))::DOUBLE / 18446744073709551616.0;
CREATE MACRO within_bbox(lon, lat, west, south, east, north) AS
    lat BETWEEN south AND north
    AND CASE WHEN west <= east THEN lon BETWEEN west AND east ELSE lon >= west OR lon <= east END;
CREATE MACRO hilbert_cell(hilbert, level) AS
    CASE WHEN level NOT BETWEEN 0 AND {HILBERT_ORDER} THEN error('hilbert_cell() takes a level of 0 to {HILBERT_ORDER}')
    ELSE hilbert >> (2 * ({HILBERT_ORDER} - level))::INTEGER END;
"""
MACRO_NAMES = ("bands", "split_fraction", "within_bbox", "hilbert_cell")
_REF_SQL = (
    'STRUCT("key" VARCHAR, "offset" BIGINT, "length" BIGINT, block_bytes INTEGER[], '
    "time_index SMALLINT, y0 SMALLINT, y1 SMALLINT, x0 SMALLINT, x1 SMALLINT)"
)

JudgePixels = Callable[[Sequence[Mapping[str, Any] | None], str], list[float | None]]


class SqlFunctions:
    """The functions that one connection calls back.

    ``failure`` is the error that one of them raised: to be raised in place of DuckDB's, which only says that it failed.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self._names: list[str] = []
        self.failure: TensorBankError | None = None

    def add_pixels(self, judge: JudgePixels) -> None:
        """Add the function that :mod:`tensorbank.statements.own_predicates` calls for rows that statistics leave open."""

        def evaluate(refs: pa.Array, texts: pa.Array) -> pa.Array:
            answers = judge(refs.to_pylist(), texts[0].as_py()) if len(texts) else []
            return pa.array(answers, pa.float64())

        self._add(PIXELS_FUNCTION, evaluate, [_REF_SQL, "VARCHAR"], "DOUBLE")

    def add_polygons(self) -> None:
        """Add the function ``intersects_polygon``."""

        def evaluate(footprints: pa.Array, texts: pa.Array) -> pa.Array:
            if not len(texts):
                return pa.array([], pa.bool_())
            return intersects(footprints, as_geojson(texts[0].as_py()))

        self._add(POLYGON_FUNCTION, evaluate, ["BLOB", "VARCHAR"], "BOOLEAN")

    def close(self) -> None:
        """Take the functions out again: the connection would keep alive what they call."""
        for name in self._names:
            self._con.remove_function(name)
        self._names.clear()

    def _add(
        self, name: str, function: Callable[[pa.Array, pa.Array], pa.Array], kinds: list[Any], result: str
    ) -> None:
        if name in self._names:
            return

        def kept(values: pa.Array, texts: pa.Array) -> pa.Array:
            try:
                return function(values, texts)
            except TensorBankError as error:
                self.failure = error
                raise

        self._con.create_function(name, kept, kinds, result, type=ARROW, null_handling=SPECIAL)
        self._names.append(name)
