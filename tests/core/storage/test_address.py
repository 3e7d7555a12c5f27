"""URLs of banks: each means one place, or is refused before anything is written."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import boto3
import numpy as np
import pytest

import tensorbank as tb
from support.handmade_index import make_table
from tensorbank import InvalidInputError, StorageOptions
from tensorbank.storage.address import bucket_and_prefix, normalize_url, quoted_url

S3_NAMES = [
    "exp#2",
    "what? a b",
    "ü/日本",
    "a^b[c]|d",
    "a{b}*c`d~e",
    'a"b<c>',
    "a+b&c=d@e,f;g!h$i'j(k)",
    "a:b/year=2020/month=1",
]
FOLDER_NAMES = [
    "exp#2",
    "what?",
    "a b",
    "ü",
    "日本",
    "a{b}*c`d~e",
    'a"b<c>',
    "a+b&c=d@e,f;g!h$i'j(k)",
    "a:b/year=2020",
]
READABLE_NAMES = ["a^b", "a[b]", "a|b", "a\\b", "a%20b", "100%"]
REFUSED = {
    "s3://eo-bank/a%20b": "a b",
    "s3://eo-bank/a\\b": "backslash",
    "s3://eo-bank/a//b": "between two slashes",
    "s3://eo-bank//a": "between two slashes",
    "s3://eo-bank/../other": "between two slashes",
    "s3://eo-bank/a/./b": "between two slashes",
    "s3://eo-bank/a\nb": "control",
    "s3://": "bucket",
    "s3:///exp": "bucket",
    "s3://eo#bank/exp": "bucket",
    "s3://key:secret@/exp": "keys do not belong",
    "s4://eo-bank/exp": "starts with file://, s3://",
    "s3:eo-bank": "folder",
    "file:///data/exp#2": "%23",
    "file:///data/exp?": "%3F",
    "file://host/data": "three slashes",
    "file://data": "three slashes",
    "file:///data/%ff": "UTF-8",
    "https://": "server",
    "https://host/bank?token=abc": "leave it out",
    "https://host/bank#part": "leave it out",
    "https://ann:secret@host/bank": "names and passwords",
    "https://host/a/../b": "between two slashes",
    "https://host/a/%2e%2E/b": "between two slashes",
    "https://host:port/a": "host or port",
    "https://host/a\\b": "backslash",
    "nul\0": "control",
    "": "empty",
    "  ": "empty",
    "~nobody-of-this-name/bank": "home directory",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_could_mean_two_places_is_refused(url):
    with pytest.raises(InvalidInputError) as caught:
        normalize_url(url)
    assert caught.value.kind == "bad-url"
    assert REFUSED[url] in str(caught.value)
    assert not {"abc", "secret"} & set(str(caught.value).replace("@", " ").replace("=", " ").split())


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("S3://eo-bank/Exp/", "s3://eo-bank/Exp"),
        ("s3://eo-bank/exp#2", "s3://eo-bank/exp#2"),
        ("GS://b", "gs://b"),
        ("file:///a%20b/c", "file:///a%20b/c"),
        ("file:///a b", "file:///a%20b"),
        ("FILE:///a", "file:///a"),
        ("file://localhost/a", "file:///a"),
        ("/a#b", "file:///a%23b"),
        ("https://host:80/a b/ü/", "https://host:80/a%20b/%C3%BC"),
        ("https://host/a%20b", "https://host/a%20b"),
        ("HTTP://host", "http://host"),
    ],
)
def test_a_place_has_one_spelling(url, normal):
    assert normalize_url(url) == normal
    assert normalize_url(normal) == normal


@pytest.mark.parametrize("url", [None, 5, b"/data", ["s3://b"]])
def test_what_is_no_text_is_no_url(url):
    with pytest.raises(InvalidInputError) as caught:
        normalize_url(url)
    assert caught.value.kind == "bad-url"


def test_a_path_is_no_url_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert normalize_url(Path("s3:x")) == (tmp_path / "s3:x").as_uri()
    assert normalize_url("~/x") == (Path.home() / "x").as_uri()
    assert bucket_and_prefix("s3://b/a#/c") == ("b", "a#/c")
    assert bucket_and_prefix("s3://b") == ("b", "")
    assert quoted_url("s3://b/a#?[ü]") == "s3://b/a%23%3F%5B%C3%BC%5D"


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        normalize_url(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))


@pytest.mark.parametrize("server", ["s3_server", "moto_process"])
def test_a_bank_in_s3_lands_exactly_at_its_prefix(server, request, tmp_path):
    """Told by another client of S3, and read back by SQL and as tensors."""
    server = request.getfixturevalue(server)
    keys = {"access_key": server.access_key, "secret_key": server.secret_key, "endpoint": server.endpoint}
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )
    for name in S3_NAMES:
        root = f"names-{uuid.uuid4().hex[:8]}"
        bank = tb.create(f"s3://eo-bank/{root}/{name}", cache=tmp_path / "cache", **keys)
        make_table(bank, "t", parts=1, n=2)
        listed = client.list_objects_v2(Bucket="eo-bank", Prefix=root)["Contents"]
        assert len(listed) > 3
        assert all(o["Key"].startswith(f"{root}/{name}/t/") for o in listed), [o["Key"] for o in listed]
        again = tb.open(f"S3://eo-bank/{root}/{name}/", cache=tmp_path / "other", **keys)
        assert again.tables() == ["t"]
        assert again.sql("SELECT sample_id FROM t").arrow().num_rows == 2
    client.close()


@pytest.mark.parametrize("name", FOLDER_NAMES)
def test_a_bank_in_a_folder_lies_there(name, tmp_path):
    (tmp_path / "beside").mkdir()
    bank = tb.create(tmp_path / name, cache=tmp_path / "cache")
    make_table(bank, "t", parts=1, n=2)
    assert (tmp_path / name / "t" / "index" / "samples" / "_delta_log").is_dir()
    assert {p.name for p in tmp_path.iterdir()} <= {name.split("/")[0], "beside", "cache"}
    for url in (str(tmp_path / name), (tmp_path / name).as_uri()):
        assert tb.open(url, cache=tmp_path / "cache").sql("SELECT sample_id FROM t").arrow().num_rows == 2


@pytest.mark.parametrize("name", READABLE_NAMES)
def test_a_folder_that_commits_would_miss_is_refused_and_can_be_read(name, tmp_path):
    with pytest.raises(InvalidInputError, match="rename the folder") as caught:
        tb.create(tmp_path / name)
    assert caught.value.kind == "bad-url"
    assert list(tmp_path.iterdir()) == []
    made = tb.create(tmp_path / "plain")
    make_table(made, "t", parts=2, n=3)
    expected = made.sql("SELECT * FROM t ORDER BY sample_id").arrow()
    (tmp_path / "plain").rename(tmp_path / name)
    bank = tb.open(tmp_path / name, cache=tmp_path / "cache")
    assert bank.sql("SELECT * FROM t ORDER BY sample_id").arrow().equals(expected)
    assert bank.table("t").snapshot().n_samples == 6
    assert [e.version for e in bank.table("t").history()] == [2, 1, 0]


def test_files_of_folders_that_look_alike_are_not_mixed(tmp_path):
    """``a*b`` is a pattern that a copy of the same bank beside it fits as well."""
    import shutil

    made = tb.create(tmp_path / "a*b", cache=tmp_path / "cache")
    make_table(made, "t", parts=1, n=3)
    shutil.copytree(tmp_path / "a*b", tmp_path / "axxb")
    bank = tb.open(tmp_path / "a*b", cache=tmp_path / "cache")
    assert bank.sql("SELECT count(*) AS n FROM t").arrow()["n"].to_pylist() == [3]
    assert len(bank.sql("SELECT S2L2A FROM t").plan()) == 3


def test_a_cache_folder_of_such_a_name_is_refused(tmp_path):
    made = tb.create(tmp_path / "a*b", cache=tmp_path / "cache")
    make_table(made, "t", parts=1, n=3)
    with pytest.raises(InvalidInputError, match="cache=") as caught:
        tb.open(tmp_path / "a*b", cache=tmp_path / "c[1]").sql("SELECT sample_id FROM t").arrow()
    assert caught.value.kind == "bad-cache-folder"


@pytest.mark.parametrize(
    ("endpoint", "hint"),
    [
        ("minio:9000", "give http://minio:9000 or https://minio:9000"),
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("minio", "http://minio"),
        ("", "http://HOST:PORT"),
        ("s3://minio:9000", "http://minio:9000"),
        ("http://", "scheme, host and port"),
        ("http://minio:port", "host and port"),
        ("http://minio:99999", "host and port"),
        ("http://ann:hush@minio:99999", "host and port"),
        ("ann:hush@minio:9000", "http://minio:9000"),
        ("http://mïnio:9000", "punycode"),
        ("http://[fe80::1%25eth0]:9000", "without a zone"),
        ("http://ann:hush@minio:9000", "keys by access_key"),
        ("http://minio:9000?x=1", "plain URL"),
        ("http://mi nio", "plain URL"),
    ],
)
def test_an_endpoint_is_checked_when_it_is_given(endpoint, hint, monkeypatch, no_aws):
    for refused in (
        lambda: StorageOptions(endpoint=endpoint),
        lambda: tb.open("s3://bucket", endpoint=endpoint),
    ):
        with pytest.raises(InvalidInputError) as caught:
            refused()
        assert caught.value.kind == "bad-endpoint"
        assert hint in str(caught.value)
        assert "hush" not in str(caught.value)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        if endpoint:
            monkeypatch.setenv(name, endpoint)
            with pytest.raises(InvalidInputError, match=name) as caught:
                tb.open("s3://bucket")
            assert caught.value.kind == "bad-endpoint"


@pytest.mark.parametrize(
    ("options", "kind", "word"),
    [
        ({"end_point": "http://h"}, "unknown-option", "endpoint"),
        ({"acess_key": "x"}, "unknown-option", "access_key"),
        ({"allow_http": True}, "unknown-option", "allow_http"),
        ({"access_key": "x"}, "half-a-key", "secret_key"),
        ({"secret_key": "x"}, "half-a-key", "access_key"),
        ({"session_token": "x"}, "half-a-key", "access_key"),
        ({"access_key": "x", "secret_key": "y", "anonymous": True}, "two-keys", "anonymous"),
        ({"access_key": "x", "secret_key": "y", "profile": "p"}, "two-keys", "profile"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, kind, word):
    for function in (tb.open, tb.create):
        with pytest.raises(InvalidInputError) as caught:
            function("s3://bucket", **options)
        assert caught.value.kind == kind
        assert word in str(caught.value)


def test_options_of_s3_are_refused_where_they_would_not_count(tmp_path):
    for url in (tmp_path, "gs://bucket"):
        with pytest.raises(InvalidInputError) as caught:
            tb.open(url, access_key="x", secret_key="y")
        assert caught.value.kind == "option-of-another-store"


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    from tensorbank.fetch.fetcher import Fetcher, FetchOptions
    from tensorbank.ranges import ByteRange
    from tensorbank.storage.store import Store

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    store = Store((tmp_path / "bank").as_uri())
    store.put("x", bytes(np.arange(100, dtype=np.uint8)))
    fetcher = Fetcher(store, FetchOptions(cache_dir="~/kept"))
    assert bytes(fetcher.fetch(ByteRange("x", 10, 12))) == bytes([10, 11])
    fetcher.close()
    assert any((tmp_path / "home" / "kept").rglob("*"))
    assert not (tmp_path / "~").exists()
    assert tb.open("s3://bucket", endpoint="http://h", cache="~/index").catalog.mirror.folder == (
        tmp_path / "home" / "index"
    )
