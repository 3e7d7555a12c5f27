"""Places of the column chunks of a Parquet file, by its footer. Pure.

A *leaf* is a column of the file, a field of a struct counting as one, by its path in lower case: ``ndvi.mean``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ColumnPlaces"]


@dataclass(frozen=True)
class ColumnPlaces:
    """The places of the columns of a file.

    Parameters
    ----------
    leaves
        Their paths, (n,).
    starts, ends
        Bytes of each row group and column, (m, n) int64.
    """

    leaves: tuple[str, ...]
    starts: npt.NDArray[np.int64] = field(repr=False)
    ends: npt.NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, footer: Any) -> ColumnPlaces:
        """Return those of pyarrow's ``FileMetaData`` of a file that was compared with its checksum."""
        leaves = tuple(footer.schema.column(i).path.lower() for i in range(footer.num_columns))
        places = np.zeros((2, footer.num_row_groups, len(leaves)), np.int64)
        for g in range(footer.num_row_groups):
            group = footer.row_group(g)
            for i in range(len(leaves)):
                column = group.column(i)
                start = column.data_page_offset
                if column.has_dictionary_page:
                    start = min(start, column.dictionary_page_offset)
                places[:, g, i] = start, start + column.total_compressed_size
        return cls(leaves, places[0], places[1])

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each leaf."""
        return {leaf: i for i, leaf in enumerate(self.leaves)}

    def interval(self, group: int, column: int) -> tuple[int, int]:
        """Return the bytes of a column in a row group."""
        return int(self.starts[group, column]), int(self.ends[group, column])

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the row group and the number of each column that has bytes of ``[start, end)``."""
        groups, columns = np.nonzero((self.starts < end) & (self.ends > start))
        yield from zip(groups.tolist(), columns.tolist(), strict=True)
