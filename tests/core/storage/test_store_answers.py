"""Answers of a store, of a server that is none, of the network and the disk become one sentence,
with a kind for programs."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tensorbank as tb
import tensorbank.storage.store
from support import WITH_SUPPORT
from tensorbank import NotFoundError, StorageError, StorageOptions
from tensorbank.catalog.catalog import Catalog
from tensorbank.index_files.mirror import IndexMirror
from tensorbank.storage import object_client
from tensorbank.storage.store import Store
from tensorbank.storage.store_errors import as_ours, of_system

REGION = "<Region>eu-west-1</Region>"
CASES = {
    "RequestTimeTooSkewed": (403, "clock", "clock of this machine", ""),
    "KMS.DisabledException": (400, "kms", "encrypted by a key", ""),
    "InvalidObjectState": (403, "archived", "restore it", ""),
    "AuthorizationHeaderMalformed": (400, "wrong-region", "it is in eu-west-1", REGION),
    "PermanentRedirect": (
        301,
        "wrong-region",
        "b.s3.eu-west-1",
        "<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>",
    ),
    "AccessDenied": (403, "denied", "check the credentials", ""),
    "InvalidAccessKeyId": (403, "denied", "check the credentials", ""),
    "SignatureDoesNotMatch": (403, "denied", "check the credentials", ""),
    "ExpiredToken": (400, "denied", "the credentials have expired, renew them", ""),
    "InvalidRequest": (400, "refused", "the store refuses the request", ""),
    "MethodNotAllowed": (405, "refused", "the store refuses the request", ""),
    "SlowDown": (503, "throttled", "busy", ""),
    "InternalError": (500, "unreachable", "cannot be reached", ""),
}


def store_at(server) -> Store:
    return Store("s3://bucket/p", StorageOptions(server.url, "key", "secret", region="us-east-1"))


def catalog_of(store: Store, tmp_path: Path) -> Catalog:
    return Catalog(store, IndexMirror(store, tmp_path / "cache"))


@pytest.mark.parametrize("code", CASES)
def test_s3_says_itself_what_is_wrong(code, answering, tmp_path, monkeypatch):
    """Its code and message are in the sentence, whatever was asked for; what another try cannot mend is not tried again."""
    monkeypatch.setattr(tensorbank.storage.store, "OBJECT_POLICIES", {})
    status, kind, hint, more = CASES[code]
    store = store_at(answering)
    catalog = catalog_of(store, tmp_path)
    calls = {
        "range": lambda: store.get_range("x", 0, 3),
        "get": lambda: store.get("x"),
        "objects": lambda: store.objects("t"),
        "folders": store.folders,
        "put": lambda: store.put("x", b"1"),
        "create": lambda: store.create("x", b"1"),
        "schema": lambda: catalog.schema("t"),
        "keys": lambda: catalog.membership(catalog.version("t")),
    }
    if kind in ("throttled", "unreachable"):
        calls = {"range": calls["range"], "create": calls["create"], "keys": calls["keys"]}
    for name, call in calls.items():
        answering.refuse(status, code, "Words of S3's own.", more)
        with pytest.raises(StorageError, match=hint) as caught:
            call()
        assert caught.value.kind == kind, name
        assert f"{code}: Words of S3's own." in str(caught.value), name
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
        if kind not in ("throttled", "unreachable"):
            assert len(answering.asked) <= 3, (name, answering.asked)  # once more where the client hides why


def test_an_answer_without_a_body_is_told_by_its_status(answering):
    for status, kind in ((403, "denied"), (400, "refused"), (301, "wrong-region")):
        answering.answer(status)
        with pytest.raises(StorageError, match=f"status {status}") as caught:
            store_at(answering).size("x")
        assert caught.value.kind == kind
        assert len(answering.asked) <= 2


def test_why_a_question_without_an_answers_body_is_refused_is_asked(answering):
    answering.refuse(403, "RequestTimeTooSkewed")
    for call in (lambda s: s.size("x"), lambda s: s.exists("x")):
        with pytest.raises(StorageError, match="RequestTimeTooSkewed: Some words") as caught:
            call(store_at(answering))
        assert caught.value.kind == "clock"


def test_a_refusal_to_delete_is_told_by_its_code(answering):
    """Objects are deleted by a list, whose answer is 200 with a code for each."""
    answering.answer(
        200,
        b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Error><Key>p/x</Key>'
        b"<Code>AccessDenied</Code><Message>Access Denied.</Message></Error></DeleteResult>",
    )
    with pytest.raises(StorageError, match=r"AccessDenied.*check the credentials") as caught:
        store_at(answering).delete("x")
    assert caught.value.kind == "denied"


@pytest.mark.parametrize("page", [b"<html><body>Please log in</body></html>", b"", b"{}"])
def test_a_page_for_every_address_is_no_bank(answering, tmp_path, page):
    answering.answer(200, page, Content_Type="text/html")
    options = {"endpoint": answering.url, "access_key": "key", "secret_key": "secret", "cache": tmp_path}
    bank = tb.open("s3://bucket/p", **options)
    for call in (bank.tables, lambda: bank.table("t").schema, lambda: tb.create("s3://bucket/p", **options)):
        with pytest.raises(StorageError, match="not an object store") as caught:
            call()
        assert caught.value.kind == "not-a-store"
        assert answering.url in str(caught.value)


def test_an_empty_bank_is_one(s3_server, moto_server, tmp_path):
    for server in (s3_server, moto_server):
        bank = tb.open(
            f"{server.url}/nothing-here",
            endpoint=server.endpoint,
            access_key=server.access_key,
            secret_key=server.secret_key,
            cache=tmp_path,
        )
        assert bank.tables() == []
        with pytest.raises(NotFoundError, match="no table at all"):
            _ = bank.table("t").schema


# ---------------------------------------------------------------- the network


def test_the_innermost_cause_is_told(answering, answering_tls):
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    causes = {
        f"http://127.0.0.1:{port}": ("refused", "unreachable"),
        "http://no-such-host.invalid": ("Name or service not known|lookup address", "unreachable"),
        answering_tls.url: ("certificate is not trusted", "tls"),
        answering.url.replace("http:", "https:"): ("does not speak TLS", "tls"),
    }
    for endpoint, (cause, kind) in causes.items():
        store = Store("s3://bucket", StorageOptions(endpoint, "key", "secret"))
        with pytest.raises(StorageError, match=cause) as caught:
            store.get_range("x", 0, 1)
        assert caught.value.kind == kind
        assert endpoint in str(caught.value)
        with pytest.raises(StorageError, match=cause):
            catalog_of(store, Path("/nowhere")).head("t")


def test_a_certificate_that_is_not_trusted_is_not_tried_again(answering_tls, monkeypatch):
    store = Store("s3://bucket", StorageOptions(answering_tls.url, "key", "secret"))
    started = time.monotonic()
    with pytest.raises(StorageError):
        store.get("x")
    assert time.monotonic() - started < 2


def test_silence_is_told_as_such(monkeypatch):
    monkeypatch.setattr(object_client, "STALL_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(StorageError, match="no answer in time") as caught:
            Store("s3://bucket", StorageOptions(endpoint, "key", "secret")).get_range("x", 0, 1)
        assert caught.value.kind == "unreachable"


class PanicException(BaseException):
    """A stand-in for what a client raises when it breaks down,
    which has this name and is no ``Exception``."""


def test_a_breakdown_of_the_client_is_an_error(monkeypatch, tmp_path):
    """On threads, too, where what is no ``Exception`` would end them without a word."""
    store = Store("s3://bucket", StorageOptions("http://127.0.0.1:9", "key", "secret"))

    def breaks(*_: object, **__: object):
        raise PanicException("request valid: InvalidUri")

    monkeypatch.setattr(object_client.obstore, "get_range", breaks)
    monkeypatch.setattr(object_client.obstore, "list", breaks)
    found = []

    def ask():
        try:
            store.get_range("x", 0, 1)
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(20)
    assert [type(e) for e in found] == [StorageError]
    assert found[0].kind == "client-panic"
    with pytest.raises(StorageError) as caught:
        catalog_of(store, tmp_path).schema("t")
    assert caught.value.kind == "client-panic"


# ---------------------------------------------------------------- the probe of conditional writes


class Losing(Store):
    """A store whose first conditional write succeeds, and is refused all the same: its answer was lost, and it was repeated."""

    def __init__(self, url, n_lost=1) -> None:
        super().__init__(url)
        self.n_lost = n_lost

    def create(self, key, data):
        super().create(key, data)
        if self.n_lost:
            self.n_lost -= 1
            super().create(key, data)


def test_a_probe_whose_answer_was_lost_knows_itself_again(tmp_path):
    store = Losing((tmp_path / "bank").as_uri())
    assert store.arbitrates_writers()
    assert store.n_lost == 0
    assert store.objects() == []


def test_a_probe_whose_write_failed_is_removed(tmp_path):
    class Failing(Store):
        def create(self, key, data):
            super().create(key, data)
            raise StorageError("the disk is full", kind="disk-full")

    store = Failing((tmp_path / "bank").as_uri())
    with pytest.raises(StorageError, match="is full"):
        store.arbitrates_writers()
    assert store.objects() == []


def test_a_probe_whose_answer_was_lost_is_written_again_and_knows_itself(tmp_path):
    class Lossy(Store):
        n_asked = 0

        def create(self, key, data):
            self.n_asked += 1
            super().create(key, data)
            if self.n_asked == 1:
                raise StorageError("no answer in time", kind="unreachable")

    store = Lossy((tmp_path / "bank").as_uri())
    assert store.arbitrates_writers()
    assert store.n_asked == 3
    assert store.objects() == []


def test_a_probe_that_cannot_be_removed_is_told(tmp_path, caplog):
    class Keeping(Store):
        def delete(self, key):
            raise StorageError("delete is denied", kind="denied")

    store = Keeping((tmp_path / "bank").as_uri())
    assert store.arbitrates_writers()
    assert "delete is denied" in caplog.text
    assert store.objects()[0].key in caplog.text


def test_a_lost_answer_on_the_wire(s3_server, tmp_path):
    """A proxy hands the first conditional PUT on, and drops its answer: the client repeats it and gets 412."""
    host, port = s3_server.endpoint.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    dropped = threading.Event()

    def pump(source, target):
        while data := source.recv(65536):
            target.sendall(data)
        target.close()

    def connection(near):
        far = socket.create_connection((host, int(port)))
        with near, far:
            while True:
                request = b""
                while b"\r\n\r\n" not in request:
                    more = near.recv(65536)
                    if not more:
                        return
                    request += more
                head, _, body = request.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(v)
                        for n, _, v in (h.partition(b":") for h in head.split(b"\r\n"))
                        if n.lower() == b"content-length"
                    ),
                    0,
                )
                while len(body) < length:
                    body += near.recv(65536)
                far.sendall(head + b"\r\n\r\n" + body)
                answer = far.recv(65536)
                if head.startswith(b"PUT") and not dropped.is_set():
                    dropped.set()
                    return
                near.sendall(answer)

    def accept():
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=connection, args=(near,), daemon=True).start()

    # Signatures cover the host, so the client signs for the proxy's: moto and SeaweedFS take the Host header as it comes.
    threading.Thread(target=accept, daemon=True).start()
    store = Store(
        f"{s3_server.url}/lost-answer",
        StorageOptions(
            f"http://127.0.0.1:{listener.getsockname()[1]}", s3_server.access_key, s3_server.secret_key
        ),
    )
    try:
        assert store.arbitrates_writers()
        assert dropped.is_set()
        assert store.objects() == []
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


# ---------------------------------------------------------------- the disk

SYSTEM = {
    errno.EROFS: "read-only",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.ENOSPC: "disk-full",
    errno.EDQUOT: "disk-full",
    errno.EMFILE: "no-descriptors",
    errno.ENFILE: "no-descriptors",
    errno.ENAMETOOLONG: "name-too-long",
    errno.EIO: "disk",
}


@pytest.mark.parametrize("number", SYSTEM)
def test_numbers_of_the_system_have_kinds(number):
    text = os.strerror(number)
    for error in (
        OSError(number, text),
        ValueError(f"Generic LocalFileSystem error: Unable to create dir: {text} (os error {number})"),
        ValueError(
            f'Could not create local directory\nError: Os {{ code: {number}, kind: X, message: "{text}" }}'
        ),
    ):
        for found in (of_system(error, "file:///b/x"), as_ours(error, "file:///b/x", "")):
            assert found is not None
            assert found.kind == SYSTEM[number]
            assert "file:///b/x" in str(found)
            assert text in str(found)


LIMITED = """
import resource, signal, sys
import tensorbank as tb
from support.handmade_index import SCHEMA, part_of
from tensorbank import TensorBankError
bank = tb.create({folder!r})
bank.catalog.create("t", SCHEMA)
part = part_of("t", "p1", 4)
tb.open({folder!r}).sql("SELECT sample_id FROM t").arrow()
{limit}
for call in ({calls}):
    try:
        call()
        print("worked")
    except TensorBankError as error:
        print(type(error).__name__, error.kind, "|", error)
"""


def run_limited(tmp_path: Path, limit: str, calls: str) -> list[str]:
    code = LIMITED.format(
        folder=str(tmp_path / "bank"),
        limit=limit,
        calls=calls,
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=WITH_SUPPORT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_a_full_disk_is_called_full(tmp_path):
    """No file may grow beyond 2 kB: what commits and what writes objects says so, and the name of the index is told."""
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    calls = "lambda: bank.catalog.commit('t', part), lambda: bank.catalog.store.put('x', b'1' * 9000)"
    commit, put = run_limited(tmp_path, limit, calls)
    assert commit.startswith("StorageError disk-full |")
    assert "t/index/samples" in commit
    assert put.startswith("StorageError disk-full |")


def test_no_descriptors_left_is_called_so(tmp_path):
    limit = (
        "used = []\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "try:\n    while True: used.append(open('/dev/null'))\nexcept OSError: pass"
    )
    calls = (
        "lambda: bank.catalog.store.get('t/index/samples/_delta_log/' + '0' * 20 + '.json'), "
        "lambda: bank.catalog.commit('t', part), lambda: bank.catalog.store.objects('t')"
    )
    said = run_limited(tmp_path, limit, calls)
    assert [line.split(" |")[0] for line in said] == ["StorageError no-descriptors"] * 3
    assert all("ulimit -n" in line for line in said)


AS_NOBODY = """
import os, sys
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""


def test_a_bank_that_must_not_be_written_is_read_and_called_so(tmp_path):
    """A user who may not write there can read it;
    what exists is not made again, and no table is 'not there'."""
    bank = str(tmp_path / "bank")
    calls = (
        f"lambda: print(tb.open({bank!r}).sql('SELECT count(*) AS n FROM t').arrow()['n'].to_pylist()), "
        "lambda: bank.catalog.create('t', SCHEMA), lambda: print(bank.catalog.files('t', 'keys').n_rows), "
        "lambda: bank.catalog.create('other', SCHEMA), lambda: bank.catalog.commit('t', part), "
        f"lambda: tb.create({bank!r})"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/tmp") and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    said = run_limited(
        tmp_path, f"import os\nfor root, _, _ in os.walk({bank!r}): os.chmod(root, 0o555)\n{AS_NOBODY}", calls
    )
    for root, _, _ in os.walk(tmp_path):
        Path(root).chmod(0o755)
    assert said[:5] == ["[0]", "worked", "worked", "0", "worked"]
    assert [line.split(" |")[0] for line in said[5:]] == ["StorageError denied"] * 3, said


def test_a_name_that_is_too_long_is_called_so(tmp_path):
    store = Store((tmp_path / "bank").as_uri())
    with pytest.raises(StorageError) as caught:
        store.put("x" * 300, b"1")
    assert caught.value.kind == "name-too-long"
    with pytest.raises(StorageError) as caught:
        tb.create(tmp_path / ("y" * 300))
    assert caught.value.kind == "name-too-long"


def test_a_read_only_disk_is_called_so(tmp_path):
    """In a mount namespace of its own, where there may be one; the numbers above are tested everywhere."""
    mount = f"mount -t tmpfs tmpfs {tmp_path} && mount -o remount,ro {tmp_path}"
    code = (
        "import tensorbank as tb\nfrom tensorbank import StorageError\n"
        f"try:\n    tb.create({str(tmp_path / 'bank')!r})\nexcept StorageError as error:\n    print(error.kind)\n"
    )
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'{mount} && exec "$0" -c "$1"',
        sys.executable,
        code,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return
    if "unshare" in done.stderr or "mount" in done.stderr:
        return
    assert done.stdout == "read-only\n", done.stderr


@pytest.mark.parametrize(
    ("chain", "cause"),
    [
        ("source: hyper::Error(Body, Custom { kind: UnexpectedEof, error: IncompleteBody })", "was cut off"),
        ("kind: Redirect, source: TooManyRedirects", "in a circle"),
        ('source: Custom { kind: Other, error: "the cause" }', "the cause"),
        ("source: HttpError { kind: Unknown }", "request or response body error"),
    ],
)
def test_the_sort_of_a_store_is_not_the_cause_of_its_silence(chain, cause):
    told = "Generic HTTP error: HTTP error: request or response body error\n\n"
    text = f'{told}Debug source:\nGeneric {{ store: "HTTP", {chain} }}'
    error = as_ours(Exception(text), "http://host/bank/x", "host")
    assert error.kind == "unreachable"
    assert cause in str(error)


def test_a_web_server_that_redirects_has_no_region():
    text = "Generic HTTP error: Server returned a redirect without LOCATION header"
    error = as_ours(Exception(text), "http://host/bank/x", "host")
    assert error.kind == "redirect"
    assert "region" not in str(error)
