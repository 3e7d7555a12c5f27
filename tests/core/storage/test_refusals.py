"""Refusals in the words of a store."""

from __future__ import annotations

from tensorbank.storage.refusals import MAX_BYTES, ask_refusal


def test_the_body_and_the_region_of_a_refusal(answering):
    answering.refuse(403, "AccessDenied")
    said = ask_refusal(f"{answering.url}/bank", None)
    assert said is not None
    assert said.startswith("status code: 403 ")
    assert "<Code>AccessDenied</Code>" in said
    assert [asked.method for asked in answering.asked] == ["GET"]


def test_a_redirect_is_a_refusal_and_is_not_followed(answering):
    answering.answer(301, b"moved", Location=f"{answering.url}/other", x_amz_bucket_region="eu-west-1")
    said = ask_refusal(f"{answering.url}/bank", None)
    assert said == "status code: 301 moved<Region>eu-west-1</Region>"
    assert [asked.path for asked in answering.asked] == ["/bank"]


def test_of_a_long_body_the_beginning_is_enough(answering):
    answering.answer(500, b"x" * (2 * MAX_BYTES))
    assert ask_refusal(answering.url, None) == "status code: 500 " + "x" * MAX_BYTES


def test_no_refusal(answering):
    answering.answer(200, b"here")
    assert ask_refusal(answering.url, None) is None
    assert ask_refusal("http://127.0.0.1:9/nobody", None) is None
    assert ask_refusal("no URL", None) is None
