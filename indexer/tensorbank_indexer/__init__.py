"""Indexer: archives in, shards and statistics out.

import tensorbank as tb
from tensorbank_indexer import ingest, open_source

report = ingest(open_source("hf://datasets/..."), tb.create("s3://eo-bank"), "terramesh")
"""

from tensorbank_indexer.ingestion import IngestOptions, ingest
from tensorbank_indexer.report import IngestReport
from tensorbank_indexer.source import Source
from tensorbank_indexer.sources import open_source

__all__ = ["IngestOptions", "IngestReport", "Source", "ingest", "open_source"]
