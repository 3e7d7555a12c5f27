"""Parts that tests share: made-up banks and archives, servers, generators, and programs that tests start."""

from __future__ import annotations

import os
from pathlib import Path

SUPPORT = Path(__file__).parent
"""The folder of this package: programs that tests start lie in it."""

WITH_SUPPORT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(SUPPORT.parent), os.environ.get("PYTHONPATH")])),
}
"""The environment of a process that imports this package."""

DYING_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A program that runs another one, which ends with whoever started it: PR_SET_PDEATHSIG outlives exec."""
