"""Index files: the Parquet files and Delta logs of tables, copied near the planner and checked."""

from __future__ import annotations

from tensorbank.index_files.delta_log import LOG, check_commit, find_damage, require_readable
from tensorbank.index_files.level_files import LevelFiles, files_of
from tensorbank.index_files.mirror import IndexMirror, LogCopy, default_cache_folder
from tensorbank.index_files.nan_columns import FINITE, of_file, with_nan
from tensorbank.index_files.static_bank import is_static, table_names

__all__ = [
    "FINITE",
    "IndexMirror",
    "LOG",
    "LevelFiles",
    "LogCopy",
    "check_commit",
    "default_cache_folder",
    "files_of",
    "find_damage",
    "is_static",
    "of_file",
    "require_readable",
    "table_names",
    "with_nan",
]
