"""The service of TensorBank: look at banks, query them, fetch samples, and start training jobs, by HTTP.

It hands out plans and addresses; the ranks of a job read the object store themselves. It is the only room that may import a
web framework; it stands on ``tensorbank`` and knows neither indexer nor loader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorbank_server.app import create_app
    from tensorbank_server.settings import Settings

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> object:
    """Import a public name on first use: worker processes need no web framework."""
    if name == "create_app":
        from tensorbank_server.app import create_app

        return create_app
    if name == "Settings":
        from tensorbank_server.settings import Settings

        return Settings
    raise AttributeError(f"module 'tensorbank_server' has no attribute {name!r}")
