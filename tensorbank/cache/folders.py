"""Folders for one user's own copies: nobody else may read, change or redirect what lies in them.

What is cached is believed later, and was read with this user's rights. So a folder that somebody else owns, or that a link puts
somewhere else, is not used.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from tensorbank.errors import ErrorKind, StorageError

__all__ = ["FILE_MODE", "private_folder"]

FOLDER_MODE = 0o700
FILE_MODE = 0o600
_OTHERS = 0o077


def private_folder(path: Path) -> Path:
    """Make a folder for this user alone, and what is missing above it.

    The folder above may be a link, or root's: those are the user's and the administrator's wish.

    Raises
    ------
    StorageError
        The folder, or the one above it, is another user's, or the folder is a link or no folder; its kind is ``unsafe-folder``.
    OSError
        It cannot be made.
    """
    _make(path.parent)
    _check_owner(path.parent, path.parent.stat(), also_root=True)
    with suppress(FileExistsError):
        path.mkdir(mode=FOLDER_MODE)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a folder"
        raise StorageError(
            f"{path} is {what}, so it is not used for copies; remove it, or give another folder",
            kind=ErrorKind.UNSAFE_FOLDER,
        )
    _check_owner(path, found, also_root=False)
    if found.st_mode & _OTHERS:
        path.chmod(FOLDER_MODE)
    return path


def _make(path: Path) -> None:
    """Make a folder and those above it, each for this user alone."""
    if path.is_dir():
        return
    _make(path.parent)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def _check_owner(path: Path, found: os.stat_result, *, also_root: bool) -> None:
    mine = {os.geteuid(), 0} if also_root else {os.geteuid()}
    if found.st_uid not in mine:
        raise StorageError(
            f"{path} belongs to user {found.st_uid}, who could change what is kept there; give a folder of your own",
            kind=ErrorKind.UNSAFE_FOLDER,
        )
