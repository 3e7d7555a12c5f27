"""Addresses of banks: a URL and how to reach it. Values only; nothing is opened here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tensorbank.errors import InvalidInputError

__all__ = ["SCHEMES", "Access", "Credentials", "ServedStorage", "StorageOptions", "normalize_url"]

SCHEMES: tuple[str, ...] = ("file", "s3", "gs", "az", "http", "https")

Access = Literal["url", "dir", "proxy"]

Credentials = Callable[[], Mapping[str, Any]]
"""Gives the keys of the moment: ``access_key_id``, ``secret_access_key``, ``token`` or None, and ``expires_at``, a datetime with
time zone or None. obstore's providers, such as ``obstore.auth.boto3.Boto3CredentialProvider``, are such callables."""


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How to reach a store. What is None is left to the environment and the platform's credential chain.

    Parameters
    ----------
    endpoint
        URL of an S3-compatible server, such as ``http://127.0.0.1:8333``.
    anonymous
        Send unsigned requests.
    credentials
        Called for keys instead of ``access_key`` and its companions: at first use, some minutes before they expire, and when the
        store refuses them. Called from any thread; it travels to worker processes, so it must pickle.
    """

    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    anonymous: bool = False
    credentials: Credentials | None = field(default=None, repr=False)

    @property
    def allow_http(self) -> bool:
        return (self.endpoint or "").startswith("http://")

    def with_keys(self) -> StorageOptions:
        """The same with the keys of the moment in place of the callable that gives them."""
        if self.credentials is None:
            return self
        keys = self.credentials()
        return replace(
            self,
            access_key=keys["access_key_id"],
            secret_key=keys["secret_access_key"],
            session_token=keys.get("token"),
            credentials=None,
        )


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
        ``url``: from the object store, by signed URLs. ``dir``: from there, by keys of the plan's folders. ``proxy``: through the
        service.
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


def normalize_url(url: str | os.PathLike[str]) -> str:
    """A URL without trailing slash; a plain path becomes ``file://``.

    Raises
    ------
    InvalidInputError
        The scheme is none of :data:`SCHEMES`.
    """
    text = os.fspath(url)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme is None or (len(scheme[1]) == 1 and os.name == "nt"):
        return Path(text).expanduser().resolve().as_uri()
    if scheme[1].lower() not in SCHEMES or not text[scheme.end() :].startswith("//"):
        raise InvalidInputError(
            f"{text!r} is not a bank URL: give a folder, or a URL that starts with "
            + ", ".join(f"{s}://" for s in SCHEMES),
            kind="bad-url",
        )
    return text.rstrip("/")
