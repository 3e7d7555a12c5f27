"""The service of TensorBank: this room is reserved for it.

It will hold ``create_app``, thin routes and the bounded filter language for remote callers. It is the only
room that may import a web framework; it stands on ``tensorbank`` and knows neither indexer nor loader.
"""

from __future__ import annotations

__all__: list[str] = []
