"""The memory of versions is bounded by bytes, and right."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tensorbank.delta.known_versions import NOMINAL_BYTES, KnownVersions


def test_a_fact_is_found_once_even_if_it_is_none():
    known, asked = KnownVersions(1 << 20), []
    for _ in range(3):
        assert known.found("x", lambda: asked.append(1)) is None
    assert len(asked) == 1


def test_the_least_recently_used_is_dropped_first():
    known = KnownVersions(3 * NOMINAL_BYTES)
    for key in "abc":
        known.keep(key, key)
    assert known.get("a") == "a"
    known.keep("d", "d")
    assert [known.get(key) for key in "abcd"] == ["a", None, "c", "d"]


def test_the_newest_is_kept_however_large():
    known = KnownVersions(10 * NOMINAL_BYTES)
    known.keep("small", 1)
    assert known.found("large", lambda: np.zeros(1 << 20)).nbytes == 8 << 20
    assert (len(known), known.get("small")) == (1, None)
    assert known.found("large", lambda: "another").nbytes == 8 << 20
    known.keep("next", 2)
    assert (len(known), known.get("next")) == (1, 2)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4 * NOMINAL_BYTES)), max_size=60))
def test_no_more_bytes_are_kept_than_were_stated(entries):
    known, sizes = KnownVersions(8 * NOMINAL_BYTES), {}
    for key, n_bytes in entries:
        known.keep(key, (key, n_bytes), n_bytes)
        sizes[key] = NOMINAL_BYTES + n_bytes
        kept = [k for k in sizes if known.get(k) is not None]
        assert known.get(key) == (key, n_bytes)
        assert sum(sizes[k] for k in kept) <= 8 * NOMINAL_BYTES
