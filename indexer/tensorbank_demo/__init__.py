"""The demo: a made-up archive, an S3 server of its own, and the whole job from ingest to a batch."""

from __future__ import annotations

__all__: list[str] = []
