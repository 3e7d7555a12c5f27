"""The five doors to a loader take the same options."""

from __future__ import annotations

import inspect

import pytest

from tensorbank.plans.streaming import DatasetOptions, LoaderOptions
from tensorbank_loader import DataLoader, StreamingDataset


@pytest.mark.parametrize(
    ("options", "door"), [(LoaderOptions, DataLoader), (DatasetOptions, StreamingDataset)]
)
def test_what_a_plan_hands_on_is_what_the_loader_takes(options, door):
    """Type checkers compare the types, and see no option that is missing."""
    taken = [p.name for p in inspect.signature(door).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert len(taken) > 10
    assert options.__optional_keys__ == set(taken)
