"""The kinds of errors: each is described, and each is in use."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path

import pytest

import tensorbank
import tensorbank_demo
import tensorbank_floods
import tensorbank_gpu
import tensorbank_indexer
import tensorbank_lightning
import tensorbank_loader
import tensorbank_pretraining
import tensorbank_server
import tensorbank_simulation
from tensorbank.errors import ErrorKind

ROOMS = (
    tensorbank,
    tensorbank_indexer,
    tensorbank_demo,
    tensorbank_gpu,
    tensorbank_loader,
    tensorbank_floods,
    tensorbank_lightning,
    tensorbank_pretraining,
    tensorbank_simulation,
    tensorbank_server,
)


@pytest.fixture(scope="module")
def trees() -> list[tuple[Path, ast.AST]]:
    """The source files of all rooms, parsed."""
    folders = [Path(room.__file__).parent for room in ROOMS if room.__file__ is not None]
    assert len(folders) == len(ROOMS)
    return [(path, ast.parse(path.read_text())) for f in folders for path in sorted(f.rglob("*.py"))]


def test_no_kind_is_dead(trees):
    """Each is named as a member, or is the code of an answer of the service, which its client makes a kind of."""
    named, codes = set(), set()
    for path, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == "ErrorKind":
                    named.add(node.attr)
            elif isinstance(node, ast.Constant) and "tensorbank_server" in path.parts:
                codes.add(node.value)
    assert len(named) > 100
    assert named <= {*ErrorKind.__members__, "named"}
    assert [k for k in ErrorKind if k.name not in named and k.value not in codes] == []


def test_no_kind_is_given_as_text(trees):
    kinds = {k.value for k in ErrorKind}
    found = [
        f"{path}:{node.value.lineno}"
        for path, tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "kind" and isinstance(node.value, ast.Constant)
        if node.value.value in kinds
    ]
    assert found == []


@pytest.mark.parametrize("kind", ErrorKind)
def test_a_kind_has_a_name_for_programs_and_a_sentence_for_people(kind):
    assert kind.value == kind.name.lower().replace("_", "-")
    assert kind.description[0].isupper()
    assert kind.description.endswith(".")
    assert 10 < len(kind.description) < 120
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert json.loads(json.dumps(kind)) == kind == str(kind)


def test_descriptions_differ():
    assert len({k.description for k in ErrorKind}) == len(ErrorKind) > 100
