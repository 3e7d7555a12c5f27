"""Decide how long to leave an overloaded server alone. In seconds."""

from __future__ import annotations

import email.utils
import random
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["MAX_PAUSE_S", "RetryPolicy", "ask_retry_after_s", "backoff_s", "parse_retry_after"]

TIMEOUT_S = 5
MAX_PAUSE_S = 30.0
"""Seconds of the longest pause, however long the server asks to be left alone."""
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


def backoff_s(
    attempt: int, first_s: float, retry_after_s: float | None = None, max_s: float = MAX_PAUSE_S
) -> float:
    """A pause after try number ``attempt``, from 0 on: doubled each time, drawn between half and one and a half of that.

    A server that said how long to wait gets that, and up to ``first_s`` more: its other clients were told the same.
    """
    if retry_after_s is not None:
        return min(MAX_PAUSE_S, retry_after_s) + _DRAWS.uniform(0, first_s)
    # An exponent that is bounded: tries may go on for so long that a float would overflow.
    return min(max_s, first_s * 2.0 ** min(attempt, 64)) * _DRAWS.uniform(0.5, 1.5)


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Parse a ``Retry-After`` header, which holds seconds or a date (RFC 9110, 10.2.3), into seconds;
    None if it holds neither."""
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

    For the sake of the header only, which the store's client does not hand out.
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
