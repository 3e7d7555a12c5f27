from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from tensorbank.errors import StorageError
from tensorbank_demo.s3.server import S3Server

OWNER = """
import sys, time
from tensorbank_demo.s3.server import S3Server
server = S3Server.start(deadline_s=120)
print(server._process.pid, server._command.scratch, flush=True)
time.sleep(300)
"""


def group_members(group: int) -> list[int]:
    """Return the processes of a process group that are not zombies."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, pgrp = entry.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            members.append(int(entry.name))
    return members


def gone(group: int, folder: Path, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not group_members(group) and not folder.exists():
            return True
        time.sleep(0.05)
    return False


def client_of(server: S3Server, secret_key: str | None = None):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=secret_key or server.secret_key,
        region_name=server.region,
    )


def test_objects_come_back_ranged_and_conditional(s3_server: S3Server):
    client = client_of(s3_server)
    client.put_object(Bucket=s3_server.bucket, Key="demo-server/a", Body=b"0123456789")
    part = client.get_object(Bucket=s3_server.bucket, Key="demo-server/a", Range="bytes=2-4")
    assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert part["Body"].read() == b"234"
    with pytest.raises(ClientError, match=r"PreconditionFailed|412"):
        client.put_object(Bucket=s3_server.bucket, Key="demo-server/a", Body=b"x", IfNoneMatch="*")
    client.close()


def test_a_second_bucket_can_be_filled(s3_server: S3Server):
    client = client_of(s3_server)
    client.create_bucket(Bucket="second-bucket")
    client.put_object(Bucket="second-bucket", Key="a", Body=b"x" * 100_000)
    assert client.head_object(Bucket="second-bucket", Key="a")["ContentLength"] == 100_000
    client.close()


def test_a_wrong_secret_is_refused(s3_server: S3Server):
    client = client_of(s3_server, secret_key="wrong")
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|403"):
        client.list_objects_v2(Bucket=s3_server.bucket)
    client.close()


def test_stop_leaves_no_process_and_keeps_a_given_folder(tmp_path: Path):
    server = S3Server.start(tmp_path / "kept", bucket="other-bank", deadline_s=120)
    group, folder = server._process.pid, server._command.scratch
    assert server.url == "s3://other-bank"
    assert server.running
    assert len(group_members(group)) == 2
    client = client_of(server)
    client.put_object(Bucket="other-bank", Key="a", Body=b"kept")
    client.close()
    server.stop()
    server.stop()
    assert not server.running
    assert gone(group, folder, within_s=1)
    with S3Server.start(tmp_path / "kept", bucket="other-bank", deadline_s=120) as again:
        client = client_of(again)
        assert client.get_object(Bucket="other-bank", Key="a")["Body"].read() == b"kept"
        client.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_the_server_dies_with_its_owner(number: signal.Signals):
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        group_text, folder_text = owner.stdout.readline().split()
        group, folder = int(group_text), Path(folder_text)
        assert len(group_members(group)) == 2
        assert folder.is_dir()
        os.kill(owner.pid, number)
        owner.wait()
    assert gone(group, folder)


def test_the_server_dies_with_its_guard(tmp_path: Path):
    server = S3Server.start(tmp_path, deadline_s=120)
    group = server._process.pid
    os.kill(group, signal.SIGKILL)  # the guard only, not its group
    server.stop()
    assert gone(group, server._command.scratch)
    assert not [path for path in server._command.sockets if Path(path).exists()]


def test_a_port_that_is_taken_is_named_with_the_log(s3_server: S3Server, tmp_path: Path):
    port = int(s3_server.endpoint.rsplit(":", 1)[1])
    with pytest.raises(StorageError, match="log ends") as caught:
        S3Server.start(tmp_path, port=port, deadline_s=8)
    assert str(port) in str(caught.value)
