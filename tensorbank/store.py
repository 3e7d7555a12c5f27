"""Objects by key: the one module that knows obstore.

A ``Store`` is an address and options. Its client is made on first use and never travels: pickling drops it, and a store
that was used before ``fork`` refuses to work in the child, where obstore's runtime would hang for ever.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions as obstore_errors
from obstore.store import LocalStore, from_url

from tensorbank.address import StorageOptions
from tensorbank.errors import ConflictError, InvalidInputError, NotFoundError, StorageError, TensorBankError

__all__ = ["ObjectInfo", "Store"]

CONNECT_TIMEOUT_S = 5
STALL_TIMEOUT_S = 20  # resets with each read, so it bounds a silence, not a large body
REQUEST_TIMEOUT_S = 300
MAX_RETRIES = 6
RETRY_TIMEOUT_S = 60

_pid_of_first_use: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    key: str
    n_bytes: int


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

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __getstate__(self) -> dict[str, object]:
        return {"url": self.url, "options": self.options, "_client": None}

    @property
    def local_path(self) -> Path | None:
        """Folder of a ``file://`` store, None for any other."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        """Bytes ``[start, end)`` of an object, read-only, without a copy.

        Raises
        ------
        InvalidInputError
            The range is empty or negative.
        NotFoundError, StorageError
            No such object; the store failed, refused, stalled or sent another number of bytes.
        """
        if not 0 <= start < end:
            raise InvalidInputError(f"not a range to read: [{start}, {end}) of {key}", kind="bad-range")
        with self._translated(key):
            data = memoryview(obstore.get_range(self._open(), key, start=start, end=end))
        if len(data) != end - start:
            raise StorageError(
                f"{self.url}/{key} sent {len(data)} bytes for [{start}, {end})", kind="short-read"
            )
        return data

    def get(self, key: str) -> bytes:
        """A whole object."""
        with self._translated(key):
            return bytes(obstore.get(self._open(), key).bytes())

    def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        """Create or replace an object; readers see all of it or none."""
        with self._translated(key):
            obstore.put(self._open(writing=True), key, data)

    def create(self, key: str, data: bytes) -> None:
        """Create an object; ConflictError if the key exists (``If-None-Match: *``)."""
        with self._translated(key):
            obstore.put(self._open(writing=True), key, data, mode="create", use_multipart=False)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        with suppress(NotFoundError), self._translated(key):
            obstore.delete(self._open(), key)

    def exists(self, key: str) -> bool:
        try:
            with self._translated(key):
                obstore.head(self._open(), key)
        except NotFoundError:
            return False
        return True

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with the path ``prefix``, in the store's order."""
        with self._translated(prefix):
            for page in obstore.list(self._open(), prefix=prefix or None):
                yield from (ObjectInfo(str(o["path"]), int(o["size"])) for o in page)

    def folders(self, prefix: str = "") -> list[str]:
        """Names directly below ``prefix`` that have objects below them, sorted."""
        with self._translated(prefix):
            listing = obstore.list_with_delimiter(self._open(), prefix=prefix or None)
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
            raise _denied(where) from error
        except (obstore_errors.BaseError, OSError, ValueError) as error:
            # obstore has exceptions for the statuses of objects, but not for those of listings and ranges.
            text = str(error)
            if "169.254." not in text and ("status code: 403" in text or "status code: 401" in text):
                raise _denied(where) from error
            if "NoSuchBucket" in text:
                raise self._no_bucket() from error
            if "status code: 416" in text or "range was invalid" in text:
                raise StorageError(f"{where} ends before the range asked for", kind="short-read") from error
            raise StorageError(_reason(where, text), kind="unreachable") from error

    def _no_bucket(self) -> NotFoundError:
        return NotFoundError(f"there is no bucket {urlsplit(self.url).netloc}", kind="no-bucket")


def _denied(where: str) -> StorageError:
    return StorageError(f"access to {where} was refused; check the credentials", kind="denied")


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
        "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }
    given: Iterable[tuple[str, object]] = ((k, v) for k, v in config.items() if v is not None)
    options_for_url: dict[str, Any] = dict(given)
    return from_url(url, client_options=client, retry_config=retry, **options_for_url)  # type: ignore[call-overload]
