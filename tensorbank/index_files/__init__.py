"""Index files: the Parquet files and Delta logs of tables, copied near the planner and checked."""

from __future__ import annotations

from tensorbank.index_files.checksums import (
    checkpoint_seal,
    checksum_in_name,
    index_file_name,
    is_sealed_commit,
    require_sealed,
    sealed_commit,
)
from tensorbank.index_files.delta_log import (
    LAST_CHECKPOINT,
    LOG,
    check_commit,
    checkpoint_name,
    commit_name,
    commits_in,
    data_path,
    find_damage,
    require_readable,
    seal_name,
)
from tensorbank.index_files.file_statistics import statistics_json, statistics_of_column
from tensorbank.index_files.level_files import IndexFile, LevelFiles, files_of
from tensorbank.index_files.local_copies import disk_error
from tensorbank.index_files.mirror import MAX_BYTES, IndexMirror, LogCopy, default_cache_folder
from tensorbank.index_files.nan_columns import FINITE, of_file, with_nan
from tensorbank.index_files.static_bank import is_static, table_names
from tensorbank.index_files.written_files import (
    ROW_GROUP_ROWS,
    NewFile,
    parquet_bytes,
    parquet_writer,
    put_file,
    upload,
    write_rows,
)

__all__ = [
    "FINITE",
    "IndexFile",
    "IndexMirror",
    "LAST_CHECKPOINT",
    "LOG",
    "LevelFiles",
    "LogCopy",
    "MAX_BYTES",
    "NewFile",
    "ROW_GROUP_ROWS",
    "check_commit",
    "checkpoint_name",
    "checkpoint_seal",
    "checksum_in_name",
    "commit_name",
    "data_path",
    "commits_in",
    "default_cache_folder",
    "disk_error",
    "files_of",
    "find_damage",
    "index_file_name",
    "is_sealed_commit",
    "is_static",
    "of_file",
    "parquet_bytes",
    "parquet_writer",
    "put_file",
    "require_readable",
    "require_sealed",
    "seal_name",
    "sealed_commit",
    "statistics_json",
    "statistics_of_column",
    "table_names",
    "upload",
    "with_nan",
    "write_rows",
]
