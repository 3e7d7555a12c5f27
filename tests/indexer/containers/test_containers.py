"""Tar, zip, zarr and Blosc readers against the libraries that write them."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc

from tensorbank.errors import FormatError, IntegrityError
from tensorbank_indexer.cf.times import NO_TIME, decode_times, id_times, match_slots
from tensorbank_indexer.containers.tar import index_tar
from tensorbank_indexer.containers.zip import ZipArchive
from tensorbank_indexer.zarr_groups.blosc_blocks import decode_range
from tensorbank_indexer.zarr_groups.group import ZarrGroup

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=("Cs", "Cc")),
    min_size=1,
    max_size=60,
)
PATHS = (
    st.lists(NAMES, min_size=1, max_size=6)
    .map("/".join)
    .filter(lambda p: not p.startswith("./") and p.strip("./"))
)
CONTENTS = st.binary(max_size=1500)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def made_tar(members: list[tuple[str, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def index(data: bytes, readahead: int = 512):
    return index_tar(lambda start, end: data[start:end], len(data), readahead_bytes=readahead)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(PATHS, CONTENTS), max_size=5),
    st.sampled_from(["gnu", "pax"]),
    st.sampled_from([512, 4096, 1 << 20]),
)
def test_tar_index_equals_tarfile(members: list[tuple[str, bytes]], tar_format: str, readahead: int):
    data = made_tar(members, FORMATS[tar_format])
    found = index(data, readahead)
    assert found.truncated == ""
    assert found.damaged == found.refused == ()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [tuple(m) for m in found.members] == [
            (m.name, m.offset_data, m.size) for m in tar.getmembers()
        ]
    assert [data[o : o + n] for _, o, n in found.members] == [content for _, content in members]


@settings(max_examples=60, deadline=None)
@given(st.lists(CONTENTS, min_size=1, max_size=4), st.data())
def test_a_cut_tar_gives_the_complete_members_and_says_so(contents: list[bytes], data: st.DataObject):
    whole = made_tar([(f"{i}.zarr.zip", content) for i, content in enumerate(contents)], tarfile.USTAR_FORMAT)
    members = index(whole).members
    cut = data.draw(st.integers(1, members[-1].offset + members[-1].size_bytes))
    found = index(whole[:cut])
    assert found.truncated
    assert found.members == tuple(m for m in members if m.offset + m.size_bytes <= cut)


def test_a_damaged_header_loses_one_member_only():
    data = bytearray(made_tar([(f"{i}", bytes([i]) * 700) for i in range(4)], tarfile.USTAR_FORMAT))
    second = index(bytes(data)).members[1].offset - 512
    data[second + 3] ^= 0xFF
    found = index(bytes(data))
    assert [m.name for m in found.members] == ["0", "2", "3"]
    assert len(found.damaged) == 1


def test_sizes_in_base_256_and_sparse_members():
    info = tarfile.TarInfo("large.bin")
    info.size = 9 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    found = index(header + b"data")
    assert found.members == ()
    assert str(9 << 30) in found.truncated
    info = tarfile.TarInfo("sparse.bin")
    info.type = tarfile.GNUTYPE_SPARSE
    sparse = info.tobuf(tarfile.GNU_FORMAT)
    found = index(sparse + made_tar([("next", b"abc")]))
    assert [m.name for m in found.members] == ["next"]
    assert "sparse.bin" in found.refused[0]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_members_without_data_are_named(kind: bytes):
    info = tarfile.TarInfo("odd")
    info.type, info.linkname = kind, "first"
    found = index(made_tar([("first", b"abc")])[:1024] + info.tobuf() + made_tar([("next", b"abc")]))
    assert [m.name for m in found.members] == ["first", "next"]
    (reason,) = found.refused
    assert reason.startswith("odd is a")


def test_tars_put_together_are_read_to_the_end():
    found = index(made_tar([("first", b"abc")]) + made_tar([("next", b"abc")]))
    assert [m.name for m in found.members] == ["first", "next"]
    assert len(found.damaged) == 1
    found = index(made_tar([("first", b"abc")]) + b"junk" * 1000)
    assert [m.name for m in found.members] == ["first"]
    assert not found.damaged


def test_small_members_are_read_ahead():
    data = made_tar([(f"{i}", bytes(2000)) for i in range(300)])
    reads = []

    def read(start: int, end: int) -> bytes:
        reads.append(end - start)
        return data[start:end]

    assert len(index_tar(read, len(data), readahead_bytes=4096).members) == 300
    assert len(reads) < 6


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(PATHS, CONTENTS, st.booleans()), max_size=6),
    st.binary(max_size=40),
    st.binary(max_size=30),
    st.booleans(),
)
def test_zip_entries_equal_zipfile(
    entries: list[tuple[str, bytes, bool]], comment: bytes, before: bytes, streamed: bool
):
    class Pipe(io.RawIOBase):
        """A stream that is not seekable: zipfile then writes sizes behind the data."""

        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, chunk: bytes) -> int:
            self.data += chunk
            return len(chunk)

    pipe = Pipe()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with zipfile.ZipFile(pipe if streamed else buffer, "w") as archive:
            for name, content, deflated in entries:
                method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
                info = zipfile.ZipInfo(name)
                info.compress_type = method
                with archive.open(info, "w", force_zip64=streamed) as entry:
                    entry.write(content)
            archive.comment = comment
    data = before + (bytes(pipe.data) if streamed else buffer.getvalue())
    last = {zipfile.ZipInfo(name).filename: content for name, content, _ in entries}
    for archive in (ZipArchive.of(data), ZipArchive(lambda start, end: data[start:end], len(data))):
        assert archive.names == last.keys()
        assert {name: bytes(archive.read(name)) for name in archive.names} == last
        assert archive.has_deflated == any(deflated for *_, deflated in entries)


def test_zip_defects_are_told_apart():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"sound")
        archive.writestr("b", b"x" * 100)
    data = bytearray(buffer.getvalue())
    with pytest.raises(FormatError) as cut:
        ZipArchive.of(bytes(data[:-10]))
    assert cut.value.kind == "truncated-archive"
    with pytest.raises(FormatError):
        ZipArchive.of(b"")
    damaged = bytearray(data)
    damaged[damaged.index(b"xxxx") + 5] ^= 1
    archive = ZipArchive.of(bytes(damaged))
    assert bytes(archive.read("a")) == b"sound"
    with pytest.raises(IntegrityError, match="b"):
        archive.read("b")
    encrypted = bytearray(data)
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(FormatError, match="a is encrypted"):
        ZipArchive.of(bytes(encrypted)).read("a")


# ---------------------------------------------------------------- zarr


def zipped(folder: Path) -> ZipArchive:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return ZipArchive.of(buffer.getvalue())


ARRAYS = {
    "whole": (np.arange(24, dtype="i2").reshape(2, 3, 4), (2, 3, 4)),
    "edges": (np.arange(70, dtype="f4").reshape(7, 10), (3, 4)),
    "halves": (np.linspace(0, 1, 30, dtype="f2").reshape(5, 6), (2, 6)),
    "scalar": (np.array(7, dtype="i8"), ()),
    "large": (np.arange(50_000, dtype="u2").reshape(10, 5000) % 977, (10, 5000)),
}


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("codec", ["blosc", "zlib", "none", "delta"])
def test_zarr_v2_arrays_equal_zarr(tmp_path: Path, consolidated: bool, order: str, codec: str):
    compressor = {
        "blosc": Blosc("zstd", 1, Blosc.SHUFFLE),
        "zlib": numcodecs.Zlib(),
        "none": None,
        "delta": Blosc("lz4"),
    }[codec]
    group = zarr.open_group(str(tmp_path), mode="w", zarr_format=2)
    for name, (data, chunks) in ARRAYS.items():
        filters = (
            [numcodecs.Delta(data.dtype)]
            if codec == "delta" and data.ndim and data.dtype.kind == "i"
            else None
        )
        array = group.create_array(
            name,
            shape=data.shape,
            chunks=chunks,
            dtype=data.dtype,
            order=order,
            compressors=compressor,
            filters=filters,
            fill_value=0,
        )
        array[...] = data
    missing = group.create_array(
        "missing", shape=(4, 4), chunks=(2, 2), dtype="f2", fill_value=np.nan, compressors=compressor
    )
    missing[0, 0] = 1
    if consolidated:
        zarr.consolidate_metadata(str(tmp_path), zarr_format=2)
    found = ZarrGroup(zipped(tmp_path))
    assert found.version == 2
    for name, (data, _) in ARRAYS.items():
        read = found.read(name)
        assert read.dtype == data.dtype
        np.testing.assert_array_equal(read, data)
    np.testing.assert_array_equal(found.read("missing"), missing[...])
    assert np.isnan(found.spec("missing").fill_value)


@pytest.mark.parametrize("codec", ["zstd", "blosc", "gzip", "crc32c"])
def test_zarr_v3_arrays_equal_zarr(tmp_path: Path, codec: str):
    codecs = {
        "zstd": [zarr.codecs.ZstdCodec()],
        "blosc": [zarr.codecs.BloscCodec(cname="zstd", typesize=2)],
        "gzip": [zarr.codecs.GzipCodec()],
        "crc32c": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()],
    }[codec]
    group = zarr.open_group(str(tmp_path), mode="w", zarr_format=3)
    for name, (data, chunks) in ARRAYS.items():
        group.create_array(
            name, shape=data.shape, chunks=chunks, dtype=data.dtype, compressors=codecs, fill_value=0
        )[...] = data
    found = ZarrGroup(zipped(tmp_path))
    assert found.version == 3
    for name, (data, _) in ARRAYS.items():
        np.testing.assert_array_equal(found.read(name), data)


def test_big_endian_arrays_come_in_the_machines_order(tmp_path: Path):
    data = np.arange(12, dtype=">i2").reshape(3, 4)
    group = zarr.open_group(str(tmp_path), mode="w", zarr_format=2)
    group.create_array("a", shape=data.shape, chunks=(3, 4), dtype=">i2", compressors=None)[...] = data
    read = ZarrGroup(zipped(tmp_path)).read("a")
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, data)


def test_groups_that_are_none():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme", b"nothing")
    with pytest.raises(FormatError, match="no zarr group"):
        ZarrGroup(ZipArchive.of(buffer.getvalue()))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(".zmetadata", b"{nonsense")
    with pytest.raises(FormatError, match="not JSON"):
        ZarrGroup(ZipArchive.of(buffer.getvalue()))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 60_000),
    st.sampled_from(["zstd", "lz4", "blosclz"]),
    st.sampled_from([0, 1024, 4096, 70_000]),
    st.sampled_from([1, 2, 8]),
    st.integers(0, 9),
    st.data(),
)
def test_a_range_of_a_blosc_buffer(
    n: int, cname: str, blocksize: int, itemsize: int, noise: int, data: st.DataObject
):
    items = (np.arange(n) % 251 + np.random.default_rng(n).integers(0, 1 + 300 * noise, n)).astype(
        f"u{itemsize}"
    )
    stored = Blosc(cname, 1, Blosc.SHUFFLE, blocksize=blocksize).encode(items)
    raw = items.tobytes()
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, len(raw)))
    assert decode_range(stored, start, end).tobytes() == raw[start:end]


def test_the_short_last_block_of_a_blosc_buffer() -> None:
    items = np.arange(32_769, dtype="u2")
    stored = Blosc("zstd", 1, blocksize=32_768).encode(items)
    assert decode_range(stored, 65_536, 65_537).tobytes() == items.tobytes()[65_536:65_537]
    assert decode_range(stored, 65_537, 65_538).tobytes() == items.tobytes()[65_537:]


def test_damaged_blosc_buffers_are_refused():
    stored = bytearray(Blosc("zstd", 1, blocksize=1024).encode(np.arange(5000)))
    for damaged in (stored[:10], stored[: len(stored) // 2], stored[:16] + b"\xff" * 8 + stored[24:]):
        with pytest.raises(IntegrityError):
            decode_range(bytes(damaged), 0, 100)
    with pytest.raises(IntegrityError):
        decode_range(bytes(stored), 0, 10**9)


# ---------------------------------------------------------------- times


def test_cf_units_are_decoded():
    ns = np.array([0, 1_600_000_000_000_000_000, -5], dtype="i8")
    np.testing.assert_array_equal(decode_times(ns, {}), ns)
    seconds = decode_times(np.array([0, 61]), {"units": "seconds since 2020-05-24 18:49:21"})
    assert seconds.astype("M8[ns]").astype(str).tolist() == [
        "2020-05-24T18:49:21.000000000",
        "2020-05-24T18:50:22.000000000",
    ]
    days = decode_times(np.array([1.5, np.nan]), {"units": "days since 2000-01-01"})
    assert days[0] == np.datetime64("2000-01-02T12", "ns").astype("i8")
    assert days[1] == NO_TIME
    assert decode_times(np.array([1]), {"units": "fortnights since 1066-10-14"}).tolist() == [NO_TIME]
    assert decode_times(np.array([np.iinfo("i8").max]), {"units": "days since 1970-01-01"}).tolist() == [
        NO_TIME
    ]


def test_stamps_of_product_ids():
    ids = [
        "S1A_IW_GRDH_1SDV_20210721T084010_20210721T084035_025147_05CE31_3A8B_rtc",
        "20200524T184921_20200524T185510_T10SGF",
        "S2A_MSIL2A_20210723T132241_N0300_R038_T22JGS_20210723T172241",
        "Copernicus_DSM_10_S26_00_W049_00_DEM",
    ]
    found = id_times(ids)
    assert found[:3].astype("M8[s]".replace("[s]", "[ns]")).astype("M8[s]").astype(str).tolist() == [
        "2021-07-21T08:40:10",
        "2020-05-24T18:49:21",
        "2021-07-23T13:22:41",
    ]
    assert found[3] == NO_TIME


@given(st.permutations(range(4)))
def test_slots_are_matched_by_time(order: list[int]):
    times = np.array([1, 2, 3, 4], dtype="i8") * 86_400 * 10**9 * 90
    stamps = times[list(order)]
    found = match_slots(times, stamps)
    assert (stamps[found] == times).all()
    assert match_slots(times, stamps + 86_400 * 10**9 * 10) is None


# ---------------------------------------------------------------- shards and transposes of version 3


def stored_v3(folder: Path, data: np.ndarray, codecs: list[dict], chunks: tuple[int, ...]) -> ZarrGroup:
    """The array as zarr-python writes it with these codecs, read as we do."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=3)
    group.create_array("a", shape=data.shape, chunks=chunks, dtype=data.dtype, fill_value=7)
    path = folder / "a" / "zarr.json"
    document = json.loads(path.read_text()) | {"codecs": codecs}
    path.write_text(json.dumps(document))
    array = zarr.open_array(str(folder / "a"), mode="r+")
    array[...] = data
    return ZarrGroup(zipped(folder))


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}


def sharding(inner: list[int], codecs: list[dict], index: list[dict], location: str) -> dict:
    config = {"chunk_shape": inner, "codecs": codecs, "index_codecs": index, "index_location": location}
    return {"name": "sharding_indexed", "configuration": config}


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("index", [[BYTES], [BYTES, CRC]])
@pytest.mark.parametrize(
    "codecs",
    [
        [BYTES],
        [BYTES, {"name": "zstd", "configuration": {"level": 1, "checksum": False}}, CRC],
        [{"name": "transpose", "configuration": {"order": [2, 0, 1]}}, BYTES],
        [{"name": "bytes", "configuration": {"endian": "big"}}],
    ],
)
def test_shards_equal_zarr(tmp_path: Path, codecs: list[dict], index: list[dict], location: str):
    data = np.random.default_rng(1).integers(0, 500, (9, 8, 10)).astype("i2")
    data[:3, :4, :5] = 7  # chunks of the fill value are not stored
    found = stored_v3(tmp_path, data, [sharding([3, 2, 5], codecs, index, location)], (6, 4, 10))
    np.testing.assert_array_equal(found.read("a"), data)


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]])
@pytest.mark.parametrize("inner", [None, [1, 2, 2]])
def test_transposes_equal_zarr(tmp_path: Path, order: list[int], inner: list[int] | None):
    data = np.arange(8 * 6 * 4, dtype="f4").reshape(8, 6, 4)
    codecs: list[dict] = [{"name": "transpose", "configuration": {"order": order}}]
    chunks = (4, 2, 4)
    if inner is None:
        codecs += [BYTES, {"name": "gzip", "configuration": {"level": 1}}]
    else:
        codecs += [sharding(inner, [BYTES], [BYTES, CRC], "end")]
    found = stored_v3(tmp_path, data, codecs, chunks)
    np.testing.assert_array_equal(found.read("a"), data)


def test_shards_that_lie_are_refused(tmp_path: Path):
    data = np.arange(64, dtype="i2").reshape(8, 8) + 100
    stored_v3(tmp_path, data, [sharding([4, 4], [BYTES], [BYTES], "end")], (8, 8))
    path = tmp_path / "a" / "c" / "0" / "0"
    sound = path.read_bytes()
    for at, value in ((-64, 2**62), (-64, 10_000), (-56, 2**62), (-56, 33), (-56, 0)):
        damaged = bytearray(sound)
        damaged[len(sound) + at : len(sound) + at + 8] = value.to_bytes(8, "little")
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            ZarrGroup(zipped(tmp_path)).read("a")
    for cut in (0, 10, 63):
        path.write_bytes(sound[:cut])
        with pytest.raises(IntegrityError):
            ZarrGroup(zipped(tmp_path)).read("a")


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_shape": [3, 4]},
        {"chunk_shape": [0, 4]},
        {"chunk_shape": "4"},
        {"codecs": [{"name": "numcodecs.pickle"}]},
        {"index_codecs": [BYTES, {"name": "zstd"}]},
        {"index_location": "middle"},
        {"codecs": [{"name": "sharding_indexed", "configuration": {}}]},
    ],
)
def test_shardings_that_are_not_read_are_named(tmp_path: Path, change: dict):
    data = np.ones((8, 8), "i2")
    stored_v3(tmp_path, data, [sharding([4, 4], [BYTES], [BYTES], "end")], (8, 8))
    path = tmp_path / "a" / "zarr.json"
    document = json.loads(path.read_text())
    document["codecs"][0]["configuration"] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError):
        ZarrGroup(zipped(tmp_path)).read("a")
