"""Files and the containers in them: trees of files, tar and zip by byte ranges, limits on what they claim, and their problems."""

from __future__ import annotations

from tensorbank_indexer.containers.files import SourceFiles
from tensorbank_indexer.containers.limits import Allowance, ReadLimits
from tensorbank_indexer.containers.problems import Boundary, Problem, is_identifier, readable
from tensorbank_indexer.containers.tar import TarIndex, index_tar
from tensorbank_indexer.containers.zip import ZipArchive

__all__ = [
    "Allowance",
    "Boundary",
    "Problem",
    "ReadLimits",
    "SourceFiles",
    "TarIndex",
    "ZipArchive",
    "index_tar",
    "is_identifier",
    "readable",
]
