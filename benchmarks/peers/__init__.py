"""TensorBank and other systems of the field behind one contract, each in an environment of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["PEERS", "About"]


@dataclass(frozen=True)
class About:
    """The facts that the harness knows of a peer.

    Parameters
    ----------
    name
        Name by which the peer calls itself.
    grid
        Options that are tried beside the documented defaults.
    delivers
        Whether it hands out tensors; the ceiling does not.
    resumes
        Whether its loader has a state.
    chooses
        Whether its format has a choice of codecs, LZ4 among them, and so a track ``fast``.
    """

    name: str
    grid: tuple[Mapping[str, Any], ...] = ()
    delivers: bool = True
    resumes: bool = False
    chooses: bool = False


PEERS: Mapping[str, About] = {
    "ceiling": About("ceiling: raw ranges", delivers=False, chooses=True),
    "tensorbank": About(
        "TensorBank",
        (
            {"shuffle": "full"},
            {"shuffle": "window"},
            {"max_gap_bytes": 1 << 20},
            {"max_read_bytes": 32 << 20},
            {"n_threads": 8},
        ),
        resumes=True,
        chooses=True,
    ),
    "litdata": About(
        "LitData",
        ({"max_pre_download": 4}, {"max_pre_download": 8}, {"prefetch_factor": 2}),
        resumes=True,
    ),
    "mosaic": About(
        "MosaicML Streaming",
        ({"predownload": 64}, {"predownload": 256}, {"shuffle_algo": "py1br"}),
        resumes=True,
    ),
    "streaming_community": About(
        "Streaming, the community's fork",
        ({"predownload": 64}, {"predownload": 256}, {"shuffle_algo": "py1br"}),
        resumes=True,
    ),
    "webdataset": About(
        "WebDataset",
        ({"shuffle": 1000}, {"opener": "urllib"}, {"opener": "urllib", "shuffle": 1000}),
    ),
    "terramesh": About("TerraMesh, its own layout", ({"shuffle": 50},)),
    "lancedb": About(
        "LanceDB",
        ({"shuffle_clump_size": 16}, {"num_splits": 4}, {"num_splits": 4, "shuffle_clump_size": 16}),
        resumes=True,
        chooses=True,
    ),
    "ray": About("Ray Data", ({"buffer": 50},)),
    "s3torchconnector": About(
        "S3 connector for PyTorch", ({"part_size": 32 << 20}, {"throughput_target_gbps": 40.0})
    ),
    "zarr": About("zarr-python and s3fs", ({"xarray": True},), chooses=True),
    "zarrs": About("zarr-python and zarrs", chooses=True),
    "zarrista": About("Zarrista", chooses=True),
    "tensorstore": About("TensorStore", chooses=True),
    "tensorstore_shards": About("TensorStore on TensorBank's shards", chooses=True),
    "icechunk": About("Icechunk", chooses=True),
    "hf_datasets": About("HF datasets", ({"buffer": 50},)),
    "boto3_loop": About("floor: boto3 loop"),
}
"""The peers by module, in the order of tables; the first is the ceiling and the last the floor."""
