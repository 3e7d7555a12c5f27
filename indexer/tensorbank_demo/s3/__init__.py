"""An S3 server on loopback, SeaweedFS, which ends with the program that started it."""

from __future__ import annotations

from tensorbank_demo.s3.server import S3Server

__all__ = [
    "S3Server",
]
