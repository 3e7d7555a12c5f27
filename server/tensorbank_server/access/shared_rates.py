"""Rates that hold over all replicas of a service."""

from __future__ import annotations

from tensorbank_server.access.rate_store import RateStore
from tensorbank_server.access.rates import Allowance, Rates, decide

__all__ = ["SharedRates"]


class SharedRates:
    """A token bucket for each caller, counted in a store where there is one, else in this process.

    While the store is away this process counts alone, to its share of the limit: so the replicas together still keep to it.
    A caller begins there with its share of what the store said last.

    Parameters
    ----------
    per_minute
        Requests to all replicas together; a caller that was quiet may spend them at once.
    store
        None for a service of one process.
    n_replicas
        The most replicas that count in the store.
    """

    def __init__(
        self, name: str, per_minute: int, store: RateStore | None = None, n_replicas: int = 1
    ) -> None:
        self.name = name
        self.per_minute = per_minute
        self._store = store
        self._n_replicas = n_replicas if store is not None else 1
        self._alone = Rates(name, max(1, per_minute // self._n_replicas))

    async def spend(self, caller: str) -> Allowance:
        """Take one request from a caller's bucket.

        Raises
        ------
        Problem
            429, with the seconds until there is one again.
        """
        taken = None if self._store is None else await self._store.take(self.name, caller, self.per_minute)
        if taken is None:
            return self._alone.spend(caller)
        is_enough, left = taken
        self._alone.fill(caller, left / self._n_replicas)
        return decide(self.name, self.per_minute, left, is_enough=is_enough)
