"""Fixtures that all rooms share: object stores on loopback and made-up or repackaged archives."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from support.made_once import folder_of_run, made_once
from tensorbank_demo.s3.server import S3Server

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
ON_CI = os.environ.get("CI", "").lower() in ("1", "true")

# A shell that starts the suite in the background lets it ignore SIGINT, and so would every process that a test interrupts.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Images of containers often forbid bytecode: then each of the hundred processes that tests start would compile every module
# of ours anew, a second and a half, and each worker of pytest-xdist would rewrite the assertions of every test.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Processes that tests start by a forkserver come from one that has imported what most need: seconds less for each. A server
# imports when it starts, which any test may cause, so this stands here and not beside those that gain most.
multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["torch", "tensorbank_loader", "tensorbank_indexer.ingestion", "tensorbank.engines.process_worker"]
)

# The same examples on every run, and no verdict by the clock of a busy machine.
BY_THE_CLOCK = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=BY_THE_CLOCK
)
hypothesis.settings.register_profile("dev", deadline=None, suppress_health_check=BY_THE_CLOCK)
hypothesis.settings.load_profile("ci" if ON_CI else "dev")


@dataclass(frozen=True)
class S3Endpoint:
    """An S3 endpoint as tests address it; ``S3Server`` has the same fields."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    region: str = "us-east-1"

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"


ArchiveMaker = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """SeaweedFS, one a worker of pytest-xdist, started by the first test that wants it."""
    with S3Server.start(deadline_s=120) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Endpoint]:
    """A second, independent S3: moto honours conditions and ranges, but checks no signatures."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = S3Endpoint(f"http://{host}:{port}", "moto-access-key", "moto-secret-key", "eo-bank")
    client = boto3.client(
        "s3",
        endpoint_url=endpoint.endpoint,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        region_name=endpoint.region,
    )
    client.create_bucket(Bucket=endpoint.bucket)
    client.close()
    yield endpoint
    server.stop()


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder with real patches and the maker of source archives, beside the checkout."""
    if SHARED.is_dir():
        return SHARED
    reason = f"{SHARED} is not there: tests on real patches need it"
    if ON_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def make_archives(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ArchiveMaker:
    """Return ``make_archives("terramesh", "--samples", "20", ...)`` -> (root of the dataset,
    folder of the truth).

    Runs ``shared/sources/make_sources.py``; the same arguments give the same folders to all workers of pytest-xdist, so treat
    them as read-only.
    """
    folders = folder_of_run(tmp_path_factory) / "sources"

    def make(*arguments: object) -> tuple[Path, Path]:
        words = tuple(map(str, arguments))

        def write(folder: Path) -> None:
            script = shared_folder / "sources" / "make_sources.py"
            options = ["--realdata", str(shared_folder / "realdata"), "--out", str(folder / "data")]
            command = [sys.executable, str(script), *words, *options]
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=script.parent, timeout=280, check=False
            )
            assert done.returncode == 0, f"make_sources.py {' '.join(words)}: {done.stderr[-2000:]}"

        made = made_once(folders / f"{zlib.crc32(repr(words).encode()):08x}", write)
        return made / "data", made / "data_truth"

    return make


@pytest.fixture(scope="session")
def demo_bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank as the guides make it, which nobody changes; beside it ``demo-output``, and ``said``, what the command printed."""

    def write(folder: Path) -> None:
        command = [sys.executable, "-m", "tensorbank", "demo", "--bank", "demo-bank", "--samples", "64"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        (folder / "said").write_text(done.stdout)

    return made_once(folder_of_run(tmp_path_factory) / "guides", write) / "demo-bank"


LONG_FIRST = (
    "test_bench",
    "e2e/",
    "test_deploy",
    "server/",
    "docs/",
    "faults/",
    "properties/",
    "loader/",
    "indexer/",
    "core/cli/",
)
"""Beginnings of the paths of tests, those of files that take longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files that take long begin first, so that the workers of pytest-xdist, which get whole files, end together.

    Refuse cases that are named by an address: each worker would collect others.
    """

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(ROOT / "tests").as_posix()
        return next((n for n, start in enumerate(LONG_FIRST) if path.startswith(start)), len(LONG_FIRST))

    items.sort(key=rank)
    if odd := next((i.nodeid for i in items if re.search(r" at 0x[0-9a-f]+", i.nodeid)), None):
        raise pytest.UsageError(f"{odd} is named by an address in memory; give its values ids")
