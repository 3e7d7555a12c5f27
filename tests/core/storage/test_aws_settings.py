"""The settings that count, of those that AWS's variables and files have,
are seen in the requests that are sent."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tensorbank as tb
from tensorbank import InvalidInputError, StorageError, StorageOptions
from tensorbank.catalog import Catalog
from tensorbank.index_files import IndexMirror
from tensorbank.storage import aws_settings
from tensorbank.storage.aws_settings import (
    ChainKeys,
    GivenKeys,
    certificates,
    find_keys,
    with_surroundings,
)
from tensorbank.storage.store import Store

CREDENTIALS = """
[default]
aws_access_key_id = DEFAULTKEY
aws_secret_access_key = default-secret

[eo]
aws_access_key_id = EOKEY
aws_secret_access_key = eo-secret
aws_session_token = eo-token

[process]
credential_process = {python} {script}
"""
CONFIG = """
[default]
region = eu-north-1

[profile eo]
region = eu-south-2
endpoint_url = {endpoint}

[profile process]
credential_process = {python} {script}
"""
PROCESS = """
import json, pathlib
path = pathlib.Path(__file__).with_name("count")
n = int(path.read_text()) + 1 if path.exists() else 1
path.write_text(str(n))
print(json.dumps({{"Version": 1, "AccessKeyId": f"PROCESS{{n}}", "SecretAccessKey": "s", "SessionToken": f"token{{n}}",
                   "Expiration": "{expires}"}}))
"""


@pytest.fixture
def files(no_aws, answering, tmp_path):
    """AWS's files with three profiles; a URL of the second; a program that gives keys, each time others."""
    script = tmp_path / "keys.py"
    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    script.write_text(PROCESS.format(expires=expires))
    names = {"python": sys.executable, "script": script, "endpoint": answering.url}
    no_aws(credentials=CREDENTIALS.format(**names), config=CONFIG.format(**names))
    return answering


def sent(server, bank_or_store) -> tuple[str, str, str | None]:
    """Return key, region and token of what a store and a catalog send; they are the same."""
    server.answer(404)
    store = bank_or_store if isinstance(bank_or_store, Store) else bank_or_store.catalog.store
    assert not store.exists("x")
    catalog = Catalog(store, IndexMirror(store, Path("/nowhere")))
    with pytest.raises(tb.TensorBankError):
        catalog.head("t")
    found = set()
    for asked in server.asked:
        scope = asked.headers["authorization"].split("Credential=")[1].split(",")[0].split("/")
        found.add((scope[0], scope[2], asked.headers.get("x-amz-security-token")))
    assert any("_delta_log" in a.path or "delimiter" not in a.path for a in server.asked)
    assert len(found) == 1, found
    return found.pop()


def test_the_environment_reaches_a_server_without_tls(answering, no_aws, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "env-token")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, answering.url)
        bank = tb.open("s3://bucket/p")
        assert sent(answering, bank) == ("ENVKEY", "eu-west-3", "env-token")
        assert bank.catalog.store.options.endpoint == answering.url
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the next one counts more
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert sent(answering, tb.open("s3://bucket/p", endpoint=answering.url)) == (
        "ENVKEY",
        "eu-west-1",
        "env-token",
    )
    store = Store("s3://bucket/p", StorageOptions())
    assert "http://127.0.0.1:9" in str(with_surroundings(store.url, store.options).endpoint)


def test_given_keys_never_go_with_a_token_of_others(answering, no_aws, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "stale")
    options = {"endpoint": answering.url, "access_key": "MINE", "secret_key": "s"}
    assert sent(answering, tb.open("s3://bucket", **options)) == ("MINE", "us-east-1", None)
    assert sent(answering, tb.open("s3://bucket", session_token="own", **options)) == (
        "MINE",
        "us-east-1",
        "own",
    )
    assert os.environ["AWS_SESSION_TOKEN"] == "stale"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert sent(answering, tb.open("s3://bucket", **options)) == ("MINE", "us-east-1", None)


def test_a_token_stays_away_from_keys_of_a_profile(files, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "stale")
    assert sent(files, tb.open("s3://bucket", endpoint=files.url)) == ("DEFAULTKEY", "eu-north-1", None)


def test_profiles_are_read_from_the_files(files, monkeypatch):
    assert sent(files, tb.open("s3://bucket", profile="eo")) == ("EOKEY", "eu-south-2", "eo-token")
    monkeypatch.setenv("AWS_PROFILE", "eo")
    assert sent(files, tb.open("s3://bucket")) == ("EOKEY", "eu-south-2", "eo-token")
    assert sent(files, tb.open("s3://bucket", profile="default", endpoint=files.url)) == (
        "DEFAULTKEY",
        "eu-north-1",
        None,
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    assert sent(files, tb.open("s3://bucket"))[0] == "ENVKEY", "as everywhere: AWS_PROFILE comes after keys"
    assert sent(files, tb.open("s3://bucket", profile="eo"))[0] == "EOKEY", "one that is given comes before"


def test_a_profile_that_is_not_there_is_named(files, monkeypatch):
    with pytest.raises(InvalidInputError, match=r"no profile 'oe'.*default, eo, process") as caught:
        tb.open("s3://bucket", profile="oe")
    assert caught.value.kind == "no-profile"
    monkeypatch.setenv("AWS_PROFILE", "oe")
    with pytest.raises(InvalidInputError, match="no profile 'oe'"):
        tb.open("s3://bucket")


def test_keys_of_a_program_are_asked_for_again_when_they_are_refused(files, tmp_path):
    """The bank's first answer is a refusal; the second question has new keys."""
    bank = tb.open("s3://bucket", profile="process", endpoint=files.url)
    files.refuse(400, "ExpiredToken")
    with pytest.raises(StorageError, match="have expired"):
        bank.catalog.store.get("x")
    tokens = [a.headers["x-amz-security-token"] for a in files.asked]
    assert tokens == ["token1", "token2"]


def test_keys_are_renewed_before_they_end(files, tmp_path, monkeypatch):
    keys = ChainKeys("process")
    first = keys()
    assert (first["access_key_id"], keys()["access_key_id"]) == ("PROCESS1", "PROCESS1")
    left = first["expires_at"] - datetime.now(UTC)
    assert timedelta(minutes=5) < left <= timedelta(minutes=10), (
        "renewed by botocore ten minutes before their end"
    )
    monkeypatch.setattr(aws_settings, "KEPT_S", 0.0)
    assert keys()["access_key_id"] == "PROCESS2"
    assert pickle.loads(pickle.dumps(keys)).profile == "process"


def test_a_program_that_fails_is_told(no_aws):
    no_aws(config="[profile broken]\ncredential_process = /nonexistent/program\n")
    with pytest.raises(StorageError, match=r"profile broken.*/nonexistent/program") as caught:
        Store("s3://bucket", StorageOptions("http://127.0.0.1:9", profile="broken")).get("x")
    assert caught.value.kind == "no-credentials"


def test_web_identity_and_roles_are_botocores(no_aws, answering, monkeypatch, tmp_path):
    """The token of a file is exchanged for keys at STS, here at a server of ours."""
    (tmp_path / "token").write_text("a-web-identity")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", answering.url)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    answering.answer(
        200,
        (
            '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ROLEKEY</AccessKeyId>"
            f"<SecretAccessKey>s</SecretAccessKey><SessionToken>role-token</SessionToken><Expiration>{ends}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ).encode(),
        Content_Type="text/xml",
    )
    keys = find_keys(StorageOptions())
    assert isinstance(keys, ChainKeys)
    found = keys()
    assert (found["access_key_id"], found["token"]) == ("ROLEKEY", "role-token")


def test_the_role_of_a_container_is_botocores(no_aws, answering, monkeypatch):
    ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"AccessKeyId": "BOX", "SecretAccessKey": "s", "Token": "box-token", "Expiration": ends}
    answering.answer(200, json.dumps(body).encode())
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{answering.url}/keys")
    assert find_keys(StorageOptions())()["access_key_id"] == "BOX"


def test_without_botocore_profiles_say_what_is_missing(files, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "botocore" else real(name, *a)
    )
    with pytest.raises(InvalidInputError, match=r"pip install 'tensorbank\[aws\]'") as caught:
        tb.open("s3://bucket", profile="eo")
    assert caught.value.kind == "no-botocore"
    with pytest.raises(InvalidInputError, match=r"tensorbank\[aws\]"):
        tb.open("s3://bucket", endpoint=files.url).catalog.store.get("x")
    monkeypatch.setenv("AWS_PROFILE", "eo")
    with pytest.raises(InvalidInputError, match=r"profile 'eo'.*tensorbank\[aws\]"):
        tb.open("s3://bucket")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    monkeypatch.delenv("AWS_PROFILE")
    assert sent(files, tb.open("s3://bucket", endpoint=files.url))[0] == "ENVKEY"


def test_half_a_key_in_the_environment_is_named(no_aws, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    with pytest.raises(StorageError, match="without AWS_SECRET_ACCESS_KEY") as caught:
        Store("s3://bucket", StorageOptions("http://127.0.0.1:9")).get("x")
    assert caught.value.kind == "no-credentials"


def test_anonymous_requests_are_not_signed_whatever_keys_there_are(answering, no_aws, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    answering.answer(404)
    bank = tb.open("s3://bucket", endpoint=answering.url, anonymous=True)
    assert not bank.catalog.store.exists("x")
    with pytest.raises(tb.TensorBankError):
        bank.catalog.head("t")
    assert len(answering.asked) > 2
    assert not [
        a for a in answering.asked if "authorization" in a.headers or "x-amz-security-token" in a.headers
    ]


# ---------------------------------------------------------------- TLS


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_authorities_of_the_environment_are_trusted(name, answering_tls, certificates, no_aws, monkeypatch):
    monkeypatch.setenv(name, str(certificates.authority))
    bank = tb.open("s3://bucket", endpoint=answering_tls.url, access_key="KEY", secret_key="s")
    assert sent(answering_tls, bank)[0] == "KEY"
    assert os.environ.get("SSL_CERT_FILE") == (
        str(certificates.authority) if name == "SSL_CERT_FILE" else None
    )


def test_authorities_of_a_profile_are_trusted(answering_tls, certificates, no_aws):
    no_aws(config=f"[profile own]\nca_bundle = {certificates.authority}\nregion = eu-west-1\n")
    no_aws(credentials="[own]\naws_access_key_id = KEY\naws_secret_access_key = s\n")
    assert sent(answering_tls, tb.open("s3://bucket", endpoint=answering_tls.url, profile="own"))[0] == "KEY"


def test_a_bundle_that_is_not_there_is_named(no_aws, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nonexistent.pem")
    with pytest.raises(InvalidInputError, match=r"AWS_CA_BUNDLE names /nonexistent\.pem") as caught:
        certificates(StorageOptions())
    assert caught.value.kind == "no-certificates"


def test_secrets_are_in_no_repr():
    assert "hush" not in repr(GivenKeys("key", "hush", "hush-token"))
    assert "hush" not in repr(StorageOptions("http://h", "key", "hush", "hush-token"))
    assert pickle.loads(pickle.dumps(StorageOptions("http://h", profile="eo"))).profile == "eo"


def test_a_certificate_of_another_host_is_told(answering_as_another_host, certificates, no_aws, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.authority))
    store = Store("s3://bucket", StorageOptions(answering_as_another_host.url, "KEY", "s"))
    with pytest.raises(StorageError, match="of another host") as caught:
        store.get("x")
    assert caught.value.kind == "tls"
    with pytest.raises(StorageError, match="of another host"):
        Catalog(store, IndexMirror(store, Path("/nowhere"))).head("t")
