"""Index files and their logs near the planner: immutable files, copied once from the object store, or read by ranges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorbank.cache import private_folder
from tensorbank.errors import (
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
)
from tensorbank.index_files.checksums import checksum_in_name
from tensorbank.index_files.delta_log import LOG, commit_name, commits_in, needed
from tensorbank.index_files.level_files import IndexFile
from tensorbank.index_files.local_copies import Identity, WholeCopies, digest, disk_error, identity
from tensorbank.index_files.log_listing import LogListing
from tensorbank.index_files.parquet_check import check_index_file, checked_footer, footer_in
from tensorbank.index_files.static_bank import is_static
from tensorbank.layout import is_below
from tensorbank.pieces import (
    PIECES_FOLDER,
    WHOLE_BYTES,
    ColumnPlaces,
    KeptPieces,
    OpenedFile,
    RangedFiles,
    Room,
    Scan,
    ScannedFile,
    ServedFile,
)
from tensorbank.pruning import Condition, kept_row_groups, leaves
from tensorbank.storage import ObjectInfo, Store

__all__ = ["IndexMirror", "LogCopy", "default_cache_folder"]

N_THREADS = 16
N_FETCHES = 3
"""The number of times a file that cannot be right is fetched before the error is raised:
the network may have been at fault."""
MAX_FOOTERS = 64
"""The most footers that are remembered for who reads the statistics in them; each takes some hundred kilobytes."""
MAX_BYTES = 64 << 30
"""The most bytes of copies of index files, unless another limit is given."""
ROW_FILTER_BYTES = 9 / 4
"""Bytes of the Bloom filters of samples for each row, which lie before the footer."""
FILTERED = "sample_id"
"""The column whose Bloom filters say which row groups DuckDB reads it of, so that it is not brought ahead."""
UNREADABLE = frozenset("%\\^[]|")
"""The characters that delta-rs misreads in a folder's name, or breaks on."""
GLOB = frozenset("*?[]{}")
"""The characters that DuckDB takes for a pattern in a file's name."""


def default_cache_folder() -> Path:
    """Return the folder in which index files are mirrored unless another is given."""
    return Path.home() / ".cache" / "tensorbank"


@dataclass(frozen=True, slots=True)
class LogCopy:
    """A Delta log that is complete up to ``version`` below ``folder``, which may hold none of the table's files.

    ``first`` is of the log's first file: another one if the table was made anew. ``names`` are the files that say what the
    version holds.
    """

    folder: Path
    version: int
    first: str
    names: tuple[str, ...] = field(default=(), compare=False, repr=False)


class IndexMirror:
    """A mirror of index files, and of the logs that name them, on the local disk.

    Files of Delta tables never change and are named by UUID, so a copy is valid for ever. Its checksum is kept beside it, and
    compared by each process that begins to use it, and whenever the file was written to: a copy that a disk or a person changed
    is fetched anew. Copies appear by rename: a killed process leaves nothing that the next would read. They are for this user
    alone. Before DuckDB may open an index file, its footer is compared with what the log says of it.

    A ``file://`` bank is read where it lies.

    Parameters
    ----------
    store
        The bank.
    folder
        Root of the local copies; shared by all banks and processes of a user.
    max_bytes
        Most bytes of copies of index files in the folder, those of other banks among them.
    """

    def __init__(self, store: Store, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.store = store
        self.folder = folder
        self.max_bytes = max_bytes
        self._readable: dict[Path, tuple[Identity, int, int]] = {}
        self._footers: dict[str, Any] = {}
        self._turn = threading.Lock()
        self._listing = LogListing(store, self.in_place)
        self._room = Room(folder, max_bytes)
        self._copies = WholeCopies(store, folder, self._room)
        self._ranged = RangedFiles(store)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.store, self.folder, self.max_bytes))

    @property
    def in_place(self) -> Path | None:
        """The bank's folder, if its files can be read where they lie."""
        local = self.store.local_path
        return None if local is None or (UNREADABLE | GLOB) & set(str(local)) else local

    def require_writable(self) -> None:
        """Raise InvalidInputError if commits to this folder would land elsewhere, or nothing can be written there at all.

        What commits takes some characters of a path for something else. Files can be read from such a folder all the same.
        """
        if is_static(self.store):
            raise InvalidInputError(
                f"{self.store.url} is served as files, which can only be read; write to the folder or bucket that they come from",
                kind=ErrorKind.READ_ONLY,
            )
        local = self.store.local_path
        if local is not None and (odd := sorted(UNREADABLE & set(str(local)))):
            raise InvalidInputError(
                f"tables cannot be written to {local}: deltalake cannot handle {' '.join(odd)} in the "
                "name of a folder; rename the folder (it can be read as it is)",
                kind=ErrorKind.BAD_URL,
            )

    def paths(self, files: Sequence[IndexFile]) -> list[Path]:
        """Return the local paths of some index files, fetched where needed, in the given order.

        Raises
        ------
        IntegrityError
            The name of a file leads out of the bank, or the store's file has another length than its commit says.
        """
        self._require_below(files)
        local = self.in_place
        if local is not None:
            return [local / f.key for f in files]
        folder = self._open_folder()
        with ThreadPoolExecutor(N_THREADS) as pool:
            return list(pool.map(self._copies.bring, files, [folder / f.key for f in files]))

    def readable(self, files: Sequence[IndexFile]) -> list[Path]:
        """Return the local paths as :meth:`paths` gives them, of files that DuckDB may open:
        their footers agree with the log.

        Raises
        ------
        IntegrityError
            A file is not what the log says, or its name leads out of the bank.
        """
        paths = self.paths(files)
        new = [(f, p) for f, p in zip(files, paths, strict=True) if not self._is_checked(f, p)]
        if new:  # threads take longer to start than a look at a file that was checked
            with ThreadPoolExecutor(N_THREADS) as pool:
                list(pool.map(self._check, *zip(*new, strict=True)))
        return paths

    def scan(
        self,
        files: Sequence[IndexFile],
        condition: Condition,
        serve: Callable[[Mapping[str, ServedFile]], None],
    ) -> list[str]:
        """Return names by which DuckDB may open files: of copies as :meth:`readable` gives them, or of files that it reads by
        ranges from then on, where no copy of the whole is here.

        Parameters
        ----------
        condition
            Condition that the rows satisfy which are looked for: what it compares is brought ahead, where it may be true.
        serve
            Called with the files that are read by ranges, by name.

        Raises
        ------
        IntegrityError
            A file is not what the log says, or its name leads out of the bank.
        """
        opened = self._opened(files)
        names = {key: found.name for key, found in opened.items()}
        whole = [f for f in files if f.key not in opened]
        paths = dict(zip((f.key for f in whole), map(str, self.readable(whole)), strict=True))
        if opened:
            scan = Scan([self._scanned(found, condition) for found in opened.values()])
            serve({name: ServedFile(scan, number) for number, name in enumerate(names.values())})
            compared = {".".join(leaf) for leaf in leaves(condition)}
            scan.bring(compared - {FILTERED})
        return [names.get(f.key) or paths[f.key] for f in files]

    def _scanned(self, opened: OpenedFile, condition: Condition) -> ScannedFile:
        def footer() -> Any:
            return self._footers.get(opened.name) or footer_in(opened.file.tail)

        return ScannedFile(opened.file, opened.places, kept_row_groups(opened.name, condition, footer))

    def footer(self, path: str) -> Any:
        """Return pyarrow's ``FileMetaData`` of a file that :meth:`readable` has found sound, None if it is not remembered.

        Those of files without a checksum are not: such a footer may contradict itself, and pyarrow ends the process then.
        """
        return self._footers.get(path)

    def log(self, key: str, version: int | None = None, *, whole: bool = False) -> LogCopy:
        """Return a copy of the log of a Delta table as it is now, or as it was at a version.

        That takes one listing, and the files that are not here yet. The list begins at the newest commit that was met before, if
        that is still the same object. In a folder, files are looked for from there on, or from the last checkpoint.

        The ``whole`` log has all commits that there are, not just those since the last checkpoint.

        Files of a log are written once and never changed. A table that was made anew begins with another file, so its log gets
        another folder. ``_last_checkpoint``, which does change, is no more than a hint and stays where it is.

        Raises
        ------
        NotFoundError
            There is no such table, or no such version yet.
        """
        try:
            return self._log(key, self._listing.files(key, version, whole=whole), version, whole=whole)
        except NotFoundError:
            if not self._listing.forget(key):
                raise
        return self._log(key, self._listing.files(key, version, whole=whole), version, whole=whole)

    def _log(self, key: str, files: Mapping[str, ObjectInfo], version: int | None, *, whole: bool) -> LogCopy:
        """Return a copy of a log by its files; NotFoundError if they do not have the version, or are not there any more."""
        where = f"{self.store.url}/{key}"
        commits = commits_in(files)
        if not commits or (version is not None and version > max(commits)):
            raise NotFoundError(f"{where} has no {'log' if version is None else 'such version'}")
        version = max(commits) if version is None else version
        first = digest(f"{min(files)}|{files[min(files)].tag}")
        wanted = {name: files[name] for name in needed(files, version, where)}
        if whole:
            wanted |= {
                name: files[name] for v in commits if v <= version and (name := commit_name(v)) in files
            }
        if version == max(commits):
            tail = (min(files), *needed(files, version, where))
            self._listing.keep(key, {name: files[name] for name in tail})
        local = self.in_place
        if local is not None:
            oldest = local / key / LOG / next(iter(wanted))
            if not oldest.exists():
                raise NotFoundError(f"{where}/{LOG} has no {oldest.name} any more")
            return LogCopy(local / key, version, first, tuple(wanted))
        folder = self._open_folder() / key / f"log-{first}"
        with ThreadPoolExecutor(N_THREADS) as pool:
            list(pool.map(self._copies.bring, wanted.values(), [folder / LOG / name for name in wanted]))
        return LogCopy(folder, version, first, tuple(wanted))

    def forget(self, log: LogCopy) -> bool:
        """Remove the copy of a log, so that it is fetched anew; False if it is the log itself."""
        if self.in_place is not None:
            return False
        for name in log.names:
            (log.folder / LOG / name).unlink(missing_ok=True)
        return True

    def _opened(self, files: Sequence[IndexFile]) -> dict[str, OpenedFile]:
        """Return those of some files that are read by ranges, by key."""
        if self.in_place is not None:
            return {}
        self._require_below(files)
        folder = self._open_folder()
        asked = [
            (f, said)
            for f in files
            if f.n_bytes > WHOLE_BYTES
            and (said := checksum_in_name(f.key)) is not None
            and ((there := identity(folder / f.key)) is None or there.n_bytes != f.n_bytes)
        ]
        opened = {file.key: self._ranged.find(file) for file, _ in asked}
        new = [(file, said) for file, said in asked if opened[file.key] is None]
        if new:  # threads take longer to start than a look at a file that is open
            with ThreadPoolExecutor(N_THREADS) as pool:
                found = pool.map(lambda of: self._open_ranged(of[0], of[1], folder), new)
                opened |= {file.key: one for (file, _), one in zip(new, found, strict=True)}
        ranged = {file: one for file, _ in asked if (one := opened[file.key]) is not None}
        return {f.key: one for f, one in ranged.items() if not self._made_whole(f, one, folder / f.key)}

    def _open_ranged(self, file: IndexFile, checksum: int, folder: Path) -> OpenedFile | None:
        name = f"tensorbank://{folder.name}/{file.key}"
        kept = KeptPieces(folder / PIECES_FOLDER / file.key, file.n_bytes, self._room)
        level = file.key.partition("/index/")[2].partition("/")[0]
        filters = ROW_FILTER_BYTES * file.n_rows if level in ("samples", "sorted") else 0
        ranged = self._ranged.open(
            file.key, kept, checksum, tail_bytes=(64 << 10) + file.n_bytes // 700 + int(filters)
        )
        if ranged is None:
            return None
        footer = checked_footer(ranged.tail, file, ranged.where)
        self._remember_footer(name, footer)
        return self._ranged.keep(file, OpenedFile(name, ranged, ColumnPlaces.of(footer)))

    def _made_whole(self, file: IndexFile, opened: OpenedFile, path: Path) -> bool:
        """Tell whether all pieces of a file are here, which are a whole copy then."""
        if not opened.file.is_complete:
            return False
        with suppress(OSError):  # if it is gone, all of it is fetched
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            opened.file.kept.path.replace(path)
        self._ranged.forget(file)
        return True

    def _require_below(self, files: Sequence[IndexFile]) -> None:
        """Raise IntegrityError if the name of a file leads out of the bank."""
        for file in files:
            if not is_below(file.key):
                raise IntegrityError(
                    f"the log of {self.store.url} names {file.key!r}, which lies outside of it",
                    kind=ErrorKind.BAD_PATH,
                )

    def _remember_footer(self, name: str, footer: Any) -> None:
        with self._turn:
            self._footers.pop(name, None)
            self._footers[name] = footer
            if len(self._footers) > MAX_FOOTERS:
                del self._footers[next(iter(self._footers))]

    def _open_folder(self) -> Path:
        """Create the folder of the bank's copies, and return it."""
        if odd := sorted((UNREADABLE | GLOB) & set(str(self.folder))):
            raise InvalidInputError(
                f"index files cannot be kept in {self.folder}: deltalake or DuckDB cannot handle {' '.join(odd)} "
                "in the name of a folder; give another folder by cache=",
                kind=ErrorKind.BAD_CACHE_FOLDER,
            )
        folder = self.folder / digest(f"{self.store.options.endpoint or ''}|{self.store.url}")
        try:
            return private_folder(folder)
        except OSError as error:
            raise disk_error(error, folder) from error

    def _is_checked(self, file: IndexFile, path: Path) -> bool:
        return self._readable.get(path) == (identity(path), file.n_bytes, file.n_rows)

    def _check(self, file: IndexFile, path: Path) -> None:
        """Check a file, and fetch a copy that is damaged once more."""
        footer = None
        for n_left in reversed(range(N_FETCHES)):
            try:
                footer = check_index_file(path, file)
                break
            except IntegrityError:
                if not n_left or self.in_place is not None:
                    raise
                path.unlink(missing_ok=True)  # what came was not what was sent
                self._copies.bring(file, path)
        if (found := identity(path)) is not None:
            self._readable[path] = (found, file.n_bytes, file.n_rows)
        if checksum_in_name(file.key) is not None:
            self._remember_footer(str(path), footer)
