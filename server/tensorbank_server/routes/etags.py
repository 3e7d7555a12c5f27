"""ETags of answers, and how long answers may be kept.

What a snapshot and a request determine never changes, so its ETag is a hash of the two, known before any work is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

import tensorbank
from tensorbank_server.digests import digest
from tensorbank_server.http import has_current
from tensorbank_server.served_bank import Pinned

__all__ = ["Freshness"]

YEAR_S = 31_536_000


@dataclass(frozen=True, slots=True)
class Freshness:
    """The identity of an answer, and whether the caller has it already."""

    etag: str
    cache_control: str
    vary: str
    is_known: bool

    @classmethod
    def of(cls, request: Request, pinned: Pinned, representation: str, *, open_access: bool) -> Freshness:
        """Return the freshness of a request that a pinned table answers."""
        query = sorted((k, v) for k, v in request.query_params.multi_items() if k != "snapshot")
        what = (tensorbank.__version__, pinned.bank.name, pinned.table_id, pinned.version)
        etag = f'"{digest(*what, request.url.path, query, representation)}"'
        scope = "public" if open_access else "private"
        keep = f"max-age={YEAR_S}, immutable" if pinned.explicit else "no-cache"
        vary = "Accept" if open_access else "Authorization, Accept"
        asked = request.headers.get("if-none-match", "")
        # `*` asks whether there is anything, which is known when it has been found: the front answers that
        is_known = asked.strip() != "*" and has_current(asked, etag)
        return cls(etag, f"{scope}, {keep}", vary, is_known)

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": self.etag, "Cache-Control": self.cache_control, "Vary": self.vary}

    def not_modified(self) -> Response:
        """Return the answer for a caller that has the current version."""
        return Response(status_code=304, headers=self.headers)
