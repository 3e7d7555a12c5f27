"""Measure whether the CPU is spent on decoding:
unlimited loopback beside a loop that fetches, decodes and does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from stream.figure import Figure, paired
from stream.reference import Reference
from stream.runs import Run, batches_of, interleaved, medians, read_bytes, stream
from stream.serving import loopback
from stream.setup import Setup
from tensorbank.fetch.fetcher import FetchOptions

__all__ = ["measure"]

N_THREADS = (2, 4, 8, 16)
"""The numbers of threads of the reference; the best of them counts."""
EPOCH_BYTES = 1.2e9


def measure(setup: Setup) -> Iterator[Figure]:
    """Return the loader beside the reference, and the reference with checksums beside itself without."""
    options = FetchOptions()
    with loopback(setup.folder) as origin:
        plan = origin.plan(setup.sized(setup.plan(), EPOCH_BYTES))
        reference = Reference(plan, batches_of(plan, setup.batch_size, epoch=1), options)
        n_bytes = read_bytes(plan, setup.batch_size, epoch=1, shuffle="full", options=options)

        def loader() -> Run:
            return stream(plan, setup.batch_size, options=options, n_bytes=n_bytes).last

        works: dict[str, Callable[[], Run]] = {"loader": loader}
        for n in N_THREADS:
            works[f"decode {n}"] = partial(reference.run, n)
            works[f"verify {n}"] = partial(reference.run, n, verify=True)
        found = interleaved(works, setup.repeats)
    best = max(N_THREADS, key=lambda n: median(r.mb_s for r in found[f"decode {n}"]))
    plain, verified = found[f"decode {best}"], found[f"verify {best}"]
    detail = {"server": origin.server, **{name: medians(runs) for name, runs in found.items()}}
    yield Figure(
        "cpu",
        f"loopback, reference of {best} threads",
        median(r.mb_s for r in found["loader"]),
        "MB/s",
        median(r.mb_s for r in plain),
        paired([r.mb_s for r in found["loader"]], [r.mb_s for r in plain]),
        0.90,
        detail=detail,
    )
    yield Figure(
        "cpu",
        "loopback, work of the loader",
        median(r.cpu_s_gb for r in found["loader"]),
        "CPU s/GB",
        median(r.cpu_s_gb for r in plain),
        paired([r.cpu_s_gb for r in found["loader"]], [r.cpu_s_gb for r in plain]),
    )
    # Over all numbers of threads: the share is small beside the noise of one.
    with_crc = [r.cpu_s_gb for n in N_THREADS for r in found[f"verify {n}"]]
    without = [r.cpu_s_gb for n in N_THREADS for r in found[f"decode {n}"]]
    yield Figure(
        "cpu",
        "verification",
        median(with_crc),
        "CPU s/GB",
        median(without),
        paired(with_crc, without),
        1.03,
        "<=",
        detail={"wall_ratio": paired([r.wall_s for r in verified], [r.wall_s for r in plain])},
    )
