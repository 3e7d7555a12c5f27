"""Made-up archives of an invented landscape: seeded, laid out like the published ones, with a checksum of every tensor."""

from __future__ import annotations

from tensorbank_demo.landscape.archive import DemoTruth, write_archives

__all__ = [
    "DemoTruth",
    "write_archives",
]
