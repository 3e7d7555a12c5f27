"""SQL of a handle without its statistics: what a plan needs of it, or what people look at. Pure."""

from __future__ import annotations

from collections.abc import Collection

from tensorbank.addressing.handle_columns import BANDS_SEPARATOR
from tensorbank.addressing.shard_keys import NO_SHARD

__all__ = ["address", "shown"]


def shown(column: str, *, is_tile: bool) -> str:
    """Return SQL of the key, first byte and length, and the window of a tile, for rows that people read;
    NULL where there is no tensor.
    """
    names = ["key", "offset", "length", *(["time_index", "y0", "y1", "x0", "x1"] if is_tile else [])]
    wanted = ", ".join(f'"{n}" := {column}.ref."{n}"' for n in names)
    return f"CASE WHEN {column}.ref.key IS NULL THEN NULL ELSE struct_pack({wanted}) END"


def address(column: str, fields: Collection[str], *, is_tile: bool, blocks: bool) -> str:
    """Return SQL of the fields of a :class:`tensorbank.addressing.handle_columns.HandleColumn`.

    Parameters
    ----------
    fields
        Those of the column.
    blocks
        True if the sizes of blocks are needed: not where all of them are wanted, of one date.
    """
    ref = f"{column}.ref"
    wanted = {"key": f"if({ref}.key IS NULL, {NO_SHARD}::UBIGINT, hash({ref}.key))"}
    wanted |= {name: f'{ref}."{name}"' for name in ("offset", "length")}
    if blocks:
        wanted["block_bytes"] = f"{ref}.block_bytes"
    if is_tile:
        wanted |= {"y0": f"{ref}.y0", "x0": f"{ref}.x0"}
        wanted |= {"height": f"{ref}.y1 - {ref}.y0", "width": f"{ref}.x1 - {ref}.x0"}
    if is_tile and blocks:
        wanted["time_index"] = f"{ref}.time_index"
    if "bands" in fields:
        wanted["bands"] = f"array_to_string({column}.bands, chr({ord(BANDS_SEPARATOR)}))"
    packed = ", ".join(f'"{name}" := {sql}' for name, sql in wanted.items())
    return f"struct_pack({packed})"
