"""Problems of the service's own disk: found out, and told to callers."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from tensorbank_server.http.problems import Problem

__all__ = ["disk_problem", "writing_problem"]

_KINDS = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read-only",
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
    errno.EIO: "broken",
    errno.EFBIG: "full",
    errno.EMFILE: "out-of-files",
    errno.ENFILE: "out-of-files",
}
PROBE_BYTES = 64 << 10
"""The bytes of a probe: a file system that is full may still take an empty file."""


def writing_problem(folder: Path) -> str | None:
    """Return what keeps a folder from being written, None if nothing does."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
    except OSError as error:
        return _KINDS.get(error.errno or 0, "broken")
    return None


def disk_problem(error: OSError) -> Problem | None:
    """Return the problem to report when the service's own disk failed; None for any other error."""
    kind = _KINDS.get(error.errno or 0)
    if kind is None:
        return None
    return Problem(
        507,
        "storage-full" if kind == "full" else "disk",
        f"the service's own disk is {kind}",
        headers={"Retry-After": "30"},
    )
