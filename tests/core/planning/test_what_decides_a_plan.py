"""The statement, the snapshot and the registered tables decide a plan:
no thread, zone, locale, folder or memory does."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tensorbank as tb
from support import SUPPORT
from support.tied_index import make_tied_table

pytestmark = pytest.mark.slow


STATEMENTS = [line for line in (SUPPORT / "plans.sql").read_text().splitlines() if not line.startswith("--")]


SURROUNDINGS = (
    "elsewhere",
    *(
        pytest.param(name, marks=pytest.mark.thorough)
        for name in ("one core", "many threads", "little memory", "reversed")
    ),
)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Return ``answers(surroundings)``: what a process in these says of the statements, asked once."""
    folder = tmp_path_factory.mktemp("decides")
    make_tied_table(tb.create(folder / "bank"), "tied", parts=4, n=8_000)
    statements, backwards = folder / "statements.json", folder / "backwards.json"
    statements.write_text(json.dumps(STATEMENTS))
    backwards.write_text(json.dumps(STATEMENTS[::-1]))
    decoys = folder / "decoys"
    decoys.mkdir()
    for name in ("tied", "tied.csv", "tied.parquet", "mine", "mine.csv", "pick.csv"):
        (decoys / name).write_text("sample_id,location_id,n\nx,loc0001,1\n")
    (decoys / ".duckdbrc").write_text("SET threads = 3; SET TimeZone = 'Asia/Tokyo';\n")
    plain = {k: v for k, v in os.environ.items() if k not in ("TZ", "LANG") and not k.startswith("LC_")}

    def run(path: Path, *limits: str, cwd: Path = folder, cores: int | None = None, **environment: str):
        before = (
            ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))] if cores else []
        )
        ran = subprocess.run(
            [
                *before,
                sys.executable,
                str(SUPPORT / "planned.py"),
                str(folder / "bank"),
                str(path),
                *limits,
            ],
            cwd=cwd,
            env={**plain, **environment},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        return json.loads(ran.stdout)

    elsewhere = {"TZ": "America/Los_Angeles", "LC_ALL": "tr_TR.UTF-8", "HOME": str(decoys), "PGUSER": "x"}
    asked = {
        "base": lambda: run(statements, TZ="UTC"),
        "elsewhere": lambda: run(statements, cwd=decoys, **elsewhere),
        "one core": lambda: run(statements, cores=1, TZ="Pacific/Auckland", LC_ALL="C"),
        "many threads": lambda: run(statements, "9", TZ="Asia/Kathmandu", LC_ALL="de_DE.UTF-8"),
        "little memory": lambda: run(statements, "5", "250MB", LANG="ja_JP.UTF-8"),
        "reversed": lambda: run(backwards, "3")[::-1],
    }
    return functools.cache(lambda name: asked[name]())


def test_something_is_selected_by_every_statement(answers):
    assert len(STATEMENTS) >= 25
    assert [sql for sql, a in zip(STATEMENTS, answers("base"), strict=True) if not a["n"]] == []


@pytest.mark.parametrize("surroundings", ["base", *SURROUNDINGS])
def test_a_statement_planned_twice_has_one_fingerprint(answers, surroundings):
    pairs = zip(STATEMENTS, answers(surroundings), strict=True)
    assert [sql for sql, a in pairs if a["fingerprint"] != a["again"]] == []


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_the_surroundings_decide_nothing(answers, surroundings):
    pairs = zip(STATEMENTS, answers("base"), answers(surroundings), strict=True)
    assert [
        sql for sql, a, b in pairs if (a["digest"], a["fingerprint"]) != (b["digest"], b["fingerprint"])
    ] == []


def test_other_answers_have_other_fingerprints(answers):
    assert len({a["fingerprint"] for a in answers("base")}) == len(STATEMENTS)
