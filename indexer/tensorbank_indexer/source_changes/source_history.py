"""Files of a source beside those that the samples of a table were made of: the same, moved, changed, or new."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tensorbank.catalog import Catalog, key_of, part_attributes
from tensorbank.errors import NotFoundError
from tensorbank_indexer.reports import CHANGES, REFRESHED
from tensorbank_indexer.source import Finding, MemberAddress, SampleRef
from tensorbank_indexer.source_changes.stored_origins import StoredMember, StoredOrigin, stored_origins

__all__ = ["SourceChanges", "SourceHistory"]

N_NAMED = 2
"""The number of earlier files that a finding names."""


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """The changes of some archives since their samples were ingested.

    Parameters
    ----------
    whole
        Samples that are others as a whole.
    partial
        Samples of which some modalities come of other files; ``members`` has these alone.
    n_moved
        The number of samples whose files have another path and are the same.
    """

    findings: tuple[Finding, ...] = ()
    whole: tuple[SampleRef, ...] = ()
    partial: tuple[SampleRef, ...] = ()
    n_moved: int = 0

    @property
    def n_changed(self) -> int:
        return len(self.whole) + len(self.partial)


@dataclass(frozen=True, slots=True)
class _PartSource:
    """The source of a part: its root, the ETags of its files, and these with the ends of their paths, which copies share."""

    root: str = ""
    etags: frozenset[str] = frozenset()
    ends: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class _Subject:
    """The subject of a finding: a file as it is now, by a path that tells it from the earlier ones."""

    kind: str
    archive: str
    modality: str = ""
    path: str = ""
    etag: str = ""


@dataclass(slots=True)
class _Told:
    """The number of samples that a finding is about, and the paths and ETags of the files that they were made of."""

    n: int = 0
    earlier: Counter[tuple[str, str]] = field(default_factory=Counter)


class SourceHistory:
    """The files that samples of a table were made of, looked up when a sample is met again. For one run over a source.

    Files are compared by their ETags, or where the store has none by times and sizes; they are not read.

    Parameters
    ----------
    root
        Root of the source.
    """

    def __init__(self, catalog: Catalog, table: str, root: str) -> None:
        self.catalog = catalog
        self.table = table
        self.root = root
        self._by_folder: dict[str, _PartSource] = {}
        self._folders: dict[str, str] = {}
        self._met = np.zeros(0, np.int64)

    def meet(self, refs: Sequence[SampleRef]) -> None:
        """Take note of samples that the source has: where they come again in this run, they are repetitions."""
        self._met = np.sort(
            np.concatenate([self._met, np.sort(_keys_of(refs))]), kind="stable"
        )  # merges the two

    def changes(self, present: Sequence[SampleRef], *, refresh: bool = False) -> SourceChanges:
        """Return what has changed about samples that are in the table.

        Parameters
        ----------
        refresh
            True if what is stale will be replaced, as the findings then say.

        Raises
        ------
        IntegrityError
            What a part says of its source is damaged.
        """
        if not present:
            return SourceChanges()
        version = self.catalog.version(self.table)
        origins = stored_origins(self.catalog, version, present)
        for part in {origin.part for origin in origins.values()} - self._folders.keys():
            self._folders[part] = self.catalog.part_folder(version, part)
        told: defaultdict[_Subject, _Told] = defaultdict(_Told)
        whole, partial = [], []
        n_moved = 0
        keys = _keys_of(present)
        first, last = (np.searchsorted(self._met, keys, side) for side in ("left", "right"))
        met = {*keys[first < last].tolist()}
        for key, ref in zip(keys.tolist(), present, strict=True):
            origin = origins.get(key)
            if origin is None:  # deleted meanwhile
                continue
            others = {name: m for name, m in ref.members.items() if self._is_other(origin, name, m)}
            if key in met:
                told[_Subject("duplicate-sample", ref.archive)].n += bool(others)
                continue
            met.add(key)
            for name, member in others.items():
                self._tell(told, ref, name, member, origin.members.get(name))
            if others and self._is_whole(origin, others):
                whole.append(ref)
            elif others:
                partial.append(replace(ref, members=others))
            else:
                n_moved += self._is_moved(told, ref, origin)
        findings = (_finding(subject, some, refresh=refresh) for subject, some in told.items() if some.n)
        return SourceChanges(tuple(findings), tuple(whole), tuple(partial), n_moved)

    def _is_other(self, origin: StoredOrigin, name: str, member: MemberAddress) -> bool:
        """Tell whether a member is of another file than the table knows of: one that gave no pixels is known, too."""
        had = origin.members.get(name)
        if had is None:
            of_part = self._source_of(self._folders[origin.part])
            return (_end_of(member.path), member.etag) not in of_part.ends
        if had.address.etag == member.etag:
            return False
        made_of = self._source_of(had.folder).etags
        # Where pixels lie in a part that was made without their file, they were kept, since the new file gave none.
        return had.address.etag in made_of or member.etag not in made_of

    def _is_whole(self, origin: StoredOrigin, others: Mapping[str, MemberAddress]) -> bool:
        """Tell whether all that a sample has is another now.

        Where every member has its place and length still, the archives were probably copied; then each modality is looked at
        by itself.
        """
        if not others.keys() >= origin.members.keys():
            return False
        places = ((others[name], had.address) for name, had in origin.members.items())
        return any((a.offset, a.length_bytes) != (b.offset, b.length_bytes) for a, b in places)

    def _is_moved(self, told: dict[_Subject, _Told], ref: SampleRef, origin: StoredOrigin) -> bool:
        """Tell whether files of a sample, none of which has changed, have another path now, and keep the first for a finding."""
        for name, member in ref.members.items():
            had = origin.members.get(name)
            if had is not None and self._paths(member, had)[0] != self._paths(member, had)[1]:
                self._tell(told, ref, "", member, had)
                return True
        return False

    def _tell(
        self,
        told: dict[_Subject, _Told],
        ref: SampleRef,
        modality: str,
        member: MemberAddress,
        had: StoredMember | None,
    ) -> None:
        if had is None:
            told[_Subject("new-source-file", ref.archive, modality, member.path)].n += 1
            return
        kind = "changed-source" if modality else "moved-source"
        now, before = self._paths(member, had)
        found = told[_Subject(kind, ref.archive, modality, now, member.etag)]
        found.n += 1
        found.earlier[before, had.address.etag] += 1

    def _paths(self, member: MemberAddress, had: StoredMember) -> tuple[str, str]:
        """Return the paths of a member's file now and before; whole ones where the root of the source was another."""
        source = self._source_of(had.folder)
        # Where a file was found to have the same pixels as one before, the part does not say from which root it came.
        root = source.root if had.address.etag in source.etags else ""
        if not root or _is_same_root(root, self.root):
            return member.path, had.address.path
        return f"{self.root.rstrip('/')}/{member.path}", f"{root.rstrip('/')}/{had.address.path}"

    def _source_of(self, folder: str) -> _PartSource:
        found = self._by_folder.get(folder)
        if found is None:
            found = self._by_folder[folder] = self._read(folder)
        return found

    def _read(self, folder: str) -> _PartSource:
        try:
            said = part_attributes(self.catalog.store, folder, folder.rpartition("/")[2])
            etags = said["source_etags"]
        except (NotFoundError, KeyError):
            return _PartSource()  # a part of another writer, which does not name its files
        ends = frozenset((_end_of(path), etag) for path, etag in etags.items())
        return _PartSource(str(said.get("source", "")), frozenset(etags.values()), ends)


def _finding(subject: _Subject, told: _Told, *, refresh: bool) -> Finding:
    kind, n = subject.kind, told.n
    earlier = dict.fromkeys(before for before, _ in told.earlier)
    first = [*earlier][:N_NAMED]
    more = f" and {len(earlier) - N_NAMED} more" if len(earlier) > N_NAMED else ""
    if kind == "duplicate-sample":
        reason = f"{n} samples of it are in an archive before it, too, and the table has those"
        return Finding(kind, subject.archive, reason, "the first ones kept, these left out")
    if kind == "moved-source":
        reason = f"{subject.path} is the file that was {' and '.join(first)}{more}: {n} samples, which stay as they are"
        return Finding(kind, subject.archive, reason, "nothing to do")
    if kind == "new-source-file":
        reason = f"{subject.path} was not there when {n} samples of its archive were ingested"
    elif first == [subject.path]:
        etags = ", ".join(etag for _, etag in told.earlier)
        reason = f"{subject.path} is another file ({subject.etag}) than the one ({etags}) of which the table has {n} samples"
    else:
        names = " and ".join(f"{path} ({etag})" for path, etag in [*told.earlier][:N_NAMED])
        reason = f"{subject.path} ({subject.etag}) is another file than {names}{more}, of which the table has {n} samples"
    return Finding(
        kind, subject.archive, reason, REFRESHED if refresh else CHANGES[kind], modality=subject.modality
    )


def _end_of(path: str) -> str:
    """Return the name of a file and of its folder, which is that of a modality in many layouts."""
    return "/".join(path.split("/")[-2:])


def _is_same_root(a: str, b: str) -> bool:
    """Tell whether two roots may be one: the same text, or a path and the end of it, since a root may be relative."""
    a, b = (root.removeprefix("./").strip("/") for root in (a, b))
    return a == b or a.endswith(f"/{b}") or b.endswith(f"/{a}")


def _keys_of(refs: Sequence[SampleRef]) -> npt.NDArray[np.int64]:
    return np.array([key_of(ref.split, ref.sample_id) for ref in refs], np.int64)
