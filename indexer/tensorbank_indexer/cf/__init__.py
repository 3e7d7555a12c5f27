"""The meaning of an archive's arrays by the CF conventions: axes, packing, times, and the place of a sample."""

from __future__ import annotations

from tensorbank_indexer.cf.axes import four_axes
from tensorbank_indexer.cf.packing import unpack
from tensorbank_indexer.cf.position import (
    MAX_ID_CHARS,
    NO_PLACE,
    Position,
    described_position,
    problem_of,
    read_position,
    small_array,
    text_of,
    unpacked,
)
from tensorbank_indexer.cf.times import (
    EARLIEST_NS,
    LATEST_NS,
    NO_TIME,
    NS_PER_UNIT,
    id_times,
    is_plausible,
    match_slots,
)

__all__ = [
    "EARLIEST_NS",
    "LATEST_NS",
    "MAX_ID_CHARS",
    "NO_PLACE",
    "NO_TIME",
    "NS_PER_UNIT",
    "Position",
    "described_position",
    "four_axes",
    "id_times",
    "is_plausible",
    "match_slots",
    "problem_of",
    "read_position",
    "small_array",
    "text_of",
    "unpack",
    "unpacked",
]
