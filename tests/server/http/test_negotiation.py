"""Answers follow what clients accept and have already, as RFC 9110 words it."""

from __future__ import annotations

import pytest

from tensorbank_server.http.negotiation import chosen, has_current, may_resume

LINES, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", LINES),
        ("*/*", LINES),
        (ARROW, ARROW),
        (ARROW.upper(), ARROW),
        (f"{ARROW};q=0", LINES),
        (f"{ARROW};q=0.0, */*", LINES),
        (f"{ARROW}; q=0.4, {LINES};q=0.5", LINES),
        (f"{ARROW};q=0.5,{LINES};q=0.4", ARROW),
        (f"*/*;q=0.1, {ARROW}", ARROW),
        (f"application/*;q=0.9, {LINES};q=0.1", ARROW),
        (f"{ARROW};q=2", LINES),
        (f"{ARROW};q=x", LINES),
        (f"{ARROW};charset=utf-8", ARROW),
        ("text/html", LINES),
        ("," * 60_000, LINES),
    ],
)
def test_the_most_wanted_type_is_chosen(accept, expected):
    assert chosen(accept, (LINES, ARROW)) == expected


def test_tags_are_compared():
    assert has_current("*", '"a"')
    assert has_current('W/"x", "a"', '"a"')
    assert has_current('W/"a"', '"a"'), "weakly"
    assert not has_current('"b"', '"a"')
    assert not has_current("", '"a"')
    assert may_resume(None, '"a"')
    assert may_resume('"a"', '"a"')
    assert not may_resume('W/"a"', '"a"'), "strongly"
    assert not may_resume("Sun, 29 Nov 2026 12:00:00 GMT", '"a"')


def test_a_star_is_answered_by_what_there_is(service, table_url):
    star = {"If-None-Match": "*"}
    found = service.get(f"{table_url}/schema", headers=star)
    assert (found.status_code, found.content) == (304, b"")
    assert found.headers["etag"] == service.get(f"{table_url}/schema").headers["etag"]
    assert service.get(f"{table_url}/samples/nobody", headers=star).status_code == 404
    assert service.get(f"{table_url}/samples/nobody/S2L2A.npy", headers=star).status_code == 404


def test_a_range_of_another_state_is_the_whole(service, bank, table_url):
    sample_id = (
        bank.sql("SELECT sample_id FROM terramesh WHERE DEM IS NOT NULL").arrow()["sample_id"][0].as_py()
    )
    address = f"{table_url}/samples/{sample_id}/DEM.tif"
    whole = service.get(address)
    part = {"Range": "bytes=0-9"}
    assert service.get(address, headers=part).status_code == 206
    assert (
        service.get(address, headers={**part, "If-Range": whole.headers["etag"]}).content
        == whole.content[:10]
    )
    other = service.get(address, headers={**part, "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, whole.content)
    assert service.get(address, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
