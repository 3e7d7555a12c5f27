"""Keys of the folders of a plan, which a service hands out for a while."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tensorbank.client.plan_client import PlanClient
from tensorbank.client.service import ServiceClient
from tensorbank.errors import ErrorKind
from tensorbank.fetch import range_policies

if TYPE_CHECKING:
    from tensorbank.client.served_plan import ServedPlan

__all__ = ["FolderKeys"]


class FolderKeys:
    """A callable that gives keys of the folders of a plan:
    what :class:`tensorbank.storage.address.StorageOptions` calls for ``credentials``. It pickles without the keys.
    """

    def __init__(self, plan: ServedPlan, patience_s: float) -> None:
        self.plan = plan
        self.patience_s = patience_s
        self._first: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"plan": self.plan, "patience_s": self.patience_s, "_first": None}

    def place(self) -> dict[str, Any]:
        """Return the place of the store: ``url``, ``endpoint``, ``region``.
        The answer holds the first keys, too.
        """
        self._first = found = self._ask()
        return found

    def __call__(self) -> dict[str, Any]:
        found, self._first = self._first or self._ask(), None
        keys = found["keys"]
        return {
            "access_key_id": keys["access_key"],
            "secret_access_key": keys["secret_key"],
            "token": keys["session_token"],
            "expires_at": found["expires_at"],
        }

    def _ask(self) -> dict[str, Any]:
        asked = datetime.now(UTC)
        # All of the patience is spent here: the store's client takes a failure for a refusal, which is final.
        policy = range_policies(self.patience_s)[ErrorKind.UNREACHABLE]
        service = ServiceClient(self.plan.service, self.plan.key, policy)
        found = PlanClient(service, self.plan).addresses(None)
        # By this machine's clock, whatever the service's says.
        life = datetime.fromisoformat(found["expires"]) - datetime.fromisoformat(found["server_time"])
        return {**found, "expires_at": asked + life}
