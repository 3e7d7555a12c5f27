"""The meaning of a statement: its names, what it may ask, and what its predicates become. No table is opened."""
