"""Real server processes over banks that the fixtures made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import tensorbank as tb
from tensorbank_indexer import IngestOptions, ingest, open_source

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Served, serving

INLINE = IngestOptions(n_workers=1, samples_per_shard=8)
ARCHIVE = ("terramesh", "--samples", "20", "--per-tar", "10", "--subset", "both", "--checksums")


@pytest.fixture(scope="session")
def archive(make_archives: Callable[..., tuple[Path, Path]]) -> tuple[Path, Path]:
    return make_archives(*ARCHIVE)


@pytest.fixture(scope="session")
def bank_folder(archive: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of 20 samples in a folder."""
    folder = tmp_path_factory.mktemp("served") / "bank"
    ingest(open_source(str(archive[0])), tb.create(folder), "terramesh", INLINE)
    return folder


@pytest.fixture(scope="session")
def bank(bank_folder: Path) -> tb.Bank:
    """The service's bank, opened beside the service: what it should say."""
    return tb.open(bank_folder)


@pytest.fixture(scope="session")
def service(bank_folder: Path) -> Iterator[Served]:
    """The service over it, on loopback, without configuration."""
    with serving(str(bank_folder), "--name", "eo") as served:
        yield served


@pytest.fixture(scope="session")
def table_url() -> str:
    return "/v1/banks/eo/tables/terramesh"


@pytest.fixture(scope="session")
def serving_of() -> Callable[..., AbstractContextManager[Served]]:
    """Return ``serving_of(bank, ...)``: a service of one's own over a bank that is called ``eo``."""
    return lambda bank, *arguments, **options: serving(bank, "--name", "eo", *arguments, **options)
