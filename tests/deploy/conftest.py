"""An archive of 20 samples, and a bank that it was ingested into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tensorbank as tb
from support.made_once import folder_of_run, made_once
from tensorbank_indexer import IngestOptions, ingest, open_source


@pytest.fixture(scope="session")
def archive(make_archives: Callable[..., tuple[Path, Path]]) -> Path:
    return make_archives(
        "terramesh", "--samples", "20", "--per-tar", "10", "--subset", "both", "--checksums"
    )[0]


@pytest.fixture(scope="session")
def bank_folder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank that nobody changes."""

    def write(folder: Path) -> None:
        options = IngestOptions(n_workers=1, samples_per_shard=8)
        ingest(open_source(str(archive)), tb.create(folder), "terramesh", options)

    return made_once(folder_of_run(tmp_path_factory) / "deployed" / "bank", write)
