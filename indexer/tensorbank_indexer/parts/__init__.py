"""A part being written: which samples it takes, its shards and index rows, its workers and checkpoints."""
