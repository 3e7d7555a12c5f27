"""The loader's guide: its blocks run as printed, each row of its tables is a test, and the names in it exist."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

import tensorbank as tb
from support.guides import read_blocks, run_guide
from tensorbank.cache import CacheStats
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_loader import FetchOptions, LoaderStats

HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "loader" / "README.md"
OPTIONS = IngestOptions(n_workers=1, samples_per_shard=8)

SETUP = """
import warnings

for package in ("lightning", "lightning_fabric", "torch", "torchdata", "accelerate", "kornia"):
    warnings.filterwarnings("ignore", module=package)  # of each other
"""


@pytest.fixture(scope="module")
def folder(make_archives, tmp_path_factory) -> Path:
    """A folder with the bank that the guide opens."""
    folder = tmp_path_factory.mktemp("guide")
    bank = tb.create(folder / "demo-bank")
    one, _ = make_archives(
        "terramesh", "--samples", "20", "--per-tar", "10", "--subset", "both", "--checksums"
    )
    series, _ = make_archives("ssl4eo-wds", "--locations", "7", "--per-tar", "7", "--split", "val")
    ingest(open_source(str(one)), bank, "terramesh", OPTIONS)
    ingest(open_source(str(series)), bank, "ssl4eo", OPTIONS)
    return folder


SAID = (
    "5 batches an epoch, 40 samples so far\n",
    r"20 samples, fingerprint [0-9a-f]{32}\n",
    r"\[2, 2, 2, 2\] 2 padding\n",
    "40 draws\n",
    r"(\d+) samples an epoch, of source 0: \d+\n",
    r"\(4, 2, 12, 264, 264\) \[\[\d, \d\], \[\d, \d\], \[\d, \d\], \[\d, \d\]\]\n",
    r"\[128, 128, 128, 128\]\n",
    "two ranks go on with the second batch: True\n",
    r"terramesh at version 1 seen: 4 deleted since: 0\n\[\{'sample_id': .*'n_seen': 1, 'last_epoch': 0, 'fate': 'kept'\}\]\n",
    "True\n",
    "20 samples by two workers\n",
    "(.*\n)*5 steps\n",
    "",
    "4 batches are left\n",
    r"\{'S2L2A': \(4, 12, 264, 264\), 'DEM': \(4, 1, 264, 264\)\} \(4, 264, 264\)\n",
    r"torch.float32 \(4, 12, 264, 264\)\n",
    "True\n",
    r"(\(4, 1, 12, 264, 264\) True\n){2}Choice\(way=<Way.HOST: 'host'>, reason='cpu is no GPU that .*', trials=\(\)\)\n",
    r"the consumer waited \d+% of the time\n\d+ kB a request, 1\.\d\d read per byte wanted\n",
    r"\['tensorbank_loader_wait_seconds_total\{loader=\"train\"\} \d+\.\d+'\]\n",
    r"0 left out: \(\)\n",
)
"""The output of the blocks, in order."""


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute where the machine is quiet
def test_the_blocks_run_as_printed(folder):
    said = run_guide(GUIDE, folder, setup=SETUP)
    assert len(said) == len(SAID) == len([b for b in read_blocks(GUIDE, "python") if b.is_run])
    for (line, found), expected in zip(sorted(said.items()), SAID, strict=True):
        assert re.fullmatch(expected, found), f"README.md:{line}: {found!r}"


def names_in(name: str) -> set[str]:
    tree = ast.parse((HERE / name).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def tables() -> list[list[list[str]]]:
    """Return the cells of the guide's tables, row by row, the head first and without the line below it."""
    blocks = re.findall(r"(?:^\|.*\n)+", GUIDE.read_text(), re.MULTILINE)
    return [
        [
            [cell.strip() for cell in line.strip("|\n").split(" | ")]
            for line in block.splitlines()[:1] + block.splitlines()[2:]
        ]
        for block in blocks
    ]


def test_every_row_of_the_guide_is_a_test():
    text = GUIDE.read_text()
    named = re.findall(r"`([\w/.]*test_\w+\.py)::(test_\w+)`", text)
    assert len(set(named)) > 30
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(file)]
    assert not missing
    tested = [table for table in tables() if table[0][-1].rstrip(" |") == "test"]
    assert len(tested) == 8
    assert sum(map(len, tested)) > 40
    assert not [row for table in tested for row in table[1:] if "::test_" not in row[-1]]


def test_the_decision_table_names_statistics_and_options_that_exist():
    (table,) = [t for t in tables() if t[0][0].startswith("what the statistics say")]
    known = {f.name for f in (*fields(LoaderStats), *fields(FetchOptions))}
    known |= {f"cache.{f.name}" for f in fields(CacheStats)} | {"gap_p50_s", "gap_p99_s"}
    named = {name for row in table[1:] for name in re.findall(r"`([a-z_.]+)`", " ".join(row))} - {"srun"}
    assert len(named) > 15
    assert named <= known


def test_every_link_of_the_guide_leads_somewhere():
    text = GUIDE.read_text()
    heads = {
        re.sub(r"[^\w -]", "", head).lower().replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    assert [
        link for link in links if link.removeprefix("#") not in heads and not (GUIDE.parent / link).is_file()
    ] == []
