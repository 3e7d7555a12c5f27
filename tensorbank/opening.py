"""Open or create a bank by its URL, in a store or behind a service."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, Never

from tensorbank.arguments import whole_number
from tensorbank.bank import Bank, LocalEngine
from tensorbank.catalog import Catalog
from tensorbank.client import Access
from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.index_files import MAX_BYTES, IndexMirror, default_cache_folder
from tensorbank.served import ServedEngine, ServicePlanner, find_service
from tensorbank.storage import Credentials, StorageOptions, Store, normalize_url, with_surroundings

__all__ = ["create", "open"]


def open(  # noqa: A001 - tb.open is the name that users call
    url: str | os.PathLike[str],
    *,
    endpoint: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    session_token: str | None = None,
    region: str | None = None,
    anonymous: bool = False,
    credentials: Credentials | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int = MAX_BYTES,
    key: str | None = None,
    access: Access | None = None,
    profile: str | None = None,
    **unknown: Never,
) -> Bank:
    """Open a bank: a folder, ``file://``, ``s3://`` or any URL of :data:`tensorbank.storage.address.SCHEMES`, or a service's.

    What is not given is taken from AWS's environment variables and files and from the machine's role, as
    :mod:`tensorbank.storage.aws_settings` says. Nothing is read yet, but of ``http://`` and ``https://``: one request
    tells whether a TensorBank service answers there, or files lie there, as :mod:`tensorbank.index_files.static_bank`
    describes.

    Parameters
    ----------
    endpoint
        URL of an S3-compatible server.
    credentials
        Called for keys whenever new ones are needed; see :class:`tensorbank.storage.address.StorageOptions`.
    cache
        Folder for local copies of index files, or of what was read of them; ``~/.cache/tensorbank`` if not given.
    cache_bytes
        Most bytes of these copies, those of other banks in the folder among them; what was used longest ago goes first.
    profile
        Name of a profile of AWS's configuration files; needs botocore, which comes with ``tensorbank[aws]``.
    key
        Key of the service. A service with several banks is opened at ``https://host/v1/banks/NAME``.
    access
        Way to read a bank of a service: ``"url"`` from the object store by signed URLs, ``"dir"`` from there
        by keys of a plan's folders, ``"proxy"`` through the service; the best for the plan if None.

    Raises
    ------
    InvalidInputError
        The URL is none, or a key is given for what is no service, or there is no such option or profile.
    NotFoundError, StorageError
        Only of a service: it has no such bank; it cannot be reached, or refuses the key.
    """
    if unknown:
        raise _no_option("open", next(iter(unknown)))
    whole_number("cache_bytes", cache_bytes, at_least=1)
    address = normalize_url(url)
    if address.startswith(("http:", "https:")):
        found = find_service(address, key)
        if found is not None:
            return Bank(ServedEngine(ServicePlanner(*found, access)))
    elif key is not None:
        raise InvalidInputError(
            f"a key is for a service, and {address} is opened directly; give access_key and secret_key"
        )
    options = StorageOptions(
        endpoint, access_key, secret_key, session_token, region, anonymous, credentials, profile
    )
    store = Store(address, with_surroundings(address, options))
    folder = Path(cache).expanduser() if cache is not None else default_cache_folder()
    return Bank(LocalEngine(Catalog(store, IndexMirror(store, folder, cache_bytes))))


def create(url: str | os.PathLike[str], **options: Any) -> Bank:
    """Open a bank to write to, after a look whether its store is reachable and arbitrates between writers.

    Takes the options of :func:`open`.

    Raises
    ------
    InvalidInputError
        As of :func:`open`, or the bank lies where nothing can be written.
    StorageError
        The store cannot be reached or written.
    ConflictError
        The store does not honour conditional writes.
    """
    for name in options:
        if name not in OPTIONS:
            raise _no_option("create", name)
    bank = open(url, **options)
    bank.catalog.mirror.require_writable()
    bank.catalog.require_arbitration()
    return bank


OPTIONS = tuple(name for name in inspect.signature(open).parameters if name not in ("url", "unknown"))
"""The names of what :func:`open` and :func:`create` take beside the URL."""


def _no_option(function: str, name: str) -> InvalidInputError:
    return InvalidInputError(
        f"tb.{function} has no option {name!r}.{nearest(name, OPTIONS)}", kind=ErrorKind.UNKNOWN_OPTION
    )
