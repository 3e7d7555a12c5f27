"""Measure the time that a fresh process takes for ``import tensorbank``, and for a first query's libraries.

    python benchmarks/import_time.py [--repeats 9]

Beside it, interleaved, an interpreter that imports nothing.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

CASES = {
    "python alone": "pass",
    "import tensorbank": "import tensorbank",
    "tb.open().sql()": "import tensorbank as tb; tb.open('.').sql('SELECT 1')",
}


def seconds(code: str) -> float:
    """Return the wall time of one interpreter."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    runs: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(options.repeats):
        for name, code in CASES.items():
            runs[name].append(seconds(code))
    for name, times in runs.items():
        print(f"{name:<20}{statistics.median(times):8.3f} s   [{min(times):.3f} .. {max(times):.3f}]")
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, tensorbank as tb; tb.open('.').sql('SELECT 1'); print('torch' in sys.modules)",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    print(f"torch loaded: {loaded.stdout.strip()}")


if __name__ == "__main__":
    main()
