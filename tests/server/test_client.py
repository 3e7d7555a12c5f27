"""``tb.open`` of a service: the same tables, selections and tensors as of the bank itself, or a sentence that says why not."""

from __future__ import annotations

import json
import pickle
import re
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pytest

import tensorbank as tb
from support.stored import stored  # noqa: F401 - a fixture
from tensorbank.client import ServedPlan
from tensorbank.client.service import ServiceClient
from tensorbank.errors import ConflictError, InvalidInputError, NotFoundError, StorageError
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.reading.sample_reader import SampleReader
from tensorbank.served import ServedEngine
from tensorbank.served.service_planner import ARROW, ServicePlanner, Wish, page_of
from tensorbank_server.access.keys import KeyFile

ALL = "S2L2A.B08.mean > -1"


@pytest.fixture(scope="module")
def remote(service):
    return tb.open(service.url)


@pytest.fixture(scope="module")
def signed(stored):  # noqa: F811
    """A service over an object store."""
    with stored.serving() as served:
        yield served


# ------------------------------------------------------------- what there is


def test_a_service_is_a_bank(remote, service, bank):
    assert isinstance(remote, tb.Bank)
    assert remote.url == f"{service.url}/v1/banks/eo"
    assert remote.tables() == bank.tables()
    mine, theirs = remote.table("terramesh"), bank.table("terramesh")
    assert mine.schema == theirs.schema
    assert mine.snapshot() == theirs.snapshot()
    assert mine.describe() == theirs.describe()
    assert [(s.version, s.when, s.n_rows) for s in mine.history()] == [
        (s.version, s.when, s.n_rows) for s in theirs.history()
    ]
    assert mine.at(0).snapshot().n_samples == 0
    assert remote.at({"terramesh": 0}).table("terramesh").snapshot().version == 0


def test_a_bank_is_found_by_its_address(service, remote):
    assert tb.open(f"{service.url}/v1/banks/eo/").tables() == remote.tables()
    with pytest.raises(NotFoundError, match=r"no bank 'oe'\. There is only eo\. Open .*/v1/banks/NAME"):
        tb.open(f"{service.url}/v1/banks/oe")


def test_files_over_http_are_no_service(bank_folder):
    handler = partial(SimpleHTTPRequestHandler, directory=str(bank_folder))
    with listening(handler) as url:
        assert not isinstance(tb.open(url).engine, ServedEngine)
        with pytest.raises(StorageError, match="not a TensorBank service") as failed:
            tb.open(url, key="tb_live_x")
        assert failed.value.kind == "no-service"
    with pytest.raises(InvalidInputError, match="key is for a service"):
        tb.open(bank_folder, key="tb_live_x")


def test_what_a_service_does_not_do_is_said(remote):
    for refused in (
        lambda: remote.register("mine", pa.table({"a": [1]})),
        lambda: remote.table("terramesh").parts(),
        lambda: remote.catalog,
        lambda: remote.query("terramesh").order_by("lon"),
        lambda: remote.query("terramesh").select("S2L2A[B08]", "S2L2A[B02]").plan(),
        lambda: remote.sql("SELECT S2L2A FROM terramesh").plan(),
        lambda: tb.create(remote.url),
    ):
        with pytest.raises(InvalidInputError):
            refused()


# ---------------------------------------------------------------- selections

SELECTIONS = {
    "where": lambda q: q.where("S2L2A.B08.mean > 900.5").where("season IN ('summer', 'winter') OR lon > 10"),
    "bbox": lambda q: q.bbox(-20.5, -60, 150, 60.25),
    "antimeridian": lambda q: q.bbox(20, -90, -20, 90),
    "between": lambda q: q.between("2019-01-01", "2021-03-04T05:06:07+02:00"),
    "limit": lambda q: q.limit(3),
    "everything": lambda q: q,
    "pixels": lambda q: q.where("pixels_share(S2L2A.B08, '> 2500') > 0.25"),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_selection_holds_what_it_holds_of_the_bank(remote, bank, name):
    mine, theirs = (
        SELECTIONS[name](b.query("terramesh").select("sample_id", "S2L2A[B08,B02]", "S1GRD")).plan()
        for b in (remote, bank)
    )
    expected = set(theirs.table["sample_id"].to_pylist())
    assert (0 < len(expected) < 20) or name in ("everything", "limit", "antimeridian")
    if name == "limit":
        assert len(mine) == len(theirs) == 3
        return
    assert mine.table.equals(theirs.table), "the same samples in the same order at the same addresses"
    assert mine.handles == theirs.handles
    assert mine.source.snapshots == theirs.source.snapshots
    if name in ("where", "everything"):
        assert mine.fingerprint == theirs.fingerprint
    again = bank.sql(mine.source.sql).plan()
    assert again.fingerprint == mine.fingerprint, "its statement is the same plan directly"


def test_a_polygon_selects_by_footprint(remote, bank):
    west, south, east, north = -30.0, -40.0, 60.0, 50.5
    area = {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [east + 0.1, north], [west, north], [west, south]]],
    }
    mine, theirs = (
        b.query("terramesh").intersecting(area).select("sample_id").arrow()["sample_id"].to_pylist()
        for b in (remote, bank)
    )
    assert sorted(mine) == sorted(theirs)
    assert 0 < len(mine) < 20


def test_columns_and_statistics(remote, bank):
    mine = remote.query("terramesh").select("lon", "S2L2A.B08.mean").where(ALL).arrow()
    assert mine.column_names == ["sample_id", "lon", "S2L2A.B08.mean"]
    theirs = bank.sql(f"SELECT sample_id, lon, S2L2A.B08.mean AS m FROM terramesh WHERE {ALL}").arrow()
    by_id = {r["sample_id"]: (r["lon"], r["m"]) for r in theirs.to_pylist()}
    assert {r["sample_id"]: (r["lon"], r["S2L2A.B08.mean"]) for r in mine.to_pylist()} == by_id
    condition = "S2L2A.B08.mean > 900"
    found = remote.query("terramesh").where(condition).statistics("S2L2A")
    assert found == bank.query("terramesh").where(condition).select("S2L2A").statistics("S2L2A")


def test_wrong_names_and_filters_are_told_as_they_are(remote):
    query = remote.query("terramesh")
    with pytest.raises(InvalidInputError, match="filter") as failed:
        query.where("S2L2A.B88.mean > 5").plan()
    assert failed.value.kind == "filter"
    with pytest.raises(InvalidInputError, match="'lonn' is not a column"):
        query.select("lonn").plan()
    with pytest.raises(NotFoundError):
        query.select("S2L2A[B99]").plan()
    with pytest.raises(NotFoundError):
        remote.query("nothing").plan()


# ---------------------------------------------------------------- pages


def test_plans_come_in_pages(bank_folder, bank, serving_of):
    with serving_of(str(bank_folder), TENSORBANK_LIMITS__PAGE_ARROW_TASKS="3") as served:
        plan = tb.open(served.url).query("terramesh").plan()
        assert plan.table["sample_id"].num_chunks == 1
        theirs = bank.sql(plan.source.sql).plan()
        assert plan.table.to_pylist() == theirs.table.to_pylist()
        assert {n: a.shard_keys for n, a in plan.addresses.items()} == {
            n: a.shard_keys for n, a in theirs.addresses.items()
        }


def test_a_page_without_its_end_is_refused(remote, service):
    made = remote.query("terramesh").plan()
    body = bytes(ServiceClient(service.url).read(f"/v1/plans/{made.origin.plan}/tasks", ARROW))
    assert page_of(memoryview(body), "service")[1].num_rows == 20
    for end in [*range(0, len(body) - 8, 997), len(body) - 200]:
        with pytest.raises(StorageError) as failed:
            page_of(memoryview(body)[:end], "service")
        assert failed.value.kind == "short-read"


# ------------------------------------------------------------------ bytes


def check_bytes(plan, direct):
    mine, theirs = SampleReader.of(plan), SampleReader.of(direct)
    try:
        at = np.arange(len(plan))
        for name, tensor in theirs.read(at).items():
            np.testing.assert_array_equal(mine.read(at)[name], tensor)
    finally:
        mine.close(), theirs.close()


def test_bytes_through_the_service_are_the_same(remote, bank):
    plan = remote.query("terramesh").select("S2L2A[B08]", "LULC").plan()
    assert plan.origin.access == "proxy"
    check_bytes(plan, bank.sql(plan.source.sql).plan())
    check_bytes(pickle.loads(pickle.dumps(plan)), bank.sql(plan.source.sql).plan())


@pytest.mark.parametrize("page", ["10000", "1"])
def test_bytes_come_from_the_store_by_signed_urls(stored, page, tmp_path):  # noqa: F811
    audit = tmp_path / "audit.jsonl"
    with stored.serving(TENSORBANK_AUDIT_FILE=str(audit), TENSORBANK_LIMITS__PAGE_SHARDS=page) as served:
        plan = tb.open(served.url).query("terramesh").select("S2L2A[B08]", "DEM").plan()
        assert plan.origin.access == "url"
        check_bytes(plan, stored.direct.sql(plan.source.sql).plan())
    actions = [json.loads(line)["action"] for line in audit.read_text().splitlines()]
    assert "proxy" not in actions
    assert "credentials" in actions


@pytest.mark.parametrize("access", ["url", "proxy"])
def test_a_saved_plan_finds_its_service_again(stored, signed, access, tmp_path):  # noqa: F811
    plan = tb.open(signed.url, access=access).query("terramesh").select("S2L2A[B08]", "DEM").plan()
    saved = plan.save(tmp_path / "plan.arrow")
    loaded = tb.Plan.load(saved)
    assert (loaded.fingerprint, loaded.origin.access) == (plan.fingerprint, access)
    assert loaded.origin.service == signed.url
    check_bytes(loaded, stored.direct.sql(plan.source.sql).plan())


def test_a_saved_plan_holds_no_key(guarded, tmp_path):
    url, keys = guarded
    plan = tb.open(url, key=keys["good"]).query("terramesh").select("DEM").plan()
    saved = plan.save(tmp_path / "plan.arrow")
    assert keys["good"].encode() not in saved.read_bytes()
    with closing(SampleReader.of(tb.Plan.load(saved))) as reader, pytest.raises(StorageError) as refused:
        reader.read(np.arange(1))
    assert refused.value.kind == "denied"
    with closing(SampleReader.of(tb.Plan.load(saved, key=keys["good"], service=url))) as reader:
        assert len(reader.read(np.arange(2))["DEM"]) == 2


def test_one_can_ask_for_the_proxy(stored, signed):  # noqa: F811
    plan = tb.open(signed.url, access="proxy").query("terramesh").select("DEM").plan()
    assert plan.origin.access == "proxy"
    check_bytes(plan, stored.direct.sql(plan.source.sql).plan())


def test_a_bank_of_files_has_no_urls(service):
    with pytest.raises(InvalidInputError, match="it offers proxy") as failed:
        tb.open(service.url, access="url").query("terramesh").plan()
    assert failed.value.kind == "no-access"


def test_what_is_cached_has_no_signature(signed, tmp_path):
    plan = tb.open(signed.url).query("terramesh").select("S2L2A[B08]").plan()
    options = FetchOptions(cache_dir=tmp_path / "cache")
    for expected in ("misses", "hits"):
        reader = SampleReader.of(plan, options)
        reader.read(np.arange(len(plan)))
        cache = reader.stats.cache
        reader.close()
        assert getattr(cache, expected) > 0
    assert cache.misses == 0, "other URLs, the same objects"
    stored_bytes = b"".join(p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert b"Amz" not in stored_bytes


def test_no_key_is_shown(signed):
    plan = tb.open(signed.url).query("terramesh").plan()
    storage = ServedPlan("https://h", "eo", "p", key="tb_live_hush", question='{"secret": 1}')
    assert "hush" not in repr(storage)
    assert "secret" not in repr(storage)
    assert "X-Amz" not in repr(plan) + plan.explain()


# -------------------------------------------------------------------- keys


@pytest.fixture(scope="module")
def guarded(bank_folder, tmp_path_factory, serving_of):
    """A service with keys: its address, and the text of a key by what is wrong with it."""
    file = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    texts = {"good": file.create("ann", ["read", "plan", "proxy"])[1]}
    for name in ("expired", "revoked"):
        key, texts[name] = file.create(name, lifetime=timedelta(days=1))
        if name == "revoked":
            file.revoke(key.id)
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    raw = json.loads(file.path.read_text())
    for entry in raw["keys"]:
        if entry["name"] == "expired":
            entry["expires"] = past
    file.path.write_text(json.dumps(raw))
    texts["wrong"] = texts["good"][:-4] + "AAAA"
    texts["no key at all"] = "hello"
    texts["reader"] = file.create("bob", ["read"])[1]
    texts["elsewhere"] = file.create("eve", ["read"], banks=["other"])[1]
    with serving_of(str(bank_folder), "--keys", str(file.path), key=texts["good"]) as served:
        yield served.url, texts


@pytest.mark.parametrize("name", ["wrong", "expired", "revoked", "no key at all"])
def test_a_bad_key_is_one_sentence(guarded, name):
    url, texts = guarded
    with pytest.raises(StorageError) as failed:
        tb.open(url, key=texts[name])
    check_sentence(failed.value, texts[name])
    assert "not known, has expired or was revoked" in str(failed.value)


def check_sentence(error, text):
    assert error.kind == "denied"
    assert text not in str(error)
    assert "\n" not in str(error)
    assert not re.search(r"\. [A-Z]", str(error)), "one sentence"


def test_no_key_is_one_sentence(guarded):
    with pytest.raises(StorageError, match="a key is needed") as failed:
        tb.open(guarded[0])
    assert failed.value.kind == "denied"


def test_a_good_key_opens(guarded):
    url, texts = guarded
    assert len(tb.open(url, key=texts["good"]).query("terramesh").plan()) == 20
    with pytest.raises(StorageError, match="no scope `plan`") as failed:
        tb.open(url, key=texts["reader"]).query("terramesh").plan()
    check_sentence(failed.value, texts["reader"])
    with pytest.raises(NotFoundError):
        tb.open(f"{url}/v1/banks/eo", key=texts["elsewhere"])


def test_sql_needs_its_scope(guarded, bank_folder, bank, tmp_path, serving_of):
    url, texts = guarded
    with pytest.raises(StorageError, match="no scope `sql`"):
        tb.open(url, key=texts["good"]).sql("SELECT count(*) AS n FROM terramesh").arrow()
    file = KeyFile(tmp_path / "keys.json")
    text = file.create("ann", ["read", "plan", "proxy", "sql"])[1]
    options = {"TENSORBANK_FULL_SQL": "true", "TENSORBANK_LIMITS__SQL_ROWS": "5"}
    with serving_of(str(bank_folder), "--keys", str(file.path), key=text, **options) as served:
        remote = tb.open(served.url, key=text)
        statement = "SELECT season, count(*) AS n FROM terramesh GROUP BY season ORDER BY season LIMIT 5"
        assert remote.sql(statement).arrow().to_pylist() == bank.sql(statement).arrow().to_pylist()
        with pytest.raises(InvalidInputError, match="no more than 5 rows"):
            remote.sql("SELECT sample_id FROM terramesh").arrow()


# ---------------------------------------------------- what stores and services say


@contextmanager
def listening(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def xml(code, message=""):
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


class Scripted(BaseHTTPRequestHandler):
    """A service that signs, and its store, which answers GETs as its script says, then as it should."""

    protocol_version = "HTTP/1.1"
    script: list[tuple[int, dict[str, str], bytes]]
    plan_id = "1" * 32
    n_signed = n_read = n_plans = 0
    refusal: tuple[int, str] | None = None

    def log_message(self, *words: object):
        pass

    def do_POST(self):
        kind = type(self)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/plans"):
            kind.n_plans += 1
            kind.refusal = None
            return self.tell(201, json.dumps({"id": kind.plan_id, "state": "completed"}).encode())
        if kind.refusal is not None:
            status, code = kind.refusal
            return self.tell(status, json.dumps({"code": code, "detail": "no"}).encode())
        kind.n_signed += 1
        assert json.loads(body)["access"] == "url"
        here = f"http://{self.headers['Host']}"
        page = {
            "shards": {"k": f"{here}/object?X-Amz-Signature={kind.n_signed}"},
            "server_time": "2026-01-01T00:00:00.000Z",
            "expires": "2026-01-01T00:30:00.000Z",
            "next": None,
        }
        return self.tell(200, json.dumps(page).encode())

    def do_GET(self):
        kind = type(self)
        kind.n_read += 1
        assert "Authorization" not in self.headers, "the key is the service's"
        if kind.script:
            status, headers, body = kind.script.pop(0)
            if status == 0:
                self.close_connection = True
                self.connection.close()
                return
            self.tell(status, body, **headers)
            return
        start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.tell(206, bytes(range(start, end + 1)), **{"Content-Range": f"bytes {start}-{end}/256"})

    def tell(self, status, body, **headers: str):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def scripted(*script: tuple[int, dict[str, str], bytes], refusal=None, plan_id="1" * 32):
    kind = type("Script", (Scripted,), {"script": list(script), "refusal": refusal, "plan_id": plan_id})
    with listening(kind) as url:
        plan = ServedPlan(service=url, bank="eo", plan="1" * 32, key="tb_live_x", question="{}")
        yield plan.open(), kind


EXPIRY = [
    (403, {}, xml("AccessDenied", "Request has expired")),
    (400, {}, xml("ExpiredToken", "The provided token has expired.")),
    (400, {}, xml("AccessDenied", "Request has expired")),
    (403, {}, xml("RequestTimeTooSkewed")),
    (400, {}, xml("RequestTimeTooSkewed")),
]


@pytest.mark.parametrize("said", EXPIRY)
def test_an_ended_url_is_renewed_and_the_range_read(said):
    with scripted(said) as (store, kind):
        assert bytes(store.get_range("k", 3, 9)) == bytes(range(3, 9))
        assert (kind.n_signed, kind.n_read) == (2, 2)
        assert bytes(store.get_range("k", 0, 1)) == b"\0"
        assert kind.n_signed == 2, "the new one is kept"


@pytest.mark.parametrize("said", EXPIRY)
def test_an_url_that_is_renewed_in_vain_is_an_error(said):
    with scripted(said, said) as (store, kind):
        with pytest.raises(StorageError, match="clock") as failed:
            store.get_range("k", 0, 4)
        assert failed.value.kind in ("clock", "denied")
        assert kind.n_signed == 2


@pytest.mark.parametrize(
    ("said", "error", "kind_of_error"),
    [
        ((403, {}, xml("SignatureDoesNotMatch")), StorageError, "denied"),
        ((403, {}, xml("AccessDenied", "Access Denied")), StorageError, "denied"),
        ((403, {}, xml("InvalidObjectState")), StorageError, "denied"),
        ((412, {}, xml("PreconditionFailed")), StorageError, "denied"),
        ((404, {}, xml("NoSuchKey")), NotFoundError, "no-object"),
        ((416, {}, xml("InvalidRange")), StorageError, "short-read"),
        ((503, {"Retry-After": "0"}, xml("SlowDown")), StorageError, "throttled"),
        ((429, {}, b""), StorageError, "throttled"),
        ((500, {}, xml("InternalError")), StorageError, "unreachable"),
        ((200, {}, b"<html>" * 50_000), StorageError, "bad-answer"),
        ((206, {"Content-Range": "bytes 5-8/9"}, b"1234"), StorageError, "bad-answer"),
        ((206, {"Content-Range": "bytes 0-3/9"}, b"123"), StorageError, "short-read"),
        ((302, {"Location": "http://127.0.0.1:9/"}, b""), StorageError, "denied"),
    ],
)
def test_refusals_are_told_by_their_code(said, error, kind_of_error):
    with scripted(said) as (store, kind):
        with pytest.raises(error) as failed:
            store.get_range("k", 0, 4)
        assert failed.value.kind == kind_of_error
        assert "/k" in str(failed.value), "it names the object"
        assert "Signature=" not in str(failed.value)
        assert (kind.n_signed, kind.n_read) == (1, 1), "whoever asked tries again, or not"


def test_how_long_a_store_wants_to_be_left_alone_is_kept():
    with scripted((503, {"Retry-After": "7"}, xml("SlowDown"))) as (store, kind):
        for _ in range(3):
            with pytest.raises(StorageError) as failed:
                store.get_range("k", 0, 4)
            assert failed.value.kind == "throttled"
            assert 6 < failed.value.retry_after_s <= 7
        assert kind.n_read == 1


def test_a_connection_that_the_store_closed_is_replaced():
    with scripted() as (store, kind):
        assert bytes(store.get_range("k", 0, 2)) == b"\0\1"
        kind.script.append((0, {}, b""))
        assert bytes(store.get_range("k", 1, 3)) == b"\1\2"
        kind.script += [(0, {}, b"")] * 2
        with pytest.raises(StorageError) as failed:
            store.get_range("k", 1, 3)
        assert failed.value.kind == "unreachable"


def test_a_cut_body_is_noticed():
    with scripted((206, {"Content-Range": "bytes 0-99/200", "Content-Length": "100"}, b"x" * 30)) as (
        store,
        kind,
    ):
        kind.timeout = 0.2  # the server gives the connection up, half-way through the body
        with pytest.raises(StorageError) as failed:
            store.get_range("k", 0, 100)
        assert failed.value.kind == "unreachable"


@pytest.mark.parametrize("refusal", [(404, "unknown-plan"), (410, "gone")])
def test_a_plan_that_the_service_lost_is_made_again(refusal):
    with scripted(refusal=refusal) as (store, kind):
        assert bytes(store.get_range("k", 0, 2)) == b"\0\1"
        assert (kind.n_plans, kind.n_signed) == (1, 1)


def test_another_plan_is_not_taken_for_the_lost_one():
    lost = scripted(refusal=(404, "unknown-plan"), plan_id="2" * 32)
    with lost as (store, _), pytest.raises(ConflictError, match="make the plan again"):
        store.get_range("k", 0, 2)


def test_many_threads_ask_for_urls_once():
    with scripted() as (store, kind):
        gate = threading.Barrier(16)
        found = []

        def read():
            gate.wait()
            found.append(bytes(store.get_range("k", 0, 8)))

        threads = [threading.Thread(target=read) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert found == [bytes(range(8))] * 16
        assert kind.n_signed == 1


def test_only_ranges_are_served():
    with scripted() as (store, _):
        assert not [
            name for name in ("get", "put", "create", "delete", "size", "objects") if hasattr(store, name)
        ]
        with pytest.raises(InvalidInputError):
            store.get_range("k", 4, 4)
        with pytest.raises(NotFoundError, match="no shard"):
            store.get_range("other", 0, 1)
        assert pickle.loads(pickle.dumps(store)).get_range("k", 0, 1) is not None


def test_a_wish_has_no_other_words(service):
    """A caller's text travels as a filter, never as SQL."""
    planner = ServicePlanner(ServiceClient(service.url), "eo")
    for hostile in ("1=1; DROP TABLE x", "getenv('HOME') = ''", "TRUE) OR (TRUE"):
        with pytest.raises(InvalidInputError):
            planner.plan(Wish("terramesh", filter=hostile))
