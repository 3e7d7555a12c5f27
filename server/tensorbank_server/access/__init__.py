"""Access to the service: keys and tokens of callers, limits on what they ask for, and keys of a store that are lent to them."""

from __future__ import annotations

from tensorbank_server.access.folder_keys import FolderKeys, assume, folders_of, read_policy
from tensorbank_server.access.keys import KeyFile, Principal
from tensorbank_server.access.rate_store import RateStore
from tensorbank_server.access.rates import PLACE, Concurrency
from tensorbank_server.access.shared_rates import SharedRates
from tensorbank_server.access.tokens import Authenticator

__all__ = [
    "Authenticator",
    "Concurrency",
    "FolderKeys",
    "KeyFile",
    "PLACE",
    "Principal",
    "RateStore",
    "SharedRates",
    "assume",
    "folders_of",
    "read_policy",
]
