"""The front door: banks by URL, whoever holds their keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tensorbank.address import Access, Credentials, StorageOptions, normalize_url
from tensorbank.bank import Bank
from tensorbank.catalog import Catalog
from tensorbank.errors import InvalidInputError
from tensorbank.mirror import IndexMirror, default_cache_folder
from tensorbank.remote_bank import RemoteBank, find_service
from tensorbank.remote_planner import RemotePlanner
from tensorbank.store import Store

__all__ = ["create", "open"]


def open(  # noqa: A001 - tb.open is the product's front door
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
    key: str | None = None,
    access: Access | None = None,
) -> Bank:
    """Open a bank: a folder, ``file://``, ``s3://`` or any URL of :data:`tensorbank.address.SCHEMES`, or a service's.

    What is not given is taken from the environment and the platform's credential chain. Nothing is read yet, but of ``http://``
    and ``https://``: one request tells whether a TensorBank service answers there, or files lie there.

    Parameters
    ----------
    endpoint
        URL of an S3-compatible server.
    credentials
        Called for keys whenever new ones are needed; see :class:`tensorbank.address.StorageOptions`.
    cache
        Folder for local copies of index files; ``~/.cache/tensorbank`` if not given.
    key
        Of the service. A service with several banks is opened at ``https://host/v1/banks/NAME``.
    access
        How a bank of a service is read: ``"url"`` from the object store by signed URLs, ``"dir"`` from there by keys of a
        plan's folders, ``"proxy"`` through the service; the best for the plan if None.

    Raises
    ------
    InvalidInputError
        The URL is none, or a key is given for what is no service.
    NotFoundError, StorageError
        Only of a service: it has no such bank; it cannot be reached, or refuses the key.
    """
    address = normalize_url(url)
    if address.startswith(("http:", "https:")):
        found = find_service(address, key)
        if found is not None:
            return RemoteBank(RemotePlanner(*found, access))
    elif key is not None:
        raise InvalidInputError(
            f"a key is for a service, and {address} is opened directly; give access_key and secret_key"
        )
    options = StorageOptions(endpoint, access_key, secret_key, session_token, region, anonymous, credentials)
    store = Store(address, options)
    folder = Path(cache) if cache is not None else default_cache_folder()
    return Bank(Catalog(store, IndexMirror(store, folder)))


def create(url: str | os.PathLike[str], **options: Any) -> Bank:
    """Open a bank to write to, after a look whether its store is reachable and arbitrates between writers.

    Takes the options of :func:`open`.

    Raises
    ------
    StorageError
        The store cannot be reached or written.
    ConflictError
        The store does not honour conditional writes.
    """
    bank = open(url, **options)
    bank.catalog.require_arbitration()
    return bank
