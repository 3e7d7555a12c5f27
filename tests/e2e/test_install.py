"""The wheel works where there is no checkout: built from the sdist, in fresh environments of Python 3.11 to 3.13."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import SUPPORT

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["tensorbank", "tensorbank_demo", "tensorbank_indexer", "tensorbank_server"]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
FOLDERS = (
    "/usr/bin",
    "/usr/local/bin",
    "~/.pyenv/versions/{}*/bin",
    "~/.local/share/uv/python/cpython-{}*/bin",
)
"""The folders that interpreters lie in, beside the PATH; a version takes the place of ``{}``."""

WITH_TORCH = (
    "tensorbank_floods",
    "tensorbank_gpu",
    "tensorbank_lightning",
    "tensorbank_loader",
    "tensorbank_pretraining",
    "tensorbank_simulation",
)

# An environment as a user has it: nothing of this checkout, and of the one that runs the tests, is on a path.
OUTSIDE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(*command: object, cwd: Path, timeout_s: float = 1200, **variables: str) -> str:
    """Run a command outside the checkout and return what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**OUTSIDE, **variables},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr[-3000:]}"
    return done.stdout


def interpreters(version: str) -> Iterator[str]:
    """Yield the programs that may be the Python of a version, the running one first."""
    if version == RUNNING:
        yield sys.executable
    if found := shutil.which(f"python{version}"):
        yield found
    for folder in FOLDERS:
        root, _, below = folder.format(version).partition("/")
        start = Path("/") if not root else Path(root).expanduser()
        yield from sorted(str(path) for path in start.glob(f"{below}/python{version}"))


def find_interpreter(version: str) -> str | None:
    """Return a Python of a version that can make environments, None if there is none; pyenv's shims may refuse to run."""
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for program in interpreters(version):
        said = subprocess.run([program, "-c", code], capture_output=True, text=True, check=False)
        if said.returncode == 0 and said.stdout.strip() == version:
            return program
    return None


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of the checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        folder / "builder",
        "hatchling",
        cwd=folder,
    )
    run(
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "sdist",
        "-d",
        folder,
        cwd=ROOT,
        PYTHONPATH=str(folder / "builder"),
    )
    (made,) = folder.glob("tensorbank-*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """The wheel that the sdist makes."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent / "unpacked", filter="data")
    (source,) = (sdist.parent / "unpacked").iterdir()
    builder = str(sdist.parent / "builder")
    run(
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        sdist.parent,
        cwd=source,
        PYTHONPATH=builder,
    )
    (made,) = sdist.parent.glob("tensorbank-*.whl")
    return made


def make_environment(version: str, wheel: Path, extras: str, folder: Path) -> Path:
    """Install the wheel into a fresh environment and return the folder of its programs."""
    program = find_interpreter(version)
    if program is None:
        pytest.skip(f"there is no Python {version} here")
    run(program, "-m", "venv", folder / "venv", cwd=folder)
    pip = [
        folder / "venv/bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "-c",
        ROOT / "constraints.txt",
    ]
    run(*pip, f"{wheel}[{extras}]", cwd=folder)
    return folder / "venv" / "bin"


@pytest.mark.timeout(1800)
def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        *PACKAGES,
        *WITH_TORCH,
    }
    assert {f"{package}/py.typed" for package in (*PACKAGES, *WITH_TORCH)} <= set(names)
    assert [name for name in names if "__pycache__" in name or "test_" in name] == []


@pytest.mark.timeout(1800)
def test_the_sdist_holds_what_the_tests_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "tests/conftest.py",
    } <= names
    assert not {name for name in names if name.startswith((".venv", "build", "dist"))}


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute or two where the machine is quiet
def test_the_demo_runs_from_the_wheel(wheel, tmp_path):
    bin_folder = make_environment(RUNNING, wheel, "demo,server", tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    shown = run(bin_folder / "tensorbank", "demo", "--samples", "8", cwd=work)
    assert "equals its source: 56 of 56" in shown
    assert (work / "demo-output" / "contact-sheet.png").stat().st_size > 10_000
    used = use(bin_folder, [*PACKAGES, "tensorbank_loader"], tmp_path / "use")
    assert used["samples"] == 4
    assert used["names"] > 300


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("version", [v for v in ("3.11", "3.12", "3.13") if v != RUNNING])
def test_other_versions_of_python_store_and_read(wheel, tmp_path, version):
    """Without torch, whose wheels for each version are some gigabytes."""
    bin_folder = make_environment(version, wheel, "indexer,server", tmp_path)
    used = use(bin_folder, PACKAGES, tmp_path / "use")
    assert used["samples"] == 4
    assert used["names"] > 300


def use(bin_folder: Path, packages: list[str], folder: Path) -> dict[str, int]:
    """Import all public names in an environment, and ingest and query a small archive there."""
    folder.mkdir()
    program = shutil.copy(SUPPORT / "installed.py", folder)
    shown = run(bin_folder / "python", "-P", program, folder, *packages, cwd=folder)
    counts: dict[str, int] = json.loads(shown)
    return counts
