"""The tables of a bank: their snapshots, the commits that make them, and the index files that each holds."""
