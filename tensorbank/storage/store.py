"""Objects by key, with patience for a store that is busy or out of reach for a moment.

A ``Store`` is an address and options. Its client is made on first use and never travels: pickling drops it, and a store
that was used before ``fork`` refuses to work in the child, where obstore's runtime would hang for ever.

The client does not hand out the headers of errors, so ``Retry-After`` is learned from a request of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError, NotFoundError, StorageError
from tensorbank.storage import probes
from tensorbank.storage.address import Credentials, StorageOptions
from tensorbank.storage.aws_settings import ChainKeys, find_keys, with_surroundings
from tensorbank.storage.hedging import hedged
from tensorbank.storage.object_client import ObjectClient, ObjectInfo, translated
from tensorbank.storage.refusals import told_pause_s, told_reason
from tensorbank.storage.retries import (
    MAX_PAUSE_S,
    OBJECT_POLICIES,
    RetryPolicy,
    retrying,
)
from tensorbank.storage.store_errors import says_why

__all__ = ["Store"]

UNTOLD = (ErrorKind.DENIED, ErrorKind.REFUSED, ErrorKind.WRONG_REGION)
"""The kinds of errors that S3 explains, unless it was asked by HEAD."""
ONCE: Mapping[str, RetryPolicy] = {}
"""No policy for any error: the request is not repeated here."""

T = TypeVar("T")

_pid_of_first_use: int | None = None


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
        self._client: ObjectClient | None = None
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
        None where no request is signed by us.
        """
        options = with_surroundings(self.url, self.options)
        if self._keys is None and self.url.startswith("s3:"):
            self._keys = find_keys(options)
        return options, self._keys

    def forget_keys(self) -> bool:
        """Forget the keys of the moment, which were refused; False if no others can be had."""
        keys = self._keys
        if isinstance(keys, ChainKeys):
            keys.forget()
        elif self.options.credentials is None:
            return False
        self._client = None
        return True

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        """Read the bytes ``[start, end)`` of an object, read-only, without a copy, and with one request.

        For callers that try again: any error is raised at once.

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
        data = self._ask_once(key, lambda client: client.get_range(key, start, end))
        if len(data) != end - start:
            raise StorageError(
                f"{self.url}/{key} sent {len(data)} bytes for [{start}, {end})", kind=ErrorKind.SHORT_READ
            )
        return data

    def get_piece(self, key: str, start: int, end: int, late_s: float | None = None) -> memoryview:
        """Read bytes as :meth:`get_range` does, asked again while the store is busy or out of reach, as :meth:`get` is."""
        once = partial(self.get_range, key, start, end)
        return retrying(OBJECT_POLICIES, once if late_s is None else partial(hedged, once, late_s))

    def get(self, key: str, late_s: float | None = None) -> bytes:
        """Return a whole object.

        Parameters
        ----------
        late_s
            Seconds after which another request is made beside one that has not been answered; None to wait.
        """
        return self._ask(key, lambda client: client.get(key), late_s=late_s)

    def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        """Create or replace an object; readers see all of it or none."""
        self._ask(key, lambda client: client.put(key, data), policies=ONCE, writing=True)

    def create(self, key: str, data: bytes) -> None:
        """Create an object; ConflictError if the key exists (``If-None-Match: *``).

        Asked once: a second try could meet the first one's object, if only its answer was lost.
        """
        self._ask(key, lambda client: client.create(key, data), policies=ONCE, writing=True)

    def claim(self, key: str, data: bytes) -> bool:
        """Create an object that holds what no other writer would write; False if there is another one under its key.

        Asked again while the store is busy or out of reach: an object that is found there is compared, since the answer to an
        earlier try may have been lost.
        """
        try:
            self._ask(key, lambda client: client.create(key, data), writing=True)
        except ConflictError:
            return self.get(key) == data
        return True

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        with suppress(NotFoundError):
            self._ask(key, lambda client: client.delete(key))

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        try:
            self.info(key)
        except NotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        """Return the bytes of an object."""
        return self.info(key).n_bytes

    def info(self, key: str) -> ObjectInfo:
        """Return what a listing would say of an object."""
        return self._ask(key, lambda client: client.info(key))

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
        return self._open().sign("GET", keys, lifetime_s)

    def objects(self, prefix: str = "", late_s: float | None = None, *, after: str = "") -> list[ObjectInfo]:
        """List all objects whose key starts with the path ``prefix``, in the store's order.

        Parameters
        ----------
        late_s
            As for :meth:`get`.
        after
            Key after which the list begins; a store may name those before all the same.
        """
        return self._ask(prefix, lambda client: client.objects(prefix, after), late_s=late_s)

    def folders(self, prefix: str = "") -> list[str]:
        """List the names directly below ``prefix`` that have objects below them, sorted.

        Raises
        ------
        StorageError
            Whatever answers there is no store: it has something to say about objects that nobody can have written.
        """
        found, n_objects = self._ask(prefix, lambda client: client.folders(prefix))
        if not found and not n_objects and self.local_path is None:
            self.require_store()
        return sorted(found)

    def children(self, prefix: str = "") -> tuple[list[str], list[ObjectInfo]]:
        """List the names directly below ``prefix`` that have objects below them, and the objects beside them."""
        return self._ask(prefix, lambda client: client.children(prefix))

    def arbitrates_writers(self) -> bool:
        """Tell whether a second conditional create of one key is refused,
        tried on an object that is then removed.

        Raises
        ------
        StorageError
            The store cannot be written, or does not give back what was written.
        """
        return probes.arbitrates_writers(self)

    def require_store(self) -> None:
        """Raise StorageError if every address is answered, as by the page of a login or of another site; asked once."""
        if not self._is_store:
            probes.require_store(self)
            self._is_store = True

    def _ask(
        self,
        key: str,
        question: Callable[[ObjectClient], T],
        *,
        policies: Mapping[str, RetryPolicy] | None = None,
        late_s: float | None = None,
        writing: bool = False,
    ) -> T:
        """Return the answer to a question, asked again after pauses while the store is busy or out of reach.

        Requests beside a late one belong to the same try: a store that answers at once, if only by refusals, sees one request a
        try.
        """
        once = partial(self._ask_once, key, question, writing=writing)
        asked = once if late_s is None else partial(hedged, once, late_s)
        return retrying(OBJECT_POLICIES if policies is None else policies, asked)

    def _ask_once(self, key: str, question: Callable[[ObjectClient], T], *, writing: bool = False) -> T:
        """Return the answer to a question; a refusal is taken for keys that expired, and asked once more with new ones.

        With many threads the new ones may have expired in their turn before this one has its answer: what counts is that keys
        which this thread renewed are refused.

        While the store wants to be left alone, by all threads, nothing is asked.
        """
        left_s = self._busy_until_s - time.monotonic()
        if left_s > 0:
            busy = StorageError(
                f"{self.url} is busy and asks for a pause of {left_s:.1f} s more", kind=ErrorKind.THROTTLED
            )
            busy.retry_after_s = left_s
            raise busy
        renewed = False
        while True:
            client = self._open(writing=writing)
            try:
                return question(client)
            except StorageError as error:
                if error.kind == ErrorKind.THROTTLED:
                    error.retry_after_s = told_pause_s(client, self.url, self.options, key)
                    self._busy_until_s = time.monotonic() + min(error.retry_after_s or 0.0, MAX_PAUSE_S)
                cause = error.__cause__
                told = None
                if error.kind in UNTOLD and cause is not None and not says_why(cause):
                    told = told_reason(client, self.url, self.options, key)
                if (told or error).kind != ErrorKind.DENIED or renewed:
                    raise (told or error) from cause
                with self._lock:
                    if self._client is client:  # else another thread was refused first
                        renewed = True
                        if not self.forget_keys():
                            raise (told or error) from cause

    def _open(self, *, writing: bool = False) -> ObjectClient:
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
        client = self._client
        if client is not None:
            return client
        with self._lock, translated(self.url, self.options):
            if self._client is None:
                local = self.local_path
                if local is not None and not writing and not local.is_dir():
                    raise NotFoundError(f"there is no folder {local}", kind=ErrorKind.NO_FOLDER)
                self._client = ObjectClient.open(self.url, *self.settings(), local)
            return self._client
