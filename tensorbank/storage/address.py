"""Addresses of banks: a URL and how to reach it. Values only; nothing is opened here.

The URL of a bucket is its scheme, its name and a prefix, character by character as the keys of its objects begin. The URL of a
folder (``file://``) and of a web server has special characters quoted by ``%``, as everywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tensorbank.errors import ErrorKind, InvalidInputError

__all__ = [
    "SCHEMES",
    "Credentials",
    "StorageOptions",
    "bucket_and_prefix",
    "check_endpoint",
    "normalize_url",
    "quoted_url",
]

SCHEMES: tuple[str, ...] = ("file", "s3", "gs", "az", "http", "https")
BUCKETS = ("s3", "gs", "az")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Credentials = Callable[[], Mapping[str, Any]]
"""A callable that gives the keys of the moment: ``access_key_id``, ``secret_access_key``, ``token`` or None,
and ``expires_at``, a datetime with time zone or None. obstore's providers, such as
``obstore.auth.boto3.Boto3CredentialProvider``, are such callables."""


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """The options by which a store is reached.
    The environment and the platform's credential chain decide what is None.

    Parameters
    ----------
    endpoint
        URL of an S3-compatible server, such as ``http://127.0.0.1:8333``.
    anonymous
        Send unsigned requests.
    profile
        Name of a profile in AWS's configuration files; :mod:`tensorbank.storage.aws_settings` says which setting counts.
    credentials
        Called for keys instead of ``access_key`` and its companions: at first use, some minutes before they expire, and when the
        store refuses them. Called from any thread; it travels to worker processes, so it must pickle.

    Raises
    ------
    InvalidInputError
        The endpoint is no URL, or the keys are incomplete or given twice.
    """

    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    anonymous: bool = False
    credentials: Credentials | None = field(default=None, repr=False)
    profile: str | None = None

    def __post_init__(self) -> None:
        if self.endpoint is not None:
            check_endpoint(self.endpoint, "endpoint")
        if (self.access_key is None) != (self.secret_key is None):
            given, missing = ("access_key", "secret_key")[:: 1 if self.secret_key is None else -1]
            raise InvalidInputError(
                f"{given} is given without {missing}; give both", kind=ErrorKind.HALF_A_KEY
            )
        if self.session_token is not None and self.access_key is None:
            raise InvalidInputError(
                "session_token is given without access_key and secret_key, which it belongs to",
                kind=ErrorKind.HALF_A_KEY,
            )
        sources = {
            "access_key": self.access_key is not None,
            "credentials": self.credentials is not None,
            "profile": self.profile is not None,
            "anonymous": self.anonymous,
        }
        if sum(sources.values()) > 1:
            given_twice = " and ".join(name for name, given in sources.items() if given)
            raise InvalidInputError(f"{given_twice} are given; give one of them", kind=ErrorKind.TWO_KEYS)

    def with_keys(self) -> StorageOptions:
        """Return the same options with the keys of this moment in place of the callable that gives them."""
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


def check_endpoint(endpoint: str, name: str) -> str:
    """Return the URL of an S3-compatible server; InvalidInputError, by the name of the setting, if it is none.

    Clients of S3 take what has no scheme for granted and break on it later.
    """
    if not isinstance(endpoint, str):
        raise InvalidInputError(
            f"{name} is {endpoint!r} instead of the text of a URL", kind=ErrorKind.BAD_ENDPOINT
        )
    shown = re.sub(r"[^/]*@", "...@", endpoint)
    parts = _split(endpoint)
    if parts is None and endpoint.lower().startswith(("http://", "https://")):
        raise InvalidInputError(f"{name}={shown!r} has no valid host and port", kind=ErrorKind.BAD_ENDPOINT)
    if parts is None or parts.scheme.lower() not in ("http", "https") or "://" not in endpoint:
        bare = shown.rpartition("://")[2].rpartition("@")[2].strip("/") or "HOST:PORT"
        raise InvalidInputError(
            f"{name}={shown!r} is not the URL of a server; give http://{bare} or https://{bare}",
            kind=ErrorKind.BAD_ENDPOINT,
        )
    if not parts.hostname or parts.query or parts.fragment or parts.username or re.search(r"\s", endpoint):
        raise InvalidInputError(
            f"{name}={shown!r} is not the plain URL of a server; give scheme, host and port, "
            "such as http://127.0.0.1:8333, and keys by access_key and secret_key",
            kind=ErrorKind.BAD_ENDPOINT,
        )
    if not parts.hostname.isascii() or "%" in parts.netloc:
        raise InvalidInputError(
            f"{name}={shown!r} has a host that clients of S3 do not understand; give it in ASCII (punycode), "
            "and an IPv6 address without a zone",
            kind=ErrorKind.BAD_ENDPOINT,
        )
    return endpoint


def normalize_url(url: str | os.PathLike[str]) -> str:
    """Return a URL without trailing slash, its scheme in small letters; a plain path becomes ``file://``.

    Raises
    ------
    InvalidInputError
        The scheme is none of :data:`SCHEMES`, or the URL could mean more than one place.
    """
    if not isinstance(url, (str, os.PathLike)):
        raise InvalidInputError(
            f"a bank is a folder or a URL, given as text or path; {url!r} is neither", kind=ErrorKind.BAD_URL
        )
    text = os.fspath(url)
    if not text or text.isspace():
        raise _bad_url(text, "it is empty; '.' is the folder of this process")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme is None or not isinstance(url, str) or (len(scheme[1]) == 1 and os.name == "nt"):
        return _of_folder(Path(text))
    known, rest = scheme[1].lower(), text[scheme.end() :]
    if known not in SCHEMES or not rest.startswith("//"):
        raise InvalidInputError(
            f"{text!r} is not a bank URL: give a folder, or a URL that starts with "
            + ", ".join(f"{s}://" for s in SCHEMES),
            kind=ErrorKind.BAD_URL,
        )
    place = rest[2:].rstrip("/")
    if known == "file":
        return _of_file_url(text, rest[2:])
    if not place or place.startswith("/"):
        raise _bad_url(text, "it names no " + ("bucket" if known in BUCKETS else "server"))
    if known in BUCKETS:
        return f"{known}://{_checked_prefix(text, place)}"
    return f"{known}://{_checked_web_place(text, place)}"


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Return the bucket of a normalized URL, and what the keys of the bank's objects begin with, without a slash at its end."""
    bucket, _, prefix = url.partition("://")[2].partition("/")
    return bucket, prefix


def quoted_url(url: str) -> str:
    """Return a normalized URL for parsers of URLs: quoted is what they would take for something else."""
    scheme, _, place = url.partition("://")
    return f"{scheme}://{quote(place)}" if scheme in BUCKETS else url


def _of_folder(path: Path) -> str:
    if _CONTROL.search(os.fspath(path)):
        raise _bad_url(os.fspath(path), "a control character is in it")
    if re.search(r"[\ud800-\udfff]", os.fspath(path)):
        raise _bad_url(ascii(os.fspath(path)), "its name is not UTF-8")
    try:
        return path.expanduser().resolve().as_uri()
    except RuntimeError as error:  # of expanduser: no such user; of resolve: links that go round
        raise _bad_url(os.fspath(path), str(error).rstrip(".").lower()) from error


def _of_file_url(text: str, place: str) -> str:
    """Return the folder that a ``file:///a%20b`` names, quoted in one way."""
    if "#" in place or "?" in place:
        raise _bad_url(
            text, "'#' and '?' end the path of a URL; give the folder itself, or write %23 and %3F"
        )
    host, slash, path = place.partition("/")
    if host not in ("", "localhost") or not slash:
        raise _bad_url(text, "a folder's URL has three slashes, such as file:///data/bank")
    try:
        folder = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise _bad_url(text, "what is quoted by % is not UTF-8") from None
    if "\0" in folder:
        raise _bad_url(text, "a control character is in it")
    return _of_folder(Path("/" + folder))


def _checked_prefix(text: str, place: str) -> str:
    """Return the bucket and prefix, if the prefix means the same to every client:
    they are compared as they are, not decoded.
    """
    if "%" in place:
        raise _bad_url(
            text,
            f"some programs decode '%' and others do not; write the characters themselves: {unquote(place)!r}",
        )
    if "\\" in place:
        raise _bad_url(text, "some stores take a backslash for a slash; choose another name")
    if _CONTROL.search(place):
        raise _bad_url(text, "a control character is in it")
    bucket, *folders = place.split("/")
    if "@" in bucket:
        raise _bad_url(
            f"...@{bucket.rpartition('@')[2]}",
            "keys do not belong into a URL; give them by access_key and secret_key",
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
        raise _bad_url(text, f"{bucket!r} cannot name a bucket")
    for folder in folders:
        if folder in ("", ".", ".."):
            raise _bad_url(text, f"{folder!r} between two slashes is not a folder of a bucket")
    return place


def _checked_web_place(text: str, place: str) -> str:
    """Return the host and path of a web server, quoted where that changes nothing."""
    parts = _split(f"http://{place}")
    if parts is None or not parts.hostname:
        raise _bad_url(text, "its host or port is none")
    if "?" in place or "#" in place:
        raise _bad_url(
            re.split("[?#]", text)[0] + "?...",  # which may be a key
            "what follows '?' or '#' is no part of an address that files are looked for below; leave it out, or quote it",
        )
    if parts.username:
        raise _bad_url(
            f"{text.partition(':')[0]}://...@{parts.hostname}", "names and passwords do not belong into a URL"
        )
    if "\\" in place or _CONTROL.search(place):
        raise _bad_url(text, "a backslash or a control character is in it")
    host, _, path = place.partition("/")
    if any(unquote(folder) in ("", ".", "..") for folder in path.split("/")[: None if path else 0]):
        raise _bad_url(text, "'', '.' and '..' between two slashes are not folders")
    return quote(f"{host}/{path}" if path else host, safe="/:%[]@!$&'()*+,;=-._~")


def _split(url: str) -> Any:
    """Return the parts of a URL; None if it has none that make sense, such as a port of letters."""
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError:
        return None
    return parts


def _bad_url(text: str, why: str) -> InvalidInputError:
    return InvalidInputError(f"{text!r} cannot be a bank's URL: {why}", kind=ErrorKind.BAD_URL)
