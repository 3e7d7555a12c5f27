"""Worker processes of the loader's tests, which start faster where the server that forks them has imported torch once."""

from __future__ import annotations

import multiprocessing

multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "tensorbank_loader"])
