"""DuckDB's side of SQL: its syntax trees, instances, functions and errors."""
