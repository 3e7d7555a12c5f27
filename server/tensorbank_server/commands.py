"""The commands ``tensorbank serve`` and ``tensorbank keys``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tensorbank.cli import Endpoint, Json, Region, say
from tensorbank.errors import InvalidInputError

if TYPE_CHECKING:  # the web framework is imported by the commands that need it
    from tensorbank_server.settings import Settings

__all__ = ["keys", "serve"]

KeyPath = Annotated[
    Path,
    typer.Option(
        "--file", help="File of keys.", envvar="TENSORBANK_KEYS_FILE", show_envvar=True, dir_okay=False
    ),
]
DEFAULT_KEYS = Path("tensorbank-keys.json")
LIFETIME = re.compile(r"(\d+)([hd])")

keys = typer.Typer(help="Make, list and revoke keys of the service.", no_args_is_help=True)


def serve(
    bank: Annotated[
        str | None,
        typer.Argument(metavar="[BANK]", help="Folder or URL of a bank; others come from the settings."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65_535)
    ] = 8000,
    name: Annotated[
        str | None, typer.Option(help="Name of the bank; the end of its URL if not given.")
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="TOML file of settings.", dir_okay=False)] = None,
    keys_file: Annotated[Path | None, typer.Option("--keys", help="File of keys.", dir_okay=False)] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in who reaches the address, without keys.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Host name by which clients reach the service; may be repeated.")
    ] = None,
    trusted_proxies: Annotated[
        str, typer.Option(help="Addresses whose X-Forwarded-For is believed, separated by commas.")
    ] = "",
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Serve banks over HTTP: tables, queries, samples, pictures, and plans for training."""
    from tensorbank_server.app import create_app
    from tensorbank_server.listening import configure_logs, listen
    from tensorbank_server.listening import serve as run
    from tensorbank_server.settings import BankSettings, load_settings

    found = load_settings(settings, **({} if keys_file is None else {"keys_file": keys_file}))
    if bank is not None:
        served = BankSettings(url=bank, endpoint=endpoint, region=region)
        found = found.model_copy(update={"banks": {**found.banks, name or _name_of(bank): served}})
    if not found.banks:
        raise InvalidInputError("there is no bank to serve: name one, or give --settings")
    found = _at_address(found, host, allowed_host or [], insecure=insecure)
    configure_logs(found.log_level)
    app = create_app(found)
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        say(f"serving {', '.join(found.banks)} at http://{shown}:{listening.getsockname()[1]}")
        run(app, found, listening, trusted_proxies)


def _at_address(settings: Settings, host: str, names: Sequence[str], *, insecure: bool) -> Settings:
    """Return the settings of a service that listens at a host: who is let in, and which names it is called by.

    On loopback everybody is let in where there are no keys, and the end of the service waits for no balancer.

    Raises
    ------
    InvalidInputError
        Others can reach the host, nobody would be asked for a key, and ``insecure`` does not say that this is meant.
    """
    from tensorbank_server.listening import is_loopback

    local = is_loopback(host)
    has_keys = settings.keys_file is not None or settings.oidc is not None
    changes: dict[str, object] = {}
    if settings.access != "open" and not has_keys:
        if not (local or insecure):
            raise InvalidInputError(
                f"{host} can be reached by others: make a key (`tensorbank keys create --file keys.json NAME`) and give "
                "--keys keys.json, or give --insecure to let everybody in"
            )
        changes["access"] = "open"
    elif settings.access == "open" and not (local or insecure):
        raise InvalidInputError(
            f"{host} can be reached by others, and access is open; give --insecure if you mean it"
        )
    own = [] if local or host in ("0.0.0.0", "::") else [host]
    changes["allowed_hosts"] = tuple(dict.fromkeys([*settings.allowed_hosts, *names, *own]))
    if local and "drain_s" not in settings.model_fields_set:
        changes["drain_s"] = 0.0
    return settings.model_copy(update=changes)


def _name_of(url: str) -> str:
    """Return a name for the bank of a URL: its last segment, without the characters that a name cannot have."""
    last = url.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-_")
    return name[:63] if re.match(r"[A-Za-z]", name) else f"bank-{name}"[:63].rstrip("-")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key's owner, for people.")],
    file: KeyPath = DEFAULT_KEYS,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, plan, proxy, sql or admin; may be repeated; read and plan if not given."),
    ] = None,
    bank: Annotated[
        list[str] | None,
        typer.Option(help="Bank that the key opens; may be repeated; all banks if not given."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Lifetime such as 12h or 90d; unlimited if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    from tensorbank_server.access import KeyFile

    key, text = KeyFile(file).create(name, scope or ("read", "plan"), bank, _lifetime(expires))
    say(json.dumps({"id": key.id, "key": text, "expires": key.expires}) if as_json else text)


@keys.command("list")
def list_keys(file: KeyPath = DEFAULT_KEYS, as_json: Json = False) -> None:
    """List keys, without their secrets."""
    from tensorbank_server.access import KeyFile

    found = KeyFile(file).list()
    if as_json:
        say(json.dumps([{k: v for k, v in asdict(key).items() if k != "sha256"} for key in found]))
        return
    for key in found:
        state = f"revoked {key.revoked}" if key.revoked else f"expires {key.expires or 'never'}"
        say(f"{key.id}\t{key.name}\t{' '.join(key.scopes)}\t{' '.join(key.banks or ('all banks',))}\t{state}")


@keys.command()
def revoke(
    identity: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, as `list` shows it.")],
    file: KeyPath = DEFAULT_KEYS,
) -> None:
    """End a key; a running service refuses it within two seconds."""
    from tensorbank_server.access import KeyFile

    key = KeyFile(file).revoke(identity)
    say(f"{key.id} of {key.name} is revoked since {key.revoked}")


def _lifetime(text: str | None) -> timedelta | None:
    if text is None:
        return None
    found = LIFETIME.fullmatch(text)
    if found is None:
        raise InvalidInputError(f"a lifetime is a number of hours or days such as 12h or 90d, got {text!r}")
    return timedelta(**{{"h": "hours", "d": "days"}[found[2]]: int(found[1])})
