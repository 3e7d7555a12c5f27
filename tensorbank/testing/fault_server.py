"""An object server that misbehaves on demand: the process behind :class:`tensorbank.testing.FaultServer`.

HTTP/1.1 with keep-alive over the objects of one folder, read-only, addressed as S3 path style: ``/<bucket>/<key>``, with ranges,
HEAD and ListObjectsV2. Signatures are not checked. ``GET /-/stats`` counts, ``POST /-/faults`` changes what goes wrong from the
next request on. Draws are seeded, so a run of one client at a time repeats.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import random
import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

__all__ = ["Faults", "main"]

PIECE_BYTES = 256 << 10
"""The bytes written before the limits are checked again."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults to inject. Shares are of requests for objects, in [0, 1]; a request has one fault at most.

    Parameters
    ----------
    latency_ms, jitter_ms
        Milliseconds before the first byte of every answer: the least, and the mean of an exponential excess.
    bandwidth_bytes_s
        Bytes per second of the whole server, 0 for no limit.
    unavailable, throttled
        Shares answered with 503 and with 429; ``retry_after_s`` goes with them unless it is 0.
    reset
        Share whose connection is reset before an answer.
    cut
        Share whose body ends early, under a Content-Length of the whole.
    flipped
        Share with one flipped bit in the body.
    stalled, stall_s
        Share whose body stops half way, and for how long.
    slow, slow_s
        Share whose answer begins late, and how late.
    denied_after
        Requests after which every one is answered with 403, as if credentials had expired; 0 for never.
    expires_after
        Requests that one access key is good for; each further one is answered with 403, ExpiredToken. 0 for no end.
    only
        Regular expression of the keys that this is about; the limits hold for all.
    once
        True if an object that something went wrong with is served well from then on, so that asking again
        helps.
    seed
        Seed of the draws.
    """

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    bandwidth_bytes_s: float = 0.0
    unavailable: float = 0.0
    throttled: float = 0.0
    retry_after_s: float = 0.0
    reset: float = 0.0
    cut: float = 0.0
    flipped: float = 0.0
    stalled: float = 0.0
    stall_s: float = 15.0
    slow: float = 0.0
    slow_s: float = 15.0
    denied_after: int = 0
    expires_after: int = 0
    only: str = ""
    once: bool = False
    seed: int = 0

    @classmethod
    def from_json(cls, text: str) -> Faults:
        """Parse a JSON object; ValueError for a name that is none."""
        given = json.loads(text)
        unknown = set(given) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        return replace(cls(), **given)

    def to_json(self) -> str:
        """Return JSON that :meth:`from_json` reads."""
        return json.dumps(asdict(self))


KINDS = ("unavailable", "throttled", "reset", "cut", "flipped", "stalled", "slow")


class Server:
    """The state that all connections share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self.access_keys: Counter[str] = Counter()
        self._maps: dict[str, memoryview] = {}
        self._met: set[str] = set()
        self._free_at = 0.0
        self.set(Faults())

    def set(self, faults: Faults) -> None:
        """Set the faults from now on, and count from 0."""
        self.faults = faults
        self.draws = random.Random(faults.seed)
        self._only = re.compile(faults.only)
        self.counts.clear()
        self.keys.clear()
        self.access_keys.clear()
        self._met.clear()

    def stats(self) -> dict[str, Any]:
        """Return the counts since the faults were set."""
        return {
            "counts": dict(self.counts),
            "keys": dict(self.keys),
            "access_keys": dict(self.access_keys),
        }

    def body(self, key: str) -> memoryview | None:
        """Return the bytes of an object, None if there is none."""
        if key not in self._maps:
            path = self.folder / key
            if not path.is_file():
                return None
            with path.open("rb") as file:
                empty = path.stat().st_size == 0
                self._maps[key] = memoryview(
                    b"" if empty else mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
                )
        return self._maps[key]

    def fault(self, key: str, access_key: str) -> str:
        """Return the name of the fault that a request meets, or an empty text."""
        self.counts["requests"] += 1
        self.keys[key] += 1
        self.access_keys[access_key] += 1
        if not self._only.search(key):
            return ""
        if self.faults.denied_after and self.counts["requests"] > self.faults.denied_after:
            return "denied"
        if 0 < self.faults.expires_after < self.access_keys[access_key]:
            return "expired"
        drawn = self.draws.random()
        if self.faults.once and key in self._met:
            return ""
        for kind in KINDS:
            drawn -= getattr(self.faults, kind)
            if drawn < 0:
                self._met.add(key)
                return kind
        return ""

    async def wait(self) -> None:
        """Return the latency of one answer."""
        f = self.faults
        excess = self.draws.expovariate(1 / f.jitter_ms) if f.jitter_ms else 0.0
        if f.latency_ms or excess:
            await asyncio.sleep((f.latency_ms + excess) / 1000)

    async def let_through(self, n_bytes: int) -> None:
        """Wait until the wire has carried some bytes: those of all connections follow each other."""
        if not self.faults.bandwidth_bytes_s:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + n_bytes / self.faults.bandwidth_bytes_s
        if self._free_at - now > 0.002:  # shorter sleeps would be longer than asked for
            await asyncio.sleep(self._free_at - now)


async def serve(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection until it ends."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            method, target, _ = lines[0].split(" ", 2)
            headers = {
                n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            await _answer(server, writer, method, target, headers, body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, _BrokenOffError):
        pass
    finally:
        writer.close()


class _BrokenOffError(Exception):
    """The connection was broken on purpose."""


async def _answer(
    server: Server,
    writer: asyncio.StreamWriter,
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    url = urlsplit(target)
    path, query = unquote(url.path), parse_qs(url.query, keep_blank_values=True)
    if path == "/-/faults" and method == "POST":
        server.set(Faults.from_json(body.decode()))
        _reply(writer, 200, b"{}")
        return
    if path == "/-/stats":
        _reply(writer, 200, json.dumps(server.stats()).encode())
        return
    _, _, key = path.lstrip("/").partition("/")
    if "list-type" in query:
        await server.wait()
        _reply(writer, 200, _listing(server.folder, query), kind="application/xml")
        return
    if method not in ("GET", "HEAD"):
        _reply(writer, 501, _error("NotImplemented"), kind="application/xml")
        return
    await _object(server, writer, method, key, headers)


async def _object(
    server: Server, writer: asyncio.StreamWriter, method: str, key: str, headers: dict[str, str]
) -> None:
    asked = headers.get("range", "")
    signed_by = re.search(r"Credential=([^/]*)/", headers.get("authorization", ""))
    kind = server.fault(key, signed_by[1] if signed_by else "")
    if kind:
        server.counts[kind] += 1
    await server.wait()
    f = server.faults
    if kind == "slow":
        await asyncio.sleep(f.slow_s)
    if kind == "reset":
        writer.transport.abort()
        raise _BrokenOffError
    if kind in ("unavailable", "throttled"):
        more = {"Retry-After": f"{f.retry_after_s:g}"} if f.retry_after_s else {}
        _reply(writer, 503 if kind == "unavailable" else 429, _error("SlowDown"), more=more)
        return
    if kind in ("denied", "expired"):
        _reply(writer, 403, _error("ExpiredToken"), kind="application/xml")
        return
    whole = server.body(key)
    if whole is None:
        _reply(writer, 404, _error("NoSuchKey"), kind="application/xml")
        return
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
    start = int(found[1]) if found else 0
    end = min(int(found[2]) + 1, len(whole)) if found and found[2] else len(whole)
    if found and start >= len(whole):
        _reply(writer, 416, _error("InvalidRange"), kind="application/xml")
        return
    more = {"Content-Range": f"bytes {start}-{end - 1}/{len(whole)}"} if found else {}
    more |= {
        "ETag": f'"{len(whole):x}"',
        "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        "Accept-Ranges": "bytes",
    }
    _head(writer, 206 if found else 200, end - start, more)
    if method == "GET":
        await _send(server, writer, whole[start:end], kind)


async def _send(server: Server, writer: asyncio.StreamWriter, data: memoryview, kind: str) -> None:
    if kind == "flipped" and len(data):
        changed = bytearray(data)
        bit = server.draws.randrange(8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
        data = memoryview(changed)
    half = len(data) // 2
    sent = 0
    while sent < len(data):
        piece = data[sent : sent + PIECE_BYTES]
        if kind in ("cut", "stalled") and sent + len(piece) > half:
            piece = data[sent:half]
        await server.let_through(len(piece))
        writer.write(piece)
        server.counts["body_bytes"] += len(piece)
        await writer.drain()
        sent += len(piece)
        if sent == half and kind == "cut":
            raise _BrokenOffError
        if sent == half and kind == "stalled":
            kind = ""
            await asyncio.sleep(server.faults.stall_s)


def _head(writer: asyncio.StreamWriter, status: int, length: int, more: dict[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {length}", *(f"{n}: {v}" for n, v in more.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())


def _reply(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    *,
    kind: str = "application/json",
    more: dict[str, str] | None = None,
) -> None:
    _head(writer, status, len(body), {"Content-Type": kind, **(more or {})})
    writer.write(body)


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def _listing(folder: Path, query: dict[str, list[str]]) -> bytes:
    """List all keys with a prefix in one page; with a delimiter, the folders below it."""
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    base = folder / prefix.rpartition("/")[0]
    keys = (
        sorted(p.relative_to(folder).as_posix() for p in base.rglob("*") if p.is_file())
        if base.is_dir()
        else []
    )
    after = query.get("start-after", [""])[0]
    contents, common = [], set()
    for key in (k for k in keys if k.startswith(prefix) and k > after):
        rest = key[len(prefix) :]
        if delimiter and delimiter in rest:
            common.add(prefix + rest.split(delimiter)[0] + delimiter)
        else:
            size = (folder / key).stat().st_size
            contents.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>&quot;{size:x}&quot;</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            )
    prefixes = "".join(
        f"<CommonPrefixes><Prefix>{escape(p)}</Prefix></CommonPrefixes>" for p in sorted(common)
    )
    text = "<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated>"
    return f"{text}{''.join(contents)}{prefixes}</ListBucketResult>".encode()


async def _main(folder: Path) -> None:
    server = Server(folder)
    listening = await asyncio.start_server(lambda r, w: serve(server, r, w), "127.0.0.1", 0, limit=1 << 20)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent is gone


def main() -> None:
    """Serve the folder that is the first argument; the port is the first line of the output."""
    asyncio.run(_main(Path(sys.argv[1])))
