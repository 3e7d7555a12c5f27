"""Full SQL, for keys with that scope and services that allow it; each statement runs in a process of its own.

A statement with an ``AT``, or over a table with added columns, is parsed first, in such a process as well: its syntax tree says
which versions and columns it needs. Nothing of the service's own process parses SQL of callers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pyarrow as pa
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank.catalog import COLUMNS_FOLDER, DELETED
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.layout import LEVELS
from tensorbank.planning import needed_columns, with_editions
from tensorbank.statements import mentions
from tensorbank_server.access import Principal
from tensorbank_server.digests import digest
from tensorbank_server.documents import row_json
from tensorbank_server.http import Problem, chosen
from tensorbank_server.planning import ARROW
from tensorbank_server.routes.dependencies import Asker, BankName, Served, Snapshot, granted
from tensorbank_server.served_bank import Pinned, ServedBank, as_version
from tensorbank_server.service import Service
from tensorbank_server.workers.sandbox import Head, Question, ask

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["sql"])
Files = dict[str, list[str]]
"""The paths of index files, by level."""
_AT = re.compile(r"\bat\b", re.IGNORECASE)


class SqlBody(BaseModel):
    """A SELECT statement over the index; tables are as in the library, without pixel predicates."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(max_length=16_384)
    snapshots: dict[str, Snapshot] = Field(
        default={},
        max_length=100,
        description="Versions of tables, each by its number, a tag, or a time; the newest if not given.",
    )


@router.post("/banks/{bank}/sql", operation_id="runSql")
async def run_sql(request: Request, service: Served, asker: Asker, bank: BankName, body: SqlBody) -> Response:
    """Return the rows of a statement, as JSON or (``Accept: application/vnd.apache.arrow.stream``) Arrow."""
    found = service.bank(bank, asker, "sql")
    if not service.settings.full_sql:
        raise Problem(403, "sql-off", "this service takes filters only; see queryables")
    await service.queries.spend(asker.id)
    tree = None
    pinned = await found.run(_pinned, found, body.snapshots, _named_in(body.sql))
    if _AT.search(body.sql) is not None or await found.run(_have_added, pinned):
        tree = await _tree(service, asker, body.sql)
    if tree is not None:
        pinned, tree = await found.run(_editions, found, body.snapshots, tree)
    tables = await found.run(_files, pinned, body.sql, tree)
    for table in pinned.values():
        found.protect(table.table, table.table_id, table.version)
    versions = {name: table.version for name, table in pinned.items()}
    said = "" if tree is None else json.dumps(tree)
    head, stream = await _answer(service, asker, body.sql, tables, tree=said)
    failed = "error" in head
    granted(
        request,
        "sql",
        bank=bank,
        sql=digest(body.sql),
        snapshots=versions,
        outcome="refused" if failed else "done",
    )
    if failed:
        raise Problem(400, "sql", head["error"] or "the statement cannot be answered")
    headers = {"Cache-Control": "no-store", "Vary": "Accept"}
    if chosen(request.headers.get("accept", ""), ("application/json", ARROW)) == ARROW:
        return Response(
            stream, media_type=ARROW, headers={**headers, "X-Truncated": str(head["truncated"]).lower()}
        )
    table = pa.ipc.open_stream(stream).read_all()
    twice = [name for name, n in Counter(table.schema.names).items() if n > 1]
    if twice:
        raise Problem(
            400, "sql", f"several columns are called {twice[0]!r}; give each a name of its own by AS"
        )
    content: dict[str, object] = {
        "snapshots": versions,
        "features": row_json.features(table.schema),
        "rows": row_json.plain(row_json.readable(table)),
        "truncated": head["truncated"],
    }
    return JSONResponse(content, headers=headers)


def _named_in(sql: str) -> Callable[[str], bool]:
    """Return whether a statement may mean a table: a test of its words, which holds for more tables than are meant."""
    words = sql.lower()
    return lambda table: table.lower() in words


def _pinned(
    bank: ServedBank, snapshots: Mapping[str, int | str], is_meant: Callable[[str], bool]
) -> dict[str, Pinned]:
    """Return the tables that a statement may mean, at their versions, by name."""
    found = {}
    for name in filter(is_meant, bank.tables()):
        version = as_version(snapshots.get(name))
        found[name] = bank.pin_named(name, version) if isinstance(version, str) else bank.pin(name, version)
    return found


def _have_added(pinned: Mapping[str, Pinned]) -> bool:
    """Tell whether some of the tables have columns that were added to their samples."""
    return any(p.bank.bank.catalog.version(p.table, p.version).columns for p in pinned.values())


async def _answer(
    service: Service,
    asker: Principal,
    sql: str,
    tables: Mapping[str, Files],
    *,
    tree: str = "",
    only_parses: bool = False,
) -> tuple[Head, bytes]:
    """Ask a process in the sandbox."""
    limits = service.limits
    question = Question(
        sql=sql,
        tree=tree,
        only_parses=only_parses,
        tables=tables,
        max_rows=limits.sql_rows,
        max_bytes=limits.answer_bytes,
        memory_bytes=limits.sql_memory_bytes,
        limit_s=limits.query_s,
    )
    try:
        with service.sql_slots.slot(asker.id):
            return await ask(question)
    except TimeoutError:
        raise Problem(504, "time-limit", f"the statement took more than {limits.query_s:g} s") from None


async def _tree(service: Service, asker: Principal, sql: str) -> Any:
    """Return the syntax tree of a statement; None where DuckDB has none, and will say why when it is asked for the answer."""
    head, raw = await _answer(service, asker, sql, {}, only_parses=True)
    if "error" in head:
        return None
    try:
        found = json.loads(raw)
    except RecursionError:
        raise _too_deep() from None
    return None if found.get("error") else found


def _editions(
    bank: ServedBank, snapshots: Mapping[str, int | str], tree: Any
) -> tuple[dict[str, Pinned], Any]:
    """Return the tables that a statement means by their names in it, and its tree with a name for each version of an ``AT``."""
    try:
        tree, dated = with_editions(tree, bank.bank.catalog, ())
        meant = {name.lower() for _, table in mentions(tree) for name in (table.schema, table.name)}
    except InvalidInputError as error:  # its words are about the caller's, and are ours
        raise Problem(400, error.kind, str(error)) from None
    except RecursionError:
        raise _too_deep() from None
    undated = _pinned(bank, snapshots, lambda table: table.lower() in meant)
    return undated | {name: bank.pin(e.table, e.version) for name, e in dated.items()}, tree


def _too_deep() -> Problem:
    return Problem(400, ErrorKind.SQL, "the statement is nested too deeply")


def _files(pinned: Mapping[str, Pinned], sql: str, tree: Any) -> dict[str, Files]:
    """Return the index files that the tables of a statement need."""
    words = sql.lower()
    tables: dict[str, Files] = {}
    for name, table in pinned.items():
        catalog = table.bank.bank.catalog
        version = catalog.version(table.table, table.version)
        columns: Collection[str] = version.columns if tree is None else needed_columns(tree, version.columns)
        added = [f"{COLUMNS_FOLDER}/{column}" for column in columns]
        levels = [level for level in LEVELS if level == "samples" or level in words]
        tables[name] = {}
        for level in (*levels, *added, *([DELETED] if version.has(DELETED) else [])):
            files = catalog.state(version, level).files
            if level in ("tiles", "shards") and version.pins is None and version.samples.parts is not None:
                files = files.of_parts(version.samples.parts)
            paths = [str(p) for p in catalog.mirror.readable(files.files)]
            if paths:
                tables[name][level] = paths
    return {name: levels for name, levels in tables.items() if "samples" in levels}
