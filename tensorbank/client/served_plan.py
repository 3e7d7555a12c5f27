"""Plans at a service: the identity of one, by which its bytes are read with nothing but the key of the service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from tensorbank.client.folder_keys import FolderKeys
from tensorbank.client.plan_bytes import PlanBytes
from tensorbank.client.plan_client import PlanClient
from tensorbank.client.service import BANKS, ONCE, ServiceClient
from tensorbank.fetch import PATIENCE_S, RangeReader
from tensorbank.storage import StorageOptions, Store

__all__ = ["Access", "ServedPlan"]

Access = Literal["url", "dir", "proxy"]
"""The ways to read the bytes of a plan. ``url``: from the object store, by signed URLs. ``dir``: from there, by keys of the
plan's folders. ``proxy``: through the service."""


@dataclass(frozen=True, slots=True)
class ServedPlan:
    """A plan at a service, and how its bytes are read.

    Parameters
    ----------
    service
        URL of the service.
    bank, plan
        Name of the bank and id of the plan, as the service knows them.
    access
        Way to read the bytes.
    key
        Key of the service, None where access is open.
    question
        JSON that the plan was asked for with, snapshot pinned: a service that lost the plan makes the same one of it.
    """

    service: str
    bank: str
    plan: str
    access: Access = "url"
    key: str | None = field(default=None, repr=False)
    question: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The URL of the bank at the service. It names objects in messages and caches, and holds no secret."""
        return f"{self.service.rstrip('/')}{BANKS}{quote(self.bank)}"

    def open(self, patience_s: float = PATIENCE_S) -> RangeReader:
        """Return a reader of the bytes of the plan's shards.

        The service is asked at once for keys of folders, and else when the first range is read.

        Parameters
        ----------
        patience_s
            Seconds that a service that is out of reach or busy is asked for keys of folders.

        Raises
        ------
        StorageError
            The service refuses keys of folders, or cannot be reached.
        """
        if self.access != "dir":
            client = PlanClient(ServiceClient(self.service, self.key, ONCE), self)
            return PlanBytes(client)
        keys = FolderKeys(self, patience_s)
        place = keys.place()
        options = StorageOptions(endpoint=place["endpoint"], region=place["region"], credentials=keys)
        return Store(place["url"], options)
