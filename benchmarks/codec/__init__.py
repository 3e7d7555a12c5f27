"""Parts of ``bench_codec.py``: patches, chains, the clock, and readers of other makes."""
