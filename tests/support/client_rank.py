"""One rank of a training run that is fed by a service.

python client_rank.py URL RANK N_RANKS N_EPOCHS PAUSE_S: a JSON line a batch, with the ids and a checksum of each sample.
"""

from __future__ import annotations

import json
import sys
import time
import zlib

import tensorbank as tb
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank_loader import World


def main() -> None:
    url, rank, n_ranks, n_epochs, pause_s = sys.argv[1], *map(float, sys.argv[2:])
    query = tb.open(url).query("terramesh").select("sample_id", "S2L2A[B08,B02]", "LULC")
    loader = query.dataloader(
        global_batch_size=4,
        seed=5,
        world=World(rank=int(rank), n_ranks=int(n_ranks)),
        options=FetchOptions(max_inflight_bytes=1),  # reads as late as it may, so that URLs end meanwhile
    )
    for epoch in range(int(n_epochs)):
        for batch in loader:
            sums = [zlib.crc32(s.numpy()) for s in batch["S2L2A"]]
            print(json.dumps({"epoch": epoch, "ids": batch["sample_id"], "sums": sums}), flush=True)
            time.sleep(pause_s)


if __name__ == "__main__":
    main()
