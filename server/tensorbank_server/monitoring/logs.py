"""Logs as JSON lines in UTC, without secrets, and the audit log beside them."""

# Own code rather than `python-json-logger` or `structlog`: the formatter is fifteen lines. What matters here, cutting secrets
# and signatures out of the whole line, exceptions included, is in neither, and would have to wrap them.

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["AuditLog", "JsonLines", "redacted"]

STANDARD_OUTPUT = Path("-")
_SECRETS = re.compile(
    r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"']+"
    r"|(tb_live_[0-9a-f]+_)[A-Za-z0-9_-]+"
    r"|((?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]+"
    r"|((?:secret(?:_?key)?|password|token|access_?key(?:_id)?)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,}]+",
    re.IGNORECASE,
)
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


def redacted(text: str) -> str:
    """Return the text without keys, tokens and signatures."""
    return _SECRETS.sub(lambda m: next(g for g in m.groups() if g is not None) + "***", text)


class JsonLines(logging.Formatter):
    """A formatter that writes a record as one JSON object: time, level, logger, event, and its ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {k: v for k, v in record.__dict__.items() if k not in _PLAIN and v is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redacted(json.dumps(line, default=str))


class AuditLog:
    """A log of what was granted to whom: JSON lines, only appended, each written at once.

    Without a file it writes nothing.

    Parameters
    ----------
    path
        Path of the file, created with mode 0600; ``-`` for standard output.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._fd: int | None = None
        self._is_torn = False
        """True if a line may have been left unfinished."""

    def open(self) -> None:
        if self._fd is not None or self.path is None:
            return
        if self.path == STANDARD_OUTPUT:
            self._fd = os.dup(1)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, action: str, **what: object) -> None:
        """Write one line; values are those of the log of requests, and never a credential.

        Raises
        ------
        OSError
            The disk is full, or broken.
        """
        if self._fd is None:
            return
        line: Mapping[str, object] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "action": action,
            **{k: v for k, v in what.items() if v is not None},
        }
        text = redacted(json.dumps(line, default=str)).encode() + b"\n"
        if self._is_torn:
            text = b"\n" + text
        self._is_torn = True
        n_written = os.write(self._fd, text)  # at once, so that lines of several processes do not mix
        if n_written < len(text):
            raise OSError(errno.ENOSPC, "the audit log cannot be written")
        self._is_torn = False

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
