"""Statements over a small bank whose index really is pruned, answered by plain DuckDB over the whole index as well.

``bed`` makes the bank by hand, with pixels, statistics and roll-ups by numpy, and a DuckDB that has read all of its index files.
``grammar`` makes statements from a number. ``check`` compares the answers. Nothing of the planner has a part in the truth.
"""
