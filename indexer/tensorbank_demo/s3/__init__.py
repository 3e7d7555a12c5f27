"""An S3 server of its own on loopback: SeaweedFS, gone with the program that started it."""

from __future__ import annotations

from tensorbank_demo.s3.server import S3Server

__all__ = [
    "S3Server",
]
