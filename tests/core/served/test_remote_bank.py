"""A bank behind a service has an identity that needs no question to the service."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from tensorbank import InvalidInputError
from tensorbank.served.remote_bank import RemoteBank


@pytest.mark.parametrize("name", ["catalog", "mirror"])
def test_what_the_service_keeps_is_no_attribute_and_says_why(name):
    bank = RemoteBank(SimpleNamespace(url="https://host/v1/banks/eo"))
    assert not hasattr(bank, name)
    with pytest.raises(InvalidInputError, match=f"keeps the bank's {name} to itself") as caught:
        getattr(bank, name)
    assert caught.value.kind == "served"
    assert pickle.loads(pickle.dumps(caught.value)).kind == "served"
    assert not hasattr(bank, "nonsense")
