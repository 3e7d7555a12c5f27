"""Folders that workers share are made by one of them, and made anew where making them failed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.made_once import folder_of_run, made_once


def test_those_who_ask_at_once_get_what_one_of_them_made(tmp_path):
    makers = []

    def make(folder):
        makers.append(folder)
        (folder / "number").write_text(str(len(makers)))

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(made_once, tmp_path / "folders" / "one", make) for _ in range(8)]
        found = [(future.result(timeout=30) / "number").read_text() for future in asked]
    assert found == ["1"] * 8
    assert makers == [tmp_path / "folders" / "one"]


def test_what_failed_is_made_anew(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        made_once(tmp_path / "one", fail)
    made = made_once(tmp_path / "one", lambda folder: (folder / "whole").touch())
    assert [path.name for path in made.iterdir()] == ["whole"]


def test_workers_share_a_folder_and_a_single_process_has_its_own(tmp_path_factory, monkeypatch):
    own = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    assert folder_of_run(tmp_path_factory) == own.parent
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    assert folder_of_run(tmp_path_factory) == own
