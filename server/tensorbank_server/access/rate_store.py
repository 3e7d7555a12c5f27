"""The store in which the replicas of a service count together: Redis, or what speaks its protocol.

A bucket is a hash of two numbers, changed by one script: one question for each count, in one step, by the clock of the store.
The store holds nothing that is not full again a minute later, so it needs no disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from tensorbank_server.monitoring import Metrics

__all__ = ["RateStore"]

AGAIN_S = 1.0
"""Seconds after a failure in which the store is not asked: each request would wait for it."""
MAX_CONNECTIONS = 32
KEY = "tensorbank:rates"
_LOG = logging.getLogger(__name__)
_TAKE = """
local most = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local kept = redis.call('HMGET', KEYS[1], 'left', 'at')
local at = tonumber(kept[2]) or now
local left = math.min(most, (tonumber(kept[1]) or most) + math.max(0, now - at) * most / 60)
local enough = left >= 1
if enough then left = left - 1 end
redis.call('HSET', KEYS[1], 'left', string.format('%.6f', left), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], 61)
return {enough and 1 or 0, string.format('%.6f', left)}
"""
"""A script that takes one from a bucket which is full after a minute; it returns whether there was one, and how many are left."""


class RateStore:
    """The buckets of all replicas. For one event loop; the first question connects.

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` (TLS) or ``unix://``.
    password
        Password, if it does not stand in the URL.
    limit_s
        Seconds that a request waits for the store, for a connection and an answer together.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        password: str | None,
        metrics: Metrics,
        *,
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import redis.asyncio as redis  # a quarter of a second, which a service without such a store need not take
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        self.problem: str | None = None
        """The reason why replicas count alone, as of the last question; None while the store answers."""
        self._metrics = metrics
        self._limit_s = limit_s
        self._clock = clock
        self._failures = (RedisError, OSError)  # TimeoutError is an OSError
        self._asked_again_s = 0.0
        pool = redis.BlockingConnectionPool.from_url(
            url,
            **({} if password is None else {"password": password}),
            max_connections=MAX_CONNECTIONS,
            timeout=limit_s,
            socket_timeout=limit_s,
            socket_connect_timeout=limit_s,
            retry=Retry(NoBackoff(), 1),  # a connection that the store has closed meanwhile is opened again
        )
        self._redis = redis.Redis(connection_pool=pool)
        self._take = self._redis.register_script(_TAKE)

    async def take(self, name: str, caller: str, per_minute: int) -> tuple[bool, float] | None:
        """Take one request from a caller's bucket.

        Returns
        -------
        Whether there was one, and how many are left; None if the store is away.
        """
        if self.problem is not None:
            if self._clock() < self._asked_again_s:
                return None
            self._asked_again_s = self._clock() + AGAIN_S  # only one request looks whether it is back
        try:
            async with asyncio.timeout(self._limit_s):
                taken, left = await self._take(keys=[f"{KEY}:{name}:{caller}"], args=[per_minute])
        except self._failures as error:
            self._asked_again_s = self._clock() + AGAIN_S
            self._metrics.rate_store_failures.inc()
            if self.problem is None:
                _LOG.warning(
                    "the store of the limits is away, and each replica counts alone: %s", type(error).__name__
                )
            self.problem = "the store does not answer; each replica counts its share"
            return None
        if self.problem is not None:
            _LOG.warning("the store of the limits answers again")
            self.problem = None
        return taken == 1, float(left)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
