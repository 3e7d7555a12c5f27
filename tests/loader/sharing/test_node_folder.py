"""The folder of plans of a node: what is removed from it, and what stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import tensorbank as tb
from support.streamed_bank import make_bank
from tensorbank_loader.sharing.node_folder import YOUNG_S, NodeFolder


@pytest.mark.parametrize("has_rank_0", [True, False])
def test_what_killed_processes_left_goes_with_the_next_plan_on_any_node(tmp_path, has_rank_0):
    make_bank(tb.create(tmp_path / "bank"), "t", 4)
    plan = tb.open(tmp_path / "bank").sql("SELECT sample_id, S2 FROM t").plan()
    folder = NodeFolder(tmp_path / "plans")
    held = folder.put("held", plan)
    for name in ("left", "young"):
        plan.save(folder.path(name))
    long_ago_s = time.time() - 2 * YOUNG_S
    for name in ("held", "left"):
        os.utime(folder.path(name), (long_ago_s, long_ago_s))

    def fetch(path: Path) -> bool:
        plan.save(path)
        return True

    new = folder.put("new", plan) if has_rank_0 else folder.get("new", fetch)
    assert held == new == plan
    assert {path.stem for path in folder.folder.glob("*.plan")} == {"held", "young", "new"}
