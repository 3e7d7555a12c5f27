"""Read what AWS's environment variables and files say about a bank in S3.
No other module of the library reads them.

The first of these that is given counts:

========  ==========================================================================================================
keys      ``anonymous``, ``access_key`` and its companions, ``credentials``, ``profile``; ``AWS_ACCESS_KEY_ID``,
          ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN``, which belong together; botocore's chain: ``AWS_PROFILE`` or
          ``[default]`` of ``~/.aws/credentials`` and ``~/.aws/config`` (``AWS_SHARED_CREDENTIALS_FILE``,
          ``AWS_CONFIG_FILE``) with ``role_arn``, SSO, ``credential_process`` and web identity, the container's role, the
          machine's role. Without botocore: web identity, the container's role, the machine's role
endpoint  ``endpoint``, ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, ``AWS_ENDPOINT``, ``endpoint_url`` of the profile,
          AWS itself
region    ``region``, ``AWS_REGION``, ``AWS_DEFAULT_REGION``, ``region`` of the profile, ``us-east-1``
TLS       the authorities of ``AWS_CA_BUNDLE``, or ``SSL_CERT_FILE``, or ``ca_bundle`` of the profile, beside the system's
========  ==========================================================================================================

Endpoint and region are looked for when a bank is opened, and go with its plans to other machines; keys and certificates are
looked for where they are used. Keys never travel with a token that was not given together with them. botocore comes with
``tensorbank[aws]``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError, StorageError
from tensorbank.storage.address import Credentials, StorageOptions, check_endpoint

__all__ = ["ChainKeys", "GivenKeys", "certificates", "find_keys", "with_surroundings"]

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
BUNDLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
DEFAULT_REGION = "us-east-1"
KEPT_S = 60.0
"""Seconds for which keys that botocore found are kept before it is asked again."""
LIFETIME = timedelta(minutes=10)
"""The assumed lifetime of keys that botocore renews:
it renews them when they have ten minutes left, and is asked again before these are over."""


def with_surroundings(url: str, options: StorageOptions) -> StorageOptions:
    """Return the options with endpoint and region taken from the environment where none are given.

    Raises
    ------
    InvalidInputError
        A setting is no URL, or there is no such profile, or options are given that this kind of store does not have.
    """
    if not url.startswith("s3:"):
        _refuse_options_of_s3(url, options)
        return options
    endpoint, region = options.endpoint, options.region or _first(REGIONS)
    if endpoint is None:
        name = next((n for n in ENDPOINTS if os.environ.get(n)), None)
        if name is not None:
            endpoint = check_endpoint(os.environ[name], name)
        elif (found := _of_profile(options.profile, _endpoint_url)) is not None:
            endpoint = check_endpoint(found, "endpoint_url of the profile")
    if region is None:
        region = _of_profile(options.profile, lambda session: session.get_scoped_config().get("region"))
    if options.profile is not None:
        _of_profile(options.profile, lambda session: session.get_scoped_config())  # there is such a profile
    return replace(options, endpoint=endpoint, region=region or (DEFAULT_REGION if endpoint else None))


def find_keys(options: StorageOptions) -> Credentials | None:
    """Return the callable that gives the keys of a bank in S3;
    None if requests are unsigned or the client finds keys itself.

    Raises
    ------
    StorageError
        There are none.
    """
    if options.anonymous:
        return None
    if options.credentials is not None:
        return options.credentials
    if options.access_key is not None and options.secret_key is not None:
        return GivenKeys(options.access_key, options.secret_key, options.session_token)
    if options.profile is None and os.environ.get("AWS_ACCESS_KEY_ID"):
        if not os.environ.get("AWS_SECRET_ACCESS_KEY"):
            raise StorageError(
                "no credentials were found: AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY; set both",
                kind=ErrorKind.NO_CREDENTIALS,
            )
        return GivenKeys(
            os.environ["AWS_ACCESS_KEY_ID"],
            os.environ["AWS_SECRET_ACCESS_KEY"],
            os.environ.get("AWS_SESSION_TOKEN") or None,
        )
    if _has_botocore():
        keys = ChainKeys(options.profile)
        keys()  # says so here if there are none
        return keys
    if _wants_files(options.profile):
        raise _needs_botocore(options.profile)
    return None


def certificates(options: StorageOptions) -> Path | None:
    """Return a file of certificates of further authorities, in PEM; None if the system's are all.

    Raises
    ------
    InvalidInputError
        There is no such file.
    """
    name = next((n for n in BUNDLES if os.environ.get(n)), None)
    text = os.environ[name] if name is not None else None
    if text is None and _wants_files(options.profile):
        name, text = (
            "ca_bundle",
            _of_profile(options.profile, lambda s: s.get_scoped_config().get("ca_bundle")),
        )
    if not text:
        return None
    path = Path(text).expanduser()
    if not path.is_file():
        raise InvalidInputError(
            f"{name} names {path}, which is not a file of certificates", kind=ErrorKind.NO_CERTIFICATES
        )
    return path


@dataclass(frozen=True, slots=True)
class GivenKeys:
    """A set of keys that do not change, with no token beside them but their own."""

    access_key: str
    secret_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"GivenKeys({self.access_key!r})"

    def __call__(self) -> dict[str, Any]:
        return {
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "token": self.session_token,
            "expires_at": None,
        }


class ChainKeys:
    """A source of keys that botocore finds,
    asked again from the beginning where they are refused or about to expire.
    """

    def __init__(self, profile: str | None = None) -> None:
        self.profile = profile
        self._lock = threading.Lock()
        self._found: tuple[float, dict[str, Any]] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.profile,))

    def __repr__(self) -> str:
        return f"ChainKeys({self.profile!r})"

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            if self._found is None or time.monotonic() - self._found[0] > KEPT_S:
                self._found = (time.monotonic(), self._find())
            return self._found[1]

    def forget(self) -> None:
        """Forget the keys, so that the next call looks for new ones."""
        with self._lock:
            self._found = None

    def _find(self) -> dict[str, Any]:
        import botocore.exceptions

        try:
            credentials = _session(self.profile).get_credentials()
            if credentials is None:
                raise _nothing_found(self.profile)
            frozen = credentials.get_frozen_credentials()
        except (
            botocore.exceptions.BotoCoreError,
            botocore.exceptions.ClientError,
            OSError,
            ValueError,
        ) as error:
            if isinstance(error, StorageError | InvalidInputError):
                raise
            of = f"profile {self.profile}" if self.profile else "the surroundings"
            raise StorageError(
                f"no credentials could be had from {of}: {' '.join(str(error).split())[:300]}",
                kind=ErrorKind.NO_CREDENTIALS,
            ) from error
        renewed = hasattr(credentials, "refresh_needed")
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + LIFETIME if renewed else None,
        }


def _nothing_found(profile: str | None) -> StorageError:
    where = f"profile {profile}" if profile else "the environment, ~/.aws and the machine's role"
    return StorageError(
        "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, pass access_key= and "
        f"secret_key= or profile=, or anonymous=True for a public bucket ({where} had none)",
        kind=ErrorKind.NO_CREDENTIALS,
    )


def _needs_botocore(profile: str | None) -> InvalidInputError:
    what = f"profile {profile!r} is" if profile else "~/.aws, which AWS_PROFILE or its files ask for, is"
    return InvalidInputError(
        f"{what} read by botocore, which is not installed: pip install 'tensorbank[aws]', or set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY",
        kind=ErrorKind.NO_BOTOCORE,
    )


def _has_botocore() -> bool:
    from importlib.util import find_spec

    return find_spec("botocore") is not None


def _wants_files(profile: str | None) -> bool:
    """Tell whether AWS's files have to be read: a profile is named, or the files exist."""
    if profile is not None or os.environ.get("AWS_PROFILE"):
        return True
    named = (
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    )
    return any(Path(name).expanduser().is_file() for name in named)


def _of_profile(profile: str | None, find: Callable[[Any], str | Mapping[str, Any] | None]) -> Any:
    """Return what ``find`` gets from the profile; None where there are no files."""
    if not _wants_files(profile):
        return None
    if not _has_botocore():
        if profile is not None or os.environ.get("AWS_PROFILE"):
            raise _needs_botocore(profile or os.environ["AWS_PROFILE"])
        return None
    import botocore.exceptions

    try:
        return find(_session(profile))
    except botocore.exceptions.ProfileNotFound:
        name = profile or os.environ.get("AWS_PROFILE")
        known = ", ".join(_profiles()) or "none at all"
        raise InvalidInputError(
            f"there is no profile {name!r} in AWS's configuration files; they have {known}",
            kind=ErrorKind.NO_PROFILE,
        ) from None
    except botocore.exceptions.BotoCoreError as error:
        raise InvalidInputError(
            f"AWS's configuration files cannot be read: {error}", kind=ErrorKind.NO_PROFILE
        ) from error


def _session(profile: str | None) -> Any:
    import botocore.session

    return botocore.session.Session(profile=profile)


def _profiles() -> list[str]:
    import botocore.session

    return sorted(botocore.session.Session(profile="default").full_config.get("profiles", {}))


def _endpoint_url(session: Any) -> str | None:
    config = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(config.get("services"), {})
    found: str | None = (services.get("s3") or {}).get("endpoint_url") or config.get("endpoint_url")
    return found


def _first(names: tuple[str, ...]) -> str | None:
    return next((os.environ[n] for n in names if os.environ.get(n)), None)


def _refuse_options_of_s3(url: str, options: StorageOptions) -> None:
    given = {
        "access_key": options.access_key,
        "credentials": options.credentials,
        "profile": options.profile,
    }
    name = next((name for name, value in given.items() if value is not None), None)
    if name is not None and not url.startswith("http"):
        raise InvalidInputError(
            f"{name} is only for s3://, and {url} is none; leave it out",
            kind=ErrorKind.OPTION_OF_ANOTHER_STORE,
        )
