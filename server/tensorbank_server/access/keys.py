"""Keys of callers: made once, shown once, kept as hashes.

A key reads ``tb_live_<id>_<secret>``; the secret has 256 random bits, so one SHA-256 of it is enough. The file is JSON, replaced
as a whole, readable by its owner only, and looked at again every second: a revoked key is refused within two.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeGuard

from tensorbank.errors import FormatError, InvalidInputError, NotFoundError, nearest

__all__ = ["SCOPES", "Key", "KeyFile", "Principal"]

SCOPES: tuple[str, ...] = ("read", "plan", "proxy", "sql", "admin")
"""The scopes of a key.

``read``: banks, samples, searches. ``plan``: plans and URLs. ``proxy``: ranges through the service. ``sql``: full SQL.
``admin``: metrics.
"""

LOOK_AGAIN_S = 1.0
MAX_KEY_CHARACTERS = 128
_LOG = logging.getLogger(__name__)
_KEY = re.compile(r"tb_live_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request. ``banks`` is None where it may see every bank."""

    id: str
    scopes: frozenset[str]
    banks: frozenset[str] | None = None

    def may(self, scope: str, bank: str | None = None) -> bool:
        """Tell whether a scope is granted, for a bank if one is given."""
        return scope in self.scopes and (bank is None or self.banks is None or bank in self.banks)


@dataclass(frozen=True, slots=True)
class Key:
    """The record of a key, without its secret. Times are ISO 8601 in UTC."""

    id: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    banks: tuple[str, ...] | None
    created: str
    expires: str | None = None
    revoked: str | None = None

    @classmethod
    def read(cls, raw: object) -> Key:
        """Read a key from its record in the file.

        Raises
        ------
        ValueError
            It is not of the documented form, and grants nothing.
        """
        if not isinstance(raw, dict) or set(raw) - {f.name for f in fields(cls)}:
            raise ValueError("a key is an object with the fields of a key and no other")
        for name in ("id", "name", "sha256", "created"):
            if not isinstance(raw.get(name), str):
                raise ValueError(f"{name} is a text")
        for name in ("expires", "revoked"):
            if raw.get(name) is not None:
                _moment(raw[name], name)
        banks = raw.get("banks", ())
        if not _are_texts(raw.get("scopes")) or not (banks is None or _are_texts(banks)):
            raise ValueError("scopes and banks are lists of texts")
        return cls(
            **{**raw, "scopes": tuple(raw["scopes"]), "banks": None if banks is None else tuple(banks)}
        )

    def is_good(self, now: datetime) -> bool:
        """Tell whether the key may still be used."""
        return self.revoked is None and (self.expires is None or now < _moment(self.expires, "expires"))

    def principal(self) -> Principal:
        banks = None if self.banks is None else frozenset(self.banks)
        return Principal(f"key:{self.id}", frozenset(self.scopes), banks)


def _moment(text: object, name: str) -> datetime:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError(f"{name} is a time such as 2026-01-31T12:00:00+00:00")
    return found


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


class KeyFile:
    """A file of keys.

    Parameters
    ----------
    path
        The file, which may be missing until the first key is made.
    clock
        Monotonic seconds, for when to look again.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._seen: tuple[int, int, int] | None = None
        self._looked_s: float | None = None

    def create(
        self,
        name: str,
        scopes: Sequence[str] = ("read", "plan"),
        banks: Sequence[str] | None = None,
        lifetime: timedelta | None = None,
    ) -> tuple[Key, str]:
        """Make a key. Its text is returned here, and can never be had again.

        Raises
        ------
        InvalidInputError
            A scope is none of :data:`SCOPES`, or the lifetime is not positive.
        """
        for scope in scopes:
            if scope not in SCOPES:
                raise InvalidInputError(f"no scope {scope!r}.{nearest(scope, SCOPES)}")
        if not scopes or (lifetime is not None and lifetime <= timedelta(0)):
            raise InvalidInputError("a key needs a scope and a lifetime above 0")
        identity, secret = (
            secrets.token_hex(6),
            base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"="),
        )
        now = datetime.now(UTC)
        key = Key(
            id=identity,
            name=name,
            sha256=hashlib.sha256(secret).hexdigest(),
            scopes=tuple(scopes),
            banks=None if banks is None else tuple(banks),
            created=now.isoformat(timespec="seconds"),
            expires=None if lifetime is None else (now + lifetime).isoformat(timespec="seconds"),
        )
        with self._changing() as keys:
            keys[key.id] = key
        return key, f"tb_live_{identity}_{secret.decode()}"

    def revoke(self, identity: str) -> Key:
        """Revoke a key; it stays in the list.

        Raises
        ------
        NotFoundError
            There is no such key.
        """
        with self._changing() as keys:
            if identity not in keys:
                raise NotFoundError(f"there is no key {identity!r}; see `tensorbank keys list`")
            key = keys[identity]
            if key.revoked is None:
                keys[identity] = key = replace(key, revoked=datetime.now(UTC).isoformat(timespec="seconds"))
        return key

    def list(self) -> list[Key]:
        """Return all keys, oldest first."""
        return sorted(self._read().values(), key=lambda k: (k.created, k.id))

    def find(self, text: str) -> Principal | None:
        """Return the caller whose key a text is; None if the key is unknown, expired or revoked.

        Takes the same time for every secret.
        """
        if len(text) > MAX_KEY_CHARACTERS or (found := _KEY.fullmatch(text)) is None:
            return None
        key = self._current().get(found[1])
        stored = key.sha256 if key else "0" * 64
        same = hmac.compare_digest(hashlib.sha256(found[2].encode()).hexdigest(), stored)
        return key.principal() if key and same and key.is_good(datetime.now(UTC)) else None

    def _current(self) -> dict[str, Key]:
        now_s = self._clock()
        if self._looked_s is None or now_s - self._looked_s >= LOOK_AGAIN_S:
            self._looked_s = now_s
            seen = self._stat()
            if seen != self._seen:
                self._keys, self._seen = {}, None  # what cannot be read opens nothing
                self._keys, self._seen = self._read(skip_bad=True), seen
        return self._keys

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _read(self, *, skip_bad: bool = False) -> dict[str, Key]:
        """Return the keys by id.

        A record that is not of the documented form is an error or, with ``skip_bad``, left out and logged.
        """
        keys: list[Key] = []
        try:
            for number, raw in enumerate(json.loads(self.path.read_text())["keys"]):
                try:
                    keys.append(Key.read(raw))
                except ValueError as error:
                    if not skip_bad:
                        raise
                    _LOG.error("key %d of %s opens nothing: %s", number, self.path, error)
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"{self.path} is not a file of keys: {error}") from error
        return {k.id: k for k in keys}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """Give the keys to be changed, and write them when the block ends. One writer at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{self.path}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self._read()
            yield keys
            text = json.dumps({"keys": [asdict(k) for k in keys.values()]}, indent=1)
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as target:
                target.write(text)
                target.flush()
                os.fsync(target.fileno())
            Path(target.name).replace(self.path)  # NamedTemporaryFile made it 0600
