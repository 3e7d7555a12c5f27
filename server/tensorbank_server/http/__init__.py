"""HTTP as its standards define it: ranges, negotiation, problem documents, and tokens of the next page."""

from __future__ import annotations

from tensorbank_server.http.byte_ranges import content_range, parse_range, whole_or_range
from tensorbank_server.http.disks import disk_problem, writing_problem
from tensorbank_server.http.negotiation import chosen, has_current, may_resume
from tensorbank_server.http.page_tokens import PageTokens
from tensorbank_server.http.problems import (
    MEDIA_TYPE,
    Problem,
    add_handlers,
    as_problem,
    ending,
    internal,
    of_status,
    respond,
)

__all__ = [
    "MEDIA_TYPE",
    "PageTokens",
    "Problem",
    "add_handlers",
    "as_problem",
    "chosen",
    "content_range",
    "disk_problem",
    "ending",
    "has_current",
    "internal",
    "may_resume",
    "of_status",
    "parse_range",
    "respond",
    "whole_or_range",
    "writing_problem",
]
