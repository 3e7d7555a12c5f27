"""Refusals of a store in its own words, asked for where its client does not hand them out: the reason, and the pause it wants."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from tensorbank.errors import TensorBankError
from tensorbank.storage.address import StorageOptions
from tensorbank.storage.aws_settings import certificates
from tensorbank.storage.object_client import ObjectClient
from tensorbank.storage.probes import PROBE
from tensorbank.storage.retries import ask_retry_after_s
from tensorbank.storage.store_errors import says_why

__all__ = ["ask_refusal", "told_pause_s", "told_reason"]

TIMEOUT_S = 5
MAX_BYTES = 4_096
SIGNED_FOR_S = 60


def told_reason(client: ObjectClient, url: str, options: StorageOptions, key: str) -> TensorBankError | None:
    """Ask S3 for the reason of a refusal by a request whose answer can give one;
    None if it gives none.
    """
    if not url.startswith("s3:") or options.anonymous:
        return None
    with suppress(TensorBankError):
        (signed,) = client.sign("GET", [key or PROBE], SIGNED_FOR_S)
        told = ask_refusal(signed, certificates(options))
        if told is not None and says_why(ValueError(told)):
            return client.error(ValueError(told), key)
    return None


def told_pause_s(client: ObjectClient, url: str, options: StorageOptions, key: str) -> float | None:
    """Ask a store that is busy for how many seconds it is; None if it does not say."""
    if url.startswith("http"):
        return ask_retry_after_s(f"{url}/{quote(key)}")
    if options.anonymous:
        return None
    with suppress(TensorBankError):
        (signed,) = client.sign("HEAD", [key], SIGNED_FOR_S)
        return ask_retry_after_s(signed)
    return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def ask_refusal(url: str, authorities: Path | None) -> str | None:
    """Return the status and first bytes of the answer to a GET that is refused;
    None if it is not, or nothing answers.

    For the sake of the body only, which the store's client does not hand out of a redirect, and HEAD does not have.
    """
    context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        with error:
            region = error.headers.get("x-amz-bucket-region")
            more = f"<Region>{region}</Region>" if region else ""
            return f"status code: {error.code} {error.read(MAX_BYTES).decode(errors='replace')}{more}"
    except (OSError, ValueError):
        return None
