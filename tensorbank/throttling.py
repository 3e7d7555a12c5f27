"""How long to leave an overloaded server alone. In seconds."""

from __future__ import annotations

import email.utils
import random
import urllib.error
import urllib.request
from datetime import UTC, datetime

__all__ = ["MAX_PAUSE_S", "ask_retry_after_s", "backoff_s", "parse_retry_after"]

TIMEOUT_S = 5
MAX_PAUSE_S = 30.0
"""However long the server asks to be left alone."""
_DRAWS = random.SystemRandom()  # forks differ, and the global generator is left to its users


def backoff_s(attempt: int, first_s: float, retry_after_s: float | None = None) -> float:
    """A pause after try number ``attempt``, from 0 on: doubled each time, drawn between half and one and a half of that.

    A server that said how long to wait gets that, and up to ``first_s`` more: its other clients were told the same.
    """
    if retry_after_s is not None:
        return min(MAX_PAUSE_S, retry_after_s) + _DRAWS.uniform(0, first_s)
    return min(MAX_PAUSE_S, first_s * 2.0**attempt) * _DRAWS.uniform(0.5, 1.5)


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds of a ``Retry-After`` header, which holds seconds or a date (RFC 9110, 10.2.3); None if it holds neither."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def ask_retry_after_s(url: str) -> float | None:
    """What a HEAD of a URL is told: the seconds to wait, 0 if it is served by now, None if the server does not say.

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
