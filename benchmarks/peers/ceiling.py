"""The ceiling: the selected bytes as ranges into memory by obstore, nothing decoded.

Objects hold the samples one after the other, each band by band, raw or by zstd 3, also on the fast track; ranges of selected
bands are joined where they touch, up to 8 MiB. No loader can be faster with as many bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import obstore
from numcodecs import Zstd
from obstore.store import S3Store

from peers.contract import Batch, Export, Request

DISTRIBUTIONS = ("obstore",)
MAX_READ_BYTES = 8 << 20
N_THREADS_NEAR, N_THREADS_FAR = 16, 64
"""The numbers of reads at once: more than a near server needs cost a processor, fewer leave a far one waiting."""
FAR_S = 0.005
AHEAD = 4
"""The reads that are asked for ahead, for each that is under way."""
SAMPLES_PER_OBJECT = 64


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write one object for 64 samples, and the place of each band in it."""
    codec = None if track == "raw" else Zstd(3)
    stored = {name: export.pixels(name) for name in export.modalities}
    spans: list[dict[str, list[tuple[int, int]]]] = []
    for first in range(0, len(export), SAMPLES_PER_OBJECT):
        with (folder / f"{first // SAMPLES_PER_OBJECT:05d}.bin").open("wb") as file:
            for i in range(first, min(first + SAMPLES_PER_OBJECT, len(export))):
                where: dict[str, list[tuple[int, int]]] = {}
                for name, pixels in stored.items():
                    for band in pixels[i]:
                        start = file.tell()
                        file.write(codec.encode(np.ascontiguousarray(band)) if codec else band.tobytes())
                        where.setdefault(name, []).append((start, file.tell()))
                spans.append(where)
    (folder / "spans.json").write_text(json.dumps(spans))


class Loader:
    """A loader that only reads, and counts a sample as delivered when its last byte is there."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._store = S3Store(
            request.bucket,
            prefix=request.prefix,
            endpoint=request.endpoint,
            access_key_id="any",
            secret_access_key="any",
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": timedelta(seconds=600)},
        )
        n_threads = N_THREADS_NEAR if self._answer_s() < FAR_S else N_THREADS_FAR
        self._pool = ThreadPoolExecutor(n_threads)
        self._n_ahead = AHEAD * n_threads

    def _answer_s(self) -> float:
        """Return the seconds of a small request, over a connection that is there."""
        for _ in range(2):
            started = time.perf_counter()
            obstore.head(self._store, "spans.json")
        return time.perf_counter() - started

    def epoch(self) -> Iterator[Batch]:
        ids = Export(self.request.export).ids
        reads = self._reads()
        waiting = [self._pool.submit(self._fetch, r) for r in reads[: self._n_ahead]]
        batch: list[str] = []
        for n, read in enumerate(reads):
            waiting.pop(0).result()
            if n + self._n_ahead < len(reads):
                waiting.append(self._pool.submit(self._fetch, reads[n + self._n_ahead]))
            batch += [ids[p] for p in read[3]]
            while len(batch) >= self.request.batch_size:
                yield batch[: self.request.batch_size], {}
                batch = batch[self.request.batch_size :]
        if batch:
            yield batch, {}

    def _reads(self) -> list[tuple[str, int, int, list[int]]]:
        """Return key, start, end, and the samples that are complete with it; in stored order."""
        work = self.request.workload
        where = json.loads((Path(self.request.folder) / "spans.json").read_text())
        if work.windows is None:
            positions = list(range(len(where)) if work.positions is None else work.positions)
        else:
            positions = sorted({w[0] for w in work.windows})
        reads: list[tuple[str, int, int, list[int]]] = []
        for p in positions:
            key = f"{p // SAMPLES_PER_OBJECT:05d}.bin"
            spans = sorted(
                tuple(where[p][name][b])
                for name, bands in work.modalities.items()
                for b in (range(len(where[p][name])) if bands is None else bands)
            )
            for start, end in spans:
                last = reads[-1] if reads else None
                if last and (last[0], last[2]) == (key, start) and end - last[1] <= MAX_READ_BYTES:
                    reads[-1] = (key, last[1], end, last[3])
                else:
                    reads.append((key, start, end, []))
            reads[-1][3].append(p)
        return reads

    def _fetch(self, read: tuple[str, int, int, list[int]]) -> int:
        return len(obstore.get_range(self._store, read[0], start=read[1], end=read[2]))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
