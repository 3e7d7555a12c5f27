"""A deep verification by workers of Dask, which are killed, or of another release: it finds what one process finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tensorbank as tb
from support.dask_processes import DaskProcesses
from tensorbank.engines import Workers
from tensorbank.errors import ErrorKind, TensorBankError
from tensorbank.verification import verify

# Connections whose other end was killed are left to the collector by Dask, and it is no verdict on a test when that runs.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SEES_NO_INDEX = "lambda self: real(self) and 'index' not in self.parts"
"""The eyes of a worker that has another folder where the bank is."""
OTHER_RELEASE = "import tensorbank; tensorbank.__version__ = '0.0.9'"


@pytest.fixture
def cluster(tmp_path) -> Iterator[DaskProcesses]:
    """A scheduler without workers."""
    with DaskProcesses(tmp_path / "dask") as processes:
        yield processes


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of one sample."""
    monkeypatch.setattr("tensorbank.verification.blocks.block_check.ROWS", 1)


def flip(folder: Path, sample_id: str) -> None:
    """Change one bit of the elevation of a sample."""
    rows = tb.open(folder).sql(f"SELECT DEM.ref AS r FROM t WHERE sample_id = '{sample_id}'").arrow()
    ref = rows["r"][0].as_py()
    path = folder / ref["key"]
    data = bytearray(path.read_bytes())
    data[ref["offset"] + ref["length"] - 9] ^= 8
    path.write_bytes(data)


@pytest.mark.usefixtures("small_units")
def test_workers_that_are_killed_cost_their_tasks_only(bank_folder, cluster, tmp_path):
    for sample_id in ("sample-0001", "sample-0006"):
        flip(bank_folder, sample_id)
    bank = tb.open(bank_folder)
    expected = verify(bank, "t", deep=True, n_threads=1)
    assert sorted(f.sample_ids for f in expected.findings) == [("sample-0001",), ("sample-0006",)]
    doomed = cluster.workers(2)[:1]

    def progress(done: int, total: int) -> None:
        assert 0 < done <= total == 7
        if doomed:
            cluster.kill(doomed.pop())

    workers = Workers(cluster.scheduler, wait_s=100.0)
    state = tmp_path / "t.jsonl"
    found = verify(bank, "t", deep=True, workers=workers, progress=progress, resume=state)
    assert doomed == []
    assert found.findings == expected.findings
    assert (found.n_blocks, found.n_bytes, found.n_known) == (expected.n_blocks, expected.n_bytes, 0)
    again = verify(bank, "t", deep=True, workers=workers, resume=state)
    assert again.findings == expected.findings
    assert again.n_known == 5


@pytest.mark.usefixtures("small_units")
def test_a_verification_whose_workers_are_gone_goes_on_where_it_was(sound_bank, cluster, tmp_path):
    (only,) = cluster.workers(1)
    left = [only]

    def progress(_done: int, _total: int) -> None:
        if left:
            cluster.kill(left.pop())

    bank, state = tb.open(sound_bank), tmp_path / "t.jsonl"
    workers = Workers(cluster.scheduler, wait_s=1.0)
    with pytest.raises(TensorBankError, match="no worker takes tasks") as none:
        verify(bank, "t", deep=True, workers=workers, progress=progress, resume=state)
    assert none.value.kind == ErrorKind.NO_WORKERS
    report = verify(bank, "t", deep=True, n_threads=1, resume=state)
    assert report.sound
    assert 0 < report.n_known < 7


def test_workers_of_another_release_and_without_the_bank_are_named(bank_folder, cluster):
    """Nothing is read: what a worker sees is not there would be a finding."""
    (other,) = cluster.workers(1, OTHER_RELEASE)
    bank, workers = tb.open(bank_folder), Workers(cluster.scheduler, wait_s=100.0)
    with pytest.raises(TensorBankError, match=r"1 of 1 workers .* it has tensorbank 0\.0\.9") as refused:
        verify(bank, "t", deep=True, workers=workers)
    assert refused.value.kind == ErrorKind.OTHER_RELEASE
    cluster.kill(other)
    cluster.workers(1, f"import pathlib; real = pathlib.Path.is_dir; pathlib.Path.is_dir = {SEES_NO_INDEX}")
    with pytest.raises(tb.StorageError, match="it is not the bank") as refused:
        verify(bank, "t", deep=True, workers=workers)
    assert refused.value.kind == ErrorKind.NO_FOLDER
