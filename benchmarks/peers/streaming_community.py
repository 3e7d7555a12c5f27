"""MosaicML Streaming's living fork, ``streaming-community``: the same classes, maintained by others.

Settings as those of :mod:`peers.mosaic`, whose loader it is; only what is installed differs. Of version 0.14.2 some runs end in
an error about a damaged shard, with and without compression; the harness lists them.
"""

from __future__ import annotations

from peers.mosaic import Loader, prepare

__all__ = ["DISTRIBUTIONS", "Loader", "prepare"]

DISTRIBUTIONS = ("streaming-community", "torch")
