"""The object server of the benchmark: dumb, logging, the same for every peer.

S3 path style over one folder, read-only: GET with all forms of one range, HEAD, ListObjectsV2; signatures are not looked at.
Bodies leave by ``sendfile`` from one thread a connection, so a core of it carries more than a client's core takes. The faults
are those of :class:`tensorbank.testing.fault_server.Faults`, on object bodies only; its latency is added to every answer.

``python -m peers.server FOLDER`` prints its port and ends with its standard input. ``POST /-/faults`` sets what goes wrong,
``POST /-/reset`` empties the log, ``GET /-/log`` has it.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tensorbank.testing.fault_server import KINDS, Faults

__all__ = ["BUCKET", "main"]

BUCKET = "bench"
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
MAX_KEYS = 1000


@dataclass
class Log:
    """The record of what was asked since the last reset."""

    methods: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    body_sizes: list[int] = field(default_factory=list)
    began_cpu_s: float = field(default_factory=time.process_time)

    def summary(self) -> dict[str, Any]:
        sizes = self.body_sizes
        return {
            "methods": self.methods,
            "statuses": {str(k): v for k, v in self.statuses.items()},
            "faults": self.faults,
            "n_bodies": len(sizes),
            "body_bytes": sum(sizes),
            "median_body_bytes": median(sizes) if sizes else 0,
            "cpu_s": time.process_time() - self.began_cpu_s,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


class Server:
    """The state that all connections share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.lock = threading.Lock()
        self.log = Log()
        self.set(Faults())

    def set(self, faults: Faults) -> None:
        with self.lock:
            self.faults = faults
            self.draws = random.Random(faults.seed)
            self._only = re.compile(faults.only)
            self._met: set[str] = set()

    def fault(self, key: str) -> str:
        """Return the name of the fault of the next body, or an empty text."""
        f = self.faults
        if not self._only.search(key):
            return ""
        with self.lock:
            drawn = self.draws.random()
            if f.once and key in self._met:
                return ""
            for kind in KINDS:
                drawn -= getattr(f, kind)
                if drawn < 0:
                    self._met.add(key)
                    self.log.faults[kind] = self.log.faults.get(kind, 0) + 1
                    return kind
        return ""

    def note(self, method: str, status: int, n_bytes: int | None) -> None:
        with self.lock:
            self.log.methods[method] = self.log.methods.get(method, 0) + 1
            self.log.statuses[status] = self.log.statuses.get(status, 0) + 1
            if n_bytes is not None:
                self.log.body_sizes.append(n_bytes)


class Connection:
    """One client's connection, answered request by request."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server, self.sock = server, sock
        self.buffer = b""

    def run(self) -> None:
        try:
            with self.sock:
                while (head := self._until(b"\r\n\r\n")) is not None:
                    self._answer(head)
        except (ConnectionError, TimeoutError):
            pass  # the client went away

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self.buffer:
            got = self.sock.recv(65536)
            if not got:
                return None
            self.buffer += got
        head, self.buffer = self.buffer.split(mark, 1)
        return head

    def _answer(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        n_body = int(headers.get("content-length", "0"))
        while len(self.buffer) < n_body:
            got = self.sock.recv(65536)
            if not got:
                raise ConnectionError
            self.buffer += got
        body, self.buffer = self.buffer[:n_body], self.buffer[n_body:]
        url = urlsplit(target)
        path, query = unquote(url.path), parse_qs(url.query, keep_blank_values=True)
        if path.startswith("/-/"):
            self._control(path[3:], body)
            return
        latency_s = self.server.faults.latency_ms / 1000
        if latency_s:
            time.sleep(latency_s)
        key = path.lstrip("/").partition("/")[2]
        if method not in ("GET", "HEAD"):
            self._reply(method, 501, _error("NotImplemented"))
        elif "location" in query:
            self._reply(method, 200, b"<LocationConstraint/>")
        elif not key or "list-type" in query:
            self._reply("LIST", 200, listing(self.server.folder, query))
        else:
            self._object(method, key, headers.get("range", ""))

    def _control(self, what: str, body: bytes) -> None:
        if what == "faults":
            self.server.set(Faults.from_json(body.decode()))
        elif what == "reset":
            self.server.log = Log()
        self._send(200, json.dumps(self.server.log.summary()).encode(), "application/json")

    def _object(self, method: str, key: str, asked: str) -> None:
        path = self.server.folder / key
        try:
            file = path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self._reply(method, 404, _error("NoSuchKey"))
            return
        with file:
            stat = os.fstat(file.fileno())
            span = range_of(asked, stat.st_size)
            if span is None:
                self._reply(method, 416, _error("InvalidRange"))
                return
            start, end = span
            kind = self.server.fault(key) if method == "GET" else ""
            if kind in ("unavailable", "throttled"):
                self._reply(method, 503 if kind == "unavailable" else 429, _error("SlowDown"))
                return
            if kind == "slow":
                time.sleep(self.server.faults.slow_s)
            if kind == "reset":
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise ConnectionResetError
            status = 206 if asked else 200
            tag = f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'
            more = f"ETag: {tag}\r\nLast-Modified: {DATE}\r\nAccept-Ranges: bytes\r\n"
            if asked:
                more += f"Content-Range: bytes {start}-{end - 1}/{stat.st_size}\r\n"
            self._head(status, end - start, "application/octet-stream", more)
            if method == "GET":
                sent = self._body(file.fileno(), start, end, kind)
                self.server.note(method, status, sent)
                if kind == "cut":
                    raise ConnectionError
            else:
                self.server.note(method, status, None)

    def _body(self, source: int, start: int, end: int, kind: str) -> int:
        half = start + (end - start) // 2
        if kind == "flipped" and end > start:
            data = bytearray(os.pread(source, end - start, start))
            with self.server.lock:
                bit = self.server.draws.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            self.sock.sendall(data)
            return end - start
        if kind == "cut":
            self._copy(source, start, half)
            return half - start
        if kind == "stalled":
            self._copy(source, start, half)
            time.sleep(self.server.faults.stall_s)
            self._copy(source, half, end)
            return end - start
        self._copy(source, start, end)
        return end - start

    def _copy(self, source: int, start: int, end: int) -> None:
        while start < end:
            sent = os.sendfile(self.sock.fileno(), source, start, end - start)
            if not sent:
                raise ConnectionError
            start += sent

    def _head(self, status: int, length: int, kind: str, more: str = "") -> None:
        self.sock.sendall(
            f"HTTP/1.1 {status} -\r\nContent-Length: {length}\r\nContent-Type: {kind}\r\n{more}\r\n".encode()
        )

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self._head(status, len(body), kind)
        self.sock.sendall(body)

    def _reply(self, method: str, status: int, body: bytes) -> None:
        self.server.note(method, status, None)
        if method == "HEAD":
            self._head(status, 0, "application/xml")
        else:
            self._send(status, body, "application/xml")


def range_of(asked: str, size: int) -> tuple[int, int] | None:
    """Return the half-open span of a Range header;
    the whole object without one, None if it cannot be satisfied.
    """
    found = RANGE.fullmatch(asked)
    if not found:
        return 0, size
    first, last = found.groups()
    if not first:
        return max(size - int(last), 0), size
    start = int(first)
    return (start, min(int(last) + 1, size) if last else size) if start < size else None


def listing(folder: Path, query: dict[str, list[str]]) -> bytes:
    """Return one page of keys below a prefix; with a delimiter, of the folders below it too."""

    def first(name: str, otherwise: str) -> str:
        return query.get(name, [otherwise])[0]

    prefix, delimiter = first("prefix", ""), first("delimiter", "")
    after = max(first("start-after", ""), first("continuation-token", ""))
    limit = int(first("max-keys", str(MAX_KEYS)))
    base = folder / prefix.rpartition("/")[0]
    paths = base.rglob("*") if base.is_dir() else []
    keys = sorted(p.relative_to(folder).as_posix() for p in paths if p.is_file())
    found: dict[str, str] = {}
    for key in keys:
        if not key.startswith(prefix):
            continue
        rest = key[len(prefix) :]
        name = prefix + rest.split(delimiter)[0] + delimiter if delimiter and delimiter in rest else key
        if name > after and name not in found:
            found[name] = _entry(folder, key) if name == key else f"<Prefix>{escape(name)}</Prefix>"
        if len(found) > limit:
            break
    page = list(found.items())[:limit]
    more = len(found) > limit
    text = "".join(
        e if e.startswith("<Contents") else f"<CommonPrefixes>{e}</CommonPrefixes>" for _, e in page
    )
    token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more and page else ""
    return (
        "<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
        f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        f"<MaxKeys>{limit}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>{token}{text}</ListBucketResult>"
    ).encode()


def _entry(folder: Path, key: str) -> str:
    stat = (folder / key).stat()
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{stat.st_size:x}-{stat.st_mtime_ns:x}&quot;</ETag><Size>{stat.st_size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def main() -> None:
    """Serve the folder that is the first argument until standard input ends."""
    server = Server(Path(sys.argv[1]))
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def accept() -> None:
        while True:
            sock, _ = listening.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=Connection(server, sock).run, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
