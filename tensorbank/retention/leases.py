"""Leases: notes in a bank that somebody reads some snapshots, which expire by themselves.

A lease is one object, ``<table>/leases/<id>.json``, that its holder writes anew while it lasts, and removes at the end. What a
killed holder leaves expires.

``until`` is told by the holder's clock, which may be wrong. So a lease counts until then, and at least for :data:`LIFETIME_S`
after it was written by the clock of the store; and for :data:`MAX_SKEW_S` longer. Who cleans up goes by the store's clock as well
(:func:`tensorbank.removal.collect`), so that a lease which is renewed in time counts whatever time holder and cleaner have.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from tensorbank.errors import IntegrityError, NotFoundError
from tensorbank.retention.owners import Owner
from tensorbank.retention.sealed_json import opened, sealed
from tensorbank.storage import Store

__all__ = ["LEASES", "LIFETIME_S", "MAX_SKEW_S", "Lease", "lease_key", "list_leases", "remove_expired"]

LEASES = "leases"
FORMAT = 1
LIFETIME_S = 900.0
"""Seconds that a lease lasts which is not renewed."""
MAX_SKEW_S = 300.0
"""Seconds that a lease counts beyond its end, since two clocks differ."""
N_THREADS = 16
_ID = re.compile(r"[0-9a-z][0-9a-z-]{0,99}")
_JSON = ".json"


@dataclass(frozen=True, slots=True)
class Lease:
    """A note that somebody reads some versions of a table. Times are in UTC, by the clock of the holder.

    ``until`` of a lease that was read is :data:`LIFETIME_S` after the object was written, if that is later.
    """

    id: str
    table_id: str
    versions: tuple[int, ...]
    since: datetime
    until: datetime
    owner: Owner

    def is_expired(self, now: datetime) -> bool:
        """Tell whether the lease is over for certain, though the clocks of holder and caller may differ by :data:`MAX_SKEW_S`."""
        return now > self.until + timedelta(seconds=MAX_SKEW_S)

    def to_bytes(self) -> bytes:
        """Return the object of the lease."""
        times = {
            n: getattr(self, n).astimezone(UTC).isoformat(timespec="seconds") for n in ("since", "until")
        }
        fields = {**asdict(self), **times, "versions": sorted(set(self.versions))}
        return sealed({"format": FORMAT, "kind": "lease", **fields})

    @classmethod
    def from_bytes(cls, data: bytes, url: str) -> Lease:
        """Return the lease of an object.

        Raises
        ------
        IntegrityError
            The object is damaged, or holds no lease of this format.
        """
        fields = opened(data, url)
        try:
            if (fields.pop("format"), fields.pop("kind")) != (FORMAT, "lease"):
                raise ValueError("another format")
            owner = Owner(**fields.pop("owner"))
            since, until = (datetime.fromisoformat(fields.pop(name)) for name in ("since", "until"))
            versions = tuple(int(v) for v in fields.pop("versions"))
            return cls(**fields, versions=versions, since=since, until=until, owner=owner)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"{url} holds no lease that this version reads: {error}; if nobody reads the table, delete it"
            ) from error


def lease_key(table: str, lease_id: str) -> str:
    """Return the key of a lease's object."""
    return f"{table}/{LEASES}/{lease_id}{_JSON}"


def list_leases(store: Store, table: str) -> tuple[list[Lease], list[IntegrityError]]:
    """Return the leases of a table, expired ones as well, and what is said of those whose objects are damaged."""
    written_s = {info.key.rpartition("/")[2]: info.written_s for info in store.objects(f"{table}/{LEASES}")}
    names = [name for name in sorted(written_s) if name.endswith(_JSON)]
    ids = filter(_ID.fullmatch, (name.removesuffix(_JSON) for name in names))
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(lambda i: _read(store, table, i, written_s[f"{i}{_JSON}"]), ids))
    leases = [lease for lease in found if isinstance(lease, Lease)]
    return leases, [error for error in found if isinstance(error, IntegrityError)]


def remove_expired(store: Store, table: str, now: datetime) -> list[Lease]:
    """Remove the leases that are over, and return them; damaged ones stay."""
    leases, _ = list_leases(store, table)
    expired = [lease for lease in leases if lease.is_expired(now)]
    for lease in expired:
        store.delete(lease_key(table, lease.id))
    return expired


def _read(store: Store, table: str, lease_id: str, written_s: float) -> Lease | IntegrityError | None:
    key = lease_key(table, lease_id)
    at_least = datetime.fromtimestamp(written_s, UTC) + timedelta(seconds=LIFETIME_S)
    try:
        lease = Lease.from_bytes(store.get(key), f"{store.url}/{key}")
        return replace(lease, until=max(lease.until, at_least))
    except NotFoundError:  # over meanwhile
        return None
    except IntegrityError as error:
        return error
