"""The planner of a bank at a service: asks for plans and statistics, and makes values of the answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.ipc

from tensorbank.client import BANKS, Access, ServedPlan, ServiceClient, make_plan
from tensorbank.errors import ErrorKind, InvalidInputError, StorageError
from tensorbank.planning import PLANNER_VERSION
from tensorbank.plans import Handle, LevelReport, Plan, PlanSource
from tensorbank.schema import Modality, TableSchema
from tensorbank.statistics import BandSummary, Quantile, Statistics

__all__ = ["ARROW", "ServicePlanner", "Wish", "as_statistics", "page_of"]

ARROW = "application/vnd.apache.arrow.stream"
PLAN_KEY, END_KEY = b"tensorbank.plan", b"tensorbank.end"
WIRE_VERSION = 1
ID = "sample_id"
MAX_SIGNED = 10_000
"""The most shards of a plan for which a URL each is the better way: none needs more than one page of them.
A petabyte has millions."""
_BANDS = re.compile(r"bands\(([A-Za-z_]\w*), \[(.*)\]\)")


@dataclass(frozen=True, slots=True)
class Wish:
    """A request for samples of one table by a filter in CQL2 text, and what of them; as
    :class:`tensorbank.queries.selection.Selection` writes it.

    ``columns`` are names of queryables, modalities, or ``bands(M, ['B1', 'B2'])``; everything if empty. ``by_date`` asks for an
    address of each date of a sample.
    """

    table: str
    columns: tuple[str, ...] = ()
    filter: str | None = None
    n_max: int | None = None
    version: int | None = None
    by_date: bool = False


class ServicePlanner:
    """A planner that answers wishes at one bank of a service.

    Parameters
    ----------
    service, bank
        Service to ask, and name of the bank there.
    access
        Way to read bytes; the best that the bank and the key allow if None.
    """

    def __init__(self, service: ServiceClient, bank: str, access: Access | None = None) -> None:
        self.service = service
        self.bank = bank
        self.access = access

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServicePlanner) and (self.url, self.access) == (other.url, other.access)

    def __hash__(self) -> int:
        return hash((self.url, self.access))

    @property
    def url(self) -> str:
        """The URL of the bank at the service."""
        return f"{self.service.url}{BANKS}{quote(self.bank)}"

    def path(self, table: str, *below: str) -> str:
        """Return the path of a table, or of something below it."""
        return "/".join([f"{BANKS}{quote(self.bank)}/tables/{quote(table)}", *map(quote, below)])

    def schema(self, table: str, version: int | None = None) -> TableSchema:
        """Return the modalities of a table."""
        found = self.service.get(self.path(table, "schema"), snapshot=version)
        return TableSchema(tuple(Modality.from_json(json.dumps(m)) for m in found["modalities"]))

    def plan(self, wish: Wish) -> Plan:
        """Ask for the frozen answer of a wish. Samples come in the order of their bytes; with ``n_max``, in that of their ids.

        ``sample_id`` is always among the columns. ``source.sql`` is the statement that the service planned: on the bank itself it
        gives the same plan, with the same fingerprint.

        Raises
        ------
        InvalidInputError, NotFoundError
            The wish cannot be fulfilled; the message says why.
        StorageError
            The service refuses or cannot be reached.
        """
        question = self._question(wish)
        status = make_plan(self.service, self.bank, question)
        question["snapshot"] = status["snapshot"]
        access = self._access(status["access"], status["n_shards"])
        words, table, end = self._tasks(status["id"])
        if table.num_rows != status["n_samples"] or end["n_total"] != table.num_rows:
            raise StorageError(
                f"{self.service.url} delivered {table.num_rows:,} of {status['n_samples']:,} samples of plan {status['id']}",
                kind=ErrorKind.SHORT_READ,
            )
        levels = status.get("levels", {})
        source = PlanSource(
            sql=str(words.get("sql", "")),
            snapshots={name: (str(i), int(v)) for name, (i, v) in words["snapshots"].items()},
            planner_version=int(words.get("planner_version", PLANNER_VERSION)),
            levels=tuple(LevelReport(name, n["considered"], n["kept"]) for name, n in levels.items()),
            scan_blocks=int(words.get("scan_blocks", 0)),
            scan_bytes=int(words.get("scan_bytes", 0)),
        )
        origin = ServedPlan(
            service=self.service.url,
            bank=self.bank,
            plan=status["id"],
            access=access,
            key=self.service.key,
            question=json.dumps(question),
        )
        handles = tuple(map(_handle, words["handles"]))
        return Plan(words["fingerprint"], source, handles, table, origin)

    def adopted(self, plan: Plan) -> Plan:
        """Return a plan that another process made at this service, to be read with the key that this one has.

        Raises
        ------
        InvalidInputError
            It was made elsewhere.
        """
        origin = plan.origin
        if not isinstance(origin, ServedPlan) or origin.service.rstrip("/") != self.service.url.rstrip("/"):
            raise InvalidInputError(
                f"plan {plan.fingerprint} is of {origin.url}, not of {self.url}", kind=ErrorKind.OTHER_SERVICE
            )
        return replace(plan, origin=replace(origin, key=self.service.key))

    def statistics(self, wish: Wish, name: str) -> Statistics:
        """Summarize one modality over the samples of a wish."""
        found = self.service.get(
            self.path(wish.table, "statistics"), filter=wish.filter, modalities=name, snapshot=wish.version
        )
        return as_statistics(found["statistics"][name])

    def _question(self, wish: Wish) -> dict[str, Any]:
        """Return a wish as the service reads it."""
        question: dict[str, Any] = {"table": wish.table, "filter": wish.filter, "limit": wish.n_max}
        question |= {"snapshot": wish.version, "by_date": wish.by_date or None}
        if wish.columns and wish.columns != ("*",):
            names = self.schema(wish.table, wish.version).names
            modalities, bands, columns = _sorted(wish.columns, names)
            question |= {"modalities": modalities, "bands": bands or None, "columns": columns}
        return {k: v for k, v in question.items() if v is not None}

    def _access(self, offered: Sequence[str], n_shards: int) -> Access:
        best: tuple[Access, ...] = (
            ("url", "dir", "proxy") if n_shards <= MAX_SIGNED else ("dir", "url", "proxy")
        )
        for access in best if self.access is None else (self.access,):
            if access in offered:
                return access
        raise InvalidInputError(
            f"{self.url} cannot be read by {self.access or ', '.join(best)}; it offers {', '.join(offered)}",
            kind=ErrorKind.NO_ACCESS,
        )

    def _tasks(self, plan: str) -> tuple[dict[str, Any], pa.Table, dict[str, Any]]:
        """Return the meaning of a plan's columns, its table, and its last record."""
        pages, token = [], None
        while True:
            body = self.service.read(f"/v1/plans/{plan}/tasks", ARROW, next=token)
            words, page, end = page_of(body, self.service.url)
            pages.append(page)
            token = end["next"]
            if token is None:
                return words, pa.concat_tables(pages).unify_dictionaries().combine_chunks(), end


def page_of(body: memoryview, service: str) -> tuple[dict[str, Any], pa.Table, dict[str, Any]]:
    """Parse one page of tasks.

    Raises
    ------
    StorageError
        It has no end, so that something of it may be missing, or ends with an error.
    """
    incomplete = StorageError(f"{service} sent an incomplete page of a plan", kind=ErrorKind.SHORT_READ)
    end: dict[str, Any] | None = None
    batches = []
    try:
        reader = pa.ipc.open_stream(pa.py_buffer(body))
        for batch, metadata in _batches(reader):
            batches.append(batch)
            if metadata is not None and END_KEY in metadata:
                end = json.loads(metadata[END_KEY])
    except (pa.ArrowInvalid, OSError) as error:
        raise incomplete from error
    if end is None:
        raise incomplete
    if "error" in end:
        raise StorageError(
            f"{service} could not deliver the plan: {end['error']}", kind=ErrorKind.UNREACHABLE
        )
    words = json.loads((reader.schema.metadata or {}).get(PLAN_KEY, b"{}"))
    if words.get("wire_version") != WIRE_VERSION:
        raise InvalidInputError(
            f"{service} delivers plans in version {words.get('wire_version')}, this TensorBank reads {WIRE_VERSION}; "
            "update the older of the two",
            kind=ErrorKind.WIRE_VERSION,
        )
    return words, pa.Table.from_batches(batches, reader.schema).replace_schema_metadata(None), end


def _batches(reader: Any) -> Iterator[tuple[pa.RecordBatch, Mapping[bytes, bytes] | None]]:
    while True:
        try:
            yield reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            return


def _handle(words: Mapping[str, Any]) -> Handle:
    modality = Modality.from_json(json.dumps(words["modality"]))
    bands = tuple(map(modality.band_index, words["bands"]))
    window = tuple(words["window"]) if words["window"] else None
    return Handle(words["name"], modality, bands, window, by_date=words.get("by_date", False))


def _sorted(
    columns: Sequence[str], names: Sequence[str]
) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """Sort a list of what is to be selected into modalities, bands of some of them, and other columns."""
    known = {name.lower(): name for name in names}
    modalities: list[str] = []
    bands: dict[str, list[str]] = {}
    others = [ID]
    for column in (c.strip() for c in columns):
        found = _BANDS.fullmatch(column)
        name = known.get((found[1] if found else column).lower())
        if name is None:
            others.append(column.strip('"'))
            continue
        if name in modalities:
            raise InvalidInputError(
                f"a service delivers {name} only once in a plan; select all of its bands at once"
            )
        modalities.append(name)
        if found:
            bands[name] = [b.strip().strip("'") for b in found[2].split(",")]
    return modalities, bands, list(dict.fromkeys(others))


def as_statistics(found: Mapping[str, Any]) -> Statistics:
    """Parse statistics out of their JSON."""
    bands = []
    for band in found["bands"]:
        quantiles = band.get("quantiles")
        read = None if quantiles is None else {name: Quantile(**q) for name, q in quantiles.items()}
        bands.append(BandSummary(**{**band, "quantiles": read}))
    return Statistics(found["modality"], found["n_samples"], tuple(bands), found["shares"])
