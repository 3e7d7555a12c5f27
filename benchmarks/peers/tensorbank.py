"""TensorBank: ingested by its own writer, asked by SQL, streamed by ``Query.dataloader()`` with its defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tensorbank as tb
import tensorbank.planning.planner  # the peers import what they need before their clock starts, too
import tensorbank_loader  # noqa: F401
from peers.contract import Batch, Export, Request
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank_indexer import IngestOptions, ingest
from tensorbank_indexer.source import (
    Archive,
    Finding,
    MemberAddress,
    RawModality,
    RawSample,
    SampleRef,
    Scan,
    SourceFile,
)

DISTRIBUTIONS = ("tensorbank", "obstore", "duckdb", "deltalake")
TABLE = "samples"


class ExportSource:
    """The exported samples as an archive for ingest."""

    format = "benchmark"
    placement = "anywhere"
    attributes: Mapping[str, str] = {}

    def __init__(self, root: str) -> None:
        self.root = root

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        manifest = Path(self.root) / "manifest.json"
        files = (
            SourceFile("all", manifest.name, manifest.stat().st_size, f"mtime-{manifest.stat().st_mtime_ns}"),
        )
        return [Archive("export", "train", "bench", files)], []

    def scan(self, archive: Archive) -> Scan:
        refs = tuple(
            SampleRef(archive.name, "train", "bench", name, name, row["lon"], row["lat"], 0, {}, i)
            for i, (name, row) in enumerate((r["sample_id"], r) for r in Export(self.root).rows)
        )
        return Scan(archive, refs, ())

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        export = Export(self.root)
        stored = {name: export.pixels(name) for name in export.modalities}
        for ref in refs:
            modalities = {
                name: RawModality(
                    pixels=np.array(p[ref.position][None]),
                    bands=tuple(export.bands(name)),
                    times_ns=None,
                    product_ids=(),
                    address=MemberAddress(f"{name}.npy", ref.position * p[0].nbytes, p[0].nbytes, ""),
                )
                for name, p in stored.items()
            }
            cover = (export.rows[ref.position]["cloud_cover"],)
            yield RawSample(
                ref, ref.sample_id, None, ref.lon, ref.lat, None, None, modalities, cloud_cover=cover
            )


def prepare(export: Export, folder: Path, track: str) -> None:
    """Ingest. Blocks carry checksums on all tracks: there is no way to turn that off. ``balanced`` is the default profile."""
    bank = tb.create(str(folder))
    profile = {"raw": "raw", "zstd": "small", "fast": "balanced"}[track]
    ingest(ExportSource(str(export.folder)), bank, TABLE, IngestOptions(n_workers=1, profile=profile))


class Loader:
    """A loader by ``bank.sql(...).dataloader(...)``;
    the index is mirrored and the plan made within the measured time.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        options = dict(request.options)
        shuffle = options.pop("shuffle", True) if request.shuffle else False
        bank = tb.open(
            request.s3_url,
            endpoint=request.endpoint,
            access_key="any",
            secret_key="any",
            cache=Path(request.cache),
        )
        query = bank.sql(sql(request, Export(request.export)))
        self._loader = query.dataloader(
            batch_size=request.batch_size,
            seed=request.seed,
            shuffle=shuffle,
            device="cpu",
            options=FetchOptions(**options),
        )
        if request.state is not None:
            self._loader.load_state_dict(request.state)

    def epoch(self) -> Iterator[Batch]:
        names = list(self.request.workload.modalities)
        for batch in self._loader:
            ids = batch["sample_id"]
            if self.request.workload.windows is not None:
                corners = zip(ids, batch["y0"].tolist(), batch["x0"].tolist(), strict=True)
                ids = [f"{i}/{y}/{x}" for i, y, x in corners]
            yield ids, {name: batch[name] for name in names}

    def state_dict(self) -> Any:
        return self._loader.state_dict()

    def close(self) -> None:
        self._loader.close()


def sql(request: Request, export: Export) -> str:
    """Return the workload as a query."""
    work = request.workload
    columns = ["sample_id", *(["y0", "x0"] if work.windows is not None else [])]
    for name, bands in work.modalities.items():
        chosen = "" if bands is None else ", ".join(f"'{export.bands(name)[b]}'" for b in bands)
        columns.append(f"bands({name}, [{chosen}]) AS {name}" if chosen else name)
    table, where = (f"{TABLE}.tiles", work.tiles_where) if work.windows is not None else (TABLE, work.where)
    return f"SELECT {', '.join(columns)} FROM {table}" + (f" WHERE {where}" if where else "")
