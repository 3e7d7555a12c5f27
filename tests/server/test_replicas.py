"""Two replicas of a service, processes of their own: one limit, one list of keys, and each knows the plans of the other."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.rate_server import RateServer, rate_server
from support.server_process import Served, serving
from support.service import QUERY, check_problem, make
from support.waiting import wait_until
from tensorbank_server.access.keys import KeyFile

PER_MINUTE = 60


@dataclass
class Replicas:
    """Two processes, what they share, and the headers of a caller."""

    both: tuple[Served, Served]
    store: RateServer
    keys: KeyFile
    folder: Path

    def caller(self, name: str, *scopes: str) -> tuple[str, dict[str, str]]:
        """Make a key; return its id, and the headers that bear it."""
        key, text = self.keys.create(name, scopes or ("read", "plan"), lifetime=timedelta(hours=1))
        return key.id, {"Authorization": f"Bearer {text}"}


@contextmanager
def two_replicas(bank: Path, folder: Path, **limits: str) -> Iterator[Replicas]:
    keys = KeyFile(folder / "keys.json")
    keys.create("first")
    with rate_server(folder) as store, ExitStack() as stack:
        shared = {
            "TENSORBANK_KEYS_FILE": str(keys.path),
            "TENSORBANK_PLANS_FOLDER": str(folder / "plans"),
            "TENSORBANK_SIGNING_KEY": "of-both-replicas",
            "TENSORBANK_AUDIT_FILE": str(folder / "audit.jsonl"),
            "TENSORBANK_LIMITS__STORE": store.url,
            "TENSORBANK_LIMITS__STORE_S": "10",
            "TENSORBANK_LIMITS__N_REPLICAS": "2",
            "TENSORBANK_LATEST_S": "0",
        }
        one, two = (
            stack.enter_context(serving(str(bank), "--name", "eo", **shared, **limits)) for _ in range(2)
        )
        yield Replicas((one, two), store, keys, folder)


def statuses(replicas: Replicas, head: dict[str, str], n: int) -> tuple[Counter[int], float]:
    """Ask both replicas by turns; return how many answers had each status, and the seconds that this took."""
    began_s = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(replicas.both[i % 2].get, "/v1/banks", headers=head, timeout=60) for i in range(n)
        ]
        found = Counter(a.result().status_code for a in asked)
    return found, time.monotonic() - began_s


def known_to_both(replicas: Replicas, head: dict[str, str]) -> None:
    """Wait until both replicas have looked at the file of keys again."""
    for served in replicas.both:
        wait_until(lambda s=served: s.get("/v1/config", headers=head).status_code == 200, "the key is known")


@pytest.mark.thorough
def test_the_limit_holds_over_both_and_survives_its_store(bank_folder, tmp_path):
    limits = {"TENSORBANK_LIMITS__REQUESTS_PER_MINUTE": str(PER_MINUTE)}
    limits["TENSORBANK_LIMITS__FAILURES_PER_MINUTE"] = "10000"
    with two_replicas(bank_folder, tmp_path, **limits) as replicas:
        _, ann = replicas.caller("ann")
        known_to_both(replicas, ann)
        found, taken_s = statuses(replicas, ann, 3 * PER_MINUTE)
        assert set(found) == {200, 429}
        assert found[200] <= PER_MINUTE + taken_s + 1, "one a second flows in"
        assert {s.get("/readyz").json()["limits"] for s in replicas.both} == {"ok"}

        replicas.store.kill()
        _, ben = replicas.caller("ben")
        known_to_both(replicas, ben)
        found, taken_s = statuses(replicas, ben, 3 * PER_MINUTE)
        assert set(found) == {200, 429}, "each allows its share, and nothing fails"
        assert found[200] <= PER_MINUTE + taken_s + 2
        for served in replicas.both:
            ready = served.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert "share" in ready.json()["limits"]

        replicas.store.start()
        for served in replicas.both:

            def is_back(served: Served = served) -> bool:
                served.get("/v1/banks", headers={"Authorization": "Bearer tb_live_none"})
                return served.get("/readyz").json()["limits"] == "ok"

            wait_until(is_back, "the store is asked again")
        _, dan = replicas.caller("dan")
        known_to_both(replicas, dan)
        found, taken_s = statuses(replicas, dan, 3 * PER_MINUTE)
        assert set(found) == {200, 429}
        assert found[200] <= PER_MINUTE + taken_s + 1


@pytest.fixture(scope="module")
def replicas(bank_folder, tmp_path_factory):
    with two_replicas(bank_folder, tmp_path_factory.mktemp("replicas")) as found:
        yield found


def first_page(replica, plan: str, head: dict[str, str], url: str) -> tuple[list[dict[str, Any]], str]:
    """The first tasks as from a service at ``url``, and the token of the next page, which holds the second it was made in."""
    text = replica.get(f"/v1/plans/{plan}/tasks?limit=3", headers=head).text
    lines = [json.loads(line) for line in text.replace(replica.url, url).splitlines()]
    return lines, lines[-1]["end"].pop("next")


def test_a_plan_of_one_is_delivered_and_ended_by_the_other(replicas):
    one, two = replicas.both
    _, ann = replicas.caller("ann")
    known_to_both(replicas, ann)
    made = make(one, head=ann)
    first, token = first_page(one, made["id"], ann, one.url)
    assert first == first_page(two, made["id"], ann, one.url)[0]
    assert token, "there is another page"
    more = two.get(f"/v1/plans/{made['id']}/tasks", params={"next": token}, headers=ann)
    assert more.status_code == 200, "the token of one is read by the other"
    again = two.post("/v1/banks/eo/plans", json=QUERY, headers=ann)
    assert (again.status_code, again.json()["id"]) == (200, made["id"]), "it is not made twice"

    assert two.client.delete(f"/v1/plans/{made['id']}", headers=ann).status_code == 204
    assert two.get(f"/v1/plans/{made['id']}", headers=ann).json()["state"] == "cancelled"


def test_a_plan_that_one_cancelled_is_seen_when_the_other_makes_it_again(replicas):
    one, two = replicas.both
    _, ben = replicas.caller("ben")
    known_to_both(replicas, ben)
    condition = "S2L2A.B08.mean > 502"
    made = make(two, head=ben, filter=condition)
    assert two.client.delete(f"/v1/plans/{made['id']}", headers=ben).status_code == 204
    assert make(one, head=ben, filter=condition)["id"] == made["id"]
    found = two.get(f"/v1/plans/{made['id']}", headers=ben)
    assert (found.status_code, found.json()["state"]) == (200, "completed")


def test_a_key_that_is_revoked_is_refused_by_both(replicas):
    identity, head = replicas.caller("eve")
    known_to_both(replicas, head)
    replicas.keys.revoke(identity)
    one, two = replicas.both
    wait_until(lambda: one.get("/v1/banks", headers=head).status_code == 401, "one refuses it", 20)
    wait_until(lambda: two.get("/v1/banks", headers=head).status_code == 401, "two refuses it", 20)
    check_problem(two.get("/v1/banks", headers=head), 401, "unauthorized")


def test_the_audit_log_has_whole_lines_of_both(replicas):
    _, fay = replicas.caller("fay")
    known_to_both(replicas, fay)
    with ThreadPoolExecutor(8) as pool:
        path = "/v1/banks/eo/tables/terramesh/schema"
        asked = [
            pool.submit(
                replicas.both[i % 2].get, path, headers={**fay, "X-Request-Id": f"fay-{i}"}, timeout=60
            )
            for i in range(40)
        ]
        assert {a.result().status_code for a in asked} == {200}
    lines = [json.loads(line) for line in (replicas.folder / "audit.jsonl").read_text().splitlines()]
    assert {f"fay-{i}" for i in range(40)} <= {line["request_id"] for line in lines}


def test_the_address_of_the_store_is_told_to_nobody(replicas):
    _, head = replicas.caller("gil", "read", "admin")
    known_to_both(replicas, head)
    one = replicas.both[0]
    limits = one.get("/v1/config", headers=head).json()["limits"]
    assert limits["n_replicas"] == 2
    assert not {"store", "store_password_file"} & set(limits)
    for text in (one.get("/metrics", headers=head).text, one.log.read_text(), json.dumps(limits)):
        assert str(replicas.store.port) not in text


def test_the_audit_log_goes_to_standard_output(bank_folder):
    with serving(str(bank_folder), "--name", "eo", TENSORBANK_AUDIT_FILE="-") as served:
        head = {"X-Request-Id": "told"}
        assert httpx.get(f"{served.url}/v1/banks/eo/tables/terramesh/schema", headers=head).status_code == 200
        assert served.process.stdout is not None
        line = json.loads(served.process.stdout.readline())
    assert (line["action"], line["request_id"], line["status"]) == ("read", "told", 200)
