"""Ranks on nodes of their own network, whose links are narrow, and a store on another node."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tensorbank as tb
from support import SUPPORT
from support.namespaces import PACKAGES, PROGRAMS, Network
from support.programs import program, require_programs, unavailable
from support.streamed_bank import make_bank
from support.waiting import wait_until

N = 96
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{ access_log off; client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
  uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t; server {{ listen 8080; root {root}; }} }}
"""
MBIT_S = {"store": 400.0, "a": 100.0, "b": 100.0, "c": 2.0}
"""The links: that of the last node is fifty times narrower than its neighbours'."""


@pytest.fixture
def network() -> Iterator[Network]:
    require_programs(f"{PACKAGES} nginx-light", *PROGRAMS, "nginx")
    if os.geteuid() != 0:
        unavailable("network namespaces need root")
    with Network.running(MBIT_S) as network:
        yield network


@pytest.mark.timeout(200)
def test_ranks_behind_narrow_links_have_all_they_should_and_no_node_loses_any(
    network: Network, tmp_path: Path
):
    make_bank(tb.create(tmp_path / "bank"), "t", N)
    tmp_path.chmod(0o755)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format(folder=tmp_path, root=tmp_path))
    store = network.start("store", [program("nginx"), "-c", configuration])
    wait_until((tmp_path / "pid").exists, "nginx does not start")
    meeting = {"MASTER_ADDR": network.addresses["a"], "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": "eth0"}
    url = f"http://{network.addresses['store']}:8080/bank"
    ranks = []
    try:
        for rank, node in enumerate("abc"):
            home = tmp_path / node  # no node shares a folder with another one
            home.mkdir()
            own = {"RANK": str(rank), "WORLD_SIZE": "3", "HOME": str(home), "TMPDIR": str(home)}
            command = [sys.executable, SUPPORT / "train.py", url, tmp_path / "out"]
            more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SUPPORT.parent)}
            (tmp_path / "out").mkdir(exist_ok=True)
            ranks.append(network.start(node, command, **meeting, **own, **more))
        deadline = time.monotonic() + 100
        said = [rank.communicate(timeout=max(1.0, deadline - time.monotonic()))[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0, 0], said
    finally:
        for process in (*ranks, store):
            process.kill()
            process.communicate()
    had = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["had"]
    alone = (
        tb.open(tmp_path / "bank").sql("SELECT sample_id, S2 FROM t").dataloader(global_batch_size=10, seed=9)
    )
    assert had == [batch["sample_id"] for batch in alone]
    alone.close()
    assert sum(map(len, had)) == N
    assert network.received_bytes("c") > 10_000
