"""A store that does not answer for a while: how long already, who is told, and when waiting is over."""

from __future__ import annotations

import logging
import threading
import time

__all__ = ["Outage"]

LOOK_S = 0.25
"""Seconds between two checks of whether a pause is still needed."""
REPORT_AFTER_S, REPORT_EVERY_S = 5.0, 30.0
"""Seconds after which an outage is first logged, and seconds between later reports."""

_log = logging.getLogger(__name__)


class Outage:
    """The time since reads of one store began to fail, until one succeeds. May be called from many threads.

    Parameters
    ----------
    url
        URL of the store, for the log.
    patience_s
        Seconds that each read waits, for the log.
    """

    def __init__(self, url: str, patience_s: float) -> None:
        self._url = url
        self._patience_s = patience_s
        self._since_s: float | None = None
        self._reported_s = 0.0
        self._n_ended = 0
        self._lock = threading.Lock()

    @property
    def lasts_s(self) -> float:
        """The seconds since the outage began, 0 while there is none."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.perf_counter() - since_s

    def note(self, error: Exception, n_waiting: int) -> None:
        """Begin or go on, and log that now and then."""
        now_s = time.perf_counter()
        with self._lock:
            if self._since_s is None:
                self._since_s = now_s
                self._reported_s = now_s + REPORT_AFTER_S - REPORT_EVERY_S
            if now_s - self._reported_s < REPORT_EVERY_S:
                return
            self._reported_s = now_s
            since_s = self._since_s
        _log.warning(
            "no read of %s has been answered for %.0f s; each of the %d reads that wait gives up after %g s: %s",
            self._url,
            now_s - since_s,
            n_waiting,
            self._patience_s,
            error,
        )

    def end(self) -> None:
        """End all pauses, since a read was answered; nothing where there is no outage."""
        if self._since_s is None:
            return
        since_s, was_reported = self._ended()
        if was_reported:
            _log.warning("%s answers again, after %.0f s", self._url, time.perf_counter() - since_s)

    def _ended(self) -> tuple[float, bool]:
        """End the outage; return when it began, and whether it was logged;
        False if another thread has ended it.
        """
        with self._lock:
            since_s, self._since_s = self._since_s, None
            if since_s is None:
                return 0.0, False
            self._n_ended += 1
            return since_s, self._reported_s >= since_s

    def pause(self, pause_s: float, closing: threading.Event, *, may_wake: bool) -> bool:
        """Wait before the next try, until the outage is over if ``may_wake``; True if ``closing`` was set meanwhile."""
        until_s, seen = time.perf_counter() + pause_s, self._n_ended
        while (left_s := until_s - time.perf_counter()) > 0:
            if closing.wait(min(left_s, LOOK_S)):
                return True
            if may_wake and self._n_ended != seen:
                break
        return closing.is_set()
