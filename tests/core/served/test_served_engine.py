"""A bank behind a service has an identity that needs no question to the service."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pyarrow as pa
import pytest

from tensorbank import InvalidInputError
from tensorbank.bank import Bank
from tensorbank.served import ServedEngine


@pytest.fixture
def bank() -> Bank:
    return Bank(ServedEngine(SimpleNamespace(url="https://host/v1/banks/eo")))


def test_what_the_service_keeps_is_no_attribute_and_says_why(bank):
    assert not hasattr(bank, "catalog")
    with pytest.raises(InvalidInputError, match="keeps the bank's catalog to itself") as caught:
        bank.catalog  # noqa: B018 - looked at for its error
    assert caught.value.kind == "served"
    assert pickle.loads(pickle.dumps(caught.value)).kind == "served"
    assert not hasattr(bank, "mirror")
    assert not hasattr(bank, "nonsense")


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (lambda bank: bank.register("mine", pa.table({"n": [1]})), "joins no tables of yours"),
        (lambda bank: bank.table("t").parts(), "hands out no parts"),
        (lambda bank: bank.table("t").provenance(), "where parts come from"),
        (lambda bank: bank.table("t").tag("paper-v1"), "writes no tags"),
        (lambda bank: bank.table("t").untag("paper-v1"), "removes no tags"),
    ],
)
def test_what_a_service_cannot_do_is_refused_without_a_question(bank, refused, words):
    with pytest.raises(InvalidInputError, match=words) as caught:
        refused(bank)
    assert caught.value.kind == "served"
