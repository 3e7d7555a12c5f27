"""Archives in the tree ``{split}/{modality}/{file}``: files of the same name hold the modalities of the same
samples.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tensorbank.errors import ErrorKind, FormatError
from tensorbank_indexer.containers import SourceFiles
from tensorbank_indexer.source import Archive, Finding, SourceFile

__all__ = ["COMPRESSED", "COMPRESSED_AS_A_WHOLE", "Folders", "is_document", "sort_files", "stray_findings"]

FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]*")
KNOWN_SUFFIXES = frozenset(
    {
        ".md",
        ".txt",
        ".json",
        ".yaml",
        ".yml",
        ".py",
        ".parquet",
        ".csv",
        ".ipynb",
        ".bib",
        ".cff",
        ".png",
        ".jpg",
        ".svg",
    }
)
KNOWN_NAMES = frozenset({".gitattributes", ".gitignore", "LICENSE", "LICENCE", "README"})
COMPRESSED_AS_A_WHOLE = (
    "is compressed as a whole, so that its members cannot be read by their ranges; decompress it first."
)
KNOWN_FOLDERS = frozenset({"assets", "split", "splits"})
COMPRESSED = re.compile(r"\.(?:gz|bz2|xz|lzma|zst|zstd|lz4|lz|Z)$")
MAX_NAMED_STRAYS = 5
"""The most stray files of one folder that get a finding each; more than that share one."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The paths of a dataset, sorted by what they are.

    ``files`` maps (split, file name) to {modality: path}.
    """

    files: Mapping[tuple[str, str], Mapping[str, str]]
    strays: tuple[str, ...]
    compressed: tuple[str, ...] = ()
    """The archives that are compressed as a whole, so that no member of them can be read by its range."""

    def archives(
        self, files: SourceFiles, subset_of: Mapping[str, str]
    ) -> tuple[list[Archive], list[Finding]]:
        """Return the archives by split, subset and file name, with sizes and tags; and stray or missing files.

        ``subset_of`` maps file names to subsets.
        """
        paths = [path for modalities in self.files.values() for path in modalities.values()]
        stats = dict(zip(paths, files.stat(paths), strict=True))
        wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
        for (split, name), modalities in self.files.items():
            wanted[split, subset_of[name]] |= modalities.keys()
        archives: list[Archive] = []
        findings = [
            *stray_findings(self.strays),
            *(
                Finding("compressed-archive", "", f"{path} {COMPRESSED_AS_A_WHOLE}", "left out", member=path)
                for path in self.compressed
            ),
        ]
        for split, name in sorted(self.files, key=lambda key: (key[0], subset_of[key[1]], key[1])):
            modalities = self.files[split, name]
            found = tuple(
                SourceFile(m, path, stats[path].size_bytes, stats[path].etag)
                for m, path in sorted(modalities.items())
            )
            archive = Archive(f"{split}/{name.partition('.')[0]}", split, subset_of[name], found)
            archives.append(archive)
            for modality in sorted(wanted[split, archive.subset] - modalities.keys()):
                reason = f"There is no {modality}/{name}, although {modality} has other archives of {split}."
                findings.append(
                    Finding(
                        "missing-member",
                        archive.name,
                        reason,
                        "samples are read without it",
                        modality=modality,
                    )
                )
        return archives, findings


def sort_files(paths: Iterable[str], root_name: str, pattern: re.Pattern[str]) -> Folders:
    """Find the archives among the files of a root, which is a dataset or one split of it.

    Raises
    ------
    FormatError
        No file lies where an archive should.
    """
    paths = list(paths)
    deep: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    flat: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for path in paths:
        *folders, name = path.split("/")
        if not pattern.fullmatch(name) or not all(map(FOLDER.fullmatch, folders)):
            continue
        if len(folders) == 2:
            deep[folders[0], name][folders[1]] = path
        elif len(folders) == 1:
            flat[root_name, name][folders[0]] = path
    files = deep or flat
    compressed = tuple(path for path in paths if _is_compressed(path, pattern))
    if not files and compressed:
        raise FormatError(f"{compressed[0]} {COMPRESSED_AS_A_WHOLE}", kind=ErrorKind.COMPRESSED_ARCHIVE)
    if not files:
        raise FormatError(
            f"No archive was found among {len(paths)} files: "
            f"expected are paths like {{split}}/{{modality}}/{_readable(pattern)}."
            + (f" There is {', '.join(paths[:3])}." if paths else "")
        )
    taken = {path for modalities in files.values() for path in modalities.values()} | set(compressed)
    strays = tuple(path for path in paths if path not in taken and not is_document(path))
    return Folders(dict(files), strays, compressed)


def _is_compressed(path: str, pattern: re.Pattern[str]) -> bool:
    name = PurePosixPath(path).name
    name = name.removesuffix(".tgz") + ".tar.gz" if name.endswith(".tgz") else name
    plain = COMPRESSED.sub("", name)
    return plain != name and bool(pattern.fullmatch(plain)) and len(path.split("/")) in (2, 3)


def _readable(pattern: re.Pattern[str]) -> str:
    return pattern.pattern.replace("\\", "")


def is_document(path: str) -> bool:
    """Tell whether a path is a document or table that belongs to a published dataset."""
    *folders, name = path.split("/")
    if folders:
        return folders[0] in KNOWN_FOLDERS and not name.startswith(".")
    return name in KNOWN_NAMES or (
        not name.startswith(".") and PurePosixPath(name).suffix.lower() in KNOWN_SUFFIXES
    )


def stray_findings(paths: Iterable[str]) -> list[Finding]:
    """Return a finding for each path that belongs to no archive, or one for all of a folder that has many."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folder, _, _ = path.rpartition("/")
        hidden = next((part for part in folder.split("/") if part.startswith(".")), None)
        groups[folder.partition(hidden)[0] + hidden if hidden else folder].append(path)
    findings: list[Finding] = []
    for folder, strays in sorted(groups.items()):
        if len(strays) <= MAX_NAMED_STRAYS:
            findings += [
                Finding("stray-file", "", f"{path} is no archive of this dataset.", "ignored", member=path)
                for path in strays
            ]
        else:
            reason = f"{folder}/ has {len(strays)} files that are no archives, such as {strays[0]}."
            findings.append(Finding("stray-file", "", reason, "ignored", member=folder + "/"))
    return findings
