"""Tests check something whatever happens: none passes because a loop that holds its checks had nothing to loop over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from support.sure_checks import find_unsure_tests

TESTS = Path(__file__).parent

ALLOWED: dict[str, str] = {}
"""Reasons for tests that may stay as they are, by file and name."""


def files() -> Iterator[tuple[str, str]]:
    for path in sorted(TESTS.rglob("*.py")):
        yield path.relative_to(TESTS).as_posix(), path.read_text()


def test_every_test_is_sure_to_check_something():
    found = {f.place: f"{f.place} (line {f.line}): {f.reason}" for f in find_unsure_tests(files())}
    assert [text for place, text in found.items() if place not in ALLOWED] == [], (
        "assert before the loop how many things there are, or compare a list that the loop collects"
    )
    assert sorted(set(ALLOWED) - set(found)) == [], "these check something by now: take them off the list"


def test_every_test_file_is_read():
    names = [Path(path).name for path, _ in files()]
    assert len([n for n in names if n.startswith("test_")]) > 100


ROOMS = {
    "core": "tensorbank",
    "indexer": "indexer/tensorbank_indexer",
    "loader": "loader/tensorbank_loader",
    "server": "server/tensorbank_server",
}
ELSEWHERE = {
    "core/bank": "every test of planning and reading asks a bank",
    "core/testing": "its contracts run in core/storage, its servers in faults",
    "indexer/cf": "indexer/sources/test_meaning.py: what attributes mean is seen in what is read",
    "indexer/zarr_groups": "indexer/sources/test_formats.py and test_hostile.py: sound and broken documents of archives",
    "server/monitoring": "server/front/test_front.py: logs and metrics of requests",
}
"""Packages without a folder of tests, and where they are tested."""


def test_each_package_has_its_folder_of_tests():
    packages = {
        f"{room}/{init.parent.name}"
        for room, folder in ROOMS.items()
        for init in (TESTS.parent / folder).glob("*/__init__.py")
    }
    assert len(packages) > 30
    assert sorted(p for p in packages - ELSEWHERE.keys() if not (TESTS / p).is_dir()) == []
    folders = {f"{room}/{path.parent.name}" for room in ROOMS for path in (TESTS / room).glob("*/test_*.py")}
    assert sorted(folders - packages) == [], "folders of packages that there are no more"


SURE = [
    "assert f()",
    "with pytest.raises(ValueError): f()",
    "for x in (1, 2): assert x",
    "for x in LEVELS: assert x",
    "for a, b in zip(f(), (1, 2), strict=True): assert a == b",
    "for n in range(3): assert n",
    "for n in range(len(LEVELS)): assert n",
    "names = ['a']\nfor name in names: assert name",
    "found = f()\nassert len(found) == 2\nfor x in found: assert x",
    "for x in f(): assert x\nelse: assert g()",
    "while True:\n    assert f()\n    break",
    "if f(): assert a\nelse: assert b",
    "check_all(f())",
    "compare(f())",
    "subprocess.run(['x'], check=True)",
    "try: f()\nfinally: assert g()",
    "assert all(x for x in (1, 2))",
]
UNSURE = [
    "f()",
    "found = compare(f())",
    "for x in f(): assert x",
    "for n in range(f()): assert n",
    "for a, b in zip(f(), (1, 2)): assert a == b",
    "for a, b in zip(f(), g(), strict=True): assert a == b",
    "while f(): assert g()",
    "if f(): assert g()",
    "try: f()\nexcept ValueError: assert g()",
    "assert all(x for x in f())",
    "assert all(x for x in f()) and all(y for y in g())",
    "for x in f():\n    with pytest.raises(ValueError): x()",
    "perhaps(f())",
    "names = []\nfor name in names: assert name",
]
HELPERS = """
def compare(found):
    assert found == 1

def perhaps(found):
    if found:
        assert found == 1
"""


def findings(body: str, decorator: str = "") -> list[str]:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    text = f"{HELPERS}\n{decorator}\ndef test_it(case=None):\n{lines}\n"
    return [f.reason for f in find_unsure_tests([("test_planted.py", text)])]


@pytest.mark.parametrize("body", SURE)
def test_what_is_sure(body):
    assert findings(body) == []


@pytest.mark.parametrize("body", UNSURE)
def test_what_is_found(body):
    assert len(findings(body)) == 1


@pytest.mark.parametrize(
    "decorator", ["@pytest.mark.parametrize('case', [[1]])", "@given(st.lists(st.integers(), min_size=1))"]
)
def test_cases_of_a_test_hold_something(decorator):
    assert findings("for x in case: assert x") != []
    assert findings("for x in case: assert x", decorator) == []


def test_methods_and_functions_inside_are_seen():
    text = dedent("""
        class TestStore:
            def test_nothing(self):
                pass

            def test_inside(self):
                @given(st.integers())
                def holds(x):
                    assert x

                holds()
    """)
    assert [f.place for f in find_unsure_tests([("test_planted.py", text)])] == [
        "test_planted.py::TestStore::test_nothing"
    ]
