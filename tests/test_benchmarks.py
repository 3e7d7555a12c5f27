"""Every benchmark starts: its imports are found, and nothing is measured before it is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted(path.stem for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py"))


def test_there_are_benchmarks():
    assert {"bench_peers", "bench_plan", "bench_quick", "bench_serve", "bench_stream", "ingest"} <= {*SCRIPTS}


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_imported_without_running(name, capsys):
    assert importlib.import_module(name).__doc__
    assert capsys.readouterr() == ("", "")
