"""The leases of a loader on the snapshots of its plans, so that maintenance keeps what a run reads."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from tensorbank.plans import StoreAddress
from tensorbank.retention import LeaseHolder, Reading, are_off
from tensorbank.storage import Store
from tensorbank_loader.streamed import Streamed, plans_of

__all__ = ["PlanLease"]

Hold = Callable[[Store, str | None], LeaseHolder]
_READ_ONLY = ("http:", "https:")
"""The beginnings of addresses where nothing can be written: files behind a web server, which only their owner maintains."""


class PlanLease:
    """The leases of one rank on what its plans read: one a bank and table, from the first batch to the end of their owner.

    A plan through a service needs none here: the service protects what it hands out.

    Parameters
    ----------
    streamed
        Plan or mix.
    wanted
        True or False by the caller's word; None to go by the environment, see :func:`tensorbank.retention.are_off`.
    lease_id
        Id of the leases, for one that several processes in turn take for the same rank; None for a new one.
    hold
        Makes the holder of a bank's leases.
    """

    def __init__(
        self,
        streamed: Streamed,
        wanted: bool | None,
        *,
        lease_id: str | None = None,
        hold: Hold | None = None,
    ) -> None:
        self._streamed = streamed
        self._wanted = wanted
        self._lease_id = lease_id
        self._hold = hold or _holder
        self._holders: list[LeaseHolder] | None = None
        self._end: weakref.finalize[..., PlanLease] | None = None

    def take(self) -> None:
        """Protect the snapshots, unless they are protected already. Returns at once; a thread writes to the store."""
        if self._holders is not None:
            return
        self._holders = []
        if self._wanted is False or (self._wanted is None and are_off()):
            return
        readings: dict[StoreAddress, set[Reading]] = {}
        for plan in plans_of(self._streamed):
            origin = plan.origin
            if (
                not isinstance(origin, StoreAddress)
                or origin.url.startswith(_READ_ONLY)
                or origin.options.anonymous
            ):
                continue
            read = {Reading(s.table, s.table_id, s.version) for s in plan.source.read_snapshots}
            readings.setdefault(origin, set()).update(read)
        for origin, some in readings.items():
            holder = self._hold(Store(origin.url, origin.options), self._lease_id)
            holder.hold(some)
            self._holders.append(holder)
        self._end = weakref.finalize(self, _stop, self._holders)

    def release(self) -> None:
        """Remove the leases; :meth:`take` takes new ones."""
        if self._end is not None:
            self._end()
        self._holders = self._end = None


def _holder(store: Store, lease_id: str | None) -> LeaseHolder:
    return LeaseHolder(store, lease_id=lease_id)


def _stop(holders: list[LeaseHolder]) -> None:
    for holder in holders:
        holder.stop()
