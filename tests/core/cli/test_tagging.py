"""The command ``tensorbank tag``, and versions on the command line."""

from __future__ import annotations

import json

import pytest

import tensorbank as tb
from support.handmade_index import make_table
from tensorbank.cli.app import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    make_table(tb.create(folder), "t", parts=2, n=3)
    return folder


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    return (code, *capsys.readouterr())


def test_the_life_of_a_tag(folder, capsys):
    assert call(capsys, "tag", folder, "t", "v1", "--at", 1, "-m", "for us") == (
        0,
        "t at version 1 is v1\n",
        "",
    )
    code, out, _ = call(capsys, "tag", folder, "t", "v2", "--json")
    made = json.loads(out)
    assert (code, made["name"], made["version"]) == (0, "v2", 2)
    code, out, _ = call(capsys, "tag", folder, "t", "--list", "--json")
    assert [(t["name"], t["version"], t["message"]) for t in json.loads(out)] == [
        ("v1", 1, "for us"),
        ("v2", 2, ""),
    ]
    lines = call(capsys, "tag", folder, "t", "--list")[1].splitlines()
    assert lines[0].split("\t")[:2] == ["tag", "version"]
    assert [line.split("\t")[:2] for line in lines[1:]] == [["v1", "1"], ["v2", "2"]]
    assert call(capsys, "tag", folder, "t", "v2")[0] == 1, "a tag is never moved"
    assert call(capsys, "tag", folder, "t", "v2", "--delete") == (0, "t has no tag v2 any more\n", "")
    code, _, err = call(capsys, "tag", folder, "t", "v2", "--delete")
    assert (code, "There is only v1" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["t"], "give the NAME"),
        (["t", "v", "--list"], "--list goes with no NAME"),
        (["t", "v", "--delete", "--at", "1"], "--delete goes with no --at"),
        (["t", "1v"], "cannot name a tag"),
        (["t", "v", "--at", "9"], "no version 9"),
        (["u", "v"], "no table 'u'"),
    ],
)
def test_wrong_words_are_told(folder, capsys, arguments, words):
    code, _, err = call(capsys, "tag", folder, *arguments)
    assert code == 2
    assert words in err


def test_show_takes_a_version(folder, capsys):
    main(["tag", str(folder), "t", "shown", "--at", "1"])
    for at, version in ((1, 1), ("shown", 1), ("2999-01-01", 2)):
        assert json.loads(call(capsys, "show", folder, "t", "--at", at, "--json")[1])["version"] == version
    assert call(capsys, "show", folder, "t", "--at", "shwn")[0] == 2
