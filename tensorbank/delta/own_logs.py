"""Columns, transactions and settings of a version by a log that was written here. Pure.

The lines about files are most of a log, and are skipped. What is understood is what commits and checkpoints of ours say, each
with its checksum; at anything else there is no answer, and delta-rs reads the log. Both give the same, which the tests compare.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import Schema

from tensorbank.delta.reading import VersionState, unlisted
from tensorbank.index_files import FINITE, is_sealed_commit, require_readable

__all__ = ["ADD", "REMOVE", "advanced", "read_own_log", "seal_of"]

KINDS = frozenset({"commitInfo", "protocol", "metaData", "txn"})
IN_CHECKPOINT = (
    "protocol.minReaderVersion",
    "protocol.readerFeatures",
    "metaData.id",
    "metaData.schemaString",
    "metaData.partitionColumns",
    "metaData.configuration",
    "txn.appId",
    "txn.version",
)
"""The columns of a checkpoint that are wanted: each has a row for every file, and takes time."""
ADD, REMOVE = b'{"add":', b'{"remove":'
"""The beginnings of lines about files, as commits of ours write them."""


@dataclass
class _Said:
    """The last action of each kind so far."""

    protocol: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    transactions: dict[str, int] = field(default_factory=dict)

    def add(self, action: Mapping[str, Any]) -> None:
        if said := action.get("protocol"):
            self.protocol = said
        if said := action.get("metaData"):
            self.metadata = said
        if said := action.get("txn"):
            self.transactions[str(said["appId"])] = int(said["version"])


def read_own_log(
    version: int,
    files: Mapping[str, bytes],
    where: str,
    asked: Callable[[Mapping[str, str]], Collection[str]],
) -> VersionState | None:
    """Return what a version says of itself, None if its log is not wholly ours.

    Parameters
    ----------
    files
        The files of the log by name, compared with their checksums: the checkpoint first, then the commits in their order.
    where
        URL of the table.
    asked
        Callable from the settings of the table to the application ids whose transactions are wanted.

    Raises
    ------
    FormatError
        The log uses what is not read here.
    """
    said = _Said()
    for name, data in files.items():
        actions: list[Mapping[str, Any]] | None = []
        if name.endswith(".parquet"):
            if seal_of(name) not in files:
                return None
            actions = _of_checkpoint(data)
        elif name.endswith(".json"):
            actions = _of_commit(data)
        if actions is None:
            return None
        for action in actions:
            said.add(action)
    if said.protocol is None or said.metadata is None or said.metadata.get("partitionColumns"):
        return None
    configuration = dict(said.metadata["configuration"])
    features = said.protocol.get("readerFeatures")
    require_readable(int(said.protocol["minReaderVersion"]), features, configuration, where)
    wanted = {FINITE, *asked(configuration)}
    return VersionState(
        table_id=str(said.metadata["id"]),
        version=version,
        columns=pa.schema(Schema.from_json(said.metadata["schemaString"]).to_arrow()),
        transactions={name: n for name, n in said.transactions.items() if name in wanted},
        configuration=configuration,
        list_files=unlisted,
    )


def advanced(state: VersionState, commits: Sequence[bytes], asked: Collection[str]) -> VersionState | None:
    """Return what a version says of itself some commits later; None if they say more than transactions, or are not ours.

    Parameters
    ----------
    commits
        The files of the commits that follow the state, in order, compared with their checksums.
    asked
        Application ids of the transactions that are wanted.
    """
    said = _Said()
    for data in commits:
        actions = _of_commit(data)
        if actions is None:
            return None
        for action in actions:
            said.add(action)
    if said.protocol is not None or said.metadata is not None:
        return None
    new = {name: n for name, n in said.transactions.items() if name == FINITE or name in asked}
    return replace(state, version=state.version + len(commits), transactions={**state.transactions, **new})


def seal_of(checkpoint: str) -> str:
    """Return the name of the file that holds the checksum of a checkpoint."""
    return f"{checkpoint.removesuffix('.parquet')}.crc32c"


def _of_commit(data: bytes) -> list[Mapping[str, Any]] | None:
    """Return the actions of a commit that are not about files, None if it is not one of ours."""
    if not is_sealed_commit(data):
        return None
    actions = [json.loads(line) for line in data.splitlines() if line and not line.startswith((ADD, REMOVE))]
    return actions if all(action.keys() <= KINDS for action in actions) else None


def _of_checkpoint(data: bytes) -> list[Mapping[str, Any]]:
    """Return the actions of a checkpoint that are not about files."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        rows = file.read(list(IN_CHECKPOINT), use_threads=False)
    return [{kind: said} for kind in rows.column_names for said in rows[kind].drop_null().to_pylist()]
