"""The lineage of a checkpoint: which samples of which snapshot a run has seen, and what became of them."""

from __future__ import annotations

from tensorbank_loader.lineages.bad_samples import BadSample, read_bad_samples
from tensorbank_loader.lineages.checkpoint import states_in
from tensorbank_loader.lineages.fates import Fate, fates
from tensorbank_loader.lineages.run_lineage import RunLineage, TableLineage, lineage
from tensorbank_loader.lineages.seen import Seen, seen

__all__ = [
    "BadSample",
    "Fate",
    "RunLineage",
    "Seen",
    "TableLineage",
    "fates",
    "lineage",
    "read_bad_samples",
    "seen",
    "states_in",
]
