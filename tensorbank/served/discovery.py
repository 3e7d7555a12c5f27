"""Discovery of a service at a URL, and of the bank of it that is meant."""

from __future__ import annotations

from tensorbank.client import BANKS, ServiceClient
from tensorbank.errors import ErrorKind, NotFoundError, StorageError, nearest

__all__ = ["find_service"]


def find_service(url: str, key: str | None) -> tuple[ServiceClient, str] | None:
    """Return the service and the name of the bank at the URL of either; None if something else than a service answers.

    One request is made.

    Raises
    ------
    StorageError
        Nothing answers, or the key is refused.
    NotFoundError
        The service has no such bank, or several and none was named.
    """
    base, _, name = url.partition(BANKS.rstrip("/"))
    service = ServiceClient(base, key)
    names = _banks(service)
    if names is None:
        if key is not None:
            raise StorageError(
                f"{base} is not a TensorBank service, so key= cannot be used; leave it out, or check the address",
                kind=ErrorKind.NO_SERVICE,
            )
        return None
    name = name.strip("/")
    if not name and len(names) == 1:
        return service, names[0]
    if name not in names:
        which = (
            f"no bank {name!r}.{nearest(name, names)}"
            if name
            else f"the banks {', '.join(names) or '(none)'}."
        )
        raise NotFoundError(f"{base} has {which} Open {base}{BANKS}NAME", kind=ErrorKind.UNKNOWN_BANK)
    return service, name


def _banks(service: ServiceClient) -> list[str] | None:
    """Return the names of the banks that the key opens;
    None where no service answers, but something else does.
    """
    try:
        return [str(b["name"]) for b in service.get("/v1/banks")["banks"]]
    except StorageError as error:
        if error.kind != ErrorKind.NO_SERVICE:
            raise
    except (KeyError, TypeError):
        pass
    return None
