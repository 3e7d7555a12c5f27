"""Real patches through the whole chain, over real S3: every tensor that the loader delivers is the source's."""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import tensorbank as tb
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_loader import StreamingDataset, World

MODALITIES = ("S2L1C", "S2L2A", "S2RGB", "S1RTC", "S1GRD", "DEM", "NDVI", "LULC")


def options_of(server) -> dict[str, str]:
    return {
        "endpoint": server.endpoint,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "region": server.region,
    }


@pytest.fixture(scope="module", params=["seaweedfs", "moto"])
def stored(request, make_archives, tmp_path_factory):
    """A bank of 20 real and derived samples on an S3 server, and the CRC-32 of every tensor."""
    server = request.getfixturevalue({"seaweedfs": "s3_server", "moto": "moto_server"}[request.param])
    source, truth = make_archives(
        "terramesh", "--samples", "20", "--per-tar", "10", "--subset", "both", "--checksums"
    )
    bank = tb.create(f"{server.url}/e2e", **options_of(server), cache=tmp_path_factory.mktemp("cache"))
    report = ingest(
        open_source(str(source)), bank, "terramesh", IngestOptions(n_workers=1, samples_per_shard=8)
    )
    assert report.n_added == 20
    crcs = {}
    for row in pq.read_table(truth / "train_samples.parquet").to_pylist():
        name = row["sample_id"] if "majortom" in row["key"] else f"{row['sample_id']}_{row['time_index']}"
        crcs |= {(name, k[6:]): v for k, v in row.items() if k.startswith("crc32_") and v is not None}
    return bank, crcs, server


def test_every_delivered_tensor_is_the_source_s(stored):
    bank, crcs, _ = stored
    loader = bank.sql("SELECT * FROM terramesh").dataloader(batch_size=6, seed=5)
    delivered = Counter()
    for batch in loader:
        for name in MODALITIES:
            there = (
                batch["mask"][name].tolist() if name in batch["mask"] else [True] * len(batch["sample_id"])
            )
            for sample, tensor, present in zip(batch["sample_id"], batch[name], there, strict=True):
                assert present == ((sample, name) in crcs)
                if present:
                    assert zlib.crc32(np.ascontiguousarray(tensor.numpy())) == crcs[sample, name]
                    delivered[sample, name] += 1
                elif tensor.dtype.is_floating_point:
                    assert torch.isnan(tensor).all()
    assert delivered == Counter(crcs.keys()), "each tensor once"


def test_bands_are_those_of_the_whole_tensor_and_cost_less(stored):
    bank, _, _ = stored
    whole = bank.sql("SELECT sample_id, S2L2A FROM terramesh").plan()
    some = bank.sql("SELECT sample_id, bands(S2L2A, ['B08', 'B02', 'B03']) FROM terramesh").plan()
    assert some.read_bytes < 0.5 * whole.read_bytes
    (all_bands,) = list(whole.dataloader(batch_size=20, shuffle=False))
    (three,) = list(some.dataloader(batch_size=20, shuffle=False))
    assert all_bands["sample_id"] == three["sample_id"]
    assert torch.equal(three["S2L2A"], all_bands["S2L2A"][:, [7, 1, 2]])


def test_a_query_selects_what_the_pixels_say(stored):
    bank, _, _ = stored
    sql = "SELECT sample_id, NDVI, LULC, cloud_mask FROM terramesh"
    picked = bank.sql(f"{sql} WHERE NDVI.mean > 0.3 AND LULC.share.trees > 0.2 AND cloud_cover < 0.3")
    (everything,) = list(bank.sql(sql).dataloader(batch_size=20, shuffle=False))
    ndvi = np.nanmean(everything["NDVI"].numpy().astype(np.float64), axis=(1, 2, 3))
    trees = (everything["LULC"].numpy() == 2).mean(axis=(1, 2, 3))
    clouds = np.isin(everything["cloud_mask"].numpy(), (3, 4)).mean(axis=(1, 2, 3))
    expected = {
        name
        for name, n, t, c in zip(everything["sample_id"], ndvi, trees, clouds, strict=True)
        if n > 0.3 and t > 0.2 and c < 0.3
    }
    got = {name for batch in picked.dataloader(batch_size=4) for name in batch["sample_id"]}
    assert got == expected
    assert 0 < len(expected) < 20


def test_ranks_share_what_one_process_reads(stored):
    bank, _, _ = stored
    plan = bank.sql("SELECT sample_id, DEM FROM terramesh").plan()
    alone = [b["sample_id"] for b in StreamingDataset(plan, global_batch_size=8, seed=3, world=World())]
    shares = [
        [b["sample_id"] for b in StreamingDataset(plan, global_batch_size=8, seed=3, world=World(rank, 2))]
        for rank in range(2)
    ]
    assert [a + b for a, b in zip(*shares, strict=True)] == alone


def test_a_saved_plan_streams_elsewhere(stored, tmp_path):
    bank, crcs, server = stored
    path = bank.sql("SELECT sample_id, S2RGB FROM terramesh").plan().save(tmp_path / "plan.arrow")
    assert server.secret_key.encode() not in path.read_bytes()
    plan = tb.Plan.load(path, access_key=server.access_key, secret_key=server.secret_key)
    seen = 0
    for batch in plan.dataloader(batch_size=7):
        for sample, tensor in zip(batch["sample_id"], batch["S2RGB"], strict=True):
            assert zlib.crc32(np.ascontiguousarray(tensor.numpy())) == crcs[sample, "S2RGB"]
            seen += 1
    assert seen == 20
