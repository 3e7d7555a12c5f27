"""Programs that start worker processes, which import them: those that do their work when they are imported are told so, once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank_indexer import IngestOptions, ingest

SUPPORT = Path(__file__).parents[1]
SENTENCE = 'so it must begin its work below if __name__ == "__main__":'
LIMIT_S = 120
OPTIONS = IngestOptions(n_workers=1, samples_per_shard=2, n_tiles=2)

INGEST = """
import sys
import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank_indexer import IngestOptions, ingest

def work(engine):
    options = IngestOptions(n_workers=2, samples_per_shard=2, n_tiles=2, engine=engine)
    print(ingest(TinySource(8), tb.open("bank"), "t", options).n_added)
"""

OTHERS = """
import tensorbank as tb
from support.tiny_source import TinySource
from tensorbank.engines import Workers
from tensorbank.verification import verify
from tensorbank.verification.blocks import block_check
from tensorbank_indexer import IngestOptions, add_modality

block_check.ROWS = 2
bank, workers = tb.open("bank"), Workers("processes", 2)
options = IngestOptions(n_workers=2, samples_per_shard=2, n_tiles=2)
calls = [
    lambda: verify(bank, "t", deep=True, workers=workers),
    lambda: bank.table("t").compact(rewrite_shards=True, workers=workers),
    lambda: add_modality(TinySource(8, modalities=["S1RTC"]), bank, "t", "S1RTC", options),
]
for call in calls:
    try:
        call()
        print("no error")
    except tb.TensorBankError as error:
        print(error.kind, error)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """The folder of a program and of its bank, which is empty."""
    tb.create(tmp_path / "bank")
    return tmp_path


def run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = folder / "program.py"
    path.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    command = [sys.executable, str(path), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )


@pytest.mark.parametrize("engine", ["processes", "dask"])
def test_a_program_that_begins_its_work_when_imported_is_told_so_once(folder, engine):
    done = run(folder, INGEST + "work(sys.argv[1])", engine)
    assert done.returncode == 1
    assert (done.stderr.count(SENTENCE), done.stdout) == (1, ""), done.stderr
    assert done.stderr.rstrip().splitlines()[-1].endswith(f"{folder / 'program.py'}, {SENTENCE}")
    assert "bootstrapping" not in done.stderr


def test_the_same_program_works_below_the_guard(folder):
    done = run(folder, INGEST + "if __name__ == '__main__': work('processes')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "8\n", "")


def test_every_call_that_starts_workers_says_the_same(folder):
    bank = tb.open(folder / "bank")
    ingest(TinySource(8), bank, "t", OPTIONS)
    bank.table("t").delete("sample_id IN ('sample-0000', 'sample-0002', 'sample-0004')")
    version = tb.open(folder / "bank").table("t").snapshot().version
    done = run(folder, OTHERS)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert {line.split()[0] for line in lines} == {"unguarded-program"}, lines
    assert all(line.endswith(SENTENCE) for line in lines)
    assert (done.returncode, done.stderr) == (0, "")
    assert tb.open(folder / "bank").table("t").snapshot().version == version


def test_a_program_that_cannot_be_imported_is_no_lost_worker(folder):
    """The error of the import stands there once, although two workers are asked for and a lost one would be replaced."""
    program = "if __name__ == '__mp_main__': raise ImportError('nothing of that name')\n" + INGEST
    done = run(folder, program + "if __name__ == '__main__': work('processes')")
    assert done.returncode == 1
    last = done.stderr.rstrip().splitlines()[-1]
    assert "worker processes could not start: one ended with exit status 1 while it imported" in last
    assert done.stderr.count("ImportError: nothing of that name") == 1, done.stderr
    assert "killed" not in done.stderr
