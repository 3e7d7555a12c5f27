"""Objects by key through obstore: the one module that knows it.

The client asks once: whoever asks it decides about another try (:mod:`tensorbank.storage.retries`). Uploads go through a client
that repeats requests, since of the many requests of an upload only it can repeat one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import obstore
from obstore import exceptions as obstore_errors
from obstore.store import LocalStore, S3Store, from_url

from tensorbank.errors import TensorBankError
from tensorbank.storage.address import Credentials, StorageOptions, bucket_and_prefix, quoted_url
from tensorbank.storage.aws_settings import certificates
from tensorbank.storage.retries import CLIENT_POLICY
from tensorbank.storage.store_errors import as_ours, is_panic

__all__ = ["ObjectClient", "ObjectInfo", "translated"]

CONNECT_TIMEOUT_S = 5
STALL_TIMEOUT_S = 20
"""Seconds of silence that end a request: each piece of a body starts them anew, so they bound no large body."""
REQUEST_TIMEOUT_S = 300
BACKOFF_BASE = 4
"""The factor of the pauses between a client's own tries: each is drawn between the first
pause and four times the last one."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing. ``tag`` is another once the object was replaced: its ETag, or when it was written."""

    key: str
    n_bytes: int
    tag: str
    written_s: float = 0.0


class ObjectClient:
    """A client of one store that raises errors of ours. May be used from many threads at once.

    Every method may raise NotFoundError, ConflictError, InvalidInputError or StorageError, by what the store says.

    Parameters
    ----------
    url, options
        The store, with all that the surroundings say of it.
    keys
        Callable that gives the keys of the moment; None for unsigned requests, or where the platform's chain gives them.
    folder
        Folder of a store of local files; None for any other. It is made where it is missing.
    """

    def __init__(
        self, url: str, options: StorageOptions, keys: Credentials | None, folder: Path | None
    ) -> None:
        self._url = url
        self._options = options
        self._keys = keys
        self._folder = folder
        self._asking: Any = None
        self._uploading: Any = None

    @classmethod
    def open(
        cls, url: str, options: StorageOptions, keys: Credentials | None, folder: Path | None
    ) -> ObjectClient:
        """Return a client that is ready to ask; nothing is asked yet.

        Errors of the system, and of settings that make no sense, are raised as they are.
        """
        client = cls(url, options, keys, folder)
        client._asking = client._made(n_tries=1)
        return client

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        """Return the bytes ``[start, end)`` of an object, or fewer where it ends, read-only and without a copy."""
        with self._translated(key):
            return memoryview(obstore.get_range(self._asking, key, start=start, end=end))

    def get(self, key: str) -> bytes:
        """Return a whole object."""
        with self._translated(key):
            return bytes(obstore.get(self._asking, key).bytes())

    def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        """Create or replace an object, by requests that are repeated as :data:`CLIENT_POLICY` says."""
        with self._translated(key):
            if self._uploading is None:  # two threads may make one each, and either is right
                self._uploading = self._made(n_tries=CLIENT_POLICY.n_tries or 1)
            obstore.put(self._uploading, key, data)

    def create(self, key: str, data: bytes) -> None:
        """Create an object; ConflictError if the key exists (``If-None-Match: *``)."""
        with self._translated(key):
            obstore.put(self._asking, key, data, mode="create", use_multipart=False)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._translated(key):
            obstore.delete(self._asking, key)

    def info(self, key: str) -> ObjectInfo:
        """Return what a listing would say of an object."""
        with self._translated(key):
            return _info(obstore.head(self._asking, key))

    def objects(self, prefix: str, after: str = "") -> list[ObjectInfo]:
        """List the objects whose key starts with the path ``prefix`` and is greater than ``after``."""
        with self._translated(prefix):
            found = obstore.list(self._asking, prefix=prefix or None, offset=after or None).collect()
            return [_info(o) for o in found]

    def folders(self, prefix: str) -> tuple[list[str], int]:
        """List the names directly below ``prefix`` that have objects below them, and count the objects beside them."""
        with self._translated(prefix):
            found = obstore.list_with_delimiter(self._asking, prefix=prefix or None)
        return [str(path).rsplit("/", 1)[-1] for path in found["common_prefixes"]], len(found["objects"])

    def children(self, prefix: str) -> tuple[list[str], list[ObjectInfo]]:
        """List the names directly below ``prefix`` that have objects below them, and the objects beside them."""
        with self._translated(prefix):
            found = obstore.list_with_delimiter(self._asking, prefix=prefix or None)
        names = [str(path).rsplit("/", 1)[-1] for path in found["common_prefixes"]]
        return names, [_info(o) for o in found["objects"]]

    def sign(self, method: Literal["GET", "HEAD"], keys: Sequence[str], lifetime_s: float) -> list[str]:
        """Sign URLs of some objects, without asking the store."""
        with self._translated(keys[0] if keys else ""):
            return list(obstore.sign(self._asking, method, list(keys), timedelta(seconds=lifetime_s)))

    def error(self, error: BaseException, key: str) -> TensorBankError:
        """Translate what a request for an object ended in."""
        return _error(error, self._url, self._options, key)

    def _translated(self, key: str) -> AbstractContextManager[None]:
        return translated(self._url, self._options, key)

    def _made(self, n_tries: int) -> Any:
        """Return obstore's store."""
        if self._folder is not None:
            return LocalStore(self._folder, mkdir=True)
        return _store(self._url, self._options, self._keys, n_tries)


@contextmanager
def translated(url: str, options: StorageOptions, key: str = "") -> Iterator[None]:
    """Raise errors of the client and the system as ours, about an object of a store, or the store itself."""
    try:
        yield
    except TensorBankError:
        raise
    except (obstore_errors.BaseError, OSError, ValueError) as error:
        raise _error(error, url, options, key) from error
    except BaseException as error:  # a breakdown of the client is none of Exception's
        if not is_panic(error):
            raise
        raise _error(error, url, options, key) from error


def _error(error: BaseException, url: str, options: StorageOptions, key: str) -> TensorBankError:
    return as_ours(error, f"{url}/{key}" if key else url, bucket_and_prefix(url)[0], options.endpoint)


def _info(o: Any) -> ObjectInfo:
    tag = str(o["e_tag"] or o["last_modified"])
    return ObjectInfo(str(o["path"]), int(o["size"]), tag, o["last_modified"].timestamp())


def _store(url: str, options: StorageOptions, keys: Credentials | None, n_tries: int) -> Any:
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=STALL_TIMEOUT_S),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        "allow_http": True,  # whoever says http:// means it, and nothing else leads there
    }
    authorities = None if url.startswith("http:") else certificates(options)
    if authorities is not None:
        client["root_certificate"] = authorities.read_bytes()
    retry = {
        "max_retries": n_tries - 1,
        "retry_timeout": timedelta(seconds=CLIENT_POLICY.deadline_s),
        "backoff": {
            "init_backoff": timedelta(seconds=CLIENT_POLICY.first_pause_s),
            "max_backoff": timedelta(seconds=CLIENT_POLICY.max_pause_s),
            "base": BACKOFF_BASE,
        },
    }
    if url.startswith("s3:"):
        bucket, prefix = bucket_and_prefix(url)
        config = {
            # AWS_ENDPOINT_URL_S3 of the environment would count more than an endpoint.
            "AWS_ENDPOINT_URL_S3": options.endpoint,
            "endpoint": options.endpoint,
            "region": options.region,
            "skip_signature": options.anonymous or None,
        }
        return S3Store(
            bucket,
            prefix=prefix or None,
            config={name: value for name, value in config.items() if value is not None},  # type: ignore[arg-type] # names of variables are taken, too
            client_options=client,  # type: ignore[arg-type]
            retry_config=retry,  # type: ignore[arg-type]
            credential_provider=keys,  # type: ignore[arg-type]
        )
    given = {"skip_signature": True} if options.anonymous and not url.startswith("http") else {}
    return from_url(quoted_url(url), client_options=client, retry_config=retry, **given)  # type: ignore[call-overload]
