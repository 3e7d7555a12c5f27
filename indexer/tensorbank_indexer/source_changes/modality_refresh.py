"""The refresh of single modalities: samples of which some files are others now, collected in a run and replaced by one commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tensorbank.bank import Bank
from tensorbank.engines import Executor
from tensorbank.reading import DEFAULT_PROFILE
from tensorbank_indexer.modality_changes import (
    REFRESH,
    ModalityJob,
    ModalityReport,
    SourceOrigin,
    change_modalities,
)
from tensorbank_indexer.options import AUTO, IngestOptions
from tensorbank_indexer.parts import Progress
from tensorbank_indexer.reports import IngestReport
from tensorbank_indexer.source import SampleRef, Source

__all__ = ["ModalityRefresh"]


class ModalityRefresh:
    """The modalities of samples that other files give now. About 1 kB of memory each.

    All are replaced by one commit at the end of a run, since files of the index that have one of the samples are written anew.
    """

    def __init__(
        self,
        source: Source,
        bank: Bank,
        table: str,
        options: IngestOptions,
        executor: Executor,
        progress: Progress,
    ) -> None:
        self.source = source
        self.bank = bank
        self.table = table
        self.options = replace(options, profile=DEFAULT_PROFILE) if options.profile == AUTO else options
        self.executor = executor
        self.progress = progress
        self._origins: dict[str, SourceOrigin] = {}
        self.archives: set[str] = set()
        """The names of the archives that have the samples."""

    def add(self, ref: SampleRef) -> None:
        """Add a sample; its members are those whose modalities are replaced."""
        self.archives.add(ref.archive)
        for name in ref.members:
            if name not in self._origins:
                self._origins[name] = SourceOrigin(self.source, name, self.options, self.executor)
            self._origins[name].add(ref)

    def commit(self, report: IngestReport, details: Mapping[str, Any]) -> None:
        """Replace the modalities of all samples that were added; those of which nothing could be read keep what they have.

        Parameters
        ----------
        report
            Report of the run, which is told.
        details
            What the history says of every commit of the run.

        Raises
        ------
        TensorBankError
            As :func:`tensorbank_indexer.modality_changes.replace_modality`; nothing is committed.
        """
        if not self._origins:
            return
        jobs = []
        for name, origin in sorted(self._origins.items()):
            told = ModalityReport(REFRESH, self.table, name, self.source.root)
            jobs.append(
                ModalityJob(
                    REFRESH, origin, self.bank, self.table, name, None, self.options, self.progress, told
                )
            )

        def said() -> dict[str, Any]:
            replaced, same = _counted(jobs)
            return {
                **details,
                "modalities": [job.name for job in jobs],
                "n_replaced": replaced,
                "n_same": same,
            }

        version = change_modalities(jobs, self.bank, self.table, REFRESH, said)
        for job in jobs:
            told = job.report
            report.findings += told.findings
            report.n_resumed += told.n_resumed
            report.seconds.add(told.seconds)
            if version is not None:
                report.parts += told.parts
                report.tensor_bytes += told.tensor_bytes
                report.stored_bytes += told.stored_bytes
        if version is not None:
            n_replaced, n_same = _counted(jobs)
            report.n_replaced += n_replaced
            report.n_present -= n_replaced
            report.n_same += n_same


def _counted(jobs: list[ModalityJob]) -> tuple[int, int]:
    """Return how many samples have other pixels in some modality, and how many were found to have the same in all."""
    empty = np.zeros(0, np.int64)
    given = np.unique(np.concatenate([empty, *(keys for job in jobs for keys in job.given)]))
    changed = np.unique(np.concatenate([empty, *(keys for job in jobs for keys in job.changed)]))
    return len(changed), len(given) - len(changed)
