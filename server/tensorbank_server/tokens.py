"""Who asks: keys, tokens of an issuer, or nobody in particular where access is open."""

from __future__ import annotations

import threading
from typing import Any

import anyio.to_thread
from starlette.datastructures import Headers

from tensorbank_server.keys import SCOPES, KeyFile, Principal
from tensorbank_server.problems import Problem
from tensorbank_server.settings import OidcSettings, Settings

__all__ = ["Authenticator"]

OPEN_SCOPES = frozenset({"read", "plan", "proxy", "admin"})
MAX_TOKEN_CHARACTERS = 8_192


class Authenticator:
    """Finds the principal of a request by its ``Authorization`` header; never by its address or query."""

    def __init__(self, settings: Settings) -> None:
        self._open = settings.access == "open"
        self._full_sql = settings.full_sql
        self._keys = KeyFile(settings.keys_file) if settings.keys_file else None
        self._issuer = Issuer(settings.oidc) if settings.oidc else None

    async def principal(self, headers: Headers, client: tuple[str, int] | None) -> Principal:
        """Who asks.

        Raises
        ------
        Problem
            401: no key, or none that is good.
        """
        given = headers.get("authorization")
        if given is None:
            if self._open:
                scopes = OPEN_SCOPES | {"sql"} if self._full_sql else OPEN_SCOPES
                return Principal(f"ip:{client[0] if client else 'local'}", frozenset(scopes))
            raise _unauthorized("a key is needed: send `Authorization: Bearer tb_live_...`")
        scheme, _, text = given.partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text or len(text) > MAX_TOKEN_CHARACTERS:
            raise _unauthorized("send the key as `Authorization: Bearer tb_live_...`")
        found = self._keys.find(text) if self._keys is not None else None
        if found is None and self._issuer is not None and text.count(".") == 2:
            found = await anyio.to_thread.run_sync(self._issuer.principal, text)
        if found is None:
            raise _unauthorized("the key is not known, has expired or was revoked")
        return found


class Issuer:
    """Tokens of an OpenID Connect issuer: signature, issuer, audience and times are checked.

    Its signing keys are fetched from the configured address only; what a token says about where they are is ignored.
    """

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._client: Any = None
        self._lock = threading.Lock()

    def principal(self, text: str) -> Principal | None:
        """Whose token a text is; None if it is not good."""
        import jwt

        s = self._settings
        with self._lock:
            if self._client is None:
                self._client = jwt.PyJWKClient(s.jwks_url, cache_keys=True, lifespan=300, timeout=5)
        try:
            key = self._client.get_signing_key_from_jwt(text)
            claims = jwt.decode(
                text,
                key,
                algorithms=list(s.algorithms),
                audience=s.audience,
                issuer=s.issuer,
                leeway=s.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise Problem(
                503, "issuer", "the issuer of tokens cannot be reached", headers={"Retry-After": "5"}
            ) from error
        except jwt.PyJWTError:
            return None
        granted = claims.get(s.scope_claim, "")
        names = granted.split() if isinstance(granted, str) else [str(g) for g in granted]
        scopes = frozenset(n.removeprefix("tensorbank:") for n in names) & frozenset(SCOPES)
        banks = claims.get("tensorbank_banks")
        return Principal(
            f"sub:{claims['sub']}"[:128],
            scopes,
            frozenset(map(str, banks)) if isinstance(banks, list) else None,
        )


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="tensorbank"'})
