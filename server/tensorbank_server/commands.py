"""``tensorbank serve`` and ``tensorbank keys``."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from tensorbank.cli import Endpoint, Json, Region, say
from tensorbank.errors import InvalidInputError

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
        list[str] | None, typer.Option(help="Name that clients call the service by; may be given again.")
    ] = None,
    trusted_proxies: Annotated[
        str, typer.Option(help="Addresses whose X-Forwarded-For is believed, separated by commas.")
    ] = "",
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Serve banks over HTTP: look, query, fetch samples, plan training."""
    from tensorbank_server.app import create_app
    from tensorbank_server.listening import configure_logs, is_loopback, listen
    from tensorbank_server.listening import serve as run
    from tensorbank_server.settings import load_settings

    given: dict[str, Any] = {}
    if keys_file is not None:
        given["keys_file"] = keys_file
    found = load_settings(settings, **given)
    changes: dict[str, Any] = {}
    if bank is not None:
        from tensorbank_server.settings import BankSettings

        served = BankSettings(url=bank, endpoint=endpoint, region=region)
        changes["banks"] = {**found.banks, name or _name_of(bank): served}
    if not (found.banks or changes):
        raise InvalidInputError("there is no bank to serve: name one, or give --settings")
    local = is_loopback(host)
    has_keys = found.keys_file is not None or found.oidc is not None
    if found.access != "open" and not has_keys:
        if not (local or insecure):
            raise InvalidInputError(
                f"{host} can be reached by others: make a key (`tensorbank keys create --file keys.json NAME`) and give "
                "--keys keys.json, or give --insecure to let everybody in"
            )
        changes["access"] = "open"
    elif found.access == "open" and not (local or insecure):
        raise InvalidInputError(
            f"{host} can be reached by others, and access is open; give --insecure if you mean it"
        )
    hosts = [
        *found.allowed_hosts,
        *(allowed_host or []),
        *([] if local or host in ("0.0.0.0", "::") else [host]),
    ]
    changes["allowed_hosts"] = tuple(dict.fromkeys(hosts))
    if local and "drain_s" not in found.model_fields_set:
        changes["drain_s"] = 0.0
    found = found.model_copy(update=changes)
    configure_logs(found.log_level)
    app = create_app(found)
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        say(f"serving {', '.join(found.banks)} at http://{shown}:{listening.getsockname()[1]}")
        run(app, found, listening, trusted_proxies)


def _name_of(url: str) -> str:
    """A name for the bank of a URL: its last segment, as far as it can be one."""
    last = url.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-_")
    return name[:63] if re.match(r"[A-Za-z]", name) else f"bank-{name}"[:63].rstrip("-")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, for people.")],
    file: KeyPath = DEFAULT_KEYS,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, plan, proxy, sql or admin; may be given again. read and plan if not."),
    ] = None,
    bank: Annotated[
        list[str] | None, typer.Option(help="Bank that it opens; may be given again. All if not.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Lifetime such as 12h or 90d; for ever if not given.")
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
    identity: Annotated[str, typer.Argument(metavar="ID", help="Of the key, as `list` shows it.")],
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
