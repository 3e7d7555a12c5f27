"""The S3 client that makes a server's bucket and asks whether it is ready."""

from __future__ import annotations

from typing import Any

__all__ = ["REGION", "client_errors", "client_of", "make_ready"]

REGION = "us-east-1"
"""The region that the server goes by."""


def client_of(endpoint: str, access_key: str, secret_key: str) -> Any:
    """Return a client of botocore that tries once and knows no proxies."""
    import botocore.config
    import botocore.session

    return botocore.session.Session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=botocore.config.Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=2,
            read_timeout=10,
            proxies={},
        ),
    )


def client_errors() -> tuple[type[Exception], ...]:
    """Return the errors that such a client raises."""
    import botocore.exceptions

    return (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)


def make_ready(client: Any, bucket: str) -> None:
    """Create the bucket if needed; the first write makes the server grow volumes for it."""
    if bucket not in [entry["Name"] for entry in client.list_buckets().get("Buckets", [])]:
        client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key=".ready", Body=b"ready")
    client.delete_object(Bucket=bucket, Key=".ready")
