"""Questions about one plan to its service: addresses of its shards, and the plan itself once more."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tensorbank.client.service import BANKS, ServiceClient
from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
    TensorBankError,
)

if TYPE_CHECKING:
    from tensorbank.client.served_plan import ServedPlan

__all__ = ["PlanClient", "is_lost", "make_plan"]

PLAN_DEADLINE_S = 120.0
"""Seconds to wait for a plan to be made."""


class PlanClient:
    """A client of a service that asks about one plan. May be used from many threads.

    Parameters
    ----------
    service
        Client of the service.
    plan
        Plan that is asked about.
    """

    def __init__(self, service: ServiceClient, plan: ServedPlan) -> None:
        self.service = service
        self.plan = plan

    def addresses(self, keys: Sequence[str] | None, page: str | None = None) -> dict[str, Any]:
        """Return fresh addresses of some shards, or of a page of all;
        the plan is made again if the service has lost it.
        """
        content: dict[str, Any] = {"access": self.plan.access}
        content |= {"shards": list(keys)} if keys is not None else {}
        content |= {"next": page} if page is not None else {}
        path = f"/v1/plans/{self.plan.plan}/credentials"
        try:
            found: dict[str, Any] = self.service.post(path, content)
        except NotFoundError as error:
            if not is_lost(error):
                raise
            self.restore()
            found = self.service.post(path, content)
        return found

    def restore(self) -> None:
        """Ask for the same plan again.

        Raises
        ------
        ConflictError
            The service makes another one of the same question.
        """
        made = make_plan(self.service, self.plan.bank, json.loads(self.plan.question))
        if made["id"] != self.plan.plan:
            raise ConflictError(
                f"{self.service.url} no longer has plan {self.plan.plan}, and made {made['id']} of the same question: "
                "its table or its version of TensorBank has changed; make the plan again",
                kind=ErrorKind.OTHER_PLAN,
            )


def make_plan(service: ServiceClient, bank: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for a plan, wait until it is made, and return its status.

    Raises
    ------
    InvalidInputError, NotFoundError, StorageError
        The service refuses, cannot make it, or takes too long.
    """
    deadline_s = time.monotonic() + PLAN_DEADLINE_S
    status: dict[str, Any] = service.post(f"{BANKS}{quote(bank)}/plans", question)
    pause_s = 0.05
    while status["state"] == "submitted":
        if time.monotonic() > deadline_s:
            raise StorageError(
                f"{service.url} has not made the plan within {PLAN_DEADLINE_S:g} s", kind=ErrorKind.TIME_LIMIT
            )
        time.sleep(pause_s)
        pause_s = min(1.0, 2 * pause_s)
        status = service.get(f"/v1/plans/{status['id']}")
    if status["state"] != "completed":
        told = status.get("error", {})
        raise InvalidInputError(
            f"{service.url} could not make the plan: {told.get('detail', status['state'])}",
            kind=ErrorKind.named(told.get("code"), ErrorKind.PLAN),
        )
    return status


def is_lost(error: TensorBankError) -> bool:
    """Tell whether a service has forgotten a plan, or what it was made of."""
    return isinstance(error, NotFoundError) and error.kind in (
        ErrorKind.UNKNOWN_PLAN,
        ErrorKind.GONE,
        ErrorKind.CANCELLED,
    )
