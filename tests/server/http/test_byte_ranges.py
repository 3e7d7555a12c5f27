"""HTTP's ranges of an object of ten bytes, by the examples of RFC 9110, 14.1.2."""

from __future__ import annotations

import pytest

from tensorbank_server.http import Problem
from tensorbank_server.http.byte_ranges import content_range, parse_range


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-4", (0, 5)),
        ("bytes=9-9", (9, 10)),
        ("bytes=5-", (5, 10)),
        ("bytes=5-99999999999999999999", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("BYTES=0-0", (0, 1)),
        (" bytes=1-2 ", (1, 3)),
        ("bytes=0-1,4-5", None),  # more than one range: the whole
        ("items=0-4", None),  # another unit: ignored
    ],
)
def test_ranges(header, wanted):
    assert parse_range(header, 10) == wanted


@pytest.mark.parametrize(
    "header", ["bytes=-", "bytes=10-", "bytes=5-4", "bytes=-0", "bytes=a-b", "bytes=1", "bytes"]
)
def test_what_is_no_range_of_the_object(header):
    with pytest.raises(Problem) as caught:
        parse_range(header, 10)
    assert caught.value.status == 416
    assert caught.value.headers == {"Content-Range": "bytes */10"}


def test_the_end_that_is_sent_is_inclusive():
    assert content_range(0, 5, 10) == "bytes 0-4/10"
