"""Budgets of tokens, drawn before a sample is read: modalities that a model does not use of it are never requested."""

from __future__ import annotations

from tensorbank_loader.budgets.token_budget import (
    BudgetDraws,
    DrawnBudget,
    ModalityTokens,
    TokenBudget,
    as_columns,
)

__all__ = ["BudgetDraws", "DrawnBudget", "ModalityTokens", "TokenBudget", "as_columns"]
