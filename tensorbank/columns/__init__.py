"""Columns that are added to a table after its ingest: scores, labels, embeddings, captions; added, updated, dropped."""

from __future__ import annotations

from tensorbank.columns.changes import ColumnsReport, drop_columns, put_columns

__all__ = ["ColumnsReport", "drop_columns", "put_columns"]
