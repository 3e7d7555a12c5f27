"""A bank that a plain web server serves as files: opened, planned and streamed by its address, and told from no bank."""

from __future__ import annotations

import http.server
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import deltalake
import numpy as np
import pytest

import tensorbank as tb
from support.handmade import make
from support.handmade_index import make_table
from support.programs import program, require_programs
from tensorbank import FormatError, InvalidInputError, NotFoundError, StorageError
from tensorbank.plans import StoreAddress


class Files(http.server.SimpleHTTPRequestHandler):
    """A server of a folder like nginx and GitHub Pages: GET and HEAD, ranges, nothing else, no listing."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def list_directory(self, path):
        self.send_error(403)

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        self.server.asked.append(self.path)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not path.is_file() or asked is None or not self.server.ranges:
            super().do_GET()
            return
        with path.open("rb") as file:
            file.seek(int(asked[1]))
            data = file.read(int(asked[2]) - int(asked[1]) + 1)
        self.send_response(206)
        self.send_header(
            "Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(data) - 1}/{path.stat().st_size}"
        )
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def serving(folder: Path, *, ranges: bool = True) -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    server.daemon_threads = True
    server.asked, server.ranges = [], ranges
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def at(plan, url):
    """Return the same plan, of a bank at another address."""
    return replace(plan, origin=StoreAddress(url))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "www").mkdir()
    yield from serving(tmp_path / "www")


def test_a_bank_of_files_is_read_as_the_folder_it_is_of(files, tmp_path):
    made = tb.create(tmp_path / "www" / "exp 2")
    make_table(made, "t", parts=3, n=4)
    make_table(made, "Other", parts=1, n=2, prefix="x")
    bank = tb.open(f"{files.url}/exp 2/", cache=tmp_path / "cache")
    sql = "SELECT * FROM t ORDER BY sample_id"
    assert bank.sql(sql).arrow().equals(made.sql(sql).arrow())
    assert bank.sql("SELECT t.sample_id FROM t JOIN Other ON true").arrow().num_rows == 24
    assert bank.table("t").schema == made.table("t").schema
    assert bank.table("t").snapshot() == made.table("t").snapshot()
    assert bank.table("t").at(1).snapshot() == made.table("t").at(1).snapshot()
    assert bank.table("t").history() == made.table("t").history()
    assert not [path for path in files.asked if path.endswith("/")], "nothing was listed"
    make_table(made, "u", parts=1, n=2, prefix="u")
    assert bank.table("u").snapshot().n_samples == 2


def test_its_samples_are_streamed(files, tmp_path):
    made = make(tmp_path / "www" / "bank", 12)
    expected = {b["sample_id"][0]: b for b in made.plan.dataloader(batch_size=1, seed=1)}
    seen = 0
    for batch in at(made.plan, f"{files.url}/bank").dataloader(batch_size=1, seed=1):
        other = expected[batch["sample_id"][0]]
        assert batch.keys() == other.keys()
        for name, value in batch.items():
            if hasattr(value, "numpy"):
                np.testing.assert_array_equal(value.numpy(), other[name].numpy())
        seen += 1
    assert seen == len(expected) == 12


def test_versions_around_a_checkpoint(files, tmp_path):
    folder = tmp_path / "www" / "bank"
    made = tb.create(folder)
    make_table(made, "t", parts=20, n=2)
    log = folder / "t/index/samples/_delta_log"
    deltalake.DeltaTable(log.parent, version=15).create_checkpoint()
    url = f"{files.url}/bank"
    assert tb.open(url, cache=tmp_path / "a").table("t").snapshot().n_samples == 40
    asked = [path for path in files.asked if "/samples/" in path]
    assert [path for path in asked if f"{15:020}.json" in path]
    assert not [path for path in asked if f"{14:020}.json" in path]
    for version in (0, 3, 15, 20):
        bank = tb.open(url, cache=tmp_path / f"only-{version}")
        assert bank.table("t").at(version).snapshot() == made.table("t").at(version).snapshot()
    assert len(tb.open(url, cache=tmp_path / "b").table("t").history()) == 21
    with pytest.raises(NotFoundError) as caught:
        tb.open(url, cache=tmp_path / "a").table("t").at(21).snapshot()
    assert caught.value.kind in ("unknown-snapshot", "unknown-table")
    for old in range(15):
        (log / f"{old:020}.json").unlink()
    assert tb.open(url, cache=tmp_path / "c").table("t").snapshot().n_samples == 40


def test_its_tables_are_those_of_its_list(files, tmp_path, capsys):
    folder = tmp_path / "www" / "bank"
    made = tb.create(folder)
    make_table(made, "Terra", parts=1, n=2)
    bank = tb.open(f"{files.url}/bank", cache=tmp_path / "cache")
    with pytest.raises(NotFoundError, match=r"tables\.json") as caught:
        bank.tables()
    assert caught.value.kind == "no-list-of-tables"
    for call in (lambda: bank.table("Tera").schema, lambda: bank.sql("SELECT * FROM Tera").arrow()):
        with pytest.raises((NotFoundError, InvalidInputError), match="Tera") as caught:
            call()
        assert caught.value.kind == "unknown-table"
    from tensorbank.cli.app import main

    assert main(["tables", str(folder), "--json"]) == 0
    (folder / "tables.json").write_text(capsys.readouterr().out)
    assert bank.tables() == ["Terra"]
    assert bank.sql("SELECT sample_id FROM terra").arrow().num_rows == 2
    with pytest.raises(NotFoundError, match="Did you mean 'Terra'"):
        _ = bank.table("Tera").schema
    (folder / "tables.json").write_text('["Terra"]')
    assert bank.tables() == ["Terra"]
    for nonsense in ("<html></html>", "5", '[{"name": 1}]'):
        (folder / "tables.json").write_text(nonsense)
        with pytest.raises(FormatError, match="not a list of tables") as caught:
            bank.tables()
        assert caught.value.kind == "list-of-tables"


def test_it_is_not_written(files, tmp_path):
    make_table(tb.create(tmp_path / "www" / "bank"), "t", parts=1, n=2)
    url = f"{files.url}/bank"
    with pytest.raises(InvalidInputError, match="only be read") as caught:
        tb.create(url)
    assert caught.value.kind == "read-only"
    from support.handmade_index import SCHEMA, part_of

    bank = tb.open(url, cache=tmp_path / "cache")
    for call in (
        lambda: bank.catalog.create("u", SCHEMA),
        lambda: bank.catalog.commit("t", part_of("t", "p", 1)),
    ):
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert caught.value.kind == "read-only"


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", b"{}", b""])
def test_a_site_that_answers_everything_is_no_bank(answering, tmp_path, page):
    answering.answer(200, page, Content_Type="text/html")
    bank = tb.open(f"{answering.url}/bank", cache=tmp_path)
    for call in (lambda: bank.table("t").schema, lambda: bank.sql("SELECT * FROM t").arrow()):
        with pytest.raises((StorageError, FormatError)) as caught:
            call()
        assert caught.value.kind in ("not-a-store", "list-of-tables")
        assert answering.url in str(caught.value)


def test_a_server_without_ranges_is_named(tmp_path):
    made, kinds = make(tmp_path / "bank", 4), []
    for server in serving(tmp_path, ranges=False):
        with pytest.raises(StorageError, match="whole files instead of the ranges") as caught:
            next(iter(at(made.plan, f"{server.url}/bank").dataloader(batch_size=1)))
        kinds.append(caught.value.kind)
    assert kinds == ["no-ranges"]


def test_nginx_serves_a_bank(tmp_path, free_port):
    """The server that most such banks lie on, as it comes."""
    require_programs("nginx-light", "nginx")
    made = make(tmp_path / "www" / "bank", 6)
    make_table(tb.create(tmp_path / "www" / "index"), "t", parts=2, n=2)
    own = tmp_path / "nginx"
    own.mkdir()
    paths = "".join(f"{n}_temp_path {own}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (own / "nginx.conf").write_text(
        f"daemon off; pid {own}/pid; error_log {own}/log; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{free_port}; root {tmp_path}/www; }} }}\n"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/tmp") and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    process = subprocess.Popen([program("nginx"), "-p", str(own), "-c", str(own / "nginx.conf")])
    url = f"http://127.0.0.1:{free_port}/bank"
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"{url}/nothing", timeout=5):
                    break
            except urllib.error.HTTPError as error:
                error.close()
                break
            except OSError:
                assert time.monotonic() < deadline, (own / "log").read_text()
                time.sleep(0.02)
        rows = at(made.plan, url).dataloader(batch_size=2, seed=1)
        assert sum(len(batch["sample_id"]) for batch in rows) == 6
        bank = tb.open(f"http://127.0.0.1:{free_port}/index", cache=tmp_path / "cache")
        assert bank.sql("SELECT sample_id FROM t").arrow().num_rows == 4
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
