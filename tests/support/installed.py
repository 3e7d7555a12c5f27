"""A program for a fresh environment: imports every public name of what is installed there, and uses it on a small archive."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

OPTIONAL = frozenset({"dask", "distributed", "redis", "opentelemetry"})
"""The libraries that extras bring, and that modules of their own import."""


def import_public_names(packages: list[str]) -> int:
    """Import all modules of some packages and every name that they hand out; return the number of names.

    Modules that name what is not installed here, which only extras bring, are not among them: the packages are given.
    """
    n_names = 0
    for package in packages:
        module = importlib.import_module(package)
        assert module.__file__ is not None
        assert Path(module.__file__).is_relative_to(sys.prefix), f"{package} is not that of this environment"
        assert (Path(module.__file__).parent / "py.typed").exists(), f"{package} has no py.typed"
        for found in pkgutil.walk_packages(module.__path__, f"{package}."):
            if found.name.endswith(".__main__") or "testing" in found.name.split("."):
                continue  # programs, and what is for tests only
            try:
                inner = importlib.import_module(found.name)
            except ModuleNotFoundError as missing:
                if str(missing.name).partition(".")[0] not in OPTIONAL:
                    raise
                continue
            n_names += sum(getattr(inner, name) is not None for name in getattr(inner, "__all__", ()))
    return n_names


def command(*words: str) -> str:
    """Run a command of the installed ``tensorbank`` and return what it printed."""
    program = Path(sys.executable).parent / "tensorbank"
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def store_and_read(folder: Path) -> int:
    """Ingest a small archive by the command, verify the bank, and plan a query; return the number of its samples."""
    import tensorbank as tb
    from tensorbank_demo.landscape.archive import write_archives

    write_archives(folder / "archive", n_samples=4, samples_per_tar=2, seed=1)
    bank = str(folder / "bank")
    command("ingest", str(folder / "archive"), bank, "--table", "t", "--workers", "1")
    command("verify", bank)
    lines = command("query", bank, "SELECT sample_id, NDVI.mean AS ndvi FROM t", "--json").splitlines()
    means = {row["sample_id"]: row["ndvi"] for row in map(json.loads, lines)}
    assert len(means) == len(lines)
    assert all(-1 <= mean <= 1 for mean in means.values()), means
    assert len(tb.open(bank).sql("SELECT sample_id, S2L2A, NDVI FROM t").plan()) == len(means)
    return len(means)


if __name__ == "__main__":
    for entry in entry_points(group="tensorbank.commands"):
        entry.load()
    print(
        json.dumps({"names": import_public_names(sys.argv[2:]), "samples": store_and_read(Path(sys.argv[1]))})
    )
