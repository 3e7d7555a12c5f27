"""The options by which delta-rs' own client reaches a store: the same keys, limits and patience as ours."""

from __future__ import annotations

from tensorbank.storage import (
    BACKOFF_BASE,
    CLIENT_POLICY,
    CONNECT_TIMEOUT_S,
    Store,
    certificates,
    quoted_url,
)

__all__ = ["delta_options", "delta_url"]

REQUEST_TIMEOUT_S = 30
"""Seconds of a whole request of delta-rs, which knows no limit of a silence."""


def delta_url(store: Store, key: str) -> str:
    """Return the address of a table as delta-rs wants it."""
    local = store.local_path
    return f"{local if local is not None else quoted_url(store.url)}/{key}"


def delta_options(store: Store) -> tuple[dict[str, str], dict[str, str | None]]:
    """Return the options for delta-rs, and the variables it must find in the environment,
    which it reads in any case.
    """
    if not store.url.startswith("s3:"):
        return {}, {}
    options, keys = store.settings()
    given: dict[str, str | None] = {
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
        "timeout": f"{REQUEST_TIMEOUT_S}s",
        "max_retries": str((CLIENT_POLICY.n_tries or 1) - 1),
        "retry_timeout": f"{CLIENT_POLICY.deadline_s:g}s",
        "backoff_config.init_backoff": f"{1000 * CLIENT_POLICY.first_pause_s:g}ms",
        "backoff_config.max_backoff": f"{CLIENT_POLICY.max_pause_s:g}s",
        "backoff_config.base": str(BACKOFF_BASE),
        "AWS_ENDPOINT_URL": options.endpoint,
        "AWS_REGION": options.region,
        "AWS_ALLOW_HTTP": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false" if options.endpoint else None,
        "AWS_SKIP_SIGNATURE": "true" if options.anonymous else None,
    }
    if keys is not None:
        found = keys()
        given["AWS_ACCESS_KEY_ID"] = found["access_key_id"]
        given["AWS_SECRET_ACCESS_KEY"] = found["secret_access_key"]
        given["AWS_SESSION_TOKEN"] = found.get("token")
    environment: dict[str, str | None] = {}
    if keys is not None and given["AWS_SESSION_TOKEN"] is None:
        environment["AWS_SESSION_TOKEN"] = None  # of other keys
    if (authorities := certificates(options)) is not None:
        environment["SSL_CERT_FILE"] = str(authorities)
    return {k: v for k, v in given.items() if v is not None}, environment
