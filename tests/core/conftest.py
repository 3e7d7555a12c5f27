"""Servers on loopback that answer what a test tells them to, with and without TLS."""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Answering:
    """A server whose every answer is the same, and what it was asked."""

    url: str
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.status, self.body, self.headers = status, body, headers
        self.asked.clear()

    def refuse(self, status: int, code: str, message: str = "Some words.", more: str = "") -> None:
        """Refuse a request as S3 does."""
        document = (
            f"<Error><Code>{code}</Code><Message>{message}</Message>{more}<RequestId>1</RequestId></Error>"
        )
        self.answer(status, f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'.encode())


def serve(context: ssl.SSLContext | None = None) -> tuple[Answering, http.server.ThreadingHTTPServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def handle_one(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answering.asked.append(Asked(self.command, self.path, headers))
            self.send_response(answering.status)
            for name, value in answering.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(answering.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answering.body)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PROPFIND"):
        setattr(Handler, f"do_{method}", Handler.handle_one)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that does not trust us hangs up
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "http" if context is None else "https"
    answering = Answering(f"{scheme}://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return answering, server


@pytest.fixture
def answering() -> Iterator[Answering]:
    found, server = serve()
    yield found
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Certificates:
    """The PEM files of an authority of our own, and of a server on loopback that it vouches for."""

    authority: Path
    server: Path
    key: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("An authority of tests"))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    authority_key, server_key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    authority = (
        builder("An authority of tests", authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = builder("A server of tests", server_key.public_key()).add_extension(names, critical=False)
    folder = tmp_path_factory.mktemp("certificates")
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(authority.public_bytes(pem))
    (folder / "server.pem").write_bytes(server.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    (folder / "key.pem").write_bytes(
        server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificates(folder / "authority.pem", folder / "server.pem", folder / "key.pem")


@pytest.fixture
def answering_as_another_host(certificates: Certificates) -> Iterator[Answering]:
    """A server reached by a name that its certificate does not have."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.key)
    found, server = serve(context)
    found.url = found.url.replace("127.0.0.1", "localhost")
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def answering_tls(certificates: Certificates) -> Iterator[Answering]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.key)
    found, server = serve(context)
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """An environment without AWS's variables and files; called with texts of files, it makes those and returns their folder."""
    import os

    for variable in [v for v in os.environ if v.startswith("AWS_") or v == "SSL_CERT_FILE"]:
        monkeypatch.delenv(variable)
    folder = tmp_path / "aws-files"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def write(**files: str) -> Path:
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder

    return write


@pytest.fixture(scope="session")
def moto_process(tmp_path_factory):
    """A moto server in a process of its own: delta-rs keeps the GIL while it reads a history, so a server in a thread would wait
    for its client for ever."""
    code = (
        "import sys, threading\nfrom moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\nserver.start()\n"
        "print(*server.get_host_and_port(), flush=True)\nsys.stdin.read()\n"
    )
    with (tmp_path_factory.mktemp("moto") / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        host, port = process.stdout.readline().split()
        server = SimpleNamespace(
            endpoint=f"http://{host}:{port}", access_key="key", secret_key="secret", url="s3://eo-bank"
        )
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="eo-bank")
        client.close()
        yield server
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait(30)
