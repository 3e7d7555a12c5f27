"""Late reads: which of those under way are late, by what recent ones took, and how many may be asked for a second time. Pure."""

from __future__ import annotations

from tensorbank.fetch.lateness.allowance import MAX_CREDIT
from tensorbank.fetch.lateness.judge import MIN_LATE_S, Lateness, Verdict, by_rate_s
from tensorbank.fetch.lateness.latencies import FEW, KEPT, TAIL, Latencies

__all__ = ["FEW", "KEPT", "MAX_CREDIT", "MIN_LATE_S", "TAIL", "Lateness", "Latencies", "Verdict", "by_rate_s"]
