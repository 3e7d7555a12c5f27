"""Damage to a file: a bit, some bytes, a cut, or the content of another file."""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["damaged"]

MAX_RUN_BYTES = 64


def damaged(
    draws: random.Random, sound: bytes, region: tuple[int, int], others: Sequence[bytes]
) -> tuple[str, bytes]:
    """Return what was done, in a word, and the content after it, which differs from the sound one.

    Parameters
    ----------
    region
        Bytes ``[start, end)`` that damage by flips lies in.
    others
        Contents of files of the same kind, of which one may stand in the place of this one.
    """
    start, end = region
    swapped = [other for other in others if other != sound]
    what = draws.choices(("bit", "bits", "run", "cut", "longer", "swapped"), (60, 10, 8, 10, 4, 8))[0]
    body = bytearray(sound)
    if what == "swapped" and swapped:
        return what, draws.choice(swapped)
    if what == "cut":
        return what, sound[: draws.randrange(len(sound))]
    if what == "longer":
        return what, sound + draws.randbytes(draws.randint(1, MAX_RUN_BYTES))
    if what == "run":
        first = draws.randrange(start, end)
        n = min(draws.randint(1, MAX_RUN_BYTES), end - first)
        body[first : first + n] = draws.choice((bytes(n), b"\xff" * n, draws.randbytes(n)))
        if body != sound:
            return what, bytes(body)
    for _ in range(draws.randint(2, 6) if what == "bits" else 1):
        bit = draws.randrange(8 * start, 8 * end)
        body[bit // 8] ^= 1 << bit % 8
    if body == sound:  # the same bit twice
        body[start] ^= 1
    return what if what == "bits" else "bit", bytes(body)
