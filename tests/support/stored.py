"""A bank in SeaweedFS, and services over it whose URLs end after a few seconds."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

import tensorbank as tb
from support.server_process import Served, serving
from tensorbank_indexer import IngestOptions, ingest, open_source

LIFETIME_S = 3
"""Seconds that signed URLs last: the shortest time that leaves room for a request on a busy machine."""


@dataclass(frozen=True)
class StoredBank:
    """A bank in an object store, opened with its keys."""

    direct: tb.Bank
    settings: dict[str, str]

    def serving(self, *arguments: str, **options: Any) -> AbstractContextManager[Served]:
        """A service over it that has the keys."""
        environment = {**self.settings, "TENSORBANK_URL_LIFETIME_S": str(LIFETIME_S)}
        return serving(self.direct.url, "--name", "eo", *arguments, **{**environment, **options})


@pytest.fixture(scope="module")
def stored(archive, s3_server, request) -> StoredBank:
    """A bank of 20 samples in three shards of each modality."""
    url = f"{s3_server.url}/{request.module.__name__.replace('.', '-')}"
    keys = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    direct = tb.create(url, endpoint=s3_server.endpoint, region=s3_server.region, **keys)
    ingest(open_source(str(archive[0])), direct, "terramesh", IngestOptions(n_workers=1, samples_per_shard=8))
    return StoredBank(
        direct,
        {
            "AWS_ACCESS_KEY_ID": s3_server.access_key,
            "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
            "AWS_ENDPOINT_URL": s3_server.endpoint,
            "AWS_REGION": s3_server.region,
        },
    )
