"""Archive formats that can be ingested, one adapter a format, all of them a ``Source``."""

from tensorbank_indexer.sources.detect import FORMATS, detect_format, open_source

__all__ = ["FORMATS", "detect_format", "open_source"]
