"""Signed URLs of a plan's shards: asked for when they are needed, for many shards at once, and renewed well before they end.

Threads that read meanwhile go on with the old ones. Threads that need new ones share one question, and its answer or error: a
service that does not answer is waited for once, not once for each thread. How long an address lives is told by two times of the
service's own clock, so that this machine's clock does not matter.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tensorbank.client.plan_client import PlanClient
from tensorbank.errors import ErrorKind, NotFoundError, StorageError, TensorBankError, as_error

__all__ = ["SignedUrl", "SignedUrls"]

RENEW_AFTER = (0.5, 0.8)
"""The share of their life after which URLs are renewed; drawn, so that ranks do not ask together."""
MAX_URLS = 100_000
"""The most URLs that are remembered."""
MAX_KEYS, MAX_KEYS_BYTES = 1_000, 32 << 10
"""The most shards, and the most bytes of their names, in one question; a service takes 64 KiB."""
RETRY_RENEWAL_S = 1.0
"""Seconds before another try, after a renewal ahead of time that failed."""
QUESTION_LIMIT_S = 300.0
"""Seconds to wait for another thread's question:
beyond the time limits of its requests, and of a plan that is made anew."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """An address by which one object may be read for a while, by this process's monotonic clock."""

    url: str
    renew_at_s: float
    expires_at_s: float
    number: int


class _Question:
    """One question for addresses, under way, and what became of it."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.error: Exception | None = None


class SignedUrls:
    """A cache of the addresses of a plan's shards.
    May be used from many threads: what they miss at one time is asked for at once.
    """

    def __init__(self, client: PlanClient) -> None:
        self._client = client
        self._known: dict[str, SignedUrl] = {}
        self._missing: set[str] = set()
        self._is_one_page = True
        self._number = 0
        self._not_before_s = 0.0
        self._question: _Question | None = None
        self._lock = threading.Lock()

    def of(self, key: str) -> SignedUrl:
        """Return an address that is good now.

        Raises
        ------
        NotFoundError
            The plan has no such shard.
        StorageError
            There is none, since the service refuses or cannot be reached.
        """
        found = self._known.get(key)
        now_s = time.monotonic()
        if found is not None and now_s < found.renew_at_s:
            return found
        if found is not None and now_s < found.expires_at_s:
            return self._ahead_of_time(key, found)
        self._missing.add(key)
        while True:
            mine, is_asked_here = self._join()
            if is_asked_here:
                self._answer(mine, lambda: not self._is_good(key))
            elif not mine.over.wait(QUESTION_LIMIT_S):
                raise StorageError(
                    "the service did not send the URLs of a plan in time", kind=ErrorKind.UNREACHABLE
                )
            if mine.error is not None:
                raise _copy(mine.error)
            if is_asked_here or self._is_good(key):
                return self._found(key)
            self._missing.add(key)  # that question began without it

    def forget(self, address: SignedUrl) -> None:
        """Forget all URLs signed in the same answer as one that was refused: they will be refused, too."""
        with self._lock:
            self._known = {k: a for k, a in self._known.items() if a.number != address.number}

    def _join(self) -> tuple[_Question, bool]:
        """Return the question under way and False, or a new one and True: then the caller has to answer it."""
        with self._lock:
            if self._question is not None:
                return self._question, False
            self._question = _Question()
            return self._question, True

    def _answer(self, question: _Question, is_needed: Callable[[], bool]) -> None:
        """Ask the service, unless another question was answered just now; whatever comes of it is known to all who wait."""
        try:
            if is_needed():
                self._ask()
        except BaseException as failed:  # noqa: BLE001 - others wait for the end of this
            question.error = as_error(failed)
        with self._lock:
            self._question = None
        question.over.set()

    def _ahead_of_time(self, key: str, old: SignedUrl) -> SignedUrl:
        """Renew an address, if nobody does, and it did not fail just now; the old one is still good."""
        if time.monotonic() < self._not_before_s:
            return old
        mine, is_asked_here = self._join()
        if not is_asked_here:
            return old
        self._missing.add(key)
        self._answer(mine, lambda: self._known.get(key) is old)
        if isinstance(mine.error, TensorBankError):
            self._not_before_s = time.monotonic() + RETRY_RENEWAL_S
            _log.warning("the URLs of a plan could not be renewed yet, and expire soon: %s", mine.error)
            return old
        if mine.error is not None:
            raise mine.error
        return self._found(key)

    def _found(self, key: str) -> SignedUrl:
        found = self._known.get(key)
        if found is None:
            raise NotFoundError(
                f"plan {self._client.plan.plan} has no shard {key}", kind=ErrorKind.UNKNOWN_SHARD
            )
        return found

    def _ask(self) -> None:
        """Ask for all addresses if they fit on a page, else for the missing ones."""
        missing = sorted(self._missing)
        if self._is_one_page:
            asked_s = time.monotonic()
            page = self._client.addresses(None)
            self._take(page, asked_s)
            self._is_one_page = page["next"] is None
        if not self._is_one_page:
            for keys in _cut([key for key in missing if not self._is_fresh(key)]):
                asked_s = time.monotonic()
                self._take(self._client.addresses(keys), asked_s)
        self._missing.difference_update(missing)

    def _is_good(self, key: str) -> bool:
        known = self._known.get(key)
        return known is not None and time.monotonic() < known.expires_at_s

    def _is_fresh(self, key: str) -> bool:
        known = self._known.get(key)
        return known is not None and time.monotonic() < known.renew_at_s

    def _take(self, answer: Mapping[str, Any], asked_s: float) -> None:
        life_s = (_moment(answer["expires"]) - _moment(answer["server_time"])).total_seconds()
        renew_at_s = asked_s + life_s * random.uniform(*RENEW_AFTER)  # jitter, not cryptography
        self._number += 1
        known = {
            k: a for k, a in self._known.items() if a.expires_at_s > asked_s and k not in answer["shards"]
        }
        for key, url in answer["shards"].items():
            known[key] = SignedUrl(url, renew_at_s, asked_s + life_s, self._number)
        for key in list(known)[: max(0, len(known) - MAX_URLS)]:
            del known[key]
        with self._lock:
            self._known = known  # as a whole: readers do not lock


def _copy(error: Exception) -> Exception:
    """Return the error for one of several threads: each adds a traceback of its own."""
    if not isinstance(error, TensorBankError):
        return error
    mine = type(error)(str(error), kind=error.kind)
    if isinstance(error, StorageError) and isinstance(mine, StorageError):
        mine.retry_after_s = error.retry_after_s
    mine.__cause__ = error
    return mine


def _cut(keys: Sequence[str]) -> list[list[str]]:
    """Cut the keys into lists that a service takes as one body."""
    lists: list[list[str]] = []
    n_bytes = 0
    for key in keys:
        n = len(json.dumps(key)) + 2
        if not lists or len(lists[-1]) == MAX_KEYS or n_bytes + n > MAX_KEYS_BYTES:
            lists.append([])
            n_bytes = 0
        lists[-1].append(key)
        n_bytes += n
    return lists


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
