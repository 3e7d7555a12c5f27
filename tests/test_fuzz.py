"""The runner of the fuzzers: what it finds, how it says so, and that a fuzzer which raises, dies or finds something fails it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from support import SUPPORT

TARGETS = {
    "sound": "for n in cases:\n        cases.count('looked at')",
    "finds": "for n in cases:\n        if n == 14:\n            cases.finding(f'{n} is wrong')",
    "raises": "for n in cases:\n        assert n != 12, 'twelve'",
    "dies": "import os\n    for n in cases:\n        if n == 13:\n            os._exit(3)",
}


@pytest.fixture
def runner(tmp_path):
    package = tmp_path / "support" / "fuzz"
    package.mkdir(parents=True)
    for name in ("__init__", "__main__", "cases"):
        shutil.copy(SUPPORT / "fuzz" / f"{name}.py", package)
    for name, body in TARGETS.items():
        (package / f"{name}.py").write_text(f"def fuzz(cases):\n    {body}\n")

    def run(*arguments: str):
        command = [sys.executable, "-m", "support.fuzz", "--seed", "10", "--cases", "5", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        summary = tmp_path / "fuzz-summary.json"
        return done, json.loads(summary.read_text())["targets"] if summary.exists() else None

    return run


def test_every_fuzzer_is_run_and_what_each_found_is_told_with_the_way_to_repeat_it(runner):
    done, targets = runner("--seconds", "200")
    assert done.returncode == 1, done.stderr
    assert sorted(targets) == sorted(TARGETS)
    assert targets["sound"]["counts"] == {"looked at": 5}
    assert targets["sound"]["findings"] == []
    assert [f["what"] for f in targets["finds"]["findings"]] == ["14 is wrong"]
    assert [f["case"] for f in targets["raises"]["findings"]] == [12]
    assert "twelve" in targets["raises"]["findings"][0]["what"]
    assert [(f["case"], "status 3" in f["what"]) for f in targets["dies"]["findings"]] == [(13, True)]
    assert "--target dies --seed 13 --cases 1" in done.stdout


def test_a_run_without_findings_ends_well(runner):
    done, targets = runner("--target", "sound", "--seconds", "60")
    assert (done.returncode, targets["sound"]["cases"]) == (0, 5), done.stderr


def test_time_ends_a_fuzzer_that_has_no_last_case(runner):
    done, targets = runner("--target", "sound", "--seconds", "0.5", "--cases", str(10**9))
    assert done.returncode == 0, done.stderr
    assert 5 < targets["sound"]["cases"] < 10**9


def test_a_fuzzer_that_is_none_is_named(runner):
    done, _ = runner("--target", "sond")
    assert done.returncode == 2
    assert "there is no fuzzer sond; there are: dies, finds, raises, sound" in done.stderr
