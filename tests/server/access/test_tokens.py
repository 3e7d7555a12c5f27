"""Tokens of an issuer: what is signed, meant for us and of today opens; everything else does not."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from support.server_process import serving
from support.service import check_problem
from tensorbank_server.access.tokens import principal_of

ISSUER, AUDIENCE = "https://issuer.example", "tensorbank"


class Issuer:
    """An issuer with a key of each kind, and a server of their public halves that counts how often it is asked."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()
        kinds = {"rsa": (RSAAlgorithm, self.rsa), "ec": (ECAlgorithm, self.ec), "ed": (OKPAlgorithm, self.ed)}
        keys = [
            {**json.loads(a.to_jwk(k.public_key())), "kid": kid, "use": "sig"}
            for kid, (a, k) in kinds.items()
        ]
        body = json.dumps({"keys": keys}).encode()
        issuer = self
        self.n_asked = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.n_asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, algorithm="RS256", kid=None, key=None, headers=None, **claims: object) -> str:
        keys = {"RS256": ("rsa", self.rsa), "ES256": ("ec", self.ec), "EdDSA": ("ed", self.ed)}
        name, own = keys.get(algorithm, ("rsa", key))
        now = int(time.time())
        content = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ann",
            "exp": now + 300,
            "iat": now,
            "scope": "openid read tensorbank:plan",
        }
        content = {k: v for k, v in (content | claims).items() if v is not None}
        return jwt.encode(content, key or own, algorithm, headers={"kid": kid or name, **(headers or {})})


@pytest.fixture(scope="module")
def issuer():
    made = Issuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def guarded(bank_folder, issuer):
    settings = {
        "TENSORBANK_OIDC__ISSUER": ISSUER,
        "TENSORBANK_OIDC__AUDIENCE": AUDIENCE,
        "TENSORBANK_OIDC__JWKS_URL": issuer.url,
        "TENSORBANK_OIDC__LEEWAY_S": "1",
    }
    with serving(str(bank_folder), "--name", "eo", **settings) as served:
        yield served


def ask(served, token, path="/v1/config"):
    return httpx.get(f"{served.url}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=30)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_good_tokens_open_what_their_scopes_say(guarded, issuer, algorithm):
    answer = ask(guarded, issuer.token(algorithm))
    assert answer.status_code == 200, answer.text
    assert answer.json()["scopes"] == ["plan", "read"]


def test_banks_of_a_token(guarded, issuer):
    assert ask(guarded, issuer.token(), "/v1/banks").json()["banks"][0]["name"] == "eo"
    assert ask(guarded, issuer.token(tensorbank_banks=["other"]), "/v1/banks").json() == {"banks": []}
    check_problem(ask(guarded, issuer.token(scope="admin"), "/v1/banks/eo"), 403, "scope")


@pytest.mark.parametrize("banks", ["eo", "", {"eo": 1}, 5, True, None, ["eo", 5], [["eo"]]])
def test_banks_of_another_form_open_no_bank(guarded, issuer, banks):
    if banks is None:  # a claim that is there and null
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "scope": "read"}
        token = jwt.encode({**claims, "tensorbank_banks": None}, issuer.rsa, "RS256", headers={"kid": "rsa"})
    else:
        token = issuer.token(tensorbank_banks=banks)
    assert ask(guarded, token, "/v1/banks").json() == {"banks": []}
    check_problem(ask(guarded, token, "/v1/banks/eo"), 404, "unknown-bank")


@pytest.mark.parametrize("scope", [5, True, {"read": 1}, ["read", 5], [["read"]], "", "READ", 1.5])
def test_a_scope_of_another_form_opens_nothing(guarded, issuer, scope):
    answer = ask(guarded, issuer.token(scope=scope))
    assert (answer.status_code, answer.json()["scopes"]) == (200, [])
    check_problem(ask(guarded, issuer.token(scope=scope), "/v1/banks/eo"), 403, "scope")


def test_a_list_of_scopes_is_one(guarded, issuer):
    assert ask(guarded, issuer.token(scope=["read", "tensorbank:plan"])).json()["scopes"] == ["plan", "read"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("sub", 5), ("sub", ["ann"]), ("sub", ""), ("exp", "soon"), ("exp", [1]), ("nbf", {}), ("iss", [ISSUER]), ("aud", {"a": 1})],
)  # fmt: skip
def test_a_claim_of_another_type_is_nobodys(guarded, issuer, name, value):
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "scope": "read", name: value}
    segments = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "RS256", "kid": "rsa", "typ": "JWT"}, claims)
    ]
    signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(".".join(segments).encode(), issuer.rsa)
    token = ".".join([*segments, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])
    check_problem(ask(guarded, token), 401, "unauthorized")


@pytest.mark.parametrize(
    "head", ["[" * 3_000, '{"alg":' * 900, '{"alg": "RS256", "kid": 5}', '{"kid": "rsa"}', "[]", "5", '"x"']
)
def test_a_head_that_is_none_is_refused(guarded, head):
    text = base64.urlsafe_b64encode(head.encode()).rstrip(b"=").decode()
    check_problem(ask(guarded, f"{text}.{text}.{text}"), 401, "unauthorized")


def test_long_subjects_are_not_mixed_up():
    one, other = ({"sub": "a" * 500 + end, "scope": "read"} for end in "xy")
    ids = {principal_of(c, "scope").id for c in (one, other)}
    assert len(ids) == 2
    assert max(map(len, ids)) <= 128


def test_other_tokens_open_nothing(guarded, issuer):
    past = int(time.time()) - 60
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = issuer.token()
    head, body, signature = good.split(".")
    bad = {
        "expired": issuer.token(exp=past),
        "without an end": issuer.token(exp=None),
        "not yet": issuer.token(nbf=int(time.time()) + 600),
        "for somebody else": issuer.token(aud="other"),
        "for nobody": issuer.token(aud=None),
        "of another issuer": issuer.token(iss="https://evil.example"),
        "of nobody": issuer.token(sub=None),
        "signed by a stranger": issuer.token(key=stranger),
        "of an unknown key": issuer.token(kid="other"),
        "not signed": jwt.encode(
            jwt.decode(good, options={"verify_signature": False}), None, "none", headers={"kid": "rsa"}
        ),
        "signed with a word": issuer.token("HS256", kid="rsa", key="x" * 64),
        "cut": f"{head}.{body}.{signature[:-6]}",
        "changed": f"{head}.{body[:-2]}xx.{signature}",
        "no token": "a.b.c",
        "that names its own keys": issuer.token(
            key=stranger, headers={"jku": "http://127.0.0.1:1/jwks.json", "x5u": "http://127.0.0.1:1/"}
        ),
    }
    for name, token in bad.items():
        answer = ask(guarded, token)
        assert answer.status_code == 401, name
        check_problem(answer, 401, "unauthorized")
        assert token not in guarded.log.read_text()


def test_unknown_keys_do_not_make_the_service_ask_again_and_again(guarded, issuer):
    ask(guarded, issuer.token())
    before = issuer.n_asked
    for i in range(20):
        assert ask(guarded, issuer.token(kid=f"key-{i}")).status_code == 401
    assert issuer.n_asked <= before + 2


def test_who_guesses_keys_is_slowed_down(bank_folder, issuer, tmp_path):
    from tensorbank_server.access.keys import KeyFile

    keys = KeyFile(tmp_path / "keys.json")
    _, good = keys.create("good")
    settings = {"TENSORBANK_LIMITS__FAILURES_PER_MINUTE": "5"}
    with serving(str(bank_folder), "--keys", str(keys.path), "--name", "eo", key=good, **settings) as served:
        statuses = [ask(served, f"tb_live_{'0' * 12}_{'x' * 43}").status_code for _ in range(8)]
        assert statuses == [401] * 5 + [429] * 3
        assert served.get("/v1/banks").status_code == 200, "who has a good key may share the address"
