"""An object store: its address and credentials, objects by key, what its errors mean, and when to ask again."""

from __future__ import annotations

from tensorbank.storage.address import (
    Credentials,
    StorageOptions,
    bucket_and_prefix,
    normalize_url,
    quoted_url,
)
from tensorbank.storage.aws_settings import certificates, surroundings, with_surroundings
from tensorbank.storage.hedging import PATIENCE_S, hedged
from tensorbank.storage.retries import MAX_PAUSE_S, RetryPolicy, parse_retry_after
from tensorbank.storage.store import CONNECT_TIMEOUT_S, MAX_RETRIES, RETRY_TIMEOUT_S, ObjectInfo, Store
from tensorbank.storage.store_errors import as_ours, is_panic, of_system

__all__ = [
    "CONNECT_TIMEOUT_S",
    "Credentials",
    "MAX_PAUSE_S",
    "MAX_RETRIES",
    "ObjectInfo",
    "PATIENCE_S",
    "RETRY_TIMEOUT_S",
    "RetryPolicy",
    "StorageOptions",
    "Store",
    "as_ours",
    "bucket_and_prefix",
    "certificates",
    "hedged",
    "is_panic",
    "normalize_url",
    "of_system",
    "parse_retry_after",
    "quoted_url",
    "surroundings",
    "with_surroundings",
]
