"""The indexer: archives in, shards and statistics out.

    import tensorbank as tb
    from tensorbank_indexer import ingest, open_source

    report = ingest(open_source("hf://datasets/..."), tb.create("s3://eo-bank"), "terramesh")

``Source`` is the port for archive formats; the values that a source takes and yields are here, too.
"""

from tensorbank_indexer.containers import ReadLimits, SourceFiles
from tensorbank_indexer.ingestion import ingest
from tensorbank_indexer.options import IngestOptions
from tensorbank_indexer.report import IngestReport
from tensorbank_indexer.source import (
    Archive,
    Finding,
    MemberAddress,
    RawModality,
    RawSample,
    SampleRef,
    Scan,
    Source,
    SourceFile,
)
from tensorbank_indexer.sources import open_source

__all__ = [
    "Archive",
    "Finding",
    "IngestOptions",
    "IngestReport",
    "MemberAddress",
    "RawModality",
    "RawSample",
    "ReadLimits",
    "SampleRef",
    "Scan",
    "Source",
    "SourceFile",
    "SourceFiles",
    "ingest",
    "open_source",
]
