"""A small S3 in memory, which fails at a request that is chosen by its number: the process that asks is killed there, the answer
is lost, or the store takes nothing more.

Each bucket is a world of its own: objects, a trouble, and a log of all requests. The worlds are plain Python values that the
test reads and copies between runs. Conditions (``If-None-Match: *``, ``If-Match``), ranges, uploads of several parts, copies,
deletions of many and ListObjectsV2 are served; signatures are not checked. The process to kill is the one whose number stands
in the access key (:func:`access_key`), so several may ask at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

__all__ = ["ObjectServer", "Request", "Trouble", "World", "access_key"]

Kind = Literal["none", "kill", "half", "lost", "full", "read-only"]
Answer = tuple[int, bytes, dict[str, str]]
_WRITES = frozenset({"PUT", "POST", "DELETE"})
_BY_PID = re.compile(r"Credential=pid(\d+)[/,]")


def access_key() -> str:
    """Return the access key by which the server knows this process."""
    return f"pid{os.getpid()}"


@dataclass(frozen=True)
class Trouble:
    """A fault, and when it comes.

    ``kill``: request ``at`` is not done, and the process that made it is killed. ``lost``: write ``at`` is done, and its
    answer does not arrive. ``full``, ``read-only``: write ``at`` and all later ones but deletions (all, if read-only) are
    refused by 507 and 403. Requests count from 1, and so do writes.
    """

    kind: Kind = "none"
    at: int = 0


@dataclass(frozen=True)
class Request:
    """One request as it arrived; ``status`` is 0 where none was sent."""

    method: str
    key: str
    status: int
    done: bool
    """True if it has changed something."""


@dataclass
class World:
    """The objects of one bucket, and what has been asked of it."""

    objects: dict[str, bytes] = field(default_factory=dict)
    trouble: Trouble = field(default_factory=Trouble)
    log: list[Request] = field(default_factory=list)
    n_writes: int = 0
    killed: set[int] = field(default_factory=set)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def begin(self, trouble: Trouble) -> None:
        """Begin a run: requests and writes count from 1 again, and the log is empty."""
        self.trouble, self.log, self.n_writes = trouble, [], 0


class ObjectServer:
    """The server, in a thread of this process. A context manager."""

    def __init__(self) -> None:
        self.worlds: dict[str, World] = {}
        self.endpoint = ""
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> ObjectServer:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def world(self, bucket: str, objects: Mapping[str, bytes]) -> World:
        """Make a bucket that holds some objects."""
        self.worlds[bucket] = World(dict(objects))
        return self.worlds[bucket]

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.endpoint = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stop.wait()
        listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                method, target, _ = first.split(" ", 2)
                named = (line.partition(":") for line in lines if line)
                headers = {name.lower(): value.strip() for name, _, value in named}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                answer = self._answer(method, target, headers, body)
                if answer is None:
                    writer.transport.abort()
                    return
                status, data, more = answer
                more = {"Content-Length": str(len(data)), **more}
                lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in more.items())]
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
                if method != "HEAD":
                    writer.write(data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer | None:
        """Do one request; None for no answer."""
        url = urlsplit(target)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        world = self.worlds.get(bucket)
        if world is None:
            return _refused(404, "NoSuchBucket")
        asked_by = _BY_PID.search(headers.get("authorization", ""))
        pid = int(asked_by[1]) if asked_by else 0
        if pid in world.killed:
            return None
        trouble, is_write = world.trouble, method in _WRITES
        number = len(world.log) + 1
        name = key or query.get("prefix", "")
        if trouble.kind == "kill" and number == trouble.at:
            world.log.append(Request(method, name, 0, done=False))
            world.killed.add(pid)
            if pid:
                os.kill(pid, signal.SIGKILL)
            return None
        if is_write:
            world.n_writes += 1
            refuses = trouble.kind == "read-only" or (trouble.kind == "full" and method != "DELETE")
            if refuses and world.n_writes >= trouble.at and "delete" not in query:
                answer = (
                    _refused(403, "AccessDenied")
                    if trouble.kind == "read-only"
                    else _refused(507, "XMinioStorageFull")
                )
                world.log.append(Request(method, name, answer[0], done=False))
                return answer
        before = dict(world.objects) if is_write else {}  # values are shared
        answer = _done(world, method, key, query, headers, body)
        lost = is_write and trouble.kind == "lost" and world.n_writes == trouble.at
        changed = is_write and world.objects != before
        world.log.append(Request(method, name, 0 if lost else answer[0], done=changed))
        return None if lost else answer


def _done(
    world: World, method: str, key: str, query: dict[str, str], headers: dict[str, str], body: bytes
) -> Answer:
    if method == "GET" and "list-type" in query:
        return 200, _listing(world.objects, query), {"Content-Type": "application/xml"}
    if method in ("GET", "HEAD"):
        return _read(world.objects.get(key), headers)
    if method == "PUT":
        if "uploadId" in query:
            if query["uploadId"] not in world.uploads:
                return _refused(404, "NoSuchUpload")
            world.uploads[query["uploadId"]][int(query["partNumber"])] = body
            return 200, b"", {"ETag": _tag(body)}
        source = headers.get("x-amz-copy-source")
        if source is not None:
            found = world.objects.get(unquote(source).lstrip("/").partition("/")[2])
            if found is None:
                return _refused(404, "NoSuchKey")
            body = found
        answer = _write(world, key, headers, body)
        return answer if source is None or answer[0] != 200 else (200, _copied(body), {})
    if method == "POST" and "delete" in query:
        names = re.findall(r"<Key>(.*?)</Key>", body.decode())
        for name in names:
            world.objects.pop(_unescaped(name), None)
        deleted = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
        return 200, f"<DeleteResult>{deleted}</DeleteResult>".encode(), {}
    if method == "POST" and "uploads" in query:
        number = f"upload{len(world.uploads)}"
        world.uploads[number] = {}
        text = f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
        return 200, text.encode(), {}
    if method == "POST" and "uploadId" in query:
        pieces = world.uploads.get(
            query["uploadId"]
        )  # kept: S3 answers a completion that is repeated like the first
        if pieces is None:
            return _refused(404, "NoSuchUpload")
        answer = _write(world, key, headers, b"".join(pieces[n] for n in sorted(pieces)))
        tag = answer[2].get("ETag", "")
        text = f"<CompleteMultipartUploadResult><ETag>{escape(tag)}</ETag></CompleteMultipartUploadResult>"
        return answer if answer[0] != 200 else (200, text.encode(), {})
    if method == "DELETE":
        if "uploadId" in query:
            world.uploads.pop(query["uploadId"], None)
        else:
            world.objects.pop(key, None)
        return 204, b"", {}
    return _refused(501, "NotImplemented")


def _write(world: World, key: str, headers: dict[str, str], body: bytes) -> Answer:
    there = world.objects.get(key)
    if headers.get("if-none-match") == "*" and there is not None:
        return _refused(412, "PreconditionFailed")
    if "if-match" in headers and (there is None or headers["if-match"] != _tag(there)):
        return _refused(412, "PreconditionFailed")
    world.objects[key] = body
    return 200, b"", {"ETag": _tag(body)}


def _read(data: bytes | None, headers: dict[str, str]) -> Answer:
    if data is None:
        return _refused(404, "NoSuchKey")
    more = {"ETag": _tag(data), "Last-Modified": formatdate(0, usegmt=True), "Accept-Ranges": "bytes"}
    if "if-match" in headers and headers["if-match"] != more["ETag"]:
        return _refused(412, "PreconditionFailed")
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("range", ""))
    if found is None:
        return 200, data, more
    if found[1]:
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else len(data), len(data))
    else:
        start, end = max(0, len(data) - int(found[2])), len(data)
    if start >= len(data):
        return _refused(416, "InvalidRange")
    return 206, data[start:end], {**more, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}


def _listing(objects: dict[str, bytes], query: dict[str, str]) -> bytes:
    """List all keys with a prefix in one page; with a delimiter, the folders below it."""
    prefix, delimiter, after = (query.get(name, "") for name in ("prefix", "delimiter", "start-after"))
    contents, common = [], set()
    for key in sorted(k for k in objects if k.startswith(prefix) and k > after):
        rest = key[len(prefix) :]
        if delimiter and delimiter in rest:
            common.add(prefix + rest.split(delimiter)[0] + delimiter)
            continue
        contents.append(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size><ETag>{escape(_tag(objects[key]))}</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        )
    folders = "".join(
        f"<CommonPrefixes><Prefix>{escape(p)}</Prefix></CommonPrefixes>" for p in sorted(common)
    )
    head = "<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated>"
    return f"{head}{''.join(contents)}{folders}</ListBucketResult>".encode()


def _copied(data: bytes) -> bytes:
    when = "2026-01-01T00:00:00.000Z"
    return f"<CopyObjectResult><ETag>{escape(_tag(data))}</ETag><LastModified>{when}</LastModified></CopyObjectResult>".encode()


def _refused(status: int, code: str) -> Answer:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return status, text.encode(), {"Content-Type": "application/xml"}


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _unescaped(text: str) -> str:
    for name, sign in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("apos", "'"), ("amp", "&")):
        text = text.replace(f"&{name};", sign)
    return text
