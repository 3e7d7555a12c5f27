"""Origins of plans: where the bytes of a plan are read from, a store or a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tensorbank.arguments import instance
from tensorbank.client import ServedPlan
from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.fetch import PATIENCE_S, RangeReader
from tensorbank.storage import StorageOptions, Store

__all__ = ["Origin", "StoreAddress", "common_origin", "origin_from_json", "origin_to_json", "trusted"]


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """The address of a bank in a store, and the options to reach it.

    ``url`` is as :func:`tensorbank.storage.normalize_url` returns it.
    """

    url: str
    options: StorageOptions = field(default_factory=StorageOptions)

    def open(self, patience_s: float = PATIENCE_S) -> RangeReader:  # noqa: ARG002 - a store is asked when a range is read
        """Return a reader of the bank's bytes. Nothing is asked of the store yet."""
        return Store(self.url, self.options)


Origin = StoreAddress | ServedPlan
"""The origin of a plan. Both have a ``url``, that of the bank, and ``open(patience_s)``, which gives a
:class:`tensorbank.fetch.RangeReader`. They are values: frozen, and picklable with the keys that they hold."""


def common_origin(origins: Sequence[Origin]) -> tuple[Origin, list[str]] | None:
    """Return an origin that holds the objects of all, and the folder in it of each, such as ``"b/"``; None if there is none."""
    first = origins[0]
    if all(origin == first for origin in origins):
        return first, [""] * len(origins)
    stores = [origin for origin in origins if isinstance(origin, StoreAddress)]
    servers = {urlsplit(origin.url)[:2] for origin in origins}
    if len(stores) < len(origins) or len(servers) > 1 or any(s.options != stores[0].options for s in stores):
        return None
    paths = [store.url.rstrip("/").split("/") for store in stores]
    n = next(
        (i for i, some in enumerate(zip(*paths, strict=False)) if len(set(some)) > 1), min(map(len, paths))
    )
    common = StoreAddress("/".join(paths[0][:n]), stores[0].options)
    return common, ["".join(f"{folder}/" for folder in path[n:]) for path in paths]


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """Return an origin as the file of a plan has it, without credentials."""
    if isinstance(origin, StoreAddress):
        return {"endpoint": origin.options.endpoint, "region": origin.options.region, "served": None}
    return {
        "endpoint": None,
        "region": None,
        "served": {k: v for k, v in asdict(origin).items() if k != "key"},
    }


def origin_from_json(bank: str, described: Mapping[str, Any]) -> Origin:
    """Return what :func:`origin_to_json` wrote of the origin of a plan of a bank.

    Raises
    ------
    KeyError, TypeError
        The description is none.
    """
    if described["served"]:
        return ServedPlan(**described["served"])
    return StoreAddress(bank, StorageOptions(endpoint=described["endpoint"], region=described["region"]))


def trusted(origin: Origin, path: str | Path, service: str | None, given: Mapping[str, Any]) -> Origin:
    """Return the origin of a saved plan with the options that the caller gives.

    A key goes only to a service that the caller names: the file alone, which anybody may have written, does not say who may have
    one.

    Parameters
    ----------
    path
        File of the plan, for messages.
    service
        URL of the service that the plan must come from; None if the caller names none.
    given
        Fields of :class:`StorageOptions`; of a plan at a service, ``key`` and ``access``.

    Raises
    ------
    InvalidInputError
        A key is given without a service, the plan comes from another service, or a field is unknown.
    """
    if service is not None:
        instance("service", service, str, "give the URL of the service, or leave it out")
    named = None if isinstance(origin, StoreAddress) else origin.service
    names = [f.name for f in fields(StorageOptions)] if named is None else ["key", "access"]
    if unknown := sorted(set(given) - set(names)):
        if unknown == ["key"]:
            raise InvalidInputError(
                f"{path} was made without a service, so there is nobody to send a key to; give access_key and secret_key",
                kind=ErrorKind.NO_SERVICE,
            )
        raise InvalidInputError(
            f"{unknown[0]!r} is no option of a plan's storage.{nearest(unknown[0], names)}"
        )
    if service is not None and (named is None or named.rstrip("/") != service.rstrip("/")):
        raise InvalidInputError(
            f"{path} comes from {named or 'no service'}, and not from {service}", kind=ErrorKind.OTHER_SERVICE
        )
    if given.get("key") is not None and service is None:
        raise InvalidInputError(
            f"{path} says that it comes from the service {named}, which would be sent the key; if you trust that, say so by "
            f"service={named!r}",
            kind=ErrorKind.UNTRUSTED_SERVICE,
        )
    if isinstance(origin, StoreAddress):
        return replace(origin, options=replace(origin.options, **given))
    return replace(origin, **given)
