"""One table at one version as a statement sees it: the index files that may hold rows of its answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from tensorbank.catalog import Catalog
from tensorbank.conditions import ANYTHING, Condition
from tensorbank.index_files import LevelFiles
from tensorbank.layout import Level
from tensorbank.schema import TableSchema

__all__ = ["PinnedTable", "pin"]


@dataclass(frozen=True)
class PinnedTable:
    """Parameters
    ----------
    levels
        Every file of the levels that the statement needs.
    conditions
        What rows of a level must satisfy at least.
    kept
        The files left by pruning; all of them before that.
    shards_considered, shards_kept
        Roll-ups looked at and not ruled out; None where no roll-up was asked.
    """

    name: str
    schema: TableSchema
    levels: Mapping[Level, LevelFiles]
    conditions: Mapping[Level, Condition] = field(default_factory=dict)
    kept: Mapping[Level, LevelFiles] = field(default_factory=dict)
    shards_considered: int | None = None
    shards_kept: int | None = None

    @property
    def snapshot(self) -> tuple[str, int]:
        samples = self.levels["samples"]
        return samples.table_id, samples.version

    @property
    def mentioned(self) -> tuple[Level, ...]:
        """Levels that the statement reads row by row."""
        return tuple(level for level in self.conditions if level != "shards")

    def by_files(self, conditions: Mapping[Level, Condition]) -> PinnedTable:
        """Without the files that the log's statistics rule out, and without those of parts that the snapshot does not show."""
        parts = self.levels["samples"].parts
        kept: dict[Level, LevelFiles] = {}
        for level, files in self.levels.items():
            visible = files if parts is None else files.of_parts(parts)
            kept[level] = visible if level == "shards" else visible.matching(conditions.get(level, ANYTHING))
        return replace(self, conditions=dict(conditions), kept=kept)

    def by_shards(self, parts: Mapping[Level, frozenset[str]], *, considered: int, kept: int) -> PinnedTable:
        """Without the files of parts none of whose shards can hold a row of the answer."""
        fewer = {v: f.of_parts(parts[v]) if v in parts else f for v, f in self.kept.items()}
        return replace(self, kept=fewer, shards_considered=considered, shards_kept=kept)


def pin(catalog: Catalog, name: str, levels: Collection[Level], version: int | None) -> PinnedTable:
    """A table at a version, the newest if None."""
    with ThreadPoolExecutor(max(1, len(levels))) as pool:  # each level is some requests in a row
        found = pool.map(lambda level: catalog.files(name, level, version), levels)
        files = dict(zip(levels, found, strict=True))
    return PinnedTable(name, catalog.schema(name, files["samples"].version), files, kept=files)
