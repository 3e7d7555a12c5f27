"""Ask again: after which errors, after which pauses, and until when. In seconds.

One layer repeats each kind of request, so that tries never multiply, and that layer owns the deadline. All others hand errors on
at once.

=====================================  ==========================================  ============================================
request                                who repeats it                              policy
=====================================  ==========================================  ============================================
range of a shard                       :mod:`tensorbank.fetch`                     ``range_policies(patience_s)``
object, HEAD, listing, deletion        :class:`tensorbank.storage.Store`           :data:`OBJECT_POLICIES`
upload, which is many requests         the store's client, for a Store             :data:`CLIENT_POLICY`
question to a service                  :class:`tensorbank.client.ServiceClient`    its ``policy``
signed address of a shard              :mod:`tensorbank.fetch`, with the range     ``range_policies(patience_s)``
file of an archive by ``http``         the indexer's ``SourceFiles``               its ``POLICIES``
file of an archive by another way      fsspec's file system                        its own
=====================================  ==========================================  ============================================

A second request beside one that is late (:mod:`tensorbank.storage.hedging`, and the fetcher's hedges) is part of one try. A
commit that lost a race against another writer is no failed request: the catalog's loop over races begins anew with what the
winner wrote.

An error is reported after at most so many seconds. *Dead*: nothing listens at the port. *Silent*: connections are taken, or
packets lost, and nothing answers; a try then ends after 20 s of silence, or 5 s without a connection. *Refused*: 403 to
everything. *Busy*: 503 to everything; a ``Retry-After`` is obeyed as far as the time allows. ``tests/faults/test_patience.py``
holds the bounds. Measured with these policies on a busy machine: ``tables`` 2.5, 40, 0.1 and 30 s, ``plan`` up to 54 s of a
silent store.

============================================================  ======  ======  =======  ======
caller                                                        dead    silent  refused  busy
============================================================  ======  ======  =======  ======
planning: ``tb.open``, ``plan``, ``tensorbank tables``,       5       55      10       40
``show``, ``history``, ``query``, and the workers of a
service; ``verify`` and ``bench stream`` before they read
uploads and commits of ``tensorbank ingest``                  35      65      10       40
ranges: the loader, ``verify``, ``bench stream``, a           305     305     10       305
service that hands bytes on (``patience_s`` + 5)
planning by a service: ``tb.open("https://...")``             15      55      at once  60
an archive by ``http`` in ``tensorbank ingest``               at once 305     at once  90
``tensorbank serve``: it starts at once, and ``/readyz``      5       55      10       40
tells that a bank cannot be read
============================================================  ======  ======  =======  ======
"""

from __future__ import annotations

import email.utils
import itertools
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from tensorbank.errors import ErrorKind, StorageError

__all__ = [
    "CLIENT_POLICY",
    "MAX_PAUSE_S",
    "OBJECT_POLICIES",
    "PASSING",
    "RetryPolicy",
    "ask_retry_after_s",
    "backoff_s",
    "parse_retry_after",
    "retrying",
]

T = TypeVar("T")
TIMEOUT_S = 5
MAX_PAUSE_S = 30.0
"""Seconds of the longest pause, however long the server asks to be left alone."""
PASSING = frozenset({ErrorKind.UNREACHABLE, ErrorKind.THROTTLED})
"""The kinds of errors of a store or service as a whole, which pass."""
_DRAWS = random.SystemRandom()  # forks differ, and the global generator is left to its users


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A rule for asking again: pauses that grow, an end by time, and maybe one by number.

    Parameters
    ----------
    first_pause_s, max_pause_s
        The first pause, and what it grows to.
    deadline_s
        Time for all tries and pauses together. The last pause is cut so that the last try begins in time.
    n_tries
        Tries at most; None for as many as fit the time.
    """

    first_pause_s: float
    max_pause_s: float
    deadline_s: float
    n_tries: int | None = None

    def pause_s(self, attempt: int, waited_s: float, retry_after_s: float | None = None) -> float | None:
        """Return the pause after try number ``attempt``, from 0 on; None if that was the last one.

        Parameters
        ----------
        waited_s
            Seconds that tries and pauses took so far.
        retry_after_s
            Seconds that the server asks for.
        """
        left_s = self.deadline_s - waited_s
        if left_s <= 0 or (self.n_tries is not None and attempt + 1 >= self.n_tries):
            return None
        return min(left_s, backoff_s(attempt, self.first_pause_s, retry_after_s, self.max_pause_s))


OBJECT_POLICIES: Mapping[str, RetryPolicy] = {
    # A port where nothing listens is usually a wrong address: a person waits for its error. The tries get past a few lost
    # connections and cut bodies in a row.
    ErrorKind.UNREACHABLE: RetryPolicy(first_pause_s=0.05, max_pause_s=2.0, deadline_s=30.0, n_tries=6),
    # A store that refuses some requests and not others serves what is asked for often enough: thirty tries get through
    # where three in five are refused. Pauses are short, since a plan asks few questions.
    ErrorKind.THROTTLED: RetryPolicy(first_pause_s=0.1, max_pause_s=1.0, deadline_s=30.0),
}
"""The policies of requests for whole objects and of listings, by kind of error."""
CLIENT_POLICY = RetryPolicy(first_pause_s=0.1, max_pause_s=5.0, deadline_s=30.0, n_tries=10)
"""The policy of the client that repeats requests itself: an upload is of many requests, of which only it can repeat one."""


def retrying(policies: Mapping[str, RetryPolicy], question: Callable[[], T]) -> T:
    """Return the answer to a question, asked again after the errors that a policy is for.

    Parameters
    ----------
    policies
        Policies by kind of error. Any other error is raised at once.
    question
        Callable that asks once. It raises :class:`StorageError`, whose ``retry_after_s`` is obeyed.

    Raises
    ------
    StorageError
        The error of the last try.
    """
    started_s = time.monotonic()
    for attempt in itertools.count():
        try:
            return question()
        except StorageError as error:
            policy = policies.get(error.kind)
            waited_s = time.monotonic() - started_s
            pause_s = None if policy is None else policy.pause_s(attempt, waited_s, error.retry_after_s)
            if pause_s is None:
                raise
        time.sleep(pause_s)
    raise AssertionError("no try was made")


def backoff_s(
    attempt: int, first_s: float, retry_after_s: float | None = None, max_s: float = MAX_PAUSE_S
) -> float:
    """Return a pause after try number ``attempt``, from 0 on: doubled each time, drawn between half and one and a half of that.

    A server that said how long to wait gets that, and up to ``first_s`` more: its other clients were told the same.
    """
    if retry_after_s is not None:
        return min(MAX_PAUSE_S, retry_after_s) + _DRAWS.uniform(0, first_s)
    # An exponent that is bounded: tries may go on for so long that a float would overflow.
    return min(max_s, first_s * 2.0 ** min(attempt, 64)) * _DRAWS.uniform(0.5, 1.5)


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Parse a ``Retry-After`` header, which holds seconds or a date (RFC 9110, 10.2.3), into seconds;
    None if it holds neither.
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def ask_retry_after_s(url: str) -> float | None:
    """Ask a URL by HEAD for the seconds to wait: 0 if it is served by now, None if the server does not say.

    Only the header is wanted, which the store's client does not hand out.
    """
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return 0.0
    except urllib.error.HTTPError as error:
        with error:
            return parse_retry_after(error.headers.get("Retry-After"), datetime.now(UTC))
    except (OSError, ValueError):
        return None
