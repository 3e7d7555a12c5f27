"""The setting of tasks that need the bank alone."""

from __future__ import annotations

from typing import Any

from tensorbank.errors import ErrorKind, StorageError
from tensorbank.storage import Store

__all__ = ["BankSetting"]


class BankSetting:
    """A setting without anything but a bank; see :class:`tensorbank.engines.Setting`.

    Parameters
    ----------
    store
        The bank.
    folder
        Key of a folder that it has, by which a worker knows that it sees the same one.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self.store = store
        self.folder = folder

    def require_shareable(self, address: str) -> None:
        """See ``Setting.require_shareable``: a bank has the same address everywhere."""

    def look(self) -> None:
        """Raise StorageError if this process sees another folder where the bank is: it would miss all of its objects."""
        root = self.store.local_path
        if root is not None and not (root / self.folder).is_dir():
            raise StorageError(
                f"the folder {root} that it sees has no {self.folder}, so it is not the bank",
                kind=ErrorKind.NO_FOLDER,
            )

    def look_for(self, task: Any) -> None:
        """See ``Setting.look_for``: an object that is missing is told by who reads it."""

    def begin(self) -> None:
        """See ``Setting.begin``: nothing is to be prepared."""
