"""Runs that end early: killed, interrupted, or resumed by more processes than they had."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from support import SUPPORT
from support.handmade import HANDLES, make
from support.waiting import wait_until
from tensorbank import InvalidInputError, Plan
from tensorbank.plans import StoreAddress
from tensorbank.testing import Faults, FaultServer
from tensorbank_loader import DataLoader, StreamingDataset, World

RANK = SUPPORT / "rank.py"
N = 59
pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("part")
    return make(folder / "bank", N, handles=HANDLES[:1]).plan.save(folder / "plan.arrow")


@pytest.fixture(scope="module")
def alone(plan: Path) -> list[list[str]]:
    """Return the global batches of two epochs, by one process."""
    with DataLoader(Plan.load(plan), global_batch_size=6, seed=9, world=World()) as loader:
        return [list(b["sample_id"]) for _ in range(2) for b in loader]


def log_of(path: Path) -> list[dict]:
    """Return the whole lines: the last may have been cut off."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for_lines(path: Path, n: int, process: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: len(log_of(path)) >= n or process.poll() is not None, f"there are not {n} lines")
    assert process.poll() is None, "ended before"


@contextmanager
def training(*args: Any, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A training process, killed at the end of the block if it still runs."""
    with subprocess.Popen([sys.executable, RANK, *args], **more) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("n_lines", [1, 12])
def test_a_killed_run_goes_on_exactly_once_in_a_world_of_another_size(plan, alone, tmp_path, n_lines):
    log = tmp_path / "0.jsonl"
    with training(plan, tmp_path, "--n-epochs", "2", "--pause", "0.1") as process:
        wait_for_lines(log, n_lines, process)
    lines = log_of(log)
    assert 0 < len(lines) < len(alone)
    had = [line["had"] for line in lines]
    for n_ranks in (2, 3, 5):
        ranks = [
            DataLoader(Plan.load(plan), batch_size=1, seed=9, world=World(rank, n_ranks))
            for rank in range(n_ranks)
        ]
        rest: list[list[str]] = []
        for loader in ranks:
            loader.load_state_dict(lines[-1]["state"])
        while len(had) + len(rest) < len(alone):
            epochs = [[list(b["sample_id"]) for b in loader] for loader in ranks]
            rest += [list(chain(*shares)) for shares in zip(*epochs, strict=True)]
        assert had + rest == alone
        for loader in ranks:
            loader.close()


@pytest.mark.slow
def test_processes_of_torchrun_go_on_where_one_process_was(plan, alone, tmp_path):
    """Two ranks meet at every step, so that a step too many or too few would hang."""
    with DataLoader(Plan.load(plan), global_batch_size=6, seed=9, world=World()) as loader:
        batches = iter(loader)
        for _ in range(3):
            next(batches)
        state = tmp_path / "state.json"
        state.write_text(json.dumps(loader.state_dict()))
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(RANK, plan, tmp_path, "--state", state, "--n-epochs", "2", "--gather"),
        ],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for rank in range(2):
        assert [line["had"] for line in log_of(tmp_path / f"{rank}.jsonl")] == alone[3:]


def open_files() -> set[str]:
    """Return the shared memory and other files that this process keeps open, sockets and pipes aside."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except FileNotFoundError:  # of the listing itself
            continue
        if target.startswith("/") and not target.startswith(("/dev/null", "/proc")):
            found.add(target)
    return found


def seconds_to_end(process: subprocess.Popen[bytes]) -> float:
    """Interrupt a process, and return how long it takes to end."""
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    process.wait(60)
    return time.monotonic() - started


def seconds_of_an_idle_process() -> float:
    """Return how long a process with the same packages takes to end on this machine now, though it does nothing."""
    code = "import time, tensorbank_loader; print('up', flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            return seconds_to_end(process)
        finally:
            process.kill()


def test_an_interrupted_run_ends_within_two_seconds(plan, tmp_path):
    with training(plan, tmp_path, "--n-epochs", "1000", "--pause", "0.01", stderr=subprocess.PIPE) as process:
        wait_for_lines(tmp_path / "0.jsonl", 3, process)
        alone_s = seconds_of_an_idle_process()
        assert seconds_to_end(process) < 2 + 10 * alone_s
        _, said = process.communicate()
    assert process.returncode == -signal.SIGINT
    assert said.decode().rstrip().endswith("KeyboardInterrupt")
    assert not [p for p in Path("/dev/shm").iterdir() if str(process.pid) in p.name]
    assert {p.name for p in tmp_path.iterdir()} == {"0.jsonl"}


def test_an_interrupted_run_ends_although_its_store_hangs(plan, tmp_path):
    bank = plan.parent / "bank"
    with FaultServer(bank) as server:
        remote = Plan.load(plan)
        remote = replace(remote, origin=StoreAddress(server.url, server.storage))
        path = remote.save(tmp_path / "plan.arrow")
        keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        more = {"stderr": subprocess.PIPE, "env": {**os.environ, **keys}}
        with training(path, tmp_path, "--n-epochs", "1000", "--pause", "0.01", **more) as process:
            wait_for_lines(tmp_path / "0.jsonl", 3, process)
            server.set(Faults(stalled=1.0, stall_s=60))
            while server.stats()["counts"].get("stalled", 0) == 0:
                time.sleep(0.01)
            # Half a second for requests under way; the rest is the interpreter's end. The store would hang for 60 s.
            alone_s = seconds_of_an_idle_process()
            assert seconds_to_end(process) < 2 + 10 * alone_s
        assert process.returncode == -signal.SIGINT


def test_no_file_stays_open(plan):
    def epoch() -> None:
        with DataLoader(Plan.load(plan), batch_size=6) as loader:
            for _ in loader:
                pass

    epoch()
    before = open_files()
    epoch()
    assert open_files() <= before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks with threads
@pytest.mark.parametrize("kind", ["loader", "dataset"])
def test_a_fork_of_a_process_that_streams_is_told_and_does_not_hang(plan, kind):
    """In the child: the next batch, a new epoch and a look at the state; then the parent goes on."""
    if kind == "loader":
        one = DataLoader(Plan.load(plan), batch_size=4, seed=9, world=World())
    else:
        one = StreamingDataset(Plan.load(plan), global_batch_size=4, seed=9, world=World())
    batches = iter(one)
    first = list(next(batches)["sample_id"])
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said = []
        try:
            for ask in (lambda: next(batches), lambda: next(iter(one))):
                try:
                    ask()
                except InvalidInputError as error:
                    said.append(error.kind)
            said.append(one.state_dict()["position"])
            if kind == "loader":
                one.close()
        finally:
            os.write(write, json.dumps(said).encode())
            os._exit(0)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], 30)
        assert ready, "the child hangs"
        assert json.loads(os.read(read, 1000)) == ["forked", "forked", 1]
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    rest = [list(b["sample_id"]) for b in batches]
    assert len({name for batch in [first, *rest] for name in batch}) == N
