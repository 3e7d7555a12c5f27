"""Pieces of index files: byte ranges that are proved by checksums in the file's footer, kept on the disk, and fetched once."""

from __future__ import annotations

from tensorbank.pieces.column_places import ColumnPlaces
from tensorbank.pieces.kept_pieces import KeptPieces
from tensorbank.pieces.piece_list import PIECES, PieceList
from tensorbank.pieces.ranged_file import RangedFile
from tensorbank.pieces.ranged_files import OpenedFile, RangedFiles
from tensorbank.pieces.room import PIECES_FOLDER, Room
from tensorbank.pieces.scan import Scan, ScannedFile, ServedFile
from tensorbank.pieces.summed_writer import WHOLE_BYTES, SummedWriter

__all__ = [
    "ColumnPlaces",
    "KeptPieces",
    "OpenedFile",
    "PIECES",
    "PIECES_FOLDER",
    "PieceList",
    "RangedFile",
    "RangedFiles",
    "Room",
    "Scan",
    "ScannedFile",
    "ServedFile",
    "SummedWriter",
    "WHOLE_BYTES",
]
