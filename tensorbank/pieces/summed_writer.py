"""A Parquet writer that puts the checksums of the pieces of its file into the footer."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import crc32c as crc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.pieces.piece_list import PIECE_BYTES, PIECES, PieceList

__all__ = ["SummedWriter", "WHOLE_BYTES"]

WHOLE_BYTES = 2 << 20
"""The size up to which a file has no list, and is read as a whole: by ranges it would take some requests in a row, each of which
waits as long as these bytes take."""

ARROW_SCHEMA = "ARROW:schema"
"""The name of a footer's entry for Arrow's types of the columns, which Arrow's readers take from there."""


class _SummedFile:
    """A file that is written, and whose pieces are summed up meanwhile."""

    closed = False

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._n_bytes = 0
        self._checksum = 0
        self._checksums: list[int] = []

    def write(self, data: bytes) -> int:
        self._inner.write(data)
        left = memoryview(data)
        while left:
            some = left[: PIECE_BYTES - self._n_bytes % PIECE_BYTES]
            self._checksum = crc.crc32c(some, self._checksum)
            self._n_bytes += len(some)
            if self._n_bytes % PIECE_BYTES == 0:
                self._checksums.append(self._checksum)
                self._checksum = 0
            left = left[len(some) :]
        return len(data)

    def pieces(self) -> PieceList:
        """Return the list of the whole pieces so far."""
        return PieceList(PIECE_BYTES, np.array(self._checksums, np.uint32))

    def tell(self) -> int:
        return self._n_bytes

    def flush(self) -> None:
        """Do nothing: the end of the file does."""

    def close(self) -> None:
        """Do nothing: the writer closes what it opened."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class SummedWriter(pq.ParquetWriter):  # type: ignore[misc] # pyarrow has no types
    """A :class:`pyarrow.parquet.ParquetWriter` whose files have :data:`~tensorbank.pieces.piece_list.PIECES` in the footer.

    Takes its options. Row groups lie in the file before the footer is made, so their pieces are known by then.

    Parameters
    ----------
    schema
        Columns of the file, as readers have them.
    given
        The same columns as tables have them that are written, if texts are numbers of dictionaries there: these are written as
        they are, while texts would be looked up one by one.
    """

    def __init__(
        self, where: Path | pa.NativeFile, schema: pa.Schema, given: pa.Schema | None = None, **options: Any
    ) -> None:
        metadata = dict(schema.metadata or {})
        metadata.pop(PIECES.encode(), None)  # of the file that the rows were read from
        schema = schema.with_metadata(metadata or None)
        self._opened = where.open("wb") if isinstance(where, Path) else None
        self._summed = _SummedFile(where if self._opened is None else self._opened)
        try:
            if given is None:
                super().__init__(self._summed, schema, **options)
            else:
                super().__init__(self._summed, given.with_metadata(None), store_schema=False, **options)
                self.add_key_value_metadata({**metadata, ARROW_SCHEMA: _as_metadata(schema)})
        except BaseException:
            self._close_file()
            raise

    def close(self) -> None:
        try:
            if self.is_open:
                pieces = self._summed.pieces()
                if pieces.n_bytes > WHOLE_BYTES:
                    self.add_key_value_metadata({PIECES: pieces.text})
            super().close()
        finally:
            self._close_file()

    def _close_file(self) -> None:
        if self._opened is not None:
            self._opened.close()


def _as_metadata(schema: pa.Schema) -> str:
    """Return a schema as Arrow's own writer puts it into a footer."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()
