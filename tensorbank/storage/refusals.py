"""Refusals of a store in its own words, asked for where its client does not hand them out."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path

__all__ = ["ask_refusal"]

TIMEOUT_S = 5
MAX_BYTES = 4_096


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
