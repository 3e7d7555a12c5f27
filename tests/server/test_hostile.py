"""Requests made to take time: whatever a caller sends, the service answers with a problem, and others meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from support.filtered import NAMES
from tensorbank import InvalidInputError
from tensorbank.statements.pixel_predicates import parse_comparison
from tensorbank_server.filters import FilterBounds, FilterError, compile_filter, parse_text
from tensorbank_server.front.bodies import check_json
from tensorbank_server.http.problems import Problem, as_problem

N = FilterBounds().max_bytes
PARSE_S = 0.25
"""The time of a processor that parsing may take at most, at the longest text that is read; a quadratic one takes seconds."""


def texts(n: int) -> dict[str, str]:
    """Return texts of a length that tempt scanners:
    every kind of token, begun and never ended, or repeated."""
    one = {
        "digits": "0",
        "spaces": " ",
        "quotes": "'",
        "double quotes": '"',
        "opened": "(",
        "closed": ")",
        "dots": ".",
        "signs": "-",
        "commas": ",",
        "letters": "a",
        "percent": "%",
        "slashes": "/",
        "backslashes": "\\",
        "brackets": "[",
        "braces": "{",
        "arabic digits": "\u0661",
        "lone name parts": "a.",
        "exponents": "1e",
        "sums": "1+",
        "nots": "not ",
        "ands": "1=1 and ",
        "pairs": "()",
        "colons": ":1",
    }
    return {name: (text * n)[:n] for name, text in one.items()}


FILTERS = {
    **texts(N),
    **{f"lon > {name}": f"lon > {text}"[:N] for name, text in texts(N).items()},
    "digits and a letter": ("lon > " + "0" * N)[: N - 1] + "x",
    "an open string": "lon > '" + "a''" * ((N - 8) // 3),
    "nested and long": "lon > " + "(" * 30 + "1+1" * 2_000 + ")" * 30,
    "a sum of 900 terms": "lon > " + "+".join(["1"] * 900),
    "pixels": "pixels_any(NDVI, '> " + "0" * (N - 30) + "')",
    "pixels, not quite": "pixels_any(NDVI, '> " + "0" * (N - 30) + "x')",
    "a polygon": "s_intersects(geometry, POLYGON((" + "0 0, " * ((N - 60) // 5) + "0 0)))",
    "many opened geometries": "s_intersects(geometry, " + "POLYGON(" * ((N - 30) // 8),
    "a name beside others": "S2L2A." * ((N - 8) // 6) + "x > 1",
}


def processor_s(call: Any) -> float:
    """Return the processor time of a call, the best of three: a collection of garbage may fall into one."""
    taken_s = []
    for _ in range(3):
        began_s = time.thread_time()
        call()
        taken_s.append(time.thread_time() - began_s)
    return min(taken_s)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_of_full_length_is_parsed_in_linear_time(name):
    refused: list[FilterError] = []

    def parse() -> None:
        try:
            compile_filter(parse_text(FILTERS[name]), NAMES)
        except FilterError as error:
            refused.append(error)

    assert processor_s(parse) < PARSE_S
    for error in refused:
        assert len(as_problem(error).document("-")["errors"][0]["detail"]) <= 500


@pytest.mark.parametrize(
    "text", [*texts(200_000).values(), "> " + "0" * 200_000 + "x", ">" + " " * 200_000 + "1"]
)
def test_a_comparison_of_any_length_is_refused_at_once(text):
    def parse() -> None:
        with pytest.raises(InvalidInputError) as refused:
            parse_comparison(text)
        assert len(str(refused.value)) < 300

    assert processor_s(parse) < PARSE_S


def test_comparisons_are_still_read():
    assert parse_comparison(" >=  -1.5e-3 ") == (">=", -1.5e-3)
    assert parse_comparison("<> .5") == ("!=", 0.5)
    assert parse_comparison("== 2.") == ("=", 2.0)
    assert parse_comparison("<" + "0" * 63) == ("<", 0.0)


@pytest.mark.parametrize(
    "body",
    [
        "[" * 65_000,
        "[" * 950 + "]" * 950,
        '{"a":' * 950 + "1" + "}" * 950,
        "9" * 65_000,
        "[" + "9" * 4_000 + "]",
        "1." + "9" * 60_000,
        "-1e" + "9" * 60_000,
    ],
)
def test_absurd_json_is_refused(body):
    def check() -> None:
        with pytest.raises(Problem) as refused:
            check_json(body.encode(), max_depth=64)
        assert (refused.value.status, refused.value.code) in ((400, "too-deep"), (400, "bad-request"))

    assert processor_s(check) < PARSE_S


@pytest.mark.parametrize(
    "body",
    ["[]," * 20_000, "[" + "[]," * 20_000 + "[]]", '"' + "\\\\" * 32_000 + '"', "[1" + ",1" * 32_000 + "]"],
)
def test_long_json_is_measured_in_linear_time(body):
    assert processor_s(lambda: check_json(body.encode(), max_depth=64)) < PARSE_S


def test_nested_to_the_limit_is_let_through():
    check_json(b"[" * 64 + b"]" * 64, max_depth=64)
    with pytest.raises(Problem):
        check_json(b"[" * 65 + b"]" * 65, max_depth=64)


@pytest.mark.parametrize("bound", [10**400, -(10**400), 2**63, True, None, "5", [5]])
def test_a_box_of_absurd_numbers_is_refused(bound):
    tree = {"op": "s_intersects", "args": [{"property": "geometry"}, {"bbox": [bound, 0, 10, 10]}]}
    with pytest.raises(FilterError):
        compile_filter(tree, NAMES)


# ------------------------------------------------- every endpoint there is


class Probe:
    """A probe that asks for the health of a service all the time,
    and keeps how long the worst answer took."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.waits_s: list[float] = []
        self.failures: list[str] = []

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._is_over.wait(0.002):
                began_s = time.monotonic()
                answer = client.get("/healthz")
                self.waits_s.append(time.monotonic() - began_s)
                if answer.status_code != 200:
                    self.failures.append(answer.text)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join(60)


GOOD = {
    "bank": "eo",
    "table": "terramesh",
    "sample_id": "x",
    "plan": "0" * 32,
    "collection": "eo.terramesh",
    "form": "npy",
}
FEW = ("digits", "commas", "arabic digits")
PATH_TEXTS = {name: texts(500)[name] for name in (*FEW, "percent")}


def requests_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the method, path and options: one hostile text at a time,
    in each parameter and each field of each endpoint."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            parameters = operation.get("parameters", [])
            fill = {p["name"]: GOOD.get(p["name"], "1") for p in parameters if p["in"] == "path"}
            for p in parameters:
                if p["in"] == "path":
                    for text in PATH_TEXTS.values():
                        yield method, path.format_map({**fill, p["name"]: quote(text, safe="")[:1_000]}), {}
                elif p["in"] == "query":
                    known = texts(8_192)
                    for text in (
                        list(FILTERS.values())[-20:] if p["name"] == "filter" else map(known.get, FEW)
                    ):
                        yield method, path.format_map(fill), {"params": {p["name"]: text}}
            for text in [texts(7_000)[name] for name in ("commas", "exponents")]:
                plain = text.encode(errors="ignore").decode("ascii", "ignore")[:7_000].strip() or "a"
                yield method, path.format_map(fill), {"headers": {
                    "Range": plain, "If-None-Match": plain, "Accept": plain, "traceparent": plain,
                }}  # fmt: skip
            if "requestBody" in operation:
                yield from (
                    (method, path.format_map(fill), {"content": body}) for body in bodies(document, operation)
                )


def bodies(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[bytes]:
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    fields = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
    good = {
        "table": "terramesh",
        "access": "url",
        "sql": "SELECT 1",
        "limit": 1,
        "collections": ["eo.terramesh"],
    }
    values: list[Any] = [
        *(texts(60_000)[name] for name in FEW),
        *list(FILTERS.values())[-4:],
        10**60,
        -1,
        1e308,
        None,
        True,
    ]
    values += [["a"] * 10_000, {"a" * 30_000: ["b"] * 1_000}]
    tree: Any = 1
    for _ in range(40):
        tree = {"op": "+", "args": [tree, 1]}
    values += [tree, {"op": "pixels_any", "args": [{"property": "NDVI"}, "> " + "0" * 12_000]}]
    for field in fields:
        known = {name: value for name, value in good.items() if name in fields}
        yield from (json.dumps(known | {field: value}).encode() for value in values)
    for raw in (
        "[" * 950 + "]" * 950,
        "9" * 60_000,
        "\\" * 60_000,
        '{"table": "terramesh", "filter": ' + '{"a":' * 950 + "1" + "}" * 951,
    ):
        yield raw.encode()


@pytest.mark.thorough
def test_no_request_holds_up_the_health_of_the_service(serving_of, bank_folder, table_url):
    generous = {
        f"TENSORBANK_LIMITS__{name}_PER_MINUTE": "10000000" for name in ("REQUESTS", "QUERIES", "FAILURES")
    }
    with serving_of(str(bank_folder), **generous) as served, Probe(served.url) as probe:
        assert served.get(f"{table_url}/schema").status_code == 200
        statuses: dict[int, int] = {}
        for method, path, options in requests_of(served.get("/openapi.json").json()):
            answer = served.client.request(
                method, path, **{"headers": {"Content-Type": "application/json"}, **options}
            )
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code < 500, (method, path[:200], str(options)[:300], answer.text[:300])
            if answer.status_code >= 400 and method != "head":
                assert answer.headers["content-type"] == "application/problem+json", (method, path[:200])
                assert len(answer.content) < 8_192
    assert sum(n for status, n in statuses.items() if status >= 400) > 500, statuses
    assert not probe.failures
    assert len(probe.waits_s) > 50
    assert max(probe.waits_s) < 2.0
