"""The meaning of a statement as a syntax tree: its names, what it may ask, and what its predicates become. No tables are opened."""
