"""One virtual environment a peer, made once from pinned requirements."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

__all__ = ["REQUIREMENTS", "InstallError", "python_of"]

REQUIREMENTS = Path(__file__).parent / "requirements"
OWN = ("tensorbank", "ceiling", "tensorstore_shards")
"""The peers that run in this environment."""


class InstallError(Exception):
    """A peer could not be installed; the text is what pip said."""


def python_of(peer: str, cache: Path, *, install: bool = True) -> Path:
    """Return the interpreter of a peer's environment, made or renewed if its requirements changed.

    Raises
    ------
    InstallError
        Installing failed, or is not allowed and it is not there.
    """
    if peer in OWN:
        return Path(sys.executable)
    wanted = REQUIREMENTS / f"{peer}.txt"
    folder = cache / peer / "venv"
    stamp = folder / ".installed"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == digest:
        return python
    if not install:
        raise InstallError(f"{folder} is not installed")
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(done.stderr.strip()[-2000:])
    stamp.write_text(digest)
    return python
