"""Bytes of a plan that a service made: from the object store by signed URLs, or through the service.

A store may end a URL before its time, or have another clock. Then the URL is renewed, and the read repeated once. Why a store
refuses is read from the code in its answer, since one status stands for many reasons.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from tensorbank.client.http import Answer
from tensorbank.client.plan_client import PlanClient, is_lost
from tensorbank.client.service import failure
from tensorbank.client.signed_urls import SignedUrls
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, StorageError, TensorBankError
from tensorbank.storage import EXPIRED, MAX_PAUSE_S, parse_retry_after

__all__ = ["PlanBytes"]

SKEWED = "RequestTimeTooSkewed"


class PlanBytes:
    """A reader of ranges of one plan's shards by signed URLs or through the service.
    A :class:`tensorbank.fetch.RangeReader`.
    """

    is_local = False

    def __init__(self, client: PlanClient) -> None:
        self.url = client.plan.url
        self._client = client
        self._urls = SignedUrls(client)
        self._busy_until_s = 0.0

    def __repr__(self) -> str:
        return f"PlanBytes({self.url!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self._client,))

    @property
    def cache_name(self) -> str:
        """The name of the place in caches: no signature is part of it, and no endpoint, which only the service knows."""
        return f"|{self.url}"

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        """Read the bytes ``[start, end)`` of a shard, read-only.

        For callers that try again; see :class:`tensorbank.fetch.RangeReader`.
        """
        if not 0 <= start < end:
            raise InvalidInputError(
                f"not a range to read: [{start}, {end}) of {key}", kind=ErrorKind.BAD_RANGE
            )
        left_s = self._busy_until_s - time.monotonic()
        if left_s > 0:
            raise _busy(f"{self.url} is busy for {left_s:.1f} s more, as it says", left_s)
        read = self._by_proxy if self._client.plan.access == "proxy" else self._by_url
        try:
            answer = read(key, start, end)
        except StorageError as error:
            if error.kind == ErrorKind.THROTTLED:
                self._busy_until_s = time.monotonic() + min(error.retry_after_s or 0.0, MAX_PAUSE_S)
            raise
        told = answer.headers.get("Content-Range", "")
        if answer.status != 206 or not told.startswith(f"bytes {start}-"):
            raise StorageError(
                f"{self.url}/{key} was asked for bytes [{start}, {end}) and sent status {answer.status} of {told[:60]!r}: "
                "something between this machine and the store does not support range requests",
                kind=ErrorKind.BAD_ANSWER,
            )
        if not told.startswith(f"bytes {start}-{end - 1}/") or len(answer.body) != end - start:
            # a server cuts a range that ends behind the object (RFC 9110, 14.1.2)
            raise StorageError(
                f"{self.url}/{key} sent a different number of bytes than [{start}, {end})",
                kind=ErrorKind.SHORT_READ,
            )
        return answer.body

    def _by_url(self, key: str, start: int, end: int) -> Answer:
        """Read by a signed URL; one that has expired is renewed once, and the range asked for again."""
        for is_last in (False, True):
            address = self._urls.of(key)
            answer = self._request(address.url, {}, start, end)
            if answer.status < 300:
                return answer
            words = _words(answer)
            if is_last or not _may_be_renewed(words):
                raise _refusal(f"{self.url}/{key}", answer, words)
            self._urls.forget(address)
        raise AssertionError("no try was made")

    def _by_proxy(self, key: str, start: int, end: int) -> Answer:
        """Read through the service; a plan that it has lost is asked for once more."""
        url = f"{self._client.service.url}/v1/plans/{self._client.plan.plan}/shards/{quote(key)}"
        for is_last in (False, True):
            answer = self._request(url, self._client.service.headers, start, end)
            if answer.status < 300:
                return answer
            error = failure(self._client.service.url, answer)
            if answer.status == 416:
                raise StorageError(
                    f"{self.url}/{key} ends before the range asked for", kind=ErrorKind.SHORT_READ
                )
            if (
                isinstance(error, StorageError) and error.kind == ErrorKind.TIME_LIMIT
            ):  # the store behind it hangs
                raise StorageError(str(error), kind=ErrorKind.UNREACHABLE)
            if is_last or not is_lost(error):
                raise error
            self._client.restore()
        raise AssertionError("no try was made")

    def _request(self, url: str, headers: Mapping[str, str], start: int, end: int) -> Answer:
        wanted = {**headers, "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        return self._client.service.pool.ask("GET", url, wanted, n_bytes=end - start)


def _words(answer: Answer) -> tuple[str, str]:
    """Return the code and message of a store's refusal; a status alone says little."""
    found = {name: re.search(rf"<{name}>([^<]*)</{name}>", answer.text) for name in ("Code", "Message")}
    code, message = (m[1].strip() if (m := found[name]) else "" for name in ("Code", "Message"))
    return code, message


def _may_be_renewed(words: tuple[str, str]) -> bool:
    return words[0] == SKEWED or any(e in text for e in EXPIRED for text in words)


def _refusal(where: str, answer: Answer, words: tuple[str, str]) -> TensorBankError:
    """Translate a store's refusal into an error, by the code in its body."""
    code, message = words
    status = answer.status
    if code == SKEWED:
        return StorageError(
            f"{where} was refused: the clocks of the service and of the store disagree",
            kind=ErrorKind.CLOCK,
        )
    if _may_be_renewed(words):
        return StorageError(
            f"{where} was refused: its URL has expired although it is new; check the clocks of the service and of the store",
            kind=ErrorKind.DENIED,
        )
    if status in (429, 503) or code == "SlowDown":
        wait_s = parse_retry_after(answer.headers.get("Retry-After"), datetime.now(UTC))
        return _busy(f"{where} is busy", wait_s)
    if status == 416:
        return StorageError(f"{where} ends before the range asked for", kind=ErrorKind.SHORT_READ)
    if status == 404:
        return NotFoundError(f"there is no object {where}", kind=ErrorKind.NO_OBJECT)
    reason = f"status {status} {code} {message}".strip()[:200]
    if status >= 500:
        return StorageError(f"{where} cannot be reached: {reason}", kind=ErrorKind.UNREACHABLE)
    return StorageError(f"access to {where} was refused: {reason}", kind=ErrorKind.DENIED)


def _busy(text: str, wait_s: float | None) -> StorageError:
    busy = StorageError(text, kind=ErrorKind.THROTTLED)
    busy.retry_after_s = wait_s
    return busy
