"""Samples that were found bad, by the reports of ``tensorbank verify --json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_numpy
from tensorbank.errors import FormatError

__all__ = ["BadSample", "are_bad", "read_bad_samples"]


@dataclass(frozen=True, slots=True)
class BadSample:
    """A tensor of a table that was found damaged; of every sample in the object ``key`` if ``sample_id`` is empty."""

    table: str
    sample_id: str
    modality: str
    key: str
    reason: str


def read_bad_samples(path: Path) -> list[BadSample]:
    """Read the findings that ``tensorbank verify --json`` printed, one line a table.

    Raises
    ------
    FormatError
        The file is something else.
    """
    found = []
    try:
        for line in path.read_text().splitlines():
            report: Mapping[str, Any] = json.loads(line)
            for f in report["findings"]:
                told = (f["modality"], f["key"], f["reason"])
                ids = f["sample_ids"] or [""]
                found += [BadSample(report["table"], str(i), *map(str, told)) for i in ids]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path} is no report of verify: {type(error).__name__} {error}; write it with "
            "`tensorbank verify BANK --json > FILE`"
        ) from error
    return found


def are_bad(
    rows: pa.Table, table: str, modalities: Sequence[str], bad: Sequence[BadSample]
) -> npt.NDArray[np.bool_]:
    """Return for each row of a table, as :mod:`tensorbank_loader.lineages.fates` describes them, if it was found bad, (n,) bool.

    A report tells no split: of samples with one id in several splits, the one in the damaged object is meant.
    """
    found = np.zeros(len(rows), bool)
    for modality in modalities:
        mine = [b for b in bad if b.table == table and b.modality in (modality, "")]
        keys = rows[f"{modality}.key"]
        whole = pa.array([b.key for b in mine if not b.sample_id], pa.string())
        found |= as_numpy(pc.fill_null(pc.is_in(keys, value_set=whole), False))
        named = pa.array([f"{b.key}\0{b.sample_id}" for b in mine if b.sample_id], pa.string())
        told = pc.binary_join_element_wise(pc.fill_null(keys, ""), rows["sample_id"], "\0")
        found |= as_numpy(pc.is_in(told, value_set=named))
    return found
