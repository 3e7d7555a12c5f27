"""The place of a peer's data as a store of obstore."""

from __future__ import annotations

from obstore.store import S3Store

from peers.contract import Request

__all__ = ["s3_store"]


def s3_store(request: Request) -> S3Store:
    """Return the store whose root is what the peer prepared."""
    return S3Store(
        request.bucket,
        prefix=request.prefix,
        endpoint=request.endpoint,
        region="us-east-1",
        access_key_id="any",
        secret_access_key="any",
        client_options={"allow_http": True},
    )
