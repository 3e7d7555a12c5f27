"""The guide of the service runs as it is printed, at another port, and names every endpoint, setting and scope."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from support.guides import read_blocks, run_guide
from support.server_process import serving
from tensorbank.errors import ErrorKind
from tensorbank_server.settings import load_settings

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "server" / "README.md"
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def served(bank_folder):
    with serving(str(bank_folder), "--name", "demo-bank") as running:
        yield running


@pytest.fixture(scope="module")
def printed(served, tmp_path_factory):
    """The output of the blocks of the guide, by a part of their code."""
    outputs = run_guide(GUIDE, tmp_path_factory.mktemp("guide"), replace={ADDRESS: served.url})
    blocks = {block.line: block.code for block in read_blocks(GUIDE) if block.is_run}
    assert outputs.keys() == blocks.keys()

    def output(part: str) -> str:
        (line,) = (line for line, code in blocks.items() if part in code)
        return outputs[line]

    return output


def test_a_key_is_made_and_listed(printed):
    key, listed = printed("keys create").splitlines()
    assert re.fullmatch(r"tb_live_[0-9a-f]{12}_[\w-]{43}", key)
    assert listed.split("\t")[:4] == [key.split("_")[2], "ann", "read plan", "all banks"]


def test_the_service_is_a_bank(printed):
    assert printed("tb.open") == "torch.Size([8, 2, 264, 264])\n"


def test_a_sample_is_a_tensor_and_a_picture(printed):
    assert re.fullmatch(r"\(1, 2, 264, 264\) \d{4,} bytes\n", printed("preview.png"))


def test_stac_finds_items(printed, truth):
    found = ast.literal_eval(printed("pystac_client"))
    cloudy = {row["sample_id"]: row["cloud_cover"] for row, _ in truth}
    assert len(found) == 3
    assert all(cloudy[sample_id] < 0.5 for sample_id in found)


def test_both_forms_of_a_filter_ask_the_same(printed, bank):
    decoder, text, answers = json.JSONDecoder(), printed("--data-urlencode").strip(), []
    while text:
        answer, end = decoder.raw_decode(text)
        answers.append([item["id"] for item in answer["features"]])
        text = text[end:].lstrip()
    where = "NDVI.mean > 0.2 AND cloud_cover < 0.5"
    both = bank.sql(f"SELECT sample_id FROM terramesh WHERE {where} ORDER BY sample_id").arrow()
    assert len(both) >= 2
    assert answers == [both["sample_id"].to_pylist()[:2]] * 2


def test_a_plan_is_made_and_opened_as_zarr(printed, bank):
    n = len(bank.sql("SELECT sample_id FROM terramesh WHERE NDVI.mean > 0.2").arrow())
    assert n > 0
    assert printed("xarray.open_zarr") == f"{n} samples, ({n}, 1, 2, 264, 264)\n"


def test_the_settings_of_the_guide_are_settings(tmp_path):
    (block,) = read_blocks(GUIDE, "toml")
    file = tmp_path / "server.toml"
    file.write_text(block.code)
    found = load_settings(file)
    assert found.banks["eo"].title == "TerraMesh"
    assert found.limits.queries_per_minute == 600


def test_every_endpoint_and_setting_is_in_the_guide(served):
    guide = GUIDE.read_text()
    paths = served.get("/openapi.json").json()["paths"]
    assert len(paths) > 30
    for path in paths:
        tail = (
            path.replace("/v1/banks/{bank}/tables/{table}", "T")
            .replace("{sample_id}", "{id}")
            .replace("{plan}", "{id}")
        )
        word = tail.rstrip("/").rsplit("/", 1)[-1].split("{")[0].rstrip(".") or tail.split("/")[-2]
        assert word.strip("/") in guide, path
    limits = served.get("/v1/config").json()["limits"]
    assert len(limits) > 30
    for name in [*limits, "metrics_host", "finish_s", "drain_s", "bank_probe_s"]:
        assert f"`{name}`" in guide, name
    for scope in ("read", "plan", "proxy", "sql", "admin"):
        assert f"| `{scope}` |" in guide


def test_every_code_of_a_problem_is_in_the_guide():
    """Codes stand as literals where problems are made; those of the core's errors are kinds."""
    codes = set()
    for file in (ROOT / "server" / "tensorbank_server").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "Problem"
                and len(node.args) > 1
            ):
                given = node.args[1]
                either = [given.body, given.orelse] if isinstance(given, ast.IfExp) else [given]
                codes |= {c.value for c in either if isinstance(c, ast.Constant)}
    assert len(codes) > 30
    kinds = {kind.value for kind in ErrorKind}
    guide = GUIDE.read_text()
    for code in codes - kinds:
        assert f"`{code}`" in guide or f"`-{code.removeprefix('unknown-')}`" in guide, code
