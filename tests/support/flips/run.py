"""Trials by the thousand, in batches, each in a process of its own: if one dies, the trial is noted, and the others go on."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from support.flips.trials import KINDS
from support.warm_process import WarmProcess

__all__ = ["MODULES", "PROBLEMS", "counted", "run_trials"]

MODULES = (
    "support.flips.bed",
    "support.flips.trials",
    "tensorbank.planning.planner",
    "tensorbank_loader",
)
PROBLEMS = ("unnamed", "foreign", "wrong", "died")
N_AT_ONCE = 2
LIMIT_S = 1200.0
"""Seconds of one batch on a busy machine; a trial that hangs ends it."""
N_IN_A_BATCH = 150


def run_trials(
    n: int, seed: int, kinds: Sequence[str] = tuple(KINDS), *, without: str = ""
) -> list[dict[str, Any]]:
    """Run ``n`` trials, whose numbers begin with a seed; the same numbers are the same trials, of files with other ids.

    ``without`` is as for :func:`support.flips.trials.run`.
    """
    with tempfile.TemporaryDirectory(prefix="flips-") as folder, WarmProcess(MODULES, LIMIT_S) as warm:
        made = Path(folder) / "made"
        made.mkdir()
        ended = warm.call("support.flips.bed:make", folder=str(made))
        assert not ended.error, ended.message

        def batch(numbers: list[int]) -> list[dict[str, Any]]:
            done: list[dict[str, Any]] = []
            while numbers:
                root = Path(folder) / f"bed-{numbers[0]}"
                progress = root.with_suffix(".json")
                given = {
                    "numbers": numbers,
                    "kinds": list(kinds),
                    "progress": str(progress),
                    "without": without,
                }
                found = warm.call("support.flips.trials:run", made=str(made), root=str(root), **given)
                if not found.error:
                    return done + found.value
                assert found.died, found.message
                dead = json.loads(progress.read_text())
                before = numbers[: numbers.index(dead["number"])]
                done += [dead, *(batch(before) if before else [])]
                numbers = numbers[numbers.index(dead["number"]) + 1 :]
            return done

        numbers = list(range(seed, seed + n))
        batches = [numbers[i : i + N_IN_A_BATCH] for i in range(0, n, N_IN_A_BATCH)]
        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            return [trial for trials in pool.map(batch, batches) for trial in trials]


def counted(trials: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Count trials by kind of file and outcome."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for trial in trials:
        found[trial["kind"]][trial["outcome"]] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in found.items()}
