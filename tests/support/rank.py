"""A training process as a program: streams a saved plan and writes down, batch by batch, what it had and where it stands.

python rank.py PLAN OUT [--state STATE] [--n-epochs N] [--pause SECONDS] [--gather]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path

import torch.distributed

from tensorbank import Plan
from tensorbank_loader import DataLoader

GLOBAL_BATCH_SIZE = 6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--n-epochs", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--gather", action="store_true", help="meet the other ranks at every step")
    given = parser.parse_args()
    # Shells have what they start in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if given.gather:
        torch.distributed.init_process_group("gloo")
    rank = int(os.environ.get("RANK", "0"))
    with (
        DataLoader(Plan.load(given.plan), global_batch_size=GLOBAL_BATCH_SIZE, seed=9) as loader,
        (given.out / f"{rank}.jsonl").open("a") as log,
    ):
        if given.state:
            loader.load_state_dict(json.loads(given.state.read_text()))
        for _ in range(given.n_epochs):
            for batch in loader:
                had = list(batch["sample_id"])
                if given.gather:
                    everyone: list[list[str]] = [[]] * loader.world.n_ranks
                    torch.distributed.all_gather_object(everyone, had)
                    had = [name for share in everyone for name in share]
                log.write(json.dumps({"had": had, "state": loader.state_dict()}) + "\n")
                log.flush()
                time.sleep(given.pause)
    if given.gather:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
