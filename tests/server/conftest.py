"""Real server processes over banks that the fixtures made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import zarr

import tensorbank as tb
from support.made_once import folder_of_run, made_once
from support.server_process import Served, serving
from tensorbank_indexer import IngestOptions, ingest, open_source

INLINE = IngestOptions(n_workers=1, samples_per_shard=8)
ARCHIVE = ("terramesh", "--samples", "20", "--per-tar", "10", "--subset", "both", "--checksums")


@pytest.fixture(scope="session")
def archive(make_archives: Callable[..., tuple[Path, Path]]) -> tuple[Path, Path]:
    return make_archives(*ARCHIVE)


@pytest.fixture(scope="session")
def bank_folder(archive: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of 20 samples in a folder, which nobody changes."""

    def write(folder: Path) -> None:
        ingest(open_source(str(archive[0])), tb.create(folder), "terramesh", INLINE)

    return made_once(folder_of_run(tmp_path_factory) / "served" / "bank", write)


@pytest.fixture(scope="session")
def bank(bank_folder: Path) -> tb.Bank:
    """The service's bank, opened beside the service: what it should say."""
    return tb.open(bank_folder)


@pytest.fixture(scope="session")
def service(bank_folder: Path) -> Iterator[Served]:
    """The service over it, on loopback, without configuration."""
    with serving(str(bank_folder), "--name", "eo", fresh=True) as served:
        yield served


@pytest.fixture(scope="session")
def table_url() -> str:
    return "/v1/banks/eo/tables/terramesh"


@pytest.fixture(scope="session")
def serving_of() -> Callable[..., AbstractContextManager[Served]]:
    """Return ``serving_of(bank, ...)``: a service of one's own over a bank that is called ``eo``."""
    return lambda bank, *arguments, **options: serving(bank, "--name", "eo", *arguments, **options)


@pytest.fixture(scope="session")
def truth(bank):
    """(row of the index, {modality: pixels as zarr-python reads them}) of every sample."""
    names = bank.table("terramesh").schema.names
    ((_, url),) = bank.table("terramesh").parts().items()
    group = zarr.open_group(url.removeprefix("file://"), mode="r")
    refs = ", ".join(f'"{n}".ref.row AS "{n}_row"' for n in names)
    rows = bank.sql(f"SELECT *, {refs} FROM terramesh ORDER BY sample_id").arrow().to_pylist()
    found = [(r, {n: group[n][r[f"{n}_row"]] for n in names if r[f"{n}_row"] is not None}) for r in rows]
    assert len(found) == 20
    assert all(len(pixels) > 1 for _, pixels in found)
    return found
