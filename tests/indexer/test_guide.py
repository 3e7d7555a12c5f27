"""The guide of the indexer runs as printed, and its tables are complete."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import tensorbank as tb
from support.guides import read_blocks, run_guide
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.reading import PROFILES
from tensorbank_indexer import IngestOptions, commands, open_source
from tensorbank_indexer.containers import problems
from tensorbank_indexer.reports.finding_kinds import FINDING_KINDS, HARMLESS
from tensorbank_indexer.sources import FORMATS

ROOM = Path(__file__).parents[2] / "indexer"
GUIDE = ROOM / "README.md"
KIND = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)+")


def table(header: str) -> list[list[str]]:
    """Return the rows of the table of the guide whose first column has this header."""
    text = GUIDE.read_text()
    start = re.search(rf"^\| {re.escape(header)} \|.*\n\|[-|]+\|\n", text, re.MULTILINE)
    assert start is not None, header
    lines = text[start.end() :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def codes(cells: list[str]) -> list[str]:
    """Return the names in back quotes of some cells."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.thorough
def test_the_guide_runs_as_printed(tmp_path):
    printed = "".join(run_guide(GUIDE, tmp_path).values())
    assert "terramesh: 10 samples added" in printed
    assert "10 were there already" in printed
    assert "nothing is committed of this part, since strict was asked for" in printed
    assert not list(tmp_path.glob("strict-bank/**/zarr.json"))


def source_block() -> str:
    (block,) = [b for b in read_blocks(GUIDE, "python") if "class NpzSource" in b.code]
    return block.code


def test_the_new_format_has_at_most_sixty_lines():
    assert len(source_block().splitlines()) <= 60


@pytest.fixture
def npz_package(tmp_path, monkeypatch) -> Path:
    """The folder of an installed package that adds the guide's format by an entry point."""
    site = tmp_path / "site"
    info = site / "npz_source-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "npz_source.py").write_text(source_block())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: npz-source\nVersion: 1.0\n")
    (toml,) = [b.code for b in read_blocks(GUIDE, "toml")]
    group, entry = toml.strip().splitlines()
    assert group == '[project.entry-points."tensorbank.sources"]'
    (info / "entry_points.txt").write_text(f"[tensorbank.sources]\n{entry.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    return site


def test_an_installed_package_adds_a_format_to_the_command(npz_package, tmp_path):
    rng = np.random.default_rng(1)
    written = {}
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(5):
            name = f"{split}-{i}"
            written[name] = rng.integers(0, 99, (4, 32, 32)).astype(np.int16)
            place = {"lon": 10.0 + i, "lat": 45.0, "time_s": 1_594_000_000}
            np.savez(tmp_path / "data" / split / f"{name}.npz", S2L2A=written[name], **place)
    (tmp_path / "data/train/damaged.npz").write_bytes(b"PK no zip")
    (tmp_path / "data/notes.txt").write_text("no sample")
    options = "--table tiles --format npz --workers 2 --samples-per-shard 4 --report report.json"
    done = subprocess.run(
        [Path(sys.executable).with_name("tensorbank"), "ingest", "data", "bank", *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "10 samples added" in done.stdout
    assert "1 corrupt-member, 1 stray-file" in done.stdout
    query = tb.open(tmp_path / "bank").sql("SELECT sample_id, split, season, S2L2A FROM tiles")
    rows = query.arrow().select(["sample_id", "split", "season"]).to_pylist()
    assert {(row["sample_id"], row["split"], row["season"]) for row in rows} == {
        (name, name.partition("-")[0], "summer") for name in written
    }
    seen = {}
    with query.dataloader(batch_size=5) as loader:
        for batch in loader:
            seen |= dict(zip(batch["sample_id"], batch["S2L2A"].numpy(), strict=True))
    assert seen.keys() == written.keys()
    for name, pixels in written.items():
        np.testing.assert_array_equal(seen[name].reshape(pixels.shape), pixels)


def test_a_format_that_nobody_adds_is_refused_with_the_nearest_names(npz_package, tmp_path):
    with pytest.raises(InvalidInputError, match=r"'npy'.*npz.*tensorbank\.sources"):
        open_source(str(tmp_path), format="npy")
    (npz_package / "npz_source.py").write_text("import a_package_that_nobody_has\n")
    with pytest.raises(InvalidInputError, match=r"npz_source:NpzSource.*a_package_that_nobody_has"):
        open_source(str(tmp_path), format="npz")


def test_the_table_of_formats_is_complete():
    assert codes([row[0] for row in table("format")]) == list(FORMATS)


def test_the_table_of_profiles_is_complete():
    assert codes([row[0] for row in table("profile")]) == list(PROFILES)


def test_the_table_of_options_is_complete():
    rows = table("option of `tensorbank ingest`")
    app = typer.Typer()
    app.command()(commands.ingest)
    params = typer.main.get_command(app).params
    named = {o for p in params for o in p.opts if o.startswith("--")} - {
        "--install-completion",
        "--show-completion",
    }
    assert len(named) > 10
    assert set(codes([row[0] for row in rows])) == named
    fields = set(IngestOptions.__dataclass_fields__)
    assert fields <= set(codes([row[1] for row in rows]))


def test_the_table_of_findings_is_complete():
    rows = table("kind")
    assert {codes([kind])[0]: meaning for kind, meaning, _ in rows} == dict(FINDING_KINDS)
    assert {codes([kind])[0] for kind, _, strict in rows if strict == "passes"} == HARMLESS


def named_kinds() -> set[str]:
    """Return the kinds that the code hands to a call as its first argument, or names in an assignment or default."""
    found: set[str] = set()
    explained = ROOM / "tensorbank_indexer" / "finding_kinds.py"
    for path in {*(ROOM / "tensorbank_indexer").rglob("*.py")} - {explained}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                values = [*node.args[:2], *(k.value for k in node.keywords if k.arg == "kind")]
            elif isinstance(node, ast.arguments):
                values = list(node.defaults)
            elif isinstance(node, ast.Assign | ast.Dict):
                values = [node.value] if isinstance(node, ast.Assign) else [k for k in node.keys if k]
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                values = node.value.elts[:1]
            else:
                continue
            texts = {v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)}
            found |= {text for text in texts if KIND.fullmatch(text) or text in FINDING_KINDS}
    return found


def test_every_kind_that_the_code_names_is_explained():
    others = {"utf-8", "add-modality", "replace-modality", "unrepaired-shard", *FORMATS}
    named = named_kinds() | set(map(str, problems.SPECIFIC_KINDS))
    assert len(named) > 40
    unexplained = named - FINDING_KINDS.keys() - others - {str(kind) for kind in ErrorKind}
    assert not unexplained
    assert FINDING_KINDS.keys() - named == set(), "kinds that the code does not name any more"
