"""The forecast of a training before it runs: what reading costs is measured, and what it comes to is simulated.

from tensorbank_simulation import Calibration, Setting, simulate, workload_of

workload = workload_of(plan, batch_size=32, n_ranks=8)
forecast = simulate(workload, Setting(gpus_per_node=8, step_s=0.1), Calibration.load(path))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names are imported when they are used: every command of the CLI loads this package
    from tensorbank_simulation.calibration import DEFAULT_CALIBRATION, Calibration
    from tensorbank_simulation.forecast import EpochForecast, simulate
    from tensorbank_simulation.ingest import IngestForecast, forecast_ingest
    from tensorbank_simulation.latency import Latency
    from tensorbank_simulation.measurement import calibrate, with_store
    from tensorbank_simulation.setting import Setting
    from tensorbank_simulation.workload import Workload, made_up_workload, workload_of

__all__ = [
    "Calibration",
    "DEFAULT_CALIBRATION",
    "EpochForecast",
    "IngestForecast",
    "Latency",
    "Setting",
    "Workload",
    "calibrate",
    "forecast_ingest",
    "made_up_workload",
    "simulate",
    "with_store",
    "workload_of",
]

_MODULES = ("calibration", "forecast", "ingest", "latency", "measurement", "setting", "workload")
"""The modules that have the names above."""


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in __all__:
        for module in _MODULES:
            found = importlib.import_module(f"tensorbank_simulation.{module}")
            if name in found.__all__:
                return getattr(found, name)
    raise AttributeError(f"module 'tensorbank_simulation' has no attribute {name!r}")
