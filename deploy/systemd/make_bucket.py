"""Make a bucket if it is not there, as soon as its store answers: python make_bucket.py ENDPOINT BUCKET. Keys come from AWS_*."""

from __future__ import annotations

import sys
import time

import botocore.config
import botocore.exceptions
import botocore.session

PATIENCE_S = 90.0
AGAIN_S = 0.2


def main(endpoint: str, bucket: str) -> None:
    """Make the bucket; end with an error if the store does not answer in time, or refuses."""
    config = botocore.config.Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1})
    store = botocore.session.Session().create_client(
        "s3", region_name="us-east-1", endpoint_url=endpoint, config=config
    )
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            if bucket not in [found["Name"] for found in store.list_buckets()["Buckets"]]:
                store.create_bucket(Bucket=bucket)
            return
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            answer = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 503)
            if answer < 500 or time.monotonic() > until_s:
                sys.exit(f"{endpoint}: {error}")
            time.sleep(AGAIN_S)


if __name__ == "__main__":
    main(*sys.argv[1:3])
