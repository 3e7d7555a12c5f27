"""The indexer: archives in, shards and statistics out.

    import tensorbank as tb
    from tensorbank_indexer import ingest, open_source

    report = ingest(open_source("hf://datasets/..."), tb.create("s3://eo-bank"), "terramesh")

``Source`` is the port for archive formats; the values that a source takes and yields are here, too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names are imported when they are used: every command of the CLI loads this package
    from tensorbank_indexer.array_jobs import CommitReport, commit_parts
    from tensorbank_indexer.containers import ReadLimits, SourceFiles
    from tensorbank_indexer.ingestion import ingest
    from tensorbank_indexer.modality_changes import ModalityReport, add_modality, replace_modality
    from tensorbank_indexer.options import ArrayTask, IngestOptions
    from tensorbank_indexer.reports import IngestReport
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
    "ArrayTask",
    "CommitReport",
    "Finding",
    "IngestOptions",
    "IngestReport",
    "MemberAddress",
    "ModalityReport",
    "RawModality",
    "RawSample",
    "ReadLimits",
    "SampleRef",
    "Scan",
    "Source",
    "SourceFile",
    "SourceFiles",
    "add_modality",
    "commit_parts",
    "ingest",
    "open_source",
    "replace_modality",
]

_DOORS = (
    "options",
    "reports",
    "source",
    "containers",
    "sources",
    "ingestion",
    "modality_changes",
    "array_jobs",
)
"""The modules that hold the public names, those that import the least first."""


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in __all__:
        for door in _DOORS:
            module = importlib.import_module(f"tensorbank_indexer.{door}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'tensorbank_indexer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
