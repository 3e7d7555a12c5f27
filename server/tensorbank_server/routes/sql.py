"""Full SQL, for keys with that scope and services that allow it; each statement runs in a process of its own."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank.catalog import DELETED
from tensorbank.layout import LEVELS
from tensorbank_server.digests import digest
from tensorbank_server.documents import row_json
from tensorbank_server.http import Problem, chosen
from tensorbank_server.planning import ARROW
from tensorbank_server.routes.dependencies import Asker, BankName, Served, granted
from tensorbank_server.served_bank import ServedBank
from tensorbank_server.workers.sandbox import Question, ask

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["sql"])


class SqlBody(BaseModel):
    """A SELECT statement over the index; tables are as in the library, without pixel predicates."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(max_length=16_384)
    snapshots: dict[str, int] = Field(
        default={}, max_length=100, description="Versions of tables; the newest if not given."
    )


@router.post("/banks/{bank}/sql", operation_id="runSql")
async def run_sql(request: Request, service: Served, asker: Asker, bank: BankName, body: SqlBody) -> Response:
    """Return the rows of a statement, as JSON or (``Accept: application/vnd.apache.arrow.stream``) Arrow."""
    found = service.bank(bank, asker, "sql")
    if not service.settings.full_sql:
        raise Problem(403, "sql-off", "this service takes filters only; see queryables")
    service.queries.spend(asker.id)
    tables, versions = await found.run(_tables, found, body)
    question = Question(
        sql=body.sql,
        tables=tables,
        max_rows=service.limits.sql_rows,
        max_bytes=service.limits.answer_bytes,
        memory_bytes=service.limits.sql_memory_bytes,
        limit_s=service.limits.query_s,
    )
    try:
        with service.sql_slots.slot(asker.id):
            head, stream = await ask(question)
    except TimeoutError:
        raise Problem(
            504, "time-limit", f"the statement took more than {service.limits.query_s:g} s"
        ) from None
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


def _tables(bank: ServedBank, body: SqlBody) -> tuple[dict[str, dict[str, list[str]]], dict[str, int]]:
    """Return the index files of the tables that the statement mentions, and the versions of the tables."""
    words = body.sql.lower()
    tables: dict[str, dict[str, list[str]]] = {}
    versions: dict[str, int] = {}
    for name in bank.tables():
        if name.lower() not in words:
            continue
        pinned = bank.pin(name, body.snapshots.get(name))
        versions[name] = pinned.version
        version = bank.bank.catalog.version(name, pinned.version)
        tables[name] = {}
        for level in (*LEVELS, *([DELETED] if version.has(DELETED) else [])):
            if level not in ("samples", DELETED) and level not in words:
                continue
            files = bank.bank.catalog.state(version, level).files
            if level in ("tiles", "shards") and version.pins is None and version.samples.parts is not None:
                files = files.of_parts(version.samples.parts)
            paths = [str(p) for p in bank.bank.catalog.mirror.readable(files.files)]
            if paths:
                tables[name][level] = paths
    return {name: levels for name, levels in tables.items() if "samples" in levels}, versions
