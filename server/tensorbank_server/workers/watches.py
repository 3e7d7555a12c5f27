"""Watches: background checks, so that a caller is answered at once, whatever hangs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

__all__ = ["Watch"]

_LOG = logging.getLogger(__name__)
MAX_HUNG = 2
"""The most checks that have not come back; no other is started beside them until one does."""


class Watch:
    """A regular check of what keeps one thing from being used, in a daemon thread. Belongs to one event loop.

    Parameters
    ----------
    name
        Name of the thing, for the log.
    look
        A function that returns what keeps it from being used, None if nothing does; may block, and be late.
    every_s, again_s
        Seconds between two looks while all is well, and while it is not.
    limit_s
        A look that takes longer is a problem itself.
    """

    def __init__(
        self, name: str, look: Callable[[], str | None], *, every_s: float, again_s: float, limit_s: float
    ) -> None:
        self.name = name
        self.problem: str | None = None
        self._look = look
        self._every_s = every_s
        self._again_s = again_s
        self._limit_s = limit_s
        self._n_running = 0
        self._doubted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Check once, and go on in the background."""
        await self._once()
        self._task = asyncio.create_task(self._go_on())

    def doubt(self) -> None:
        """Check soon: a caller had trouble."""
        self._doubted.set()

    async def close(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _go_on(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every_s if self.problem is None else self._again_s):
                    await self._doubted.wait()
            except TimeoutError:
                pass
            self._doubted.clear()
            await self._once()
            # a storm of doubts is one look each while
            await asyncio.sleep(min(self._again_s, self._every_s) / 4)

    async def _once(self) -> None:
        if self._n_running < MAX_HUNG:
            found = await self._ask()
        else:
            found = self.problem or "late"
            await asyncio.sleep(self._again_s)
        if found != self.problem:
            say = _LOG.warning if found else _LOG.info
            say("%s: %s", self.name, found or "well again")
        self.problem = found

    async def _ask(self) -> str | None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str | None] = loop.create_future()

        def tell(found: str | None) -> None:
            self._n_running -= 1
            if not answer.done():
                answer.set_result(found)
            elif found is None:  # late, but it works: look again rather than wait
                self._doubted.set()

        def look() -> None:
            try:
                found = self._look()
            except BaseException as error:  # noqa: BLE001 - the edge of a thread: whoever waits is told
                _LOG.exception("%s cannot be looked at", self.name)
                found = type(error).__name__
            try:
                loop.call_soon_threadsafe(tell, found)
            except RuntimeError:  # the loop has ended
                return

        self._n_running += 1
        threading.Thread(target=look, name=f"tensorbank-watch-{self.name}", daemon=True).start()
        try:
            async with asyncio.timeout(self._limit_s):
                return await asyncio.shield(answer)
        except TimeoutError:
            answer.cancel()
            return "late"
