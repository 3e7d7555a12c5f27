"""Retention: which snapshots are kept, by tags that name them and by leases of those who read them."""

from __future__ import annotations

from tensorbank.retention.expiry import (
    EXPIRED,
    expired_versions,
    kept_meanwhile,
    mark_expired,
    require_kept,
    telling_expired,
)
from tensorbank.retention.lease_holder import (
    LEASES_VARIABLE,
    RENEW_S,
    LeaseHolder,
    Reading,
    are_off,
)
from tensorbank.retention.leases import (
    LIFETIME_S,
    MAX_SKEW_S,
    Lease,
    lease_key,
    list_leases,
    remove_expired,
)
from tensorbank.retention.owners import Owner
from tensorbank.retention.protection import Protection, protected_versions
from tensorbank.retention.tags import Tag, check_tag_name, create_tag, delete_tag, find_tag, list_tags
from tensorbank.retention.version_names import (
    VersionName,
    moment_of,
    number_of,
    version_as_of,
    version_of,
    version_tagged,
)

__all__ = [
    "EXPIRED",
    "LEASES_VARIABLE",
    "LIFETIME_S",
    "MAX_SKEW_S",
    "RENEW_S",
    "Lease",
    "LeaseHolder",
    "Owner",
    "Protection",
    "Reading",
    "Tag",
    "VersionName",
    "are_off",
    "check_tag_name",
    "create_tag",
    "delete_tag",
    "expired_versions",
    "find_tag",
    "kept_meanwhile",
    "lease_key",
    "list_leases",
    "list_tags",
    "mark_expired",
    "moment_of",
    "number_of",
    "protected_versions",
    "remove_expired",
    "require_kept",
    "telling_expired",
    "version_as_of",
    "version_of",
    "version_tagged",
]
