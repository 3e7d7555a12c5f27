"""Bytes of a plan that a service made: from the object store by signed URLs, or through the service.

URLs are asked for when they are needed, for many shards at once, and renewed well before they end; whoever reads meanwhile goes
on with the old ones. A store may end them earlier all the same, or its clock be another: then they are renewed once more, and the
read is repeated.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from tensorbank.address import StorageOptions
from tensorbank.errors import ConflictError, InvalidInputError, NotFoundError, StorageError, TensorBankError
from tensorbank.remote_http import Answer
from tensorbank.remote_service import BANKS, ServiceClient, failure
from tensorbank.store import Store
from tensorbank.throttling import MAX_PAUSE_S, parse_retry_after

__all__ = ["Access", "ServedStore", "ServedStorage", "SignedUrls", "make_plan", "open_store"]

Access = Literal["url", "proxy"]

RENEW_AFTER = (0.5, 0.8)
"""Share of their life after which URLs are renewed; drawn, so that ranks do not ask together."""
MAX_URLS = 100_000
"""Remembered."""
MAX_KEYS, MAX_KEYS_BYTES = 1_000, 32 << 10
"""Of shards asked for by name at once; a service takes 64 KiB."""
RETRY_RENEWAL_S = 1.0
"""After a renewal ahead of time that failed."""
PLAN_DEADLINE_S = 120.0
"""For a plan to be made."""
EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "RequestExpired", "Request has expired")
SKEWED = "RequestTimeTooSkewed"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedStorage(StorageOptions):
    """How to read the bytes of one plan with nothing but the key of a service.

    Parameters
    ----------
    service
        Its URL.
    bank, plan
        Name and id, as the service knows them.
    access
        ``url``: from the object store. ``proxy``: through the service.
    key
        Of the service, None where access is open.
    question
        JSON that the plan was asked for with, snapshot pinned: a service that lost the plan makes the same one of it.
    """

    service: str = ""
    bank: str = ""
    plan: str = ""
    access: Access = "url"
    key: str | None = field(default=None, repr=False)
    question: str = field(default="", repr=False)


def open_store(url: str, options: StorageOptions) -> Store:
    """Where objects are: the store itself, or what a service hands out of it."""
    return ServedStore(url, options) if isinstance(options, ServedStorage) else Store(url, options)


class ServedStore(Store):
    """Shards of a plan, by ranges and nothing else: what a loader needs. May be used from many threads.

    Parameters
    ----------
    url
        Of the bank at the service; names objects in messages and caches. It holds no signature.
    """

    def __init__(self, url: str, options: ServedStorage) -> None:
        super().__init__(url, options)
        self._service = ServiceClient(options.service, options.key)
        self._plan = ServedPlan(self._service, options)
        self._urls = SignedUrls(self._plan)

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        """Bytes ``[start, end)`` of a shard, read-only.

        For callers that try again, as :meth:`tensorbank.store.Store.get_range` is.
        """
        if not 0 <= start < end:
            raise InvalidInputError(f"not a range to read: [{start}, {end}) of {key}", kind="bad-range")
        left_s = self._busy_until_s - time.monotonic()
        if left_s > 0:
            raise _busy(f"{self.url} is busy for {left_s:.1f} s more, as it says", left_s)
        read = self._by_proxy if self._plan.options.access == "proxy" else self._by_url
        try:
            answer = read(key, start, end)
        except StorageError as error:
            if error.kind == "throttled":
                self._busy_until_s = time.monotonic() + min(error.retry_after_s or 0.0, MAX_PAUSE_S)
            raise
        told = answer.headers.get("Content-Range", "")
        if answer.status != 206 or not told.startswith(f"bytes {start}-{end - 1}/"):
            raise StorageError(
                f"{self.url}/{key} was asked for bytes [{start}, {end}) and sent status {answer.status} of {told[:60]!r}: "
                "something between here and the store does not know ranges",
                kind="bad-answer",
            )
        if len(answer.body) != end - start:
            raise StorageError(
                f"{self.url}/{key} sent another number of bytes than [{start}, {end})", kind="short-read"
            )
        return answer.body

    def _by_url(self, key: str, start: int, end: int) -> Answer:
        """An expired address is renewed once, and the range asked for again."""
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
        """A plan that the service has lost is asked for once more."""
        url = f"{self._service.url}/v1/plans/{self._plan.options.plan}/shards/{quote(key)}"
        for is_last in (False, True):
            answer = self._request(url, self._service.headers, start, end)
            if answer.status < 300:
                return answer
            error = failure(self._service.url, answer)
            if answer.status == 416:
                raise StorageError(f"{self.url}/{key} ends before the range asked for", kind="short-read")
            if is_last or not _is_lost(error):
                raise error
            self._plan.restore()
        raise AssertionError("no try was made")

    def _request(self, url: str, headers: Mapping[str, str], start: int, end: int) -> Answer:
        wanted = {**headers, "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        return self._service.pool.ask("GET", url, wanted, n_bytes=end - start)

    def _open(self, *, writing: bool = False) -> Any:  # noqa: ARG002
        raise InvalidInputError(
            f"{self.url} is read through a service, which hands out ranges of one plan's shards and nothing else",
            kind="served",
        )


class ServedPlan:
    """A plan at its service, which can be asked for it again."""

    def __init__(self, service: ServiceClient, options: ServedStorage) -> None:
        self.service = service
        self.options = options

    def addresses(self, keys: Sequence[str] | None, page: str | None = None) -> dict[str, Any]:
        """Fresh addresses of some shards, or of a page of all; the plan is made again if the service has lost it."""
        content: dict[str, Any] = {"access": self.options.access}
        content |= {"shards": list(keys)} if keys is not None else {}
        content |= {"next": page} if page is not None else {}
        path = f"/v1/plans/{self.options.plan}/credentials"
        try:
            found: dict[str, Any] = self.service.post(path, content)
        except NotFoundError as error:
            if not _is_lost(error):
                raise
            self.restore()
            found = self.service.post(path, content)
        return found

    def restore(self) -> None:
        """Ask for the same plan again.

        Raises
        ------
        ConflictError
            The service makes another one of the same question.
        """
        made = make_plan(self.service, self.options.bank, json.loads(self.options.question))
        if made["id"] != self.options.plan:
            raise ConflictError(
                f"{self.service.url} lost plan {self.options.plan} and makes another of the same question, {made['id']}: "
                "its table or its version of TensorBank has changed",
                kind="other-plan",
            )


def make_plan(service: ServiceClient, bank: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for a plan, and wait until it is made: its status.

    Raises
    ------
    InvalidInputError, NotFoundError, StorageError
        The service refuses, cannot make it, or takes too long.
    """
    deadline_s = time.monotonic() + PLAN_DEADLINE_S
    status: dict[str, Any] = service.post(f"{BANKS}{quote(bank)}/plans", question)
    pause_s = 0.05
    while status["state"] == "submitted":
        if time.monotonic() > deadline_s:
            raise StorageError(
                f"{service.url} has not made the plan within {PLAN_DEADLINE_S:g} s", kind="time-limit"
            )
        time.sleep(pause_s)
        pause_s = min(1.0, 2 * pause_s)
        status = service.get(f"/v1/plans/{status['id']}")
    if status["state"] != "completed":
        told = status.get("error", {})
        raise InvalidInputError(
            f"{service.url} could not make the plan: {told.get('detail', status['state'])}",
            kind=told.get("code", "plan"),
        )
    return status


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """Where one object may be read for a while, by this process's monotonic clock."""

    url: str
    renew_at_s: float
    expires_at_s: float
    number: int


class SignedUrls:
    """Addresses of a plan's shards. May be used from many threads: what they miss at one time is asked for at once."""

    def __init__(self, plan: ServedPlan) -> None:
        self._plan = plan
        self._known: dict[str, SignedUrl] = {}
        self._missing: set[str] = set()
        self._is_one_page = True
        self._number = 0
        self._not_before_s = 0.0
        self._asking = threading.Lock()

    def of(self, key: str) -> SignedUrl:
        """An address that is good now.

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
        with self._asking:
            found = self._known.get(key)
            if found is None or time.monotonic() >= found.expires_at_s:
                self._ask()
            return self._found(key)

    def forget(self, address: SignedUrl) -> None:
        """An address was refused: those that came with it will be, too."""
        with self._asking:
            self._known = {k: a for k, a in self._known.items() if a.number != address.number}

    def _ahead_of_time(self, key: str, old: SignedUrl) -> SignedUrl:
        """Renew, if nobody does, and it did not fail just now; the old one is still good."""
        if time.monotonic() < self._not_before_s or not self._asking.acquire(blocking=False):
            return old
        try:
            if self._known.get(key) is old:
                self._missing.add(key)
                self._ask()
            return self._found(key)
        except TensorBankError as error:
            self._not_before_s = time.monotonic() + RETRY_RENEWAL_S
            _log.warning("addresses of a plan cannot be renewed yet, and end in a while: %s", error)
            return old
        finally:
            self._asking.release()

    def _found(self, key: str) -> SignedUrl:
        found = self._known.get(key)
        if found is None:
            raise NotFoundError(f"plan {self._plan.options.plan} has no shard {key}", kind="unknown-shard")
        return found

    def _ask(self) -> None:
        """Ask for all addresses if they fit on a page, else for the missing ones."""
        missing = sorted(self._missing)
        if self._is_one_page:
            asked_s = time.monotonic()
            page = self._plan.addresses(None)
            self._take(page, asked_s)
            self._is_one_page = page["next"] is None
        if not self._is_one_page:
            for keys in _cut([key for key in missing if not self._is_fresh(key)]):
                asked_s = time.monotonic()
                self._take(self._plan.addresses(keys), asked_s)
        self._missing.difference_update(missing)

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
        self._known = known  # as a whole: readers do not lock


def _cut(keys: Sequence[str]) -> list[list[str]]:
    """Lists that a service takes as one body."""
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


def _is_lost(error: TensorBankError) -> bool:
    return isinstance(error, NotFoundError) and error.kind in ("unknown-plan", "gone", "cancelled")


def _words(answer: Answer) -> tuple[str, str]:
    """Code and message of a store's refusal; a status alone says little."""
    found = {name: re.search(rf"<{name}>([^<]*)</{name}>", answer.text) for name in ("Code", "Message")}
    code, message = (m[1].strip() if (m := found[name]) else "" for name in ("Code", "Message"))
    return code, message


def _may_be_renewed(words: tuple[str, str]) -> bool:
    return words[0] == SKEWED or any(e in text for e in EXPIRED for text in words)


def _refusal(where: str, answer: Answer, words: tuple[str, str]) -> TensorBankError:
    """What a store's refusal means, by the code in its body."""
    code, message = words
    status = answer.status
    if code == SKEWED:
        return StorageError(
            f"{where} is refused: the clock of the service and that of the store disagree", kind="clock"
        )
    if _may_be_renewed(words):
        return StorageError(
            f"{where} is refused: its address has ended although it is new; is a clock wrong?", kind="denied"
        )
    if status in (429, 503) or code == "SlowDown":
        wait_s = parse_retry_after(answer.headers.get("Retry-After"), datetime.now(UTC))
        return _busy(f"{where} is busy", wait_s)
    if status == 416:
        return StorageError(f"{where} ends before the range asked for", kind="short-read")
    if status == 404:
        return NotFoundError(f"there is no object {where}", kind="no-object")
    reason = f"status {status} {code} {message}".strip()[:200]
    if status >= 500:
        return StorageError(f"{where} cannot be reached: {reason}", kind="unreachable")
    return StorageError(f"access to {where} was refused: {reason}", kind="denied")


def _busy(text: str, wait_s: float | None) -> StorageError:
    busy = StorageError(text, kind="throttled")
    busy.retry_after_s = wait_s
    return busy
