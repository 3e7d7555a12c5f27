"""Ingest on Dask: real schedulers and workers, which are killed, are of another release, or are not there."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import pyarrow as pa
import pytest
from distributed import Client

import tensorbank as tb
from support.dask_processes import DaskProcesses
from support.tiny_source import TinySource
from support.waiting import wait_until
from tensorbank.engines import Executor, executor_for
from tensorbank.engines.dask_executor import DaskExecutor
from tensorbank.errors import ErrorKind, InvalidInputError, TensorBankError
from tensorbank.storage import StorageOptions, Store
from tensorbank_indexer import IngestOptions, IngestReport, ingest, open_source, replace_modality
from tensorbank_indexer.parts import IngestSetting, ShardResult
from tensorbank_indexer.rows import IndexRows
from tensorbank_indexer.source import Source

# Connections whose other end was killed are left to the collector by Dask, and it is no verdict on a test when that runs.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

N = 24
OTHER_RELEASE = "import tensorbank; tensorbank.__version__ = '0.0.9'"
INLINE = IngestOptions(n_workers=1, samples_per_shard=2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[DaskProcesses]:
    """A scheduler and two workers that no test harms."""
    with DaskProcesses(tmp_path_factory.mktemp("dask")) as processes:
        processes.workers(2)
        yield processes


@pytest.fixture
def fragile(tmp_path) -> Iterator[DaskProcesses]:
    """A scheduler without workers, for one test."""
    with DaskProcesses(tmp_path / "dask") as processes:
        yield processes


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """The objects of a bank that this process made alone."""
    folder = tmp_path_factory.mktemp("expected")
    ingest(TinySource(N), tb.create(folder), "t", INLINE)
    return objects(folder)


def objects(folder: Path) -> dict[str, bytes]:
    """Return what an ingest wrote of tensors, by key; a report has seconds in it, and a file whose name ends with ``#`` and a
    number is what a killed process was writing.
    """
    files = (f for f in (folder / "t/tensors").rglob("*") if f.is_file())
    return {
        f.relative_to(folder).as_posix(): f.read_bytes()
        for f in files
        if not f.name.endswith(".ingest.json") and "#" not in f.name
    }


def on(address: str, **others: Any) -> IngestOptions:
    return replace(INLINE, n_workers=None, engine=address, engine_wait_s=100.0, **others)


def executor_of(options: IngestOptions, source: Source, store: Store) -> Executor:
    return executor_for(options.workers, IngestSetting(source, store))


def at_first_shard(action: Callable[[], object]) -> Callable[[str, int, int], None]:
    """Return a progress callback that acts once, when the first shard is written."""
    left = [action]

    def progress(what: str, _done: int, _total: int) -> None:
        if what == "write" and left:
            left.pop()()

    return progress


def require_whole(report: IngestReport, folder: Path, expected: dict[str, bytes]) -> None:
    """Check that a bank has each sample once, and the objects of one that was made in peace."""
    assert report.n_added == N
    ids = tb.open(folder).sql("SELECT sample_id FROM t ORDER BY sample_id").arrow()["sample_id"].to_pylist()
    assert ids == [f"sample-{number:04d}" for number in range(N)]
    assert objects(folder) == expected


# ------------------------------------------------------------ what is written


def test_a_cluster_writes_the_bank_that_processes_write(cluster, expected, tmp_path):
    report = ingest(TinySource(N), tb.create(tmp_path), "t", on(cluster.scheduler))
    assert len(expected) > N // 2
    require_whole(report, tmp_path, expected)


def test_a_modality_is_replaced_on_a_cluster(cluster, tmp_path):
    for name in ("one", "other"):
        ingest(TinySource(N), tb.create(tmp_path / name), "t", INLINE)
    again = TinySource(N, edition=2)
    done = replace_modality(again, tb.open(tmp_path / "one"), "t", "DEM", on(cluster.scheduler))
    replace_modality(again, tb.open(tmp_path / "other"), "t", "DEM", INLINE)
    assert done.n_given == N
    assert len(objects(tmp_path / "one")) > N // 2
    assert objects(tmp_path / "one") == objects(tmp_path / "other")


# ------------------------------------------------------------ what goes through the scheduler


@dataclass(frozen=True)
class Echo:
    """A task that says of what size it is, and writes nothing."""

    number: int
    label: str = "an echo"
    first_paths: tuple[str, ...] = ()


def echo(task: Echo, setting: IngestSetting) -> ShardResult:
    return ShardResult(task.number, IndexRows(*[pa.table({})] * 3), [])


class Counting(Sequence[Echo]):
    """Tasks that note how many were taken and not yet answered."""

    def __init__(self, n: int) -> None:
        self.n, self.n_taken, self.n_answered, self.most = n, 0, 0, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: int) -> Echo:  # type: ignore[override]  # nobody slices them
        if number >= self.n:
            raise IndexError
        self.n_taken += 1
        self.most = max(self.most, self.n_taken - self.n_answered)
        return Echo(number)


@pytest.mark.parametrize(("n_workers", "most"), [(None, 4), (3, 3)])
def test_few_tasks_are_under_way_at_a_time(cluster, tmp_path, n_workers, most):
    """Two for each of the two threads of the cluster, or as many as were asked for."""
    tasks = Counting(40)
    options = replace(on(cluster.scheduler), n_workers=n_workers)
    done = []
    with closing(executor_of(options, TinySource(1), tb.create(tmp_path).catalog.store)) as executor:
        for result in executor.execute(tasks, echo):
            tasks.n_answered += 1
            done.append(result.shard)
    assert sorted(done) == list(range(40))
    # A task counts as answered when the loop above has its result, at which the next one is taken.
    assert tasks.most <= most + 1


def test_a_task_has_references_and_no_pixels(cluster, tmp_path, monkeypatch):
    """The bytes that are sent for a shard of 512 samples; the source is sent as its address."""
    sent: list[tuple[int, int]] = []
    submit = Client.submit

    def spying(client, function, wanted, work, task, **named: object):
        sent.append((len(work), len(task)))
        return submit(client, function, wanted, work, task, **named)

    monkeypatch.setattr(Client, "submit", spying)
    options = replace(on(cluster.scheduler), samples_per_shard=512)
    report = ingest(TinySource(512), tb.create(tmp_path), "t", options)
    assert report.n_added == 512
    ((work_bytes, task_bytes),) = sent
    assert work_bytes < 1000
    assert task_bytes < 512 * 400


def test_a_source_that_holds_data_is_refused(cluster, tmp_path):
    source = TinySource(2)
    vars(source)["table"] = os.urandom(2 << 20)
    with pytest.raises(InvalidInputError, match="let it hold an address"):
        ingest(source, tb.create(tmp_path), "t", on(cluster.scheduler))
    assert tb.open(tmp_path).tables() == []


# ------------------------------------------------------------ what is killed


def test_workers_that_are_killed_cost_their_tasks_only(fragile, expected, tmp_path):
    doomed = fragile.workers(3)[:2]

    def progress(what: str, done: int, _total: int) -> None:
        if what == "write" and doomed and done >= 8 - 4 * len(doomed) + 2:
            fragile.kill(doomed.pop())

    report = ingest(
        TinySource(N), tb.create(tmp_path / "bank"), "t", on(fragile.scheduler), progress=progress
    )
    assert doomed == []
    require_whole(report, tmp_path / "bank", expected)


def test_an_ingest_that_is_killed_goes_on_and_its_tasks_are_dropped(cluster, expected, tmp_path):
    code = (
        "import sys, tensorbank as tb\n"
        "from support.tiny_source import TinySource\n"
        "from tensorbank_indexer import *\n"
        "def say(what, done, total):\n"
        "    print(what, flush=True)\n"
        "    if what == 'write': sys.stdin.read()\n"
        f"ingest(TinySource({N}), tb.create(sys.argv[1]), 't', IngestOptions(samples_per_shard=2, engine=sys.argv[2]),\n"
        "       progress=say)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), cluster.scheduler],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    with process:
        assert process.stdout is not None
        assert any(line == "write\n" for line in process.stdout)
        process.kill()
        process.communicate()
    with Client(cluster.scheduler, set_as_default=False) as client:
        wait_until(
            lambda: client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0,
            "the scheduler keeps tasks of a process that is gone",
        )
    assert tb.open(tmp_path).table("t").snapshot().n_samples == 0, "all of a commit or none"
    report = ingest(TinySource(N), tb.open(tmp_path), "t", on(cluster.scheduler))
    assert report.n_resumed >= 2
    require_whole(report, tmp_path, expected)


def test_a_scheduler_that_is_killed_is_an_error_of_its_own(expected, tmp_path):
    bank = tb.create(tmp_path / "bank")
    with DaskProcesses(tmp_path / "dask", own_scheduler=True) as processes:
        processes.workers(1)
        kill = at_first_shard(lambda: processes.kill(processes.scheduler))
        with pytest.raises(TensorBankError, match=r"scheduler .* is gone; run again") as lost:
            ingest(TinySource(N), bank, "t", on(processes.scheduler), progress=kill)
    assert lost.value.kind == ErrorKind.SCHEDULER_LOST
    report = ingest(TinySource(N), bank, "t", INLINE)
    assert report.n_resumed >= 2
    require_whole(report, tmp_path / "bank", expected)


class Deadly(TinySource):
    """A source whose sample 3 ends the worker that reads it; not the process that looks at first samples."""

    def read(self, refs):
        for raw in super().read(refs):
            if raw.ref.stem == "sample-0003" and multiprocessing.parent_process() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            yield raw


def test_a_shard_that_kills_its_workers_is_named(tmp_path):
    options = replace(INLINE, n_workers=1, samples_per_shard=6, engine="dask")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(
            TensorBankError, match=r"workers died at .* sample-0000 of 0000-0006 to sample-0005"
        ) as lost,
    ):
        ingest(Deadly(6), tb.create(tmp_path), "t", options)
    assert lost.value.kind == ErrorKind.WORKER_LOST


def test_an_interrupted_ingest_on_a_local_cluster_leaves_no_process_and_resumes(write_members, tmp_path):
    source = write_members(12)
    command = [sys.executable, "-m", "tensorbank", "ingest", str(source), str(tmp_path / "bank")]
    process = subprocess.Popen(
        [*command, "--table", "t", "--workers", "2", "--samples-per-shard", "1", "--engine", "dask"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(
        lambda: list(tmp_path.glob("bank/t/tensors/*.progress/*")) or process.poll() is not None,
        "no shard was written",
    )
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, err
    lines = [line for line in err.splitlines() if not line.startswith(("scan ", "write "))]
    assert len(lines) == 1, err
    assert lines[0].startswith("interrupted; ")
    wait_until(lambda: not _session(process.pid), "processes are left")
    options = IngestOptions(n_workers=1, samples_per_shard=1)
    for name in ("bank", "other"):
        report = ingest(open_source(str(source)), tb.create(tmp_path / name), "t", options)
        assert report.n_added == 12
        assert (report.n_resumed > 0) == (name == "bank")
    assert len(objects(tmp_path / "bank")) > 12
    assert objects(tmp_path / "bank") == objects(tmp_path / "other")


def _session(number: int) -> list[str]:
    """Return the processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                told = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(told[3]) == number and told[0] != "Z":
                found.append(entry.name)
    return found


# ------------------------------------------------------------ what is refused


def test_workers_of_another_release_are_named_and_take_no_task(fragile, tmp_path):
    """One that joins when a run has begun, and then one that is there before anything is written."""
    (good,) = fragile.workers(1)
    bank = tb.create(tmp_path / "bank")
    with closing(executor_of(on(fragile.scheduler), TinySource(1), bank.catalog.store)) as executor:
        executor.open()
        (other,) = fragile.workers(1, OTHER_RELEASE)
        fragile.kill(good)
        with pytest.raises(TensorBankError, match=r"it has tensorbank 0\.0\.9") as refused:
            list(executor.execute([Echo(0)], echo))
    assert refused.value.kind == ErrorKind.OTHER_RELEASE
    assert other in str(refused.value)
    with pytest.raises(TensorBankError, match=r"1 of 1 workers .* it has tensorbank 0\.0\.9") as refused:
        ingest(TinySource(N), bank, "t", on(fragile.scheduler))
    assert refused.value.kind == ErrorKind.OTHER_RELEASE
    assert other in str(refused.value)
    assert bank.tables() == []


def test_workers_without_this_package_are_refused(fragile, tmp_path):
    fragile.workers(1, "sys.modules['tensorbank_indexer'] = None")
    with pytest.raises(TensorBankError, match="cannot take tasks") as refused:
        ingest(TinySource(N), tb.create(tmp_path / "bank"), "t", on(fragile.scheduler))
    assert refused.value.kind == ErrorKind.OTHER_RELEASE
    assert tb.open(tmp_path / "bank").tables() == []


def test_workers_that_do_not_have_the_folder_are_refused(cluster, tmp_path):
    source = TinySource(2)
    source.root = str(tmp_path / "nowhere")
    with pytest.raises(tb.StorageError, match=r"2 of 2 workers .* has no folder .*nowhere") as refused:
        ingest(source, tb.create(tmp_path / "bank"), "t", on(cluster.scheduler))
    assert refused.value.kind == ErrorKind.NO_FOLDER
    (tmp_path / "nowhere").mkdir()  # as where a share is not mounted
    with pytest.raises(tb.StorageError, match=r"has no file .*among the archives \(worker tcp://"):
        ingest(source, tb.create(tmp_path / "bank"), "t", on(cluster.scheduler))


def test_a_wait_for_workers_ends(fragile, tmp_path):
    options = replace(on(fragile.scheduler), engine_wait_s=1.0)
    with pytest.raises(TensorBankError, match=r"no worker takes tasks at tcp.* for 1 s") as none:
        ingest(TinySource(2), tb.create(tmp_path / "bank"), "t", options)
    assert none.value.kind == ErrorKind.NO_WORKERS
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        options = replace(options, engine=f"tcp://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(TensorBankError, match="no scheduler answers") as lost:
            ingest(TinySource(2), tb.create(tmp_path / "bank"), "t", options)
    assert lost.value.kind == ErrorKind.SCHEDULER_LOST
    assert tb.open(tmp_path / "bank").tables() == []


def test_workers_that_go_away_for_good_end_the_run(fragile, tmp_path):
    (only,) = fragile.workers(1)
    kill = at_first_shard(lambda: fragile.kill(only))
    options = replace(on(fragile.scheduler), engine_wait_s=1.0)
    with pytest.raises(TensorBankError, match="no worker takes tasks") as none:
        ingest(TinySource(N), tb.create(tmp_path / "bank"), "t", options, progress=kill)
    assert none.value.kind == ErrorKind.NO_WORKERS


def test_options_refuse_engines_that_there_are_not():
    with pytest.raises(InvalidInputError, match="no engine"):
        IngestOptions(engine="spark")
    with pytest.raises(InvalidInputError, match="engine_wait_s"):
        IngestOptions(engine_wait_s=0)


def test_what_workers_elsewhere_cannot_have_is_refused_at_once(tmp_path):
    store = tb.create(tmp_path).catalog.store
    source = TinySource(1)
    source.root = "folder/of/this/process"
    with pytest.raises(InvalidInputError, match="absolute path"):
        executor_of(on("tcp://host:8786"), source, store)
    keys = Store("s3://bucket", StorageOptions(access_key="key", secret_key="secret"))
    with pytest.raises(InvalidInputError, match="in the clear"):
        executor_of(on("tcp://host:8786"), TinySource(1), keys)
    executor_of(on("tls://host:8786"), TinySource(1), keys).close()


def test_an_installation_without_dask_says_what_to_install(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("tensorbank.engines.")]:
        if not name.endswith("processes"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(TensorBankError, match=r"tensorbank\[distributed\]") as missing:
        ingest(TinySource(1), tb.create(tmp_path), "t", replace(INLINE, engine="dask"))
    assert missing.value.kind == ErrorKind.MISSING_EXTRA


def test_workers_of_a_cluster_of_our_own_keep_freed_memory_and_are_not_profiled(tmp_path):
    options = replace(INLINE, engine="dask")
    with closing(executor_of(options, TinySource(1), tb.create(tmp_path).catalog.store)) as executor:
        executor.open()
        assert isinstance(executor, DaskExecutor)
        (told,) = executor.cluster.client.run(settings).values()
    assert told == (None, "1", False)
    assert "MALLOC_TRIM_THRESHOLD_" in dask.config.get("distributed.nanny.pre-spawn-environ"), (
        "Dask's default"
    )


def settings() -> tuple[str | None, str | None, bool]:
    variables = (os.environ.get(name) for name in ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS"))
    return (*variables, dask.config.get("distributed.worker.profile.enabled"))  # type: ignore[return-value]
