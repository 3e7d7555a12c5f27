"""Objects by key: the one module that knows obstore.

A ``Store`` is an address and options. Its client is made on first use and never travels: pickling drops it, and a store
that was used before ``fork`` refuses to work in the child, where obstore's runtime would hang for ever.

The client asks three times more at once after 429, 5xx, a lost connection or a cut body, which it continues where it broke
off. What lasts is waited for: ranges by their callers, the rest here. The client does not hand out the headers of errors, so
``Retry-After`` is learned from a request of its own.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import obstore
from obstore import exceptions as obstore_errors
from obstore.store import LocalStore, S3Store, from_url

from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
    TensorBankError,
)
from tensorbank.storage.address import Credentials, StorageOptions, bucket_and_prefix, quoted_url
from tensorbank.storage.aws_settings import ChainKeys, certificates, find_keys, with_surroundings
from tensorbank.storage.refusals import ask_refusal
from tensorbank.storage.retries import MAX_PAUSE_S, ask_retry_after_s, backoff_s
from tensorbank.storage.store_errors import as_ours, is_panic, says_why

__all__ = ["ObjectInfo", "Store"]

CONNECT_TIMEOUT_S = 5
STALL_TIMEOUT_S = 20  # resets with each read, so it bounds a silence, not a large body
REQUEST_TIMEOUT_S = 300
MAX_RETRIES = 3
FIRST_BACKOFF_S = 0.002
BACKOFF_BASE = 4
"""The factor of the client's backoff: each pause is drawn between the first
pause and four times the last one."""
RETRY_TIMEOUT_S = 60
"""Seconds of two limits: half of them is the client's for one question,
and after half of them no further question is asked."""
N_TRIES = 4
FIRST_PAUSE_S = 0.25
"""Seconds of the first pause of requests other than ranged reads."""
SIGNED_FOR_S = 60
UNTOLD = (ErrorKind.DENIED, ErrorKind.REFUSED, ErrorKind.WRONG_REGION)
"""The kinds of errors that S3 explains, unless it was asked by HEAD."""
PROBE = ".tensorbank-probe-"
logger = logging.getLogger(__name__)

T = TypeVar("T")

_pid_of_first_use: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing. ``tag`` is another once the object was replaced: its ETag, or when it was written."""

    key: str
    n_bytes: int
    tag: str


class Store:
    """A store of objects below one URL. May be used from many threads at once.

    Parameters
    ----------
    url
        URL as :func:`tensorbank.storage.address.normalize_url` returns it.
    options
        Options by which the store is reached.
    """

    def __init__(self, url: str, options: StorageOptions | None = None) -> None:
        self.url = url
        self.options = options or StorageOptions()
        self._client: Any = None
        self._keys: Credentials | None = None
        self._is_store = False
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
        """The folder of a ``file://`` store, None for any other."""
        return Path(unquote(self.url.removeprefix("file://"))) if self.url.startswith("file:") else None

    @property
    def is_local(self) -> bool:
        """True for a ``file://`` store."""
        return self.url.startswith("file:")

    @property
    def cache_name(self) -> str:
        """The name of the place in caches: one URL is another bucket at another endpoint."""
        return f"{self.options.endpoint or ''}|{self.url}"

    def settings(self) -> tuple[StorageOptions, Credentials | None]:
        """Return options, with what the surroundings add, and what gives the keys;
        None where no request is signed by us."""
        options = with_surroundings(self.url, self.options)
        if self._keys is None and self.url.startswith("s3:"):
            self._keys = find_keys(options)
        return options, self._keys

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        """Read the bytes ``[start, end)`` of an object, read-only, without a copy.

        For callers that try again: after the client's three retries, which take some 20 ms, the error is raised.

        Raises
        ------
        InvalidInputError
            The range is empty or negative.
        NotFoundError, StorageError
            No such object; the store failed, refused, stalled or sent another number of bytes.
        """
        if not 0 <= start < end:
            raise InvalidInputError(
                f"not a range to read: [{start}, {end}) of {key}", kind=ErrorKind.BAD_RANGE
            )
        data = self._ask(
            key,
            lambda client: memoryview(obstore.get_range(client, key, start=start, end=end)),
            n_tries=1,
        )
        if len(data) != end - start:
            raise StorageError(
                f"{self.url}/{key} sent {len(data)} bytes for [{start}, {end})", kind=ErrorKind.SHORT_READ
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
        """Return the bytes of an object."""
        return self.info(key).n_bytes

    def info(self, key: str) -> ObjectInfo:
        """Return what a listing would say of an object."""
        return _as_info(self._ask(key, lambda client: obstore.head(client, key)))

    def sign(self, keys: Sequence[str], lifetime_s: float) -> list[str]:
        """Sign URLs by which whoever has them may GET these objects, or ranges of them, for a while.
        The store is not asked.

        Raises
        ------
        InvalidInputError
            Objects of this store have no such URLs.
        StorageError
            There are no credentials to sign with.
        """
        if not self.url.startswith(("s3:", "gs:", "az:")):
            raise InvalidInputError(
                f"{self.url} cannot sign URLs; only object stores can", kind=ErrorKind.UNSIGNED
            )
        with self._translated(keys[0] if keys else ""):
            return list(obstore.sign(self._open(), "GET", list(keys), timedelta(seconds=lifetime_s)))

    def objects(self, prefix: str = "") -> list[ObjectInfo]:
        """List all objects whose key starts with the path ``prefix``, in the store's order."""
        found = self._ask(prefix, lambda client: obstore.list(client, prefix=prefix or None).collect())
        return [_as_info(o) for o in found]

    def folders(self, prefix: str = "") -> list[str]:
        """List the names directly below ``prefix`` that have objects below them, sorted.

        Raises
        ------
        StorageError
            Whatever answers there is no store: it has something to say about objects that nobody can have written.
        """
        listing = self._ask(prefix, lambda client: obstore.list_with_delimiter(client, prefix=prefix or None))
        found = sorted(str(path).rsplit("/", 1)[-1] for path in listing["common_prefixes"])
        if not found and not listing["objects"] and self.local_path is None:
            self.require_store()
        return found

    def arbitrates_writers(self) -> bool:
        """Tell whether a second conditional create of one key is refused,
        tried on an object that is then removed.

        Each try writes a token of its own. A try whose answer was lost is repeated by the client and meets its own object, which
        its token tells from another's.

        Raises
        ------
        StorageError
            The store cannot be written, or does not give back what was written.
        """
        key = f"{PROBE}{uuid.uuid4()}"
        try:
            return not self._wins(key, b"first") or not self._wins(key, b"second")
        finally:
            try:
                self.delete(key)
            except StorageError as error:
                logger.warning(
                    "%s/%s, which tried conditional writes, could not be removed: %s", self.url, key, error
                )

    def _wins(self, key: str, name: bytes) -> bool:
        """Tell whether a conditional create of a key made the object that is there."""
        token = name + b" " + uuid.uuid4().hex.encode()
        with suppress(ConflictError):
            self.create(key, token)
        there = self.get(key)
        if there != token and not re.fullmatch(rb"(first|second) [0-9a-f]{32}", there):
            raise self._no_store("it does not give back what was written")
        return there == token

    def require_store(self) -> None:
        """Raise StorageError if every address is answered, as by the page of a login or of another site; asked once."""
        if self._is_store:
            return
        with suppress(NotFoundError):
            try:
                self._ask(key := f"{PROBE}{uuid.uuid4()}", lambda client: obstore.head(client, key))
            except StorageError as error:
                if error.kind not in (ErrorKind.DENIED, ErrorKind.REFUSED):
                    raise
            else:
                raise self._no_store("it answers for every address, as a login page or another site does")
        self._is_store = True  # one may keep silent about what is not there

    def _no_store(self, why: str) -> StorageError:
        endpoint = self.options.endpoint
        at = f" at {endpoint}" if endpoint else ""
        return StorageError(
            f"what answers for {self.url}{at} is no object store ({why}); check the address and the endpoint",
            kind=ErrorKind.NOT_A_STORE,
        )

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
                if (
                    error.kind not in (ErrorKind.THROTTLED, ErrorKind.UNREACHABLE)
                    or late
                    or attempt + 1 == n_tries
                ):
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
            busy = StorageError(
                f"{self.url} is busy for {left_s:.1f} s more, as it says", kind=ErrorKind.THROTTLED
            )
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
                if error.kind == ErrorKind.THROTTLED:
                    error.retry_after_s = self._retry_after_s(client, key)
                    self._busy_until_s = time.monotonic() + min(error.retry_after_s or 0.0, MAX_PAUSE_S)
                cause = error.__cause__
                told = None
                if error.kind in UNTOLD and cause is not None and not says_why(cause):
                    told = self._refusal(client, key)
                keys = self._keys
                changing = self.options.credentials is not None or isinstance(keys, ChainKeys)
                if (told or error).kind != "denied" or not changing or renewed:
                    raise (told or error) from cause
            with self._lock:
                if self._client is client:  # else another thread was refused first
                    self._client, renewed = None, True
                    if isinstance(keys, ChainKeys):
                        keys.forget()

    def _refusal(self, client: Any, key: str) -> TensorBankError | None:
        """Ask S3 for the reason of a refusal by a request whose answer can give one;
        None if it gives none."""
        if not self.url.startswith("s3:") or self.options.anonymous:
            return None
        with suppress(obstore_errors.BaseError, OSError, ValueError):
            url = obstore.sign(client, "GET", key or PROBE, timedelta(seconds=SIGNED_FOR_S))
            told = ask_refusal(url, certificates(self.options))
            if told is not None and says_why(ValueError(told)):
                return self._as_ours(ValueError(told), key)
        return None

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
                kind=ErrorKind.FORKED,
            )
        with self._lock:
            if self._client is None:
                local = self.local_path
                if local is not None and not writing and not local.is_dir():
                    raise NotFoundError(f"there is no folder {local}", kind=ErrorKind.NO_FOLDER)
                self._client = _make_client(self.url, *self.settings(), local)
            return self._client

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except TensorBankError:
            raise
        except (obstore_errors.BaseError, OSError, ValueError) as error:
            raise self._as_ours(error, key) from error
        except BaseException as error:  # a breakdown of the client is none of Exception's
            if not is_panic(error):
                raise
            raise self._as_ours(error, key) from error

    def _as_ours(self, error: BaseException, key: str) -> TensorBankError:
        return as_ours(error, f"{self.url}/{key}", bucket_and_prefix(self.url)[0], self.options.endpoint)


def _as_info(o: Any) -> ObjectInfo:
    return ObjectInfo(str(o["path"]), int(o["size"]), str(o["e_tag"] or o["last_modified"]))


def _make_client(url: str, options: StorageOptions, keys: Credentials | None, local: Path | None) -> Any:
    if local is not None:
        return LocalStore(local, mkdir=True)
    config: dict[str, object] = {"skip_signature": options.anonymous or None}
    authorities = None
    if url.startswith("s3:"):
        # AWS_ENDPOINT_URL_S3 of the environment would count more than an endpoint.
        config |= {
            "AWS_ENDPOINT_URL_S3": options.endpoint,
            "endpoint": options.endpoint,
            "region": options.region,
        }
    if url.startswith("http"):
        config = {}
    if not url.startswith("http:"):
        authorities = certificates(options)
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=STALL_TIMEOUT_S),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        "allow_http": True,  # whoever says http:// means it, and nothing else leads there
    }
    if authorities is not None:
        client["root_certificate"] = authorities.read_bytes()
    retry = {
        "max_retries": MAX_RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S / 2),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_BACKOFF_S),
            "base": BACKOFF_BASE,
        },
    }
    given: dict[str, Any] = {name: value for name, value in config.items() if value is not None}
    if url.startswith("s3:"):
        bucket, prefix = bucket_and_prefix(url)
        return S3Store(
            bucket,
            prefix=prefix or None,
            config=given,  # type: ignore[arg-type] # names of variables are taken, too
            client_options=client,  # type: ignore[arg-type]
            retry_config=retry,  # type: ignore[arg-type]
            credential_provider=keys,  # type: ignore[arg-type]
        )
    return from_url(quoted_url(url), client_options=client, retry_config=retry, **given)  # type: ignore[call-overload]
