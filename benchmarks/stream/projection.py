"""Measure whether a part costs only its share: some bands of some modalities of some samples,
bytes over the network beside those stored.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream.figure import Figure
from stream.serving import fault_server
from stream.setup import Setup
from tensorbank.testing import Faults
from tensorbank_loader import StreamingDataset, World

__all__ = ["measure"]

PROJECTIONS = {
    "neighbouring bands": "bands(S2L2A, ['B02', 'B03', 'B04']), bands(S2L1C, ['B02', 'B03', 'B04'])",
    "bands apart": "bands(S2L2A, ['B02', 'B08', 'B11']), bands(S2L1C, ['B02', 'B08', 'B11'])",
}
TENTH = "hash(sample_id) % 10 = 0"


def measure(setup: Setup) -> Iterator[Figure]:
    """Measure the ratio of the bytes that the server sent to the bytes of the selected blocks."""
    everything = setup.plan().read_bytes
    with fault_server(setup.folder, Faults(latency_ms=5)) as (server, origin):
        for name, columns in PROJECTIONS.items():
            local = setup.plan(columns, TENTH)
            if not len(local):
                local = setup.plan(columns)  # a bank of a few samples
            server.set(Faults(latency_ms=5))
            dataset = StreamingDataset(
                origin.plan(local), global_batch_size=setup.batch_size, seed=1, world=World()
            )
            n = sum(len(batch["sample_id"]) for batch in dataset)
            counts = server.stats()["counts"]
            yield Figure(
                "projection",
                f"3 bands of 2 modalities of 10 %, {name}",
                counts["body_bytes"] / 1e6,
                "MB",
                local.read_bytes / 1e6,
                counts["body_bytes"] / local.read_bytes,
                1.10,
                "<=",
                detail={
                    "samples": n,
                    "requests": counts["requests"],
                    "share_of_the_bank": counts["body_bytes"] / everything,
                },
            )
