"""Small JSON objects with a checksum: every flipped bit is found."""

from __future__ import annotations

import json

import crc32c
import pytest

from tensorbank import IntegrityError
from tensorbank.retention.sealed_json import opened, sealed

FIELDS = {"format": 1, "name": "paper-v1", "message": 'für "uns"', "versions": [1, 3]}


def test_what_was_sealed_is_json_with_the_checksum_that_is_said():
    data = sealed(FIELDS)
    assert opened(data, "u") == FIELDS
    found = json.loads(data)
    digits = found.pop("crc32c")
    assert found == FIELDS
    assert data.endswith(f'"crc32c": "{digits}"}}'.encode())
    assert f"{crc32c.crc32c(data.replace(digits.encode(), b'00000000')):08x}" == digits


def test_every_flipped_bit_and_every_shorter_object_is_found():
    data = sealed(FIELDS)
    for at in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            with pytest.raises(IntegrityError, match="s3://b/k is damaged"):
                opened(bytes(broken), "s3://b/k")
        with pytest.raises(IntegrityError):
            opened(data[:at], "s3://b/k")
    with pytest.raises(IntegrityError):
        opened(data + b"\n", "s3://b/k")
