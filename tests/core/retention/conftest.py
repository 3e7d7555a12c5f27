"""Stores that tags and leases are written to: a folder, and an S3 server."""

from __future__ import annotations

import uuid

import pytest

from tensorbank import StorageOptions
from tensorbank.storage import Store


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path):
    if request.param == "file":
        (tmp_path / "bank").mkdir()
        return Store((tmp_path / "bank").as_uri())
    server = request.getfixturevalue("s3_server")
    options = StorageOptions(
        endpoint=server.endpoint, access_key=server.access_key, secret_key=server.secret_key
    )
    return Store(f"{server.url}/retention-{uuid.uuid4().hex[:12]}", options)


@pytest.fixture
def folder_store(tmp_path):
    (tmp_path / "bank").mkdir()
    return Store((tmp_path / "bank").as_uri())
