"""A sandbox for SQL of callers: each statement has a process that may do nothing else.

DuckDB is no sandbox, so the fence is the operating system's: limits of memory, time, files and file sizes, and Landlock where the
kernel has it, all before DuckDB is started. Inside of the fence its settings keep it to the index files of the tables, too.
The question comes as JSON on standard input; a line of JSON and an Arrow stream go to standard output.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:  # the sandbox starts DuckDB after it has given up its rights
    import duckdb

__all__ = ["Head", "Question", "ask"]

START_S = 5.0
"""Seconds that the start of a process may take, beside the time of the statement."""
MAX_FILES = 256
_ADDED = "columns/"
_SHOWN = ("ParserException", "BinderException", "CatalogException", "SyntaxException")
"""The errors about the words of a statement, which the caller sees; others may hold data."""


@dataclass(frozen=True, slots=True)
class Question:
    """A statement to answer, and its limits.

    Parameters
    ----------
    sql
        One SELECT.
    tree
        Its syntax tree as JSON, which is answered in its place; none if empty.
    tables
        Index files of each level, by table; those of a column that was added later below ``columns/`` and its name.
    max_rows
        The most rows of an answer; rows beyond are cut off.
    """

    sql: str
    tables: Mapping[str, Mapping[str, Sequence[str]]]
    max_rows: int
    max_bytes: int
    memory_bytes: int
    limit_s: float
    tree: str = ""
    only_parses: bool = False
    """True if the answer is to be the syntax tree, as JSON."""


class Head(TypedDict, total=False):
    """The head of an answer: ``landlock``, and either ``truncated`` or ``error``.

    The error is a sentence for the caller, None where its words could hold data.
    """

    landlock: int
    truncated: bool
    error: str | None


async def ask(question: Question) -> tuple[Head, bytes]:
    """Return the head and Arrow stream of the answer, or the syntax tree.

    Raises
    ------
    TimeoutError
        It took too long, and was killed.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(START_S + question.limit_s):
            out, _ = await process.communicate(json.dumps(asdict(question)).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    head, _, body = out.partition(b"\n")
    if not head:  # killed by a limit
        return {"error": "the statement took too much time or memory; ask for less"}, b""
    return json.loads(head), body


def _give_up(question: Question, folders: Sequence[str]) -> int:
    """Set limits and restrict the process; return Landlock's version."""
    from tensorbank_server.workers.landlock import restrict

    seconds = math.ceil(question.limit_s)
    for what, most in (
        (resource.RLIMIT_AS, question.memory_bytes),
        (resource.RLIMIT_CPU, 4 * seconds + math.ceil(START_S)),
        (resource.RLIMIT_NOFILE, MAX_FILES + 2 * len(_files(question.tables))),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    return restrict([*folders, *_files(question.tables)])


def _files(tables: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    return [p for levels in tables.values() for paths in levels.values() for p in paths]


def _unnamed(question: Question) -> Question:
    """Return the question with its files opened and named by number: the definition of a view then shows no path."""
    opened = {path: f"/dev/fd/{os.open(path, os.O_RDONLY)}" for path in _files(question.tables)}
    tables = {
        name: {level: [opened[p] for p in paths] for level, paths in levels.items()}
        for name, levels in question.tables.items()
    }
    return replace(question, tables=tables)


def _answer(question: Question, landlock: int) -> tuple[Head, bytes]:
    import duckdb
    import pyarrow as pa

    try:
        con = duckdb.connect(
            ":memory:",
            config={
                "autoload_known_extensions": "false",
                "autoinstall_known_extensions": "false",
                "allow_community_extensions": "false",
                "python_enable_replacements": "false",
                "temp_directory": "",
                "threads": "2",
                "memory_limit": f"{question.memory_bytes // 2} B",
            },
        )
        con.execute("SET GLOBAL TimeZone = 'UTC'")
        _show(con, question.tables)
        statements = con.extract_statements(question.sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return Head(landlock=landlock, error="one SELECT statement is needed"), b""
        if question.only_parses:
            ((tree,),) = con.execute("SELECT json_serialize_sql($1)", [question.sql]).fetchall()
            return Head(landlock=landlock, truncated=False), str(tree).encode()
        if question.tree:  # of a statement that is written anew from its tree, words could be lost
            answer = con.sql("FROM json_execute_serialized_sql($1)", params=[question.tree])
        else:
            answer = con.sql(question.sql)
        reader = answer.to_arrow_reader(8_192)
        batches, n_rows, n_bytes = [], 0, 0
        for batch in reader:
            batches.append(batch.slice(0, question.max_rows - n_rows))
            n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + batch.nbytes
            if n_rows > question.max_rows or n_bytes > question.max_bytes:
                break
    except duckdb.Error as error:
        shown = type(error).__name__ in _SHOWN
        return Head(landlock=landlock, error=_sentence(str(error)) if shown else None), b""
    if n_bytes > question.max_bytes:
        return Head(landlock=landlock, error=f"the answer has more than {question.max_bytes:,} bytes"), b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return Head(landlock=landlock, truncated=n_rows > question.max_rows), sink.getvalue().to_pybytes()


def _show(con: duckdb.DuckDBPyConnection, tables: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Create views of the tables, and then close every way to anything else."""
    for name, levels in tables.items():
        # quoted here, since importing the core's SQL would start libraries before the process is fenced in
        quoted = '"' + name.replace('"', '""') + '"'
        con.execute(f"CREATE SCHEMA {quoted}")
        gone = _scan(levels["deleted"]) if "deleted" in levels else ""
        added = {level.removeprefix(_ADDED): p for level, p in levels.items() if level.startswith(_ADDED)}
        for level in ("samples", "tiles", "shards"):
            if level not in levels:
                continue
            rows = f"SELECT * FROM {_scan(levels[level])}"
            if gone and level in ("samples", "tiles"):
                rows += f" AS live ANTI JOIN (SELECT key, part FROM {gone}) AS gone USING (key, part)"
            if level == "samples" and added:
                rows = _with_added(rows, added)
            con.execute(f"CREATE VIEW {quoted}.{level} AS {rows}")
        con.execute(f"CREATE VIEW {quoted} AS SELECT * FROM {quoted}.samples")
    con.execute("SET allow_persistent_secrets = false")
    con.execute("SET allowed_paths = $1", [_files(tables)])
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")


def _with_added(rows: str, added: Mapping[str, Sequence[str]]) -> str:
    """Return the SELECT of samples with the columns that were added to them, null where a sample has no value."""
    values, joins = [], []
    for number, (name, paths) in enumerate(added.items()):
        quoted = '"' + name.replace('"', '""') + '"'
        values.append(f"added{number}.value AS {quoted}")
        joins.append(f"LEFT JOIN {_scan(paths)} AS added{number} ON live.key = added{number}.key")
    return f"SELECT live.*, {', '.join(values)} FROM ({rows}) AS live {' '.join(joins)}"


def _scan(paths: Sequence[str]) -> str:
    """Return the SQL that reads some index files as one."""
    listed = ", ".join("'" + p.replace("'", "''") + "'" for p in paths)
    return f"read_parquet([{listed}], union_by_name = true)"


def _sentence(text: str) -> str:
    """Return the first line of a report, without paths."""
    return re.sub(r"(/[^\s'\"]+)+", "...", text.splitlines()[0])[:300]


def main() -> None:
    """Run the process."""
    import encodings.idna  # noqa: F401 - what is imported later must be readable then
    import site

    raw = json.loads(sys.stdin.buffer.read())
    question = Question(**raw)
    folders = ["/usr", "/lib", "/lib64", "/proc", "/sys", "/etc/localtime", sys.prefix, sys.base_prefix]
    folders += [*site.getsitepackages(), str(Path(__file__).parent)]
    landlock = _give_up(question, folders)
    head, body = _answer(_unnamed(question), landlock)
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + body)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
