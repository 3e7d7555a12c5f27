"""Make the secrets of compose.yaml and Kubernetes, once: python deploy/make_secrets.py [FOLDER]; files that are there stay."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

ACCESS_KEY = "tensorbank"
ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
READABLE = 0o644
"""The mode of readable files: those of compose keep owner and mode, and the services' user is another;
the folder is closed instead."""


def main() -> None:
    """Make what is missing."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "secrets"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    store_key = _kept(folder / "s3_secret", secrets.token_urlsafe(32))
    _kept(folder / "page_signing", secrets.token_urlsafe(32))
    _kept(folder / "rate_store", secrets.token_urlsafe(32))
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": store_key}]
    identity = {"name": ACCESS_KEY, "credentials": credentials, "actions": ACTIONS}
    _kept(folder / "s3_identities.json", json.dumps({"identities": [identity]}, indent=1))


def _kept(path: Path, text: str) -> str:
    """Return the content of a file, which is made if it is not there."""
    if not path.exists():
        path.write_text(text)
        path.chmod(READABLE)
    return path.read_text()


if __name__ == "__main__":
    main()
