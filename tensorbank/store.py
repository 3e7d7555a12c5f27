"""Objects by key: the one module that knows obstore.

A ``Store`` is an address and options. Its client is made on first use and never travels: pickling drops it, and a store
that was used before ``fork`` refuses to work in the child, where obstore's runtime would hang for ever.

The client asks three times more at once after 429, 5xx, a lost connection or a cut body, which it continues where it broke
off. What lasts is waited for: ranges by their callers, the rest here. The client does not hand out the headers of errors, so
``Retry-After`` is learned from a request of its own.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore import exceptions as obstore_errors
from obstore.store import LocalStore, from_url

from tensorbank.address import StorageOptions
from tensorbank.errors import ConflictError, InvalidInputError, NotFoundError, StorageError, TensorBankError
from tensorbank.throttling import MAX_PAUSE_S, ask_retry_after_s, backoff_s

__all__ = ["ObjectInfo", "Store"]

CONNECT_TIMEOUT_S = 5
STALL_TIMEOUT_S = 20  # resets with each read, so it bounds a silence, not a large body
REQUEST_TIMEOUT_S = 300
MAX_RETRIES = 3
FIRST_BACKOFF_S = 0.002
BACKOFF_BASE = 4
"""Of the client: the first pause, and the next is drawn between it and four times the last one."""
RETRY_TIMEOUT_S = 60
"""Half of it is the client's for one question, and after half of it no further question is asked."""
N_TRIES = 4
FIRST_PAUSE_S = 0.25
"""Of what is not a range."""
SIGNED_FOR_S = 60
EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "RequestExpired", "Request has expired")
"""What S3 says of keys that were good once; some of it with status 400."""

T = TypeVar("T")

_pid_of_first_use: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing. ``tag`` is another once the object was replaced: its ETag, or when it was written."""

    key: str
    n_bytes: int
    tag: str


class Store:
    """Objects below one URL. May be used from many threads at once.

    Parameters
    ----------
    url
        As :func:`tensorbank.address.normalize_url` returns it.
    options
        How to reach it.
    """

    def __init__(self, url: str, options: StorageOptions | None = None) -> None:
        self.url = url
        self.options = options or StorageOptions()
        self._client: Any = None
        self._lock = threading.Lock()
        self._busy_until_s = 0.0

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __getstate__(self) -> dict[str, object]:
        return {"url": self.url, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc] # a new lock, and clients of its own

    @property
    def local_path(self) -> Path | None:
        """Folder of a ``file://`` store, None for any other."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        """Bytes ``[start, end)`` of an object, read-only, without a copy.

        For callers that try again: after the client's three retries, which take some 20 ms, the error is raised.

        Raises
        ------
        InvalidInputError
            The range is empty or negative.
        NotFoundError, StorageError
            No such object; the store failed, refused, stalled or sent another number of bytes.
        """
        if not 0 <= start < end:
            raise InvalidInputError(f"not a range to read: [{start}, {end}) of {key}", kind="bad-range")
        data = self._ask(
            key,
            lambda client: memoryview(obstore.get_range(client, key, start=start, end=end)),
            n_tries=1,
        )
        if len(data) != end - start:
            raise StorageError(
                f"{self.url}/{key} sent {len(data)} bytes for [{start}, {end})", kind="short-read"
            )
        return data

    def get(self, key: str) -> bytes:
        """A whole object."""
        return self._ask(key, lambda client: bytes(obstore.get(client, key).bytes()))

    def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        """Create or replace an object; readers see all of it or none."""
        self._ask(key, lambda client: obstore.put(client, key, data), writing=True)

    def create(self, key: str, data: bytes) -> None:
        """Create an object; ConflictError if the key exists (``If-None-Match: *``)."""
        self._ask(
            key,
            lambda client: obstore.put(client, key, data, mode="create", use_multipart=False),
            writing=True,
            n_tries=1,  # a second try could meet the first one's object
        )

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        with suppress(NotFoundError):
            self._ask(key, lambda client: obstore.delete(client, key))

    def exists(self, key: str) -> bool:
        try:
            self._ask(key, lambda client: obstore.head(client, key))
        except NotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        """Bytes of an object."""
        return int(self._ask(key, lambda client: obstore.head(client, key))["size"])

    def sign(self, keys: Sequence[str], lifetime_s: float) -> list[str]:
        """URLs by which whoever has them may GET these objects, or ranges of them, for a while. The store is not asked.

        Raises
        ------
        InvalidInputError
            Objects of this store have no such URLs.
        StorageError
            There are no credentials to sign with.
        """
        if not self.url.startswith(("s3:", "gs:", "az:")):
            raise InvalidInputError(f"{self.url} cannot sign URLs; only object stores can", kind="unsigned")
        with self._translated(keys[0] if keys else ""):
            return list(obstore.sign(self._open(), "GET", list(keys), timedelta(seconds=lifetime_s)))

    def objects(self, prefix: str = "") -> list[ObjectInfo]:
        """All objects whose key starts with the path ``prefix``, in the store's order."""
        found = self._ask(prefix, lambda client: obstore.list(client, prefix=prefix or None).collect())
        return [
            ObjectInfo(str(o["path"]), int(o["size"]), str(o["e_tag"] or o["last_modified"])) for o in found
        ]

    def folders(self, prefix: str = "") -> list[str]:
        """Names directly below ``prefix`` that have objects below them, sorted."""
        listing = self._ask(prefix, lambda client: obstore.list_with_delimiter(client, prefix=prefix or None))
        return sorted(str(path).rsplit("/", 1)[-1] for path in listing["common_prefixes"])

    def arbitrates_writers(self) -> bool:
        """Whether a second conditional create of one key is refused, tried on an object that is then removed."""
        key = f".tensorbank-probe-{uuid.uuid4()}"
        self.create(key, b"first")
        try:
            try:
                self.create(key, b"second")
            except ConflictError:
                return self.get(key) == b"first"
            return False
        finally:
            self.delete(key)

    def _ask(
        self, key: str, question: Callable[[Any], T], *, writing: bool = False, n_tries: int = N_TRIES
    ) -> T:
        """The answer to a question, asked again after pauses while the store is busy or out of reach."""
        deadline = time.monotonic() + RETRY_TIMEOUT_S / 2
        for attempt in range(n_tries):
            try:
                return self._ask_with_new_keys(key, question, writing=writing)
            except StorageError as error:
                pause_s = backoff_s(attempt, FIRST_PAUSE_S, error.retry_after_s)
                late = time.monotonic() + pause_s > deadline
                if error.kind not in ("throttled", "unreachable") or late or attempt + 1 == n_tries:
                    raise
                time.sleep(pause_s)
        raise AssertionError("no try was made")

    def _ask_with_new_keys(self, key: str, question: Callable[[Any], T], *, writing: bool) -> T:
        """The answer to a question; a refusal is taken for keys that expired, and asked once more with new ones.

        With many threads the new ones may have expired in their turn before this one has its answer: what counts is that keys
        which this thread renewed are refused.

        While the store wants to be left alone, by all threads, nothing is asked.
        """
        left_s = self._busy_until_s - time.monotonic()
        if left_s > 0:
            busy = StorageError(f"{self.url} is busy for {left_s:.1f} s more, as it says", kind="throttled")
            busy.retry_after_s = left_s
            raise busy
        renewed = False
        while True:
            with self._translated(key):
                client = self._open(writing=writing)
            try:
                with self._translated(key):
                    return question(client)
            except StorageError as error:
                if error.kind == "throttled":
                    error.retry_after_s = self._retry_after_s(client, key)
                    self._busy_until_s = time.monotonic() + min(error.retry_after_s or 0.0, MAX_PAUSE_S)
                if error.kind != "denied" or self.options.credentials is None or renewed:
                    raise
            with self._lock:
                if self._client is client:  # else another thread was refused first
                    self._client, renewed = None, True

    def _retry_after_s(self, client: Any, key: str) -> float | None:
        if self.url.startswith("http"):
            return ask_retry_after_s(f"{self.url}/{quote(key)}")
        if self.options.anonymous:
            return None
        with suppress(obstore_errors.BaseError, OSError, ValueError):
            return ask_retry_after_s(obstore.sign(client, "HEAD", key, timedelta(seconds=SIGNED_FOR_S)))
        return None

    def _open(self, *, writing: bool = False) -> Any:
        global _pid_of_first_use  # noqa: PLW0603 - the runtime it guards is one a process
        pid = os.getpid()
        if _pid_of_first_use is None:
            _pid_of_first_use = pid
        if _pid_of_first_use != pid:
            raise StorageError(
                "this process was forked after the object store had been used, where its client would hang; "
                'start workers with multiprocessing_context="forkserver" or "spawn"',
                kind="forked",
            )
        with self._lock:
            if self._client is None:
                local = self.local_path
                if local is not None and not writing and not local.is_dir():
                    raise NotFoundError(f"there is no folder {local}", kind="no-folder")
                self._client = _make_client(self.url, self.options, local)
            return self._client

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        where = f"{self.url}/{key}"
        try:
            yield
        except TensorBankError:
            raise
        except (FileNotFoundError, obstore_errors.NotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise self._no_bucket() from error
            raise NotFoundError(f"there is no object {where}", kind="no-object") from error
        except (obstore_errors.AlreadyExistsError, obstore_errors.PreconditionError) as error:
            raise ConflictError(f"{where} exists already", kind="exists") from error
        except (
            obstore_errors.PermissionDeniedError,
            obstore_errors.UnauthenticatedError,
            PermissionError,
        ) as error:
            raise _denied(where, str(error)) from error
        except (obstore_errors.BaseError, OSError, ValueError) as error:
            # obstore has exceptions for the statuses of objects, but not for those of listings and ranges.
            text = str(error)
            refused = any(t in text for t in ("status code: 403", "status code: 401", "code: AccessDenied"))
            if "169.254." not in text and refused:
                raise _denied(where, text) from error
            if any(code in text for code in EXPIRED):
                raise _denied(where, text) from error
            if "NoSuchBucket" in text:
                raise self._no_bucket() from error
            if "status code: 416" in text or "range was invalid" in text:
                raise StorageError(f"{where} ends before the range asked for", kind="short-read") from error
            busy = "status code: 429" in text or "status code: 503" in text
            raise StorageError(_reason(where, text), kind="throttled" if busy else "unreachable") from error

    def _no_bucket(self) -> NotFoundError:
        return NotFoundError(f"there is no bucket {urlsplit(self.url).netloc}", kind="no-bucket")


def _denied(where: str, text: str) -> StorageError:
    if "credential provider" in text:
        return StorageError(
            f"no credentials for {where}: the callable that gives them failed, "
            f"{text.split('provider: ', 1)[-1].splitlines()[0][:200]}",
            kind="no-credentials",
        )
    had = "have expired" if any(code in text for code in EXPIRED) else "were refused"
    return StorageError(f"access to {where} was refused; check the credentials, which {had}", kind="denied")


def _reason(where: str, text: str) -> str:
    """One sentence out of obstore's report."""
    first = text.split("\n", 1)[0].strip()
    if "region" in first.lower() and "missing" in first.lower():
        return f"{where}: no region is configured; set AWS_REGION or give region="
    if "169.254.169.254" in text or "credential" in first.lower():
        return f"{where}: no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or pass access_key="
    return f"{where} cannot be reached: {first[:240]}"


def _make_client(url: str, options: StorageOptions, local: Path | None) -> Any:
    if local is not None:
        return LocalStore(local, mkdir=True)
    config: dict[str, object] = {}
    if url.startswith("s3:"):
        config = {
            "endpoint": options.endpoint,
            "access_key_id": options.access_key,
            "secret_access_key": options.secret_key,
            "session_token": options.session_token,
            "credential_provider": options.credentials,
            "region": options.region or ("us-east-1" if options.endpoint else None),
            "skip_signature": options.anonymous or None,
        }
    client = {
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=STALL_TIMEOUT_S),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        "allow_http": options.allow_http or url.startswith("http:"),
    }
    retry = {
        "max_retries": MAX_RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S / 2),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_BACKOFF_S),
            "base": BACKOFF_BASE,
        },
    }
    given: Iterable[tuple[str, object]] = ((k, v) for k, v in config.items() if v is not None)
    options_for_url: dict[str, Any] = dict(given)
    return from_url(url, client_options=client, retry_config=retry, **options_for_url)  # type: ignore[call-overload]
