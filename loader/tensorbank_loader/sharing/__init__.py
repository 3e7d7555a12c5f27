"""Plans shared by ranks: one of them plans, the others have its answer, and each node holds it once."""

from __future__ import annotations

from tensorbank_loader.sharing.shared_plan import shared_plan

__all__ = ["shared_plan"]
