"""A service whose own disk is full: it says so, goes on with what needs no disk, loses no worker, and recovers."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.programs import unavailable
from support.server_process import Served, serving
from support.service import check_problem, children, make
from support.waiting import wait_until
from tensorbank_server.http.disks import disk_problem, writing_problem
from tensorbank_server.monitoring import AuditLog

TABLE = "/v1/banks/eo/tables/terramesh"


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 4 MB, for which it takes the right to mount one."""
    folder = tmp_path_factory.mktemp("small")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable(f"a small disk cannot be mounted, its parts are tested without: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as target:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    target.write(bytes(size))
            except OSError:
                continue
        assert os.statvfs(disk).f_bavail == 0
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def folder_state(served: Served) -> str:
    answer = served.get("/readyz")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data_folder"])


@pytest.mark.parametrize(
    ("state", "kept", "code"), [("full", full, "storage-full"), ("read-only", read_only, "disk")]
)
def test_a_disk_that_cannot_be_written(bank_folder, small_disk, state, kept, code):
    data = small_disk / state
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_DATA_FOLDER=str(data)) as served:
        made = make(served)
        assert folder_state(served) == "ok"
        workers = children(served.process.pid)
        with kept(small_disk):
            for n in range(3):
                posted = served.post("/v1/banks/eo/plans", json={"table": "terramesh", "limit": n + 1})
                check_problem(posted, 507, code)
                assert int(posted.headers["retry-after"]) > 0
            assert served.get(f"{TABLE}/size?filter=lon > {len(state)}").status_code == 200
            assert served.get(f"{TABLE}/rows").status_code == 200
            assert make(served)["id"] == made["id"], "what is there can be read"
            assert served.get(f"/v1/plans/{made['id']}/tasks").status_code == 200
            wait_until(lambda: folder_state(served) == state, "nobody says that the disk is full")
            assert served.get("/readyz").json()["status"] == "degraded"
        assert make(served, limit=1)["n_samples"] == 1
        wait_until(lambda: folder_state(served) == "ok", "nobody says that the disk is well again")
        assert children(served.process.pid) == workers, "a worker was lost"
    shutil.rmtree(data)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not Linux")
def test_an_audit_log_that_cannot_be_written_grants_nothing(bank_folder, tmp_path):
    audit = tmp_path / "audit.jsonl"
    audit.symlink_to("/dev/full")
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_AUDIT_FILE=str(audit)) as served:
        check_problem(served.get(f"{TABLE}/rows"), 507, "storage-full")
        assert served.get("/v1/config").status_code == 200


def test_a_line_that_was_torn_spoils_no_other(tmp_path, monkeypatch):
    log = AuditLog(tmp_path / "audit.jsonl")
    log.open()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:9]))
    with pytest.raises(OSError, match="audit"):
        log.write("one")
    monkeypatch.setattr(os, "write", write)
    log.write("two")
    log.write("three")
    log.close()
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert '"two"' in lines[1]
    assert '"three"' in lines[2]


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(errno.ENOSPC, 507, "storage-full"), (errno.EDQUOT, 507, "storage-full"), (errno.EROFS, 507, "disk")],
)  # fmt: skip
def test_errors_of_the_disk_are_told_as_such(number, status, code):
    problem = disk_problem(OSError(number, os.strerror(number), "/secret/path"))
    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    assert "secret" not in problem.detail


def test_other_errors_are_none_of_the_disk(tmp_path):
    assert disk_problem(OSError(errno.ENOENT, "no such file")) is None
    assert writing_problem(tmp_path) is None
    assert writing_problem(tmp_path / "missing") == "broken"
