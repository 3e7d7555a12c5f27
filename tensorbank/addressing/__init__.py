"""Rows of an answer turned into the addresses of a plan, in the order in which they are read."""

from __future__ import annotations

from tensorbank.addressing.handle_columns import HandleColumn, address_columns, check_names, resolve
from tensorbank.addressing.handle_fields import address, shown
from tensorbank.addressing.row_order import by_address
from tensorbank.addressing.shard_keys import ShardKeys
from tensorbank.addressing.table_digest import table_digest

__all__ = [
    "HandleColumn",
    "ShardKeys",
    "address",
    "address_columns",
    "by_address",
    "check_names",
    "resolve",
    "shown",
    "table_digest",
]
