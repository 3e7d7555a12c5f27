"""Authentication of callers: by key, by a token of an issuer, or not at all where access is open."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from typing import Any, TypeGuard

import anyio.to_thread
from starlette.datastructures import Headers

from tensorbank.errors import FormatError
from tensorbank_server.access.keys import SCOPES, KeyFile, Principal
from tensorbank_server.access.rate_store import RateStore
from tensorbank_server.access.shared_rates import SharedRates
from tensorbank_server.digests import digest
from tensorbank_server.http import Problem
from tensorbank_server.settings import OidcSettings, Settings

__all__ = ["Authenticator"]

OPEN_SCOPES = frozenset({"read", "plan", "proxy", "admin"})
MAX_TOKEN_CHARACTERS = 8_192
MAX_SUBJECT_CHARACTERS = 124
BANKS_CLAIM = "tensorbank_banks"
KEYS_LIFETIME_S = 300.0
KEYS_COOLDOWN_S = 30.0
_LOG = logging.getLogger(__name__)


class Authenticator:
    """A checker of ``Authorization`` headers. A caller is never identified by its path or query.

    An address that fails too often is told to wait; good keys from the same address are not held up.
    """

    def __init__(self, settings: Settings, store: RateStore | None = None) -> None:
        self._open = settings.access == "open"
        self._full_sql = settings.full_sql
        self._keys = KeyFile(settings.keys_file) if settings.keys_file else None
        self._issuer = Issuer(settings.oidc) if settings.oidc else None
        limits = settings.limits
        self._failures = SharedRates("failures", limits.failures_per_minute, store, limits.n_replicas)

    async def principal(self, headers: Headers, client: tuple[str, int] | None) -> Principal:
        """Return the caller that the headers identify.

        Raises
        ------
        Problem
            401: no key, or none that is good. 429: too many of those from this address.
        """
        address = f"ip:{client[0] if client else 'local'}"
        given = headers.get("authorization")
        if given is None and self._open:
            return Principal(address, OPEN_SCOPES | {"sql"} if self._full_sql else OPEN_SCOPES)
        try:
            return await self._by_token(given)
        except Problem as problem:
            if problem.status == 401:
                await self._failures.spend(address)
            raise

    async def _by_token(self, given: str | None) -> Principal:
        if given is None:
            raise _unauthorized("a key is needed: send `Authorization: Bearer tb_live_...`")
        scheme, _, text = given.partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text or len(text) > MAX_TOKEN_CHARACTERS:
            raise _unauthorized("send the key as `Authorization: Bearer tb_live_...`")
        try:
            found = self._keys.find(text) if self._keys is not None else None
        except FormatError as error:
            _LOG.error("nobody is let in by a key: %s", error)
            raise Problem(
                503,
                "keys",
                "the service cannot read its keys; its operator has been told",
                headers={"Retry-After": "30"},
            ) from None
        if found is None and self._issuer is not None and text.count(".") == 2:
            found = await anyio.to_thread.run_sync(self._issuer.principal, text)
        if found is None:
            raise _unauthorized("the key is not known, has expired or was revoked")
        return found


def principal_of(claims: Mapping[str, object], scope_claim: str) -> Principal | None:
    """Return the caller that a verified token's claims name; None if they do not say.

    Only what is of the documented form gives anything: scopes are a text of words or a list of texts, banks a list of texts.
    Without the claim of banks all are open; with one of another form, none is.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        return None
    granted = claims.get(scope_claim)
    names = granted.split() if isinstance(granted, str) else granted
    if not _are_texts(names):
        names = []
    scopes = frozenset(n.removeprefix("tensorbank:") for n in names) & frozenset(SCOPES)
    banks = None
    if BANKS_CLAIM in claims:
        given = claims[BANKS_CLAIM]
        banks = frozenset(given) if _are_texts(given) else frozenset[str]()
    # a long subject is shortened by its hash: two that begin alike are two
    name = subject if len(subject) <= MAX_SUBJECT_CHARACTERS else digest(subject)
    return Principal(f"sub:{name}", scopes, banks)


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


class Issuer:
    """A checker of an OpenID Connect issuer's tokens: their signature, issuer, audience and times.

    Its signing keys are fetched from the configured address only; what a token says about where they are is ignored.
    """

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._keys: dict[str, object] = {}
        self._asked_s = -math.inf
        self._lock = threading.Lock()

    def principal(self, text: str) -> Principal | None:
        """Return the caller whose token a text is; None if the token is not good.

        Raises
        ------
        Problem
            503: the issuer's keys are not known and cannot be had.
        """
        import jwt

        s = self._settings
        try:
            header = jwt.get_unverified_header(text)
            name = header.get("kid")
            key = self._key(name) if isinstance(name, str) else None
            if key is None:
                return None
            claims = jwt.decode(
                text,
                key,
                algorithms=list(s.algorithms),
                audience=s.audience,
                issuer=s.issuer,
                leeway=s.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, RecursionError, ValueError, TypeError):
            # a text that is no token, is nested without end, or has values of odd types identifies nobody
            return None
        return principal_of(claims, s.scope_claim)

    def _key(self, name: str) -> Any:
        """Return a signing key of the issuer, None if it has none of that name.

        A name that is not known makes this fetch the keys again, but not within ``KEYS_COOLDOWN_S``.
        """
        import jwt

        with self._lock:
            now_s = time.monotonic()
            age_s = now_s - self._asked_s
            if age_s > KEYS_LIFETIME_S or (name not in self._keys and age_s > KEYS_COOLDOWN_S):
                self._asked_s = now_s
                try:
                    found = jwt.PyJWKClient(
                        self._settings.jwks_url, cache_keys=False, timeout=5
                    ).get_signing_keys()
                    self._keys = {key.key_id: key for key in found if key.key_id}
                except jwt.PyJWTError as error:
                    _LOG.warning("the keys of %s cannot be had: %s", self._settings.issuer, error)
            if not self._keys:
                raise Problem(
                    503, "issuer", "the issuer of tokens cannot be reached", headers={"Retry-After": "5"}
                )
            return self._keys.get(name)


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="tensorbank"'})
