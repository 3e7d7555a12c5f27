"""Tools to test implementations, ours and yours:
contracts as test classes, and a server that misbehaves on demand.
"""

from __future__ import annotations

from tensorbank.testing.contracts import RangeReaderContract, StoreContract
from tensorbank.testing.fault_process import FaultServer
from tensorbank.testing.fault_server import Faults

__all__ = ["FaultServer", "Faults", "RangeReaderContract", "StoreContract"]
