"""Logs of Delta tables as files: their names, which of them say what a version holds, and what is not read here.

Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md. A version is the last checkpoint before it and all commits
after that. A checkpoint of several files, or with files beside it, counts for nothing here; where the commits that it stands
for are gone, the log is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import unquote

from tensorbank.errors import ErrorKind, FormatError, IntegrityError, NotFoundError, TensorBankError
from tensorbank.index_files.checksums import find_commit_flaw

__all__ = [
    "LAST_CHECKPOINT",
    "LOG",
    "check_commit",
    "checkpoint_in",
    "checkpoint_name",
    "commit_name",
    "commits_in",
    "data_path",
    "find_damage",
    "needed",
    "require_readable",
    "seal_name",
]

LOG = "_delta_log"
"""The name of the folder of a Delta table's log."""
LAST_CHECKPOINT = "_last_checkpoint"
"""A hint, which is replaced with each checkpoint."""
FEATURES = frozenset({"timestampNtz", "vacuumProtocolCheck"})
"""The reader features that change nothing for who reads the Parquet files as they are."""
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
_OTHER_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*\.(?:parquet|json)")


def commit_name(version: int) -> str:
    """Return the name of the file of a commit."""
    return f"{version:020}.json"


def checkpoint_name(version: int) -> str:
    """Return the name of the file of a checkpoint that is one file."""
    return f"{version:020}.checkpoint.parquet"


def seal_name(version: int) -> str:
    """Return the name of the file that holds the checksum of a checkpoint."""
    return f"{version:020}.checkpoint.crc32c"


def commits_in(names: Collection[str]) -> list[int]:
    """Return the versions whose commits are among the files of a log, in no order."""
    return [int(m[1]) for m in map(_COMMIT.fullmatch, names) if m]


def checkpoint_in(names: Collection[str]) -> int:
    """Return the version of the last checkpoint of one file among the files of a log, -1 if there is none."""
    return max((int(m[1]) for m in map(_CHECKPOINT.fullmatch, names) if m), default=-1)


def needed(names: Collection[str], version: int, where: str) -> list[str]:
    """Return the files of a log that say what a version holds.

    Raises
    ------
    FormatError
        That takes a checkpoint of a kind that is not read here.
    IntegrityError
        A commit is missing.
    NotFoundError
        The version is older than what maintenance has left.
    """
    checkpoints = [int(m[1]) for m in map(_CHECKPOINT.fullmatch, names) if m]
    base = max((v for v in checkpoints if v <= version), default=None)
    first = 0 if base is None else base + 1
    there = set(commits_in(names))
    missing = next((v for v in range(first, version + 1) if v not in there), None)
    later = [c for c in checkpoints if c > version]
    if missing is not None and later and missing < min(there, default=0):
        table, _, level = where.rsplit("/", 3)[1:]
        of = f"table {table}" if level == "samples" else f"{table}.{level}"
        raise NotFoundError(
            f"version {version} of {of} was removed by `tensorbank gc`; what is left begins with version {min(later)}",
            kind=ErrorKind.UNKNOWN_SNAPSHOT,
        )
    if missing is not None:
        other = [n for n in sorted(names) if (m := _OTHER_CHECKPOINT.fullmatch(n)) and int(m[1]) <= version]
        if other:
            raise FormatError(
                f"{where}/{LOG}/{other[-1]} is a checkpoint of several files, which is not read here, and the commits before "
                "it are gone; write a checkpoint of one file (the protocol's classic one) with the program that made it",
                kind=ErrorKind.LOG_FORMAT,
            )
        raise IntegrityError(
            f"the log {where}/{LOG} has no {commit_name(missing)}, but later commits: restore that file",
            kind=ErrorKind.DAMAGED_LOG,
        )
    kept = [commit_name(v) for v in range(first, version + 1)]
    if base is None:
        return kept
    beside = [name for name in (seal_name(base), commit_name(base)) if name in names]
    return [checkpoint_name(base), *beside, *kept]


def check_commit(data: bytes, where: str) -> None:
    """Check that a commit is whole, has its checksum if it says one, and hides no rows by a list beside the files.

    Raises
    ------
    IntegrityError, FormatError
        It is damaged, or hides rows.
    """
    if not data.startswith(b"{") or not data.rstrip().endswith(b"}"):
        raise _damaged(where, "it is not JSON from its first byte to its last")
    if flaw := find_commit_flaw(data, where):
        raise _damaged(where, flaw)
    if b'"deletionVector":{' in data:
        raise FormatError(
            f"{where} hides rows by a deletion vector, which is not read here; have the program that wrote it purge them "
            "(REORG TABLE ... APPLY (PURGE))",
            kind=ErrorKind.LOG_FORMAT,
        )


def find_damage(files: Mapping[str, Path]) -> TensorBankError | None:
    """Return the error of the first damaged file of a log, by URL and local copy; None if each is sound by itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for where, path in files.items():
        try:
            if path.suffix == ".json":
                check_commit(path.read_bytes(), where)
                for line in path.read_text("utf-8").splitlines():
                    if line and not isinstance(json.loads(line), dict):
                        return _damaged(where, "a line is no JSON object")
            elif path.suffix == ".parquet":
                pq.ParquetFile(path).read()
        except TensorBankError as error:
            return error
        except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
            return _damaged(where, str(error).splitlines()[0][:160])
    return None


def require_readable(
    reader_version: int, features: Collection[str] | None, configuration: Mapping[str, str | None], where: str
) -> None:
    """Raise FormatError if a table's files cannot be read as they are:
    columns under other names, rows that count no more.
    """
    unknown = sorted(set(features or ()) - FEATURES)
    if (configuration.get("delta.columnMapping.mode") or "none").lower() != "none":
        unknown.append("columnMapping")
    if reader_version > 3 or unknown:
        what = f"the features {', '.join(unknown)}" if unknown else f"reader version {reader_version}"
        raise FormatError(
            f"{where} uses {what} of Delta Lake, which TensorBank does not read; it reads the tables that it writes itself",
            kind=ErrorKind.LOG_FORMAT,
        )


def data_path(path: str, where: str) -> str:
    """Return the path of a file below its table, by the name in the log; FormatError if that leads elsewhere."""
    plain = unquote(path)
    if (
        plain.startswith("/")
        or "://" in plain
        or "\\" in plain
        or any(p in ("", ".", "..") for p in plain.split("/"))
    ):
        raise FormatError(
            f"the log {where}/{LOG} names {path!r}, which is not a file of the table",
            kind=ErrorKind.FOREIGN_FILE,
        )
    return plain


def _damaged(where: str, why: str) -> IntegrityError:
    return IntegrityError(f"the log file {where} is damaged: {why}; restore it", kind=ErrorKind.DAMAGED_LOG)
