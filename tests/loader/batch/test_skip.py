"""Damaged samples are left out, masked, counted and logged with ``on_error="skip"``;
everything else is there."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from support.handmade import Handmade, make
from tensorbank import InvalidInputError, StorageError
from tensorbank.fetch import tries
from tensorbank_loader import DataLoader, FetchOptions, StreamingDataset

N = 23
SKIP = FetchOptions(on_error="skip")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Handmade:
    monkeypatch.setattr(tries, "FIRST_PAUSE_S", 0.001)
    return make(tmp_path, N)


def flip(made: Handmade, handle: str, position: int) -> None:
    path = made.path_of(handle, position)
    body = bytearray(path.read_bytes())
    body[int(made.plan.addresses[handle].starts[position, 0]) + 40] ^= 1
    path.write_bytes(body)


def epoch(made: Handmade) -> tuple[DataLoader, dict, dict]:
    """Return all tensors and masks of an epoch in the plan's order."""
    with DataLoader(made.plan, batch_size=5, shuffle=None, options=SKIP) as loader:
        batches = list(loader)
    tensors = {h.name: np.concatenate([b[h.name].numpy() for b in batches]) for h in made.plan.handles}
    masks = {h.name: np.concatenate([b["mask"][h.name].numpy() for b in batches]) for h in made.plan.handles}
    return loader, tensors, masks


def check(made: Handmade, tensors: dict, masks: dict, lost: set[tuple[str, int]]) -> None:
    for handle in made.plan.handles:
        present = made.plan.addresses[handle.name].shard_of >= 0
        for position in range(N):
            got, truth = tensors[handle.name][position], made.truth[handle.name][position]
            if (handle.name, position) in lost:
                assert not masks[handle.name][position]
                truth = np.full_like(truth, handle.modality.fill_value)
            else:
                assert masks[handle.name][position] == present[position]
            np.testing.assert_array_equal(got.reshape(truth.shape), truth)


def test_nothing_is_skipped_where_nothing_is_wrong(own):
    loader, tensors, masks = epoch(own)
    check(own, tensors, masks, set())
    assert loader.stats().skipped == 0
    assert loader.skipped == ()


def test_damaged_blocks_cost_their_sample_and_are_told(own, caplog):
    flip(own, "S2", 6)
    flip(own, "LULC", 17)
    with caplog.at_level(logging.WARNING, "tensorbank"):
        loader, tensors, masks = epoch(own)
    # "reordered" and "both" may select the same blocks as "S2"
    at = {(s.handle, s.position) for s in loader.skipped}
    assert {("S2", 6), ("LULC", 17)} <= at
    assert {position for _, position in at} == {6, 17}
    check(own, tensors, masks, at)
    assert loader.stats().skipped == len(at) == len(loader.skipped)
    assert len([r for r in caplog.records if "skipped" in r.message]) == len(at)
    skipped = next(s for s in loader.skipped if s.handle == "S2")
    assert own.plan.table["sample_id"][6].as_py() in skipped.sample
    assert skipped.range.key in own.plan.addresses["S2"].shard_keys
    assert "checksum" in skipped.error


@pytest.mark.parametrize("what", ["truncated", "gone"])
def test_of_an_object_that_is_cut_or_gone_the_sound_samples_stay(own, what):
    path, addresses = own.path_of("S2", 6), own.plan.addresses["S2"]
    cut = int(addresses.starts[6, 0]) + 20
    body = path.read_bytes()
    if what == "gone":
        path.unlink()
        cut = 0
    else:
        path.write_bytes(body[:cut])
    loader, tensors, masks = epoch(own)
    at = {(s.handle, s.position) for s in loader.skipped}
    check(own, tensors, masks, at)
    ends = addresses.starts.max(axis=1) + addresses.lengths[np.arange(N), addresses.starts.argmax(axis=1)]
    same = addresses.shard_of == addresses.shard_of[6]
    assert {p for name, p in at if name == "S2"} == set(np.flatnonzero(same & (ends > cut)).tolist())


def test_a_dataset_masks_what_it_skips(own):
    flip(own, "S2", 6)
    samples = list(StreamingDataset(own.plan, shuffle=None, options=SKIP))
    assert len(samples) == N
    assert not samples[6]["mask"]["S2"]
    assert samples[7]["mask"]["S2"]


def test_a_store_that_refuses_is_not_skipped_sample_by_sample(own, monkeypatch):
    def refuse(self, key, start, end):
        raise StorageError("no", kind="denied")

    monkeypatch.setattr("tensorbank.storage.store.Store.get_range", refuse)
    with DataLoader(own.plan, batch_size=5, options=SKIP) as loader, pytest.raises(StorageError):
        next(iter(loader))


def test_other_words_are_refused():
    with pytest.raises(InvalidInputError, match="'raise' or 'skip'"):
        FetchOptions(on_error="ignore")
