"""An object store: its address and credentials, objects by key, what its errors mean, and when to ask again."""

from __future__ import annotations

from tensorbank.storage.address import (
    Credentials,
    StorageOptions,
    bucket_and_prefix,
    normalize_url,
)
from tensorbank.storage.aws_settings import with_surroundings
from tensorbank.storage.hedging import LATE_S
from tensorbank.storage.object_client import ObjectInfo
from tensorbank.storage.probes import PROBE, time_of_store
from tensorbank.storage.retries import (
    CLIENT_POLICY,
    MAX_PAUSE_S,
    PASSING,
    RetryPolicy,
    backoff_s,
    parse_retry_after,
    retrying,
)
from tensorbank.storage.store import Store
from tensorbank.storage.store_errors import EXPIRED, as_ours, is_panic, of_system

__all__ = [
    "CLIENT_POLICY",
    "Credentials",
    "EXPIRED",
    "LATE_S",
    "MAX_PAUSE_S",
    "ObjectInfo",
    "PASSING",
    "PROBE",
    "RetryPolicy",
    "StorageOptions",
    "Store",
    "as_ours",
    "backoff_s",
    "bucket_and_prefix",
    "is_panic",
    "normalize_url",
    "of_system",
    "parse_retry_after",
    "retrying",
    "time_of_store",
    "with_surroundings",
]
