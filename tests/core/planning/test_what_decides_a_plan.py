"""The statement, the snapshot and the registered tables decide a plan:
no thread, zone, locale, folder or memory does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tensorbank as tb
from support import SUPPORT
from support.tied_index import make_tied_table

pytestmark = pytest.mark.slow


STATEMENTS = [line for line in (SUPPORT / "plans.sql").read_text().splitlines() if not line.startswith("--")]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The answers of every process, by the name of its surroundings."""
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
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        return json.loads(ran.stdout)

    with ThreadPoolExecutor(2) as pool:
        asked = {
            "base": pool.submit(run, statements, TZ="UTC"),
            "elsewhere": pool.submit(
                run,
                statements,
                cwd=decoys,
                TZ="America/Los_Angeles",
                LC_ALL="tr_TR.UTF-8",
                HOME=str(decoys),
                PGUSER="x",
            ),
            "one core": pool.submit(run, statements, cores=1, TZ="Pacific/Auckland", LC_ALL="C"),
            "many threads": pool.submit(run, statements, "9", TZ="Asia/Kathmandu", LC_ALL="de_DE.UTF-8"),
            "little memory": pool.submit(run, statements, "5", "250MB", LANG="ja_JP.UTF-8"),
            "reversed": pool.submit(run, backwards, "3"),
        }
        found = {name: future.result() for name, future in asked.items()}
    found["reversed"].reverse()
    return found


def test_something_is_selected_by_every_statement(answers):
    assert len(STATEMENTS) >= 25
    assert [sql for sql, a in zip(STATEMENTS, answers["base"], strict=True) if not a["n"]] == []


def test_a_statement_planned_twice_has_one_fingerprint(answers):
    wrong = {
        (name, sql)
        for name, all_of in answers.items()
        for sql, a in zip(STATEMENTS, all_of, strict=True)
        if a["fingerprint"] != a["again"]
    }
    assert wrong == set()


@pytest.mark.parametrize(
    "surroundings", ["elsewhere", "one core", "many threads", "little memory", "reversed"]
)
def test_the_surroundings_decide_nothing(answers, surroundings):
    pairs = zip(STATEMENTS, answers["base"], answers[surroundings], strict=True)
    assert [
        sql for sql, a, b in pairs if (a["digest"], a["fingerprint"]) != (b["digest"], b["fingerprint"])
    ] == []


def test_other_answers_have_other_fingerprints(answers):
    assert len({a["fingerprint"] for a in answers["base"]}) == len(STATEMENTS)
