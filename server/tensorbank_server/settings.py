"""Settings of a service: frozen values, read where the process starts.

``Settings(banks={...})`` and :func:`load_settings` fill what they are not given from ``TENSORBANK_*``. Nested fields are
joined by two underscores: ``TENSORBANK_LIMITS__BODY_BYTES=65536``. Secrets may lie in files: ``signing_key_file``,
``banks.<name>.secret_key_file``.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, nearest
from tensorbank.retention import LEASES_VARIABLE
from tensorbank.storage import StorageOptions
from tensorbank_server.limits import Limits

__all__ = ["BankSettings", "OidcSettings", "Settings", "load_settings", "read_secret"]

PREFIX = "TENSORBANK_"
BANK_NAME = r"[A-Za-z][A-Za-z0-9_-]{0,62}"
"""The pattern of a bank's name: one segment of a path."""


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BankSettings(_Values):
    """The settings of one bank. Keys that are not given come from the platform's credential chain."""

    url: str
    title: str = ""
    description: str = ""
    licence: str = "other"
    endpoint: str | None = None
    public_endpoint: str | None = Field(
        default=None,
        description="Address by which clients reach the store, if it is another one; URLs are signed for it.",
    )
    region: str | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None
    secret_key_file: Path | None = None
    session_token: SecretStr | None = None
    anonymous: bool = False
    sts_role: str | None = Field(
        default=None,
        description="ARN of a role that may read the bank: plans can then be read by keys of their folders.",
    )
    sts_endpoint: str | None = Field(
        default=None, description="Address of STS, if it is not the store's endpoint or AWS's own."
    )

    leases: bool = Field(
        default=True,
        description="Leave notes in the bank of the snapshots that callers read, so that maintenance keeps them.",
    )

    def storage(self) -> StorageOptions:
        """Return the options by which the service itself reaches the bank; this reads the file of the secret key."""
        secret = self.secret_key.get_secret_value() if self.secret_key else None
        if self.secret_key_file is not None:
            secret = read_secret(self.secret_key_file)
        return StorageOptions(
            endpoint=self.endpoint,
            access_key=self.access_key,
            secret_key=secret,
            session_token=self.session_token.get_secret_value() if self.session_token else None,
            region=self.region,
            anonymous=self.anonymous,
        )


class OidcSettings(_Values):
    """The settings of an issuer of JWTs, which are accepted beside keys."""

    issuer: str
    audience: str
    jwks_url: str
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = ("RS256", "ES256", "EdDSA")
    scope_claim: str = "scope"
    leeway_s: float = 30.0


class Settings(BaseSettings):
    """The settings of a service. Nothing is opened or asked before the lifespan of :func:`tensorbank_server.create_app`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    banks: dict[str, BankSettings] = Field(default_factory=dict)
    access: Literal["keys", "open"] = Field(
        default="keys",
        description="`open` lets everybody read and plan; `serve` chooses it on loopback only.",
    )
    keys_file: Path | None = None
    oidc: OidcSettings | None = None
    signing_key: SecretStr | None = Field(default=None, description="Signs page tokens; random if not given.")
    signing_key_file: Path | None = None
    public_url: str | None = Field(
        default=None, description="Base of links; the address of the request if not given."
    )
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    cors_origins: tuple[str, ...] = ()
    frame_ancestors: tuple[str, ...] = ()
    connect_sources: tuple[str, ...] = Field(
        default=(), description="Origins of buckets that the page may read."
    )
    limits: Limits = Limits()
    url_lifetime_s: float = Field(
        default=1_800.0, gt=0, description="Lifetime of presigned URLs and of keys of folders."
    )
    plan_lifetime_s: float = Field(
        default=86_400.0, gt=0, description="Time after its last use when a plan may be forgotten."
    )
    plan_cache_bytes: int = Field(default=8 << 30, gt=0)
    row_cache_bytes: int = Field(default=4 << 30, gt=0)
    encoded_cache_bytes: int = Field(
        default=128 << 20, ge=0, description="Memory for GeoTIFFs between one range request and the next."
    )
    data_folder: Path | None = Field(
        default=None, description="Plans and copies of index files; a temporary folder if not given."
    )
    plans_folder: Path | None = Field(
        default=None,
        description="Plans, in a folder that all replicas see; inside of data_folder if not given.",
    )
    latest_s: float = Field(
        default=1.0, ge=0, description="Time for which the newest snapshot is taken to stay the newest."
    )
    n_workers: int = Field(default=2, gt=0, description="Processes that query.")
    n_threads: int = Field(
        default=16, gt=0, description="Threads that read and encode samples, of each bank."
    )
    bank_probe_s: float = Field(
        default=5.0,
        gt=0,
        description="Time for a bank to answer a look; one that needs longer is unavailable until it does.",
    )
    worker_memory_bytes: int = Field(default=4 << 30, gt=0)
    worker_max_queries: int = Field(default=1_000, gt=0)
    full_sql: bool = Field(
        default=False, description="Lets keys with scope `sql` send SQL, in a process of its own."
    )
    metrics_port: int | None = Field(
        default=None, description="Port of the metrics; without keys, so an inner one."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address that `metrics_port` listens at.")
    audit_file: Path | None = Field(
        default=None, description="File of the audit log; `-` for standard output."
    )
    traces: bool = Field(
        default=False, description="Send traces of requests to the collector that OTEL_* variables name."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    drain_s: float = Field(
        default=5.0, ge=0, description="Time from the end of readiness to the end of accepting connections."
    )
    finish_s: float = Field(
        default=40.0,
        gt=0,
        description="Time from the end of accepting connections to the end of running requests.",
    )

    @field_validator("banks")
    @classmethod
    def _names_are_segments(cls, banks: dict[str, BankSettings]) -> dict[str, BankSettings]:
        for name in banks:
            if not re.fullmatch(BANK_NAME, name):
                raise ValueError(
                    f"{name!r} cannot name a bank: a letter, then letters, digits, _ or -, at most 63"
                )
        return banks

    @classmethod
    def settings_customise_sources(  # its arguments are given by name
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: arguments win over the environment, and the environment over the file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))

    def page_secret(self) -> bytes | None:
        """Return the secret that page tokens are signed with, None for a random one."""
        if self.signing_key_file is not None:
            return read_secret(self.signing_key_file).encode()
        return self.signing_key.get_secret_value().encode() if self.signing_key else None


def load_settings(file: Path | None = None, **given: Any) -> Settings:
    """Load the settings of this process from the arguments, else ``TENSORBANK_*``, else the TOML file, else the defaults.

    Raises
    ------
    NotFoundError
        There is no such file.
    InvalidInputError
        A value is wrong, or :class:`Settings` has no such name.
    """

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    if file is not None and not file.is_file():
        raise NotFoundError(f"there is no settings file {file}")
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | {LEASES_VARIABLE}
    for name in os.environ:
        if name.startswith(PREFIX) and name.split("__")[0].upper() not in known:
            raise InvalidInputError(
                f"there is no setting {name}.{nearest(name, known)}", kind=ErrorKind.SETTING
            )
    try:
        return FromFile(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidInputError(f"setting {name}: {first['msg']}", kind=ErrorKind.SETTING) from None
    except (SettingsError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the settings cannot be read: {error}", kind=ErrorKind.SETTING) from None


def read_secret(file: Path) -> str:
    """Read the secret in a file, without the line break at its end."""
    try:
        return file.read_text().strip()
    except OSError as error:
        raise NotFoundError(f"the secret {file} cannot be read: {error.strerror}") from error
