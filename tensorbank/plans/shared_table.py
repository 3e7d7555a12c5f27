"""Arrow tables that processes of one machine share: written once to memory that has no name, and mapped by all.

A process that is being started is sent a file descriptor in place of the table, as multiprocessing sends its own. The kernel
frees the memory with the last process that maps it, however that ended: nothing is left behind.
"""

from __future__ import annotations

import os
import weakref
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any

import pyarrow as pa
import pyarrow.ipc

__all__ = ["SharedTable", "can_share"]

MIN_BYTES = 1 << 20
"""The bytes below which tables are not shared, but sent as they are."""


def can_share(table: pa.Table) -> bool:
    """Tell whether a process is being started at this moment,
    and a table is large enough to be shared with it.
    """
    starting = get_spawning_popen() is not None
    return starting and hasattr(os, "memfd_create") and bool(table.nbytes >= MIN_BYTES)


class SharedTable:
    """A table in shared memory. Pickled while a process is started, it is the table there, mapped."""

    def __init__(self, table: pa.Table) -> None:
        self._fd = os.memfd_create("tensorbank-plan")
        weakref.finalize(self, os.close, self._fd)
        with os.fdopen(os.dup(self._fd), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table.combine_chunks())

    def __reduce__(self) -> tuple[object, ...]:
        return _mapped, (reduction.DupFd(self._fd),)


def _mapped(sent: Any) -> pa.Table:
    fd = sent.detach()
    try:
        with pa.memory_map(f"/proc/self/fd/{fd}") as source:
            return pa.ipc.open_file(source).read_all()
    finally:
        os.close(fd)
