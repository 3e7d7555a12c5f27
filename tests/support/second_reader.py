"""A reader of banks, plans and states that was written from tensorbank/FORMAT.md alone.

It imports nothing of TensorBank, and takes the simplest way everywhere: it is there to show that the page is enough, and that
TensorBank writes what the page says. Numbers in brackets are sections of the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numcodecs.blosc import Blosc

SHARD_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}/tensors/[^/]+/[^/]+/c/\d+/0/0/0/0")
MISSING = 2**64 - 1


class RefusedError(Exception):
    """The content of a bank that a reader must refuse."""


def crc32c(data: bytes) -> int:
    return int.from_bytes(google_crc32c.Checksum(data).digest(), "big")


def number(data: bytes, start: int, n_bytes: int) -> int:
    return int.from_bytes(data[start : start + n_bytes], "little")


def object_path(bank: Path, key: str) -> Path:
    """[1] The object of a shard key."""
    if not SHARD_KEY.fullmatch(key) or {"", ".", ".."} & set(key.split("/")):
        raise RefusedError(f"{key} is no shard key")
    return bank / key


# ---------------------------------------------------------------- [2] tensors


def read_shard_index(data: bytes, n_blocks: int) -> np.ndarray:
    """[2.3] (n_blocks, 2) u64: offset and length of each block."""
    index = data[-(16 * n_blocks + 4) : -4]
    if crc32c(index) != number(data, len(data) - 4, 4):
        raise RefusedError("checksum of the index")
    return np.frombuffer(index, "<u8").reshape(n_blocks, 2)


def decode_block(block: bytes, document: dict[str, Any]) -> np.ndarray:
    """[2.4] One block, checked and decoded: (height, width)."""
    length = number(block, 12, 4)
    if length + 4 != len(block) or crc32c(block[:length]) != number(block, length, 4):
        raise RefusedError("checksum of a block")
    height, width = document["shape"][3:]
    dtype = np.dtype(document["data_type"]).newbyteorder("<")
    if number(block, 4, 4) != height * width * dtype.itemsize:
        raise RefusedError("size of a block")
    return np.frombuffer(Blosc().decode(block[:length]), dtype).reshape(height, width)


def read_array_document(bank: Path, shard: str) -> dict[str, Any]:
    """[2.2] The document of the array that a shard belongs to, which the group of the part repeats."""
    array = bank / shard.split("/c/", maxsplit=1)[0]
    document: dict[str, Any] = json.loads((array / "zarr.json").read_text())
    group = json.loads((array.parent / "zarr.json").read_text())
    assert group["consolidated_metadata"]["metadata"][array.name] == document
    return document


def read_sample(bank: Path, ref: dict[str, Any]) -> np.ndarray:
    """[3.1] The pixels of one sample by its address, (time, band, y, x); the fill value where it lacks a date."""
    document = read_array_document(bank, ref["key"])
    n_times, n_bands = document["shape"][1:3]
    data = object_path(bank, ref["key"]).read_bytes()[ref["offset"] : ref["offset"] + ref["length"]]
    assert len(data) == ref["length"] == sum(ref["block_bytes"])
    fill = np.nan if document["fill_value"] == "NaN" else document["fill_value"]
    pixels = np.full(document["shape"][1:], fill, document["data_type"])
    starts = np.cumsum([0, *ref["block_bytes"]])
    for block, n_bytes in enumerate(ref["block_bytes"]):
        if n_bytes:
            stored = data[starts[block] : starts[block] + n_bytes]
            pixels[divmod(block, n_bands)] = decode_block(stored, document)
    assert len(ref["block_bytes"]) == n_times * n_bands
    return pixels


def index_of_sample(bank: Path, ref: dict[str, Any]) -> list[tuple[int, int]]:
    """[2.3] What the index of its shard says of a sample: (offset, length) of each block; (0, 0) of a missing one."""
    document = read_array_document(bank, ref["key"])
    per_shard, n_times, n_bands = document["chunk_grid"]["configuration"]["chunk_shape"][:3]
    n = n_times * n_bands
    index = read_shard_index(object_path(bank, ref["key"]).read_bytes(), per_shard * n)
    slot = ref["row"] % per_shard
    assert ref["key"].split("/c/")[1] == f"{ref['row'] // per_shard}/0/0/0/0"
    mine = index[slot * n : (slot + 1) * n].tolist()
    return [(0, 0) if (start, length) == (MISSING, MISSING) else (start, length) for start, length in mine]


# ---------------------------------------------------------------- [3] [4] the index and its commits


def check_commit(data: bytes, place: str) -> None:
    """[4] Compare a commit with the checksum and the place in its first line."""
    info = json.loads(data.splitlines()[0]).get("commitInfo", {})
    if said := info.get("tensorbank.crc32c"):
        start = data.index(b'"tensorbank.crc32c":"') + len(b'"tensorbank.crc32c":"')
        if f"{crc32c(data[:start] + b'00000000' + data[start + 8 :]):08x}" != said:
            raise RefusedError("a damaged commit")
        if info["tensorbank.place"] != place:
            raise RefusedError("another commit")


def read_index_file(path: Path) -> pa.Table:
    """[4] Read an index file whose name says its checksum."""
    data = path.read_bytes()
    digest, _, checksum = path.stem.partition("-")
    if hashlib.sha256(data).hexdigest()[:32] != digest or f"{crc32c(data):08x}" != checksum:
        raise RefusedError(f"a damaged index file {path.name}")
    return pq.read_table(pa.BufferReader(data))


def over_zeros(checksum: int, n_bytes: int) -> int:
    """[4] The checksum of some bytes and ``n_bytes`` zeros, from that of the bytes; the value of no bytes is 0."""
    state = checksum ^ 0xFFFFFFFF
    for _ in range(8 * n_bytes):
        state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def pieces_of(path: Path) -> list[bytes]:
    """[4] The pieces of an index file, each compared with its checksum, once the list is proved; none where there is no list."""
    data = path.read_bytes()
    said = pq.read_metadata(pa.BufferReader(data)).metadata.get(b"tensorbank.pieces")
    if said is None:
        return []
    size, checksums = int(said.split()[0]), np.frombuffer(base64.b64decode(said.split()[1]), "<u4").tolist()
    tail = data[len(checksums) * size :]
    if len(tail) < number(data, len(data) - 8, 4) + 8:
        raise RefusedError("pieces end in the footer")
    whole = 0
    for checksum, n_bytes in [*((c, size) for c in checksums), (crc32c(tail), len(tail))]:
        whole = over_zeros(whole, n_bytes) ^ over_zeros(0, n_bytes) ^ checksum
    if f"{whole:08x}" != path.stem.partition("-")[2]:
        raise RefusedError("a list of pieces that is not proved")
    pieces = [data[i * size : (i + 1) * size] for i in range(len(checksums))]
    if [crc32c(piece) for piece in pieces] != checksums:
        raise RefusedError("a damaged piece")
    return pieces


def key_of(*names: str | None) -> int:
    """[3.6] The key of a sample, or of its stem."""
    digest = hashlib.sha256("\0".join(name or "" for name in names).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


class Log:
    """[4] The log of one Delta table up to a version: its columns, files and application ids."""

    def __init__(self, folder: Path, version: int | None = None) -> None:
        self.folder = folder
        self.files: list[str] = []
        self.transactions: dict[str, int] = {}
        self.parts: list[str] = []
        commits = sorted((folder / "_delta_log").glob("[0-9]*.json"))
        first = int(commits[0].stem)
        assert [int(c.stem) for c in commits] == list(range(first, first + len(commits)))
        self.version = first + len(commits) - 1 if version is None else version
        if first:  # older ones were removed, and a checkpoint stands for them
            checkpoints = sorted((folder / "_delta_log").glob("*.checkpoint.parquet"))
            oldest = next(path for path in checkpoints if int(path.name[:20]) >= first - 1)
            first = int(oldest.name[:20])
            assert first <= self.version
            self._begin(oldest)
            first += 1
        for commit in commits:
            if first <= int(commit.stem) <= self.version:
                check_commit(commit.read_bytes(), commit.as_posix().rpartition("/index/")[2])
                for line in commit.read_text().splitlines():
                    self._take(json.loads(line))

    def _begin(self, checkpoint: Path) -> None:
        """[4.1] Begin with a checkpoint, which has its checksum beside it."""
        data = checkpoint.read_bytes()
        seal = checkpoint.with_suffix(".crc32c").read_text()
        assert seal == f"{crc32c(data):08x} {len(data)}\n"
        for row in pq.read_table(pa.BufferReader(data)).to_pylist():
            action = {name: value for name, value in row.items() if value and name != "remove"}
            if metadata := action.get("metaData"):
                metadata["configuration"] = dict(metadata["configuration"])
            self._take(action)

    def _take(self, action: dict[str, Any]) -> None:
        if protocol := action.get("protocol"):
            if protocol["minReaderVersion"] > 3:
                raise RefusedError("reader version")
            unknown = {*(protocol.get("readerFeatures") or ())} - {"timestampNtz", "vacuumProtocolCheck"}
            if unknown:
                raise RefusedError(f"features {unknown}")
        if metadata := action.get("metaData"):
            assert metadata["partitionColumns"] == []
            self.configuration = metadata["configuration"]
            self.columns = {f["name"]: f for f in json.loads(metadata["schemaString"])["fields"]}
        if add := action.get("add"):
            path = unquote(add["path"])
            if path.startswith("/") or "://" in path or ".." in path.split("/"):
                raise RefusedError(f"file {path}")
            if add.get("deletionVector"):
                raise RefusedError("deletion vector")
            self.files.append(path)
        if remove := action.get("remove"):
            self.files.remove(unquote(remove["path"]))
        if txn := action.get("txn"):
            self.transactions[txn["appId"]] = txn["version"]
        if part := action.get("commitInfo", {}).get("tensorbank.part"):
            self.parts.append(part)

    @property
    def modalities(self) -> dict[str, dict[str, Any]]:
        """[3.4] The description of each modality."""
        found = {name: f["metadata"].get("tensorbank.modality") for name, f in self.columns.items()}
        return {name: json.loads(text) for name, text in found.items() if text is not None}

    def table(self) -> pa.Table:
        """The rows of all files; columns that a file does not have are null."""
        if not self.files:
            return pa.table({})
        tables = [read_index_file(self.folder / file) for file in self.files]
        return pa.concat_tables(tables, promote_options="default")

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.table().to_pylist()
        return found


class Snapshot:
    """[4] A version of a table: the rows of samples that count, and those of the tables that it pins."""

    def __init__(self, bank: Path, table: str, version: int | None = None) -> None:
        samples = Log(bank / table / "index" / "samples", version)
        if samples.transactions["tensorbank.format"] != 2:
            raise RefusedError("format")
        prefix = "tensorbank.pin."
        pins = {
            name.removeprefix(prefix): n
            for name, n in samples.transactions.items()
            if name.startswith(prefix)
        }
        self.logs = {name: Log(bank / table / "index" / name, n) for name, n in pins.items() if n >= 0}
        self.logs["samples"] = samples
        self.keys = self.logs["keys"].rows()
        deleted = self.logs["deleted"].rows() if "deleted" in self.logs else []
        gone = {(row["key"], row["part"]) for row in deleted}
        self.samples = [row for row in samples.rows() if (row["key"], row["part"]) not in gone]
        self.tiles = [row for row in self.logs["tiles"].rows() if (row["key"], row["part"]) not in gone]
        self.shards = self.logs["shards"].rows()
        names = filter(None, samples.configuration.get("tensorbank.columns", "").split(","))
        self.columns = {n: {r["key"]: r["value"] for r in self.logs[f"columns/{n}"].rows()} for n in names}

    @property
    def modalities(self) -> dict[str, dict[str, Any]]:
        return self.logs["samples"].modalities


def histogram_edges() -> np.ndarray:
    """[3.4] The lower edges of the bins of every histogram, (2048,) float64."""
    edges = []
    for k in range(-1024, 1024):
        (edge,) = struct.unpack("<e", struct.pack("<H", min(32 * abs(k), 0x7C00)))
        edges.append(float(np.copysign(edge, k)))
    return np.array([-np.inf, *edges[1:]])


def hilbert(lon: float, lat: float) -> int:
    """[3.5] The place of a point on the curve, by recursion over its quadrants."""
    x = min(int((lon + 180) / 360 * 65536), 65535)
    y = min(int((lat + 90) / 180 * 65536), 65535)
    distance, side = 0, 65536
    while side > 1:
        half = side // 2
        right, upper = x >= half, y >= half
        x, y = x % half, y % half
        quadrant = {(False, False): 0, (False, True): 1, (True, True): 2, (True, False): 3}[right, upper]
        distance += quadrant * half * half
        if quadrant == 0:
            x, y = y, x
        elif quadrant == 3:
            x, y = half - 1 - y, half - 1 - x
        side = half
    return distance


# ---------------------------------------------------------------- [6] plans


def read_plan(path: Path) -> tuple[dict[str, Any], pa.Table]:
    """[6] The description and the rows of a saved plan."""
    data = path.read_bytes()
    seal = data[-32:]
    n_bytes = number(seal, 8, 8)
    if seal[:8] != b"TBSEAL01" or seal[20:28] != bytes(8) or crc32c(seal[:28]) != number(seal, 28, 4):
        raise RefusedError("seal")
    padding = -n_bytes % 8
    if len(data) != n_bytes + padding + 32 or any(data[n_bytes : n_bytes + padding]):
        raise RefusedError("length")
    if crc32c(data[:n_bytes]) != number(seal, 16, 4):
        raise RefusedError("checksum")
    table = pa.ipc.open_file(data[:n_bytes]).read_all()
    described = json.loads(table.schema.metadata[b"tensorbank.plan"])
    if described["format_version"] != 3:
        raise RefusedError("format version")
    return described, table


def runs_of(handle: dict[str, Any]) -> list[tuple[int, int]]:
    """[6] The runs of blocks of a handle: first and number of blocks."""
    modality = json.loads(handle["modality"])
    n_bands = len(modality["bands"])
    n_times = 1 if handle["window"] else modality["n_times"]
    wanted = sorted(t * n_bands + b for t in range(n_times) for b in handle["bands"])
    runs: list[tuple[int, int]] = []
    for block in wanted:
        new_date = handle["by_date"] and block % n_bands == 0
        if runs and sum(runs[-1]) == block and not new_date:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block, 1))
    return runs


def read_planned(bank: Path, handle: dict[str, Any], row: dict[str, Any]) -> np.ndarray | None:
    """[6] The pixels of one handle of one row of a plan, (time, band, y, x), bands as asked for."""
    name = handle["name"]
    if row[f"{name}.key"] is None:
        return None
    document = read_array_document(bank, row[f"{name}.key"])
    n_bands = document["shape"][2]
    shape = [1 if handle["window"] else document["shape"][1], len(handle["bands"]), *document["shape"][3:]]
    fill = np.nan if document["fill_value"] == "NaN" else document["fill_value"]
    pixels = np.full(shape, fill, document["data_type"])
    data = object_path(bank, row[f"{name}.key"]).read_bytes()
    for (first, _), start, length in zip(
        runs_of(handle), row[f"{name}.starts"], row[f"{name}.lengths"], strict=True
    ):
        block, end = first, start + length
        while start < end:  # [2.4] a run is walked by the lengths in its blocks
            n_bytes = number(data, start + 12, 4) + 4
            time, band = divmod(block, n_bands)
            pixels[time, handle["bands"].index(band)] = decode_block(data[start : start + n_bytes], document)
            block, start = block + 1, start + n_bytes
    if handle["window"]:
        (y, x), (height, width) = row[f"{name}.corner"], handle["window"]
        pixels = pixels[:, :, y : y + height, x : x + width]
    return pixels


# ---------------------------------------------------------------- [7] states


def check_state(state: dict[str, Any]) -> None:
    """[7] Refuse a state that was changed, or is of another version."""
    rest = {key: value for key, value in state.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode()).hexdigest()[:16] != state["digest"]:
        raise RefusedError("digest")
    if state["version"] not in (3, 4):
        raise RefusedError("version")


def permuted(place: int, n: int, seed: int, epoch: int) -> int:
    """[7] The position that stands at a place of an epoch with shuffle "full"."""
    keys = np.random.SeedSequence([seed, epoch]).generate_state(10, np.uint64).tolist()
    half = max(1, -(-max(n - 1, 1).bit_length() // 2))
    value = place
    while True:
        left, right = value >> half, value % 2**half
        for key in keys:
            x = right ^ key
            x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
            x ^= x >> 31
            left, right = right, left ^ (x % 2**half)
        value = left * 2**half + right
        if value < n:
            return value
