"""Codecs and sizes that archives may ask for: what is refused, and that decoders stop where the metadata do."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numcodecs
import numpy as np
import pyarrow as pa
import pytest
from numcodecs import Blosc

from support.hostile.members import array_entries, zipped
from tensorbank.errors import FormatError, IntegrityError, InvalidInputError
from tensorbank_indexer.containers.limits import Allowance, ReadLimits
from tensorbank_indexer.containers.tar import index_tar
from tensorbank_indexer.containers.zip import ZipArchive
from tensorbank_indexer.zarr_groups.decoders import DECODERS, decode_texts, decode_within, open_decoder
from tensorbank_indexer.zarr_groups.group import ZarrGroup

DATA = (np.arange(5000, dtype="<i2") * 7) % 971
CONFIGS = {
    "blosc": {"id": "blosc", "cname": "lz4"},
    "bz2": {"id": "bz2"},
    "gzip": {"id": "gzip"},
    "lz4": {"id": "lz4"},
    "lzma": {"id": "lzma"},
    "zlib": {"id": "zlib"},
    "zstd": {"id": "zstd"},
    "astype": {"id": "astype", "encode_dtype": "<i4", "decode_dtype": "<i2"},
    "delta": {"id": "delta", "dtype": "<i2", "astype": "<i4"},
    "fixedscaleoffset": {"id": "fixedscaleoffset", "offset": 5, "scale": 1, "dtype": "<i2", "astype": "<i2"},
    "quantize": {"id": "quantize", "digits": 3, "dtype": "<f4"},
    "bitround": {"id": "bitround", "keepbits": 23},
    "packbits": {"id": "packbits"},
    "shuffle": {"id": "shuffle", "elementsize": 2},
    "adler32": {"id": "adler32"},
    "crc32": {"id": "crc32"},
    "crc32c": {"id": "crc32c"},
    "fletcher32": {"id": "fletcher32"},
}


def test_every_listed_codec_has_a_case() -> None:
    assert CONFIGS.keys() == DECODERS.keys()


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_what_a_codec_wrote_is_decoded_within_its_size_and_refused_below(name: str) -> None:
    data = DATA
    if name in ("quantize", "bitround"):
        data = DATA.astype("<f4")
    elif name == "packbits":
        data = DATA > 400
    stored = bytes(numcodecs.get_codec(dict(CONFIGS[name])).encode(data))
    decoder = open_decoder(CONFIGS[name])
    assert len(stored) <= decoder.max_stored(data.nbytes)
    assert bytes(memoryview(decode_within((decoder,), stored, data.nbytes)).cast("B")) == data.tobytes()
    with pytest.raises(IntegrityError):
        decode_within((decoder,), stored, data.nbytes - 8)


@pytest.mark.parametrize("name", ["bz2", "gzip", "lzma", "zlib", "zstd", "lz4", "blosc"])
def test_a_stream_that_is_cut_off_is_damage(name: str) -> None:
    stored = bytes(numcodecs.get_codec(dict(CONFIGS[name])).encode(DATA))
    for cut in (0, 3, len(stored) // 2, len(stored) - 1):
        try:
            decoded = decode_within((open_decoder(CONFIGS[name]),), stored[:cut], DATA.nbytes)
        except IntegrityError:
            continue
        assert memoryview(decoded).nbytes < DATA.nbytes, (name, cut)


def test_concatenated_streams_are_one() -> None:
    halves = DATA.tobytes()[:4000], DATA.tobytes()[4000:]
    for name, compress in (("gzip", gzip.compress), ("zstd", pa.Codec("zstd").compress)):
        stored = b"".join(bytes(compress(half)) for half in halves)
        decoded = decode_within((open_decoder({"id": name}),), stored, DATA.nbytes)
        assert bytes(memoryview(decoded)) == DATA.tobytes(), name


@pytest.mark.parametrize(
    "name",
    [
        "pickle",
        "json2",
        "msgpack2",
        "categorize",
        "vlen-bytes",
        "vlen-array",
        "base64",
        "nonsense",
        "",
        None,
        5,
        [],
    ],
)
def test_codecs_that_are_not_listed_are_refused(name: object) -> None:
    with pytest.raises(FormatError) as refused:
        open_decoder({"id": name})
    assert refused.value.kind == "codec"


class Payload:
    """A payload that leaves a file behind when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path(self.path).touch, ())


@pytest.mark.parametrize("place", ["compressor", "filters", "v3"])
def test_nothing_of_an_archive_is_run(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
    mark = tmp_path / "run"
    payload = pickle.dumps(Payload(str(mark)))
    config = {"id": "pickle", "protocol": 4}
    if place == "v3":
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [1],
            "data_type": "string",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
            "chunk_key_encoding": {"name": "default"},
            "codecs": [{"name": "numcodecs.pickle", "configuration": {}}],
            "fill_value": "",
        }
        entries = {
            "zarr.json": b'{"node_type": "group"}',
            "a/zarr.json": json.dumps(document).encode(),
            "a/c/0": payload,
        }
    else:
        entries = array_entries("a", np.zeros(1), ("x",), dtype="|O")
        document = json.loads(entries["a/.zarray"])
        document[place] = config if place == "compressor" else [config]
        entries["a/.zarray"] = json.dumps(document).encode()
        entries["a/0"] = payload
    group = ZarrGroup(ZipArchive.of(zipped(entries, consolidated=place != "v3")))
    with pytest.raises(FormatError) as refused:
        group.read("a")
    assert refused.value.kind == "codec"
    assert not mark.exists()


def test_texts_of_any_length_are_read_and_lying_ones_refused() -> None:
    texts = np.array(["a", "", "üß" * 300], object)
    stored = bytes(numcodecs.VLenUTF8().encode(texts))
    assert decode_texts(stored, 3) == texts.tolist()
    for bad in (b"", stored[:7], struct.pack("<I", 2**31), stored[:4] + b"\xff\xff\xff\x7f" + stored[8:]):
        with pytest.raises(IntegrityError):
            decode_texts(bad, 3)
    assert decode_texts(struct.pack("<II", 1, 3) + b"\xed\xa0\x80", 1)[0].encode("utf-8")


BOMBS = """
import resource, sys
from pathlib import Path
from tensorbank.errors import FormatError, IntegrityError
from tensorbank_indexer.containers.zip import ZipArchive
from tensorbank_indexer.zarr_groups.group import ZarrGroup
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path({bombs!r}).iterdir()):
    try:
        ZarrGroup(ZipArchive.of(path.read_bytes())).read("a")
        print("read", path.name)
    except (FormatError, IntegrityError):
        pass
print("grown_kb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_do_not_go_off(tmp_path: Path) -> None:
    """Each of these would take 160 MiB; all of them together must take less than a third of that."""
    n_bytes = 160 << 20
    piece = bytes(16 << 20)
    bombs = tmp_path / "bombs"
    bombs.mkdir()

    def save(
        name: str, stored: bytes, config: object, filters: object = None, method: int = zipfile.ZIP_STORED
    ) -> None:
        entries = array_entries("a", np.zeros(1000, "<i2"), ("x",), filters=())
        document = json.loads(entries["a/.zarray"]) | {"compressor": config, "filters": filters}
        entries["a/.zarray"] = json.dumps(document).encode()
        entries["a/0"] = stored
        (bombs / name).write_bytes(zipped(entries, method=method))

    def streamed(compressor: object) -> bytes:
        parts = [compressor.compress(piece) for _ in range(n_bytes // len(piece))]
        return b"".join([*parts, compressor.flush()])

    sink = io.BytesIO()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for _ in range(n_bytes // len(piece)):
            stream.write(piece)
        stream.flush()
        zstd = sink.getvalue()
    deflated = streamed(zlib.compressobj(1))
    save("zlib", deflated, {"id": "zlib"})
    save("gzip", streamed(zlib.compressobj(1, wbits=31)), {"id": "gzip"})
    save("bz2", streamed(bz2.BZ2Compressor(1)), {"id": "bz2"})
    save("lzma", streamed(lzma.LZMACompressor(preset=0)), {"id": "lzma"})
    save("zstd", zstd, {"id": "zstd"})
    save("twice", zlib.compress(deflated), {"id": "zlib"}, [{"id": "zlib"}])
    save("thrice", deflated, {"id": "zlib"}, [{"id": "astype", "encode_dtype": "|u1", "decode_dtype": "<f8"}])
    head = bytes(Blosc("lz4").encode(np.zeros(1000, "<i2")))
    save("blosc", head[:4] + struct.pack("<I", n_bytes) + head[8:], {"id": "blosc"})
    save(
        "blosc-filter", head[:4] + struct.pack("<I", n_bytes) + head[8:], {"id": "blosc"}, [{"id": "shuffle"}]
    )
    save("lz4", struct.pack("<I", n_bytes) + b"\x1f\x00\x01\x00" + b"\xff" * 1000, {"id": "lz4"})
    save("entry", piece * 4, None, method=zipfile.ZIP_DEFLATED)
    script = BOMBS.format(bombs=str(bombs))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *read, grown = done.stdout.split("\n")[:-1]
    assert read == []
    assert int(grown.split()[1]) < 50 << 10


def test_arrays_that_promise_too_much_are_refused_before_memory_is_taken() -> None:
    limits = ReadLimits(max_sample_bytes=1 << 20, max_metadata_bytes=1 << 16)

    def group(**metadata: object) -> ZarrGroup:
        entries = array_entries("a", np.zeros((4, 4), "<i2"), ("y", "x"), **metadata)
        return ZarrGroup(ZipArchive.of(zipped(entries)), Allowance(limits))

    for metadata in (
        {"shape": [1 << 30, 1 << 10]},
        {"chunks": [1 << 20, 4], "shape": [4, 4]},
        {"shape": [400, 400], "chunks": [1, 1]},
        {"dtype": "<U99999", "shape": [4, 4], "chunks": [4, 4]},
    ):
        found = group()
        document = found.archive.read(".zmetadata")
        content = json.loads(bytes(document))
        content["metadata"]["a/.zarray"] |= metadata
        entries = {".zmetadata": json.dumps(content).encode(), "a/0.0": bytes(32)}
        with pytest.raises(FormatError) as refused:
            ZarrGroup(ZipArchive.of(zipped(entries)), Allowance(limits)).read("a")
        assert refused.value.kind == "over-limit", metadata
    allowance = Allowance(limits)
    entries = array_entries("a", np.zeros((400, 800), "<i2"), ("y", "x"), compressor=Blosc())
    shared = ZarrGroup(ZipArchive.of(zipped(entries)), allowance)
    assert shared.read("a").shape == (400, 800)
    with pytest.raises(FormatError, match="left"):
        shared.read("a")


def test_metadata_are_bounded_in_size_and_depth() -> None:
    for document in (
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[]",
        b"5",
        b'"text"',
        b"\xff\xfe",
        b"{" + b" " * (17 << 20) + b"}",
    ):
        with pytest.raises(FormatError):
            ZarrGroup(ZipArchive.of(zipped({".zmetadata": document}, method=zipfile.ZIP_DEFLATED)))


def test_limits_are_numbers_above_zero() -> None:
    for bad in (0, -1, True, "1", None, float("nan")):
        with pytest.raises(InvalidInputError):
            ReadLimits(max_sample_bytes=bad)


def test_a_sample_that_takes_too_long_is_given_up() -> None:
    entries = array_entries("a", np.zeros((4, 4), "<i2"), ("y", "x"))
    group = ZarrGroup(ZipArchive.of(zipped(entries)), Allowance(ReadLimits(max_sample_s=1e-9)))
    with pytest.raises(FormatError) as refused:
        group.read("a")
    assert refused.value.kind == "over-limit"


# ---------------------------------------------------------------- containers


def pax_record(content: bytes) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def member_of(name: str, data: bytes = b"data") -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data.ljust(-(-len(data) // 512) * 512, b"\0")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "records",
    [
        b"5 a=b\nline",
        b"5 a=b",
        b"0 a=b\n",
        b"3 =\n",
        b" a=b\n",
        b"99 a=b\n",
        b"7 a=bc",
        b"-6 a=b\n",
        b"\n",
        b"10 path=x\n6 a=b\nrest = of = it",
        b"18446744073709551616 a=b\n",
        b"10 size=-5\n",
        b"11 size=1e9\n",
        b"26 size=99999999999999999\n",
    ],
)
def test_malformed_extended_headers_end_and_lose_one_member(records: bytes) -> None:
    data = member_of("0") + pax_record(records) + member_of("1") + member_of("2") + bytes(1024)
    found = index_tar(lambda start, end: data[start:end], len(data))
    names = [m.name for m in found.members]
    assert names[0] == "0"
    assert names[-1] == "2"
    assert found.damaged or found.truncated or records == b"3 =\n"


def test_global_records_do_not_pile_up() -> None:
    info = tarfile.TarInfo("pax")
    content = b"".join(b"%d k%05d=v\n" % (12, i) for i in range(80_000))
    info.type, info.size = tarfile.XGLTYPE, len(content)
    extension = info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")
    data = extension * 4 + b"".join(member_of(str(i)) for i in range(2000)) + bytes(1024)
    assert len(index_tar(lambda start, end: data[start:end], len(data)).members) == 2000


def test_a_size_beyond_the_file_does_not_hide_what_follows() -> None:
    info = tarfile.TarInfo("liar")
    for size in (1 << 20, 9 << 30):
        info.size = size
        data = member_of("0") + info.tobuf(tarfile.GNU_FORMAT) + member_of("1") + bytes(1024)
        found = index_tar(lambda start, end, data=data: data[start:end], len(data))
        assert [m.name for m in found.members] == ["0", "1"]
        assert "liar" in found.damaged[0]
        assert not found.truncated


def test_names_that_are_not_utf8_stay_apart() -> None:
    block = bytearray(tarfile.TarInfo("xx").tobuf(tarfile.USTAR_FORMAT))
    data = b""
    for name in (b"\xe9\xe8", b"\xe9\xe9"):
        block[:2] = name
        block[148:156] = b"        "
        block[148:156] = b"%06o\0 " % sum(block)
        data += bytes(block)
    names = [m.name for m in index_tar(lambda start, end: data[start:end], len(data)).members]
    assert len(set(names)) == 2
    assert "".join(names).encode("utf-8")


def a_zip(*names: str) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, name * 50)
    return bytearray(buffer.getvalue())


def test_a_zip_directory_that_lies_is_refused() -> None:
    sound = a_zip("a", "b", "c")
    end = sound.rindex(b"PK\x05\x06")
    for count in (0, 1, 2, 4, 60_000):
        lying = bytearray(sound)
        lying[end + 10 : end + 12] = struct.pack("<H", count)
        with pytest.raises(FormatError):
            ZipArchive.of(bytes(lying))
    for length in (0, 10, 0x7FFFFFFF):
        lying = bytearray(sound)
        lying[end + 12 : end + 16] = struct.pack("<I", length)
        with pytest.raises(FormatError):
            ZipArchive.of(bytes(lying)).read("a")


def test_zip_entries_stay_within_the_archive_and_are_those_of_the_directory() -> None:
    sound = a_zip("a", "b")
    at = sound.index(b"PK\x01\x02")
    second = sound.index(b"PK\x01\x02", at + 4)
    for offset in (0x7FFFFFFF, 0xFFFFFF00, 5, struct.unpack_from("<I", sound, second + 42)[0]):
        lying = bytearray(sound)
        lying[at + 42 : at + 46] = struct.pack("<I", offset)
        with pytest.raises((FormatError, IntegrityError)):
            ZipArchive.of(bytes(lying)).read("a")
    lying = bytearray(b"junk") + sound
    end = lying.rindex(b"PK\x05\x06")
    lying[end + 16 : end + 20] = struct.pack("<I", 10_000_000)
    with pytest.raises((FormatError, IntegrityError)):
        ZipArchive.of(bytes(lying)).read("a")


def test_a_zip_entry_above_its_limit_is_refused() -> None:
    archive = ZipArchive.of(bytes(a_zip("a")))
    assert len(archive.read("a", max_bytes=50)) == 50
    with pytest.raises(FormatError) as refused:
        archive.read("a", max_bytes=49)
    assert refused.value.kind == "over-limit"
