"""Archives are read alike from a folder, over HTTP and from S3;
and an error says when there is nothing to read."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from support.archives import MadeArchives, checksums, make_archives
from tensorbank.errors import FormatError, IntegrityError, InvalidInputError, NotFoundError, StorageError
from tensorbank_indexer.containers.files import SourceFiles
from tensorbank_indexer.containers.tar import index_tar
from tensorbank_indexer.source import SampleRef, Source
from tensorbank_indexer.sources import FORMATS, open_source


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeArchives:
    return make_archives(tmp_path_factory.mktemp("stores"), "terramesh", "--samples", "4", "--per-tar", "3")


@pytest.fixture(scope="module")
def made_zarrs(tmp_path_factory: pytest.TempPathFactory) -> MadeArchives:
    options = ("--files", "1", "--locations-per-file", "2", "--sample-chunk", "2")
    return make_archives(tmp_path_factory.mktemp("zarrs"), "ssl4eo-zarr", *options, split="val")


@pytest.fixture(scope="module")
def web(
    tmp_path_factory: pytest.TempPathFactory, made: MadeArchives, made_zarrs: MadeArchives
) -> Iterator[str]:
    """A server with ranges and index pages."""
    from aiohttp import web as aioweb

    folder = tmp_path_factory.mktemp("www")
    shutil.copytree(made.root, folder / "terra mesh")
    shutil.copytree(made_zarrs.root, folder / "zarrs")
    (folder / "empty").mkdir()
    loop = asyncio.new_event_loop()

    async def start() -> tuple[aioweb.AppRunner, int]:
        app = aioweb.Application()
        app.router.add_static("/data", folder, show_index=True)
        runner = aioweb.AppRunner(app)
        await runner.setup()
        site = aioweb.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    runner, port = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{port}/data"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def crcs(source: Source) -> dict[str, dict[str, list[int]]]:
    refs = [ref for archive in source.archives()[0] for ref in source.scan(archive).samples]
    out = {
        s.ref.stem: {m: checksums(raw.pixels) for m, raw in s.modalities.items()} for s in source.read(refs)
    }
    assert len(out) == len(refs)
    return out


def test_archives_behind_http(made: MadeArchives, made_zarrs: MadeArchives, web: str):
    for name, local in (("terra mesh", made), ("zarrs", made_zarrs)):
        source = open_source(f"{web}/{name}")
        archives, findings = source.archives()
        assert findings == []
        assert all(file.etag and not file.etag.startswith("mtime") for a in archives for file in a.files)
        assert crcs(source) == crcs(open_source(str(local.root)))


def test_headers_of_a_remote_tar_cost_one_small_read_each(made: MadeArchives, web: str):
    files = SourceFiles(f"{web}/terra mesh")
    reads: list[int] = []
    path = "train/S2L2A/majortom_shard_000001.tar"
    size = files.stat([path])[0].size_bytes

    def read(start: int, end: int) -> bytes:
        reads.append(end - start)
        return files.read(path, start, end)

    assert len(index_tar(read, size, readahead_bytes=4096).members) == 3
    assert len(reads) <= 5
    assert sum(reads) <= 5 * 4096


def test_archives_in_s3(made: MadeArchives):
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        client_options = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        client = boto3.client("s3", **client_options, **keys)
        client.create_bucket(Bucket="archives")
        for path in made.root.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "archives", f"tm/{path.relative_to(made.root)}")
        options = {"key": "key", "secret": "secret", "client_kwargs": client_options}
        source = open_source("s3://archives/tm", **options)
        assert source.format == "terramesh"
        assert all(len(file.etag) >= 32 for archive in source.archives()[0] for file in archive.files)
        assert crcs(source) == crcs(open_source(str(made.root)))
        split = open_source("s3://archives/tm/train", **options)
        assert split.scan(split.archives()[0][0]).samples[0].metadata
        with pytest.raises(NotFoundError):
            open_source("s3://archives/nothing", **options)
        with pytest.raises((NotFoundError, StorageError)):
            open_source("s3://no-such-bucket/tm", **options)
        client.close()
    finally:
        server.stop()


def _first_crcs(source: Source, ref: SampleRef) -> dict[str, list[int]]:
    return {m: checksums(raw.pixels) for m, raw in next(iter(source.read([ref]))).modalities.items()}


@pytest.mark.parametrize("where", ["folder", "http"])
def test_sources_travel_to_other_processes(made: MadeArchives, web: str, where: str):
    source = open_source(str(made.root) if where == "folder" else f"{web}/terra mesh")
    ref = source.scan(source.archives()[0][0]).samples[0]
    expected = _first_crcs(source, ref)
    copied = pickle.loads(pickle.dumps(source))
    assert _first_crcs(copied, ref) == expected
    if where == "folder":
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            assert pool.submit(_crcs_of_inherited, str(made.root)).result(60) == len(expected)


def _crcs_of_inherited(root: str) -> int:
    source = open_source(root)
    return len(_first_crcs(source, source.scan(source.archives()[0][0]).samples[0]))


# ---------------------------------------------------------------- errors


def test_unknown_format_names_the_nearest(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="'terramesh'"):
        open_source(str(tmp_path), format="terramash")
    assert set(FORMATS) == {"terramesh", "ssl4eo-s12-zarr", "ssl4eo-s12-wds", "impactmesh"}


def test_missing_roots_are_not_found(tmp_path: Path, web: str):
    for url in (str(tmp_path / "no"), f"{web}/no", "memory://no-such-folder"):
        with pytest.raises(NotFoundError):
            open_source(url)
        with pytest.raises(NotFoundError):
            open_source(url, format="terramesh").archives()


def test_unknown_storage_and_refused_connections():
    with pytest.raises(InvalidInputError, match="s4"):
        open_source("s4://bucket/archives")
    with pytest.raises(StorageError):
        open_source("http://127.0.0.1:9/archives")


def test_undetectable_layouts_say_what_was_seen(tmp_path: Path):
    with pytest.raises(FormatError, match="no files"):
        open_source(str(tmp_path))
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(FormatError, match=r"a\.txt.*Expected"):
        open_source(str(tmp_path))
    tar = tmp_path / "train" / "S2L2A" / "ssl4eos12_shard_000001.tar"
    tar.parent.mkdir(parents=True)
    tar.write_bytes(bytes(1024))
    with pytest.raises(FormatError, match="no members"):
        open_source(str(tmp_path))


def test_ssl4eos12_tars_alone_are_told_apart(tmp_path: Path):
    """TerraMesh's subset and SSL4EO-S12 as WebDataset name their tars alike."""
    season = make_archives(tmp_path / "a", "terramesh", "--samples", "2", "--subset", "ssl4eos12")
    assert open_source(str(season.root)).format == "terramesh"
    assert open_source(str(season.root), format="ssl4eo-s12-wds").format == "ssl4eo-s12-wds"


def test_a_file_that_shrinks_is_an_integrity_error(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"12345")
    files = SourceFiles(str(tmp_path))
    assert files.read("f", 1, 4) == b"234"
    assert files.read("f", 4, 4) == b""
    with pytest.raises(IntegrityError):
        files.read("f", 3, 9)
    with pytest.raises(NotFoundError):
        files.read("g", 0, 1)


def test_members_of_a_shrunk_tar_are_reported_not_raised(tmp_path: Path, made: MadeArchives):
    root = tmp_path / "root"
    shutil.copytree(made.root, root)
    source = open_source(str(root))
    archive = source.archives()[0][0]
    refs = source.scan(archive).samples
    with (root / "train/DEM/majortom_shard_000001.tar").open("r+b") as tar:
        tar.truncate(refs[1].members["DEM"].offset + 100)
    samples = list(source.read(refs))
    assert [("DEM" in s.modalities) for s in samples] == [True, False, False]
    assert {f.kind for s in samples for f in s.findings} == {"corrupt-member"}
    assert all(len(s.modalities) == (8 if i == 0 else 7) for i, s in enumerate(samples))
