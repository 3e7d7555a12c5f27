"""The command line: what it prints for people and programs, and how it fails."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorbank as tb
from support.handmade_index import SCHEMA, make_table
from tensorbank.cli.app import main
from tensorbank.cli.output import _plain, _texts

ENVIRONMENT = {
    k: v for k, v in os.environ.items() if not k.startswith("AWS_") and k not in ("COLUMNS", "FORCE_COLOR")
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    bank = tb.create(folder)
    table = make_table(bank, "terramesh", parts=2, n=10)
    make_table(bank, "other", parts=1, n=3)
    return folder, bank, table


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def run(*arguments: object, text: bool = True, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tensorbank", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=text, timeout=120, env=ENVIRONMENT, **options)


def one_sentence(err: str) -> str:
    """The only line on standard error, which is no traceback."""
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err


def rows_of(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


# ---------------------------------------------------------------- reading


def test_tables(made, capsys):
    folder, bank, _ = made
    code, out, err = call(capsys, "tables", folder)
    assert (code, err) == (0, "")
    assert [r[:3] for r in rows_of(out)] == [
        ["table", "version", "samples"],
        ["other", "1", "3"],
        ["terramesh", "2", "20"],
    ]
    code, out, err = call(capsys, "tables", folder, "--json")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert [t["table"] for t in listed] == ["other", "terramesh"]
    snapshot = bank.table("terramesh").snapshot()
    assert listed[1] == {n: getattr(snapshot, n) for n in snapshot.__dataclass_fields__}


def test_show(made, capsys):
    folder, _, table = made
    code, out, err = call(capsys, "show", folder, "terramesh")
    assert (code, err) == (0, "")
    assert out.startswith("terramesh at version 2: 20 samples in 2 parts and 6 shard groups\n")
    assert "S2L2A\tint16\t2 x 5 x 8 x 8\tB02, B03, B04, B08, B11" in out
    assert "LULC\tuint8\t1 x 1 x 8 x 8\tno_data, water, trees" in out
    code, out, _ = call(capsys, "show", folder, "terramesh", "--json")
    shown = json.loads(out)
    assert code == 0
    assert [tb.Modality.from_json(json.dumps(m)) for m in shown["modalities"]] == list(SCHEMA)
    refs = [(m, r[m]["ref"]) for r in table.samples for m in SCHEMA.names if r[m]]
    assert shown["stored_bytes"] == sum(ref["length"] for _, ref in refs)
    assert shown["tensor_bytes"] == sum(SCHEMA[m].sample_bytes for m, _ in refs)


def test_history(made, capsys):
    folder, *_ = made
    code, out, _ = call(capsys, "history", folder, "terramesh")
    assert code == 0
    assert [(r[0], r[3], r[4]) for r in rows_of(out)[1:]] == [
        ("2", "10", "part-1"),
        ("1", "10", "part-0"),
        ("0", "0", ""),
    ]
    code, out, _ = call(capsys, "history", folder, "terramesh", "--json")
    assert code == 0
    assert [(h["version"], h["part"], h["n_rows"]) for h in json.loads(out)] == [
        (2, "part-1", 10),
        (1, "part-0", 10),
        (0, None, 0),
    ]


SQL = "SELECT sample_id, S2L2A, cloud_cover, modalities FROM terramesh ORDER BY sample_id"


def expected_rows(table) -> list[dict]:
    rows = []
    for r in sorted(table.samples, key=lambda r: r["sample_id"]):
        ref = r["S2L2A"] and {k: r["S2L2A"]["ref"][k] for k in ("key", "offset", "length")}
        rows.append(
            {
                "sample_id": r["sample_id"],
                "S2L2A": ref,
                "cloud_cover": r["cloud_cover"],
                "modalities": r["modalities"],
            }
        )
    return rows


def address(ref: dict | None) -> str:
    return f"{ref['key']} [{ref['offset']}, {ref['offset'] + ref['length']})" if ref else ""


def test_one_row_is_not_many(made, capsys):
    folder, _, _ = made
    _, out, _ = call(capsys, "query", folder, "SELECT 1 AS a")
    assert rows_of(out)[-1] == ["1 row"]


def test_query_as_a_table(made, capsys):
    folder, _, table = made
    code, out, err = call(capsys, "query", folder, SQL)
    assert (code, err) == (0, "")
    header, *rows, last = rows_of(out)
    assert header == ["sample_id", "S2L2A", "cloud_cover", "modalities"]
    assert last == ["20 rows"]
    expected = expected_rows(table)
    assert [r[:2] for r in rows] == [[e["sample_id"], address(e["S2L2A"])] for e in expected]
    assert [float(r[2]) if r[2] else None for r in rows] == [e["cloud_cover"] for e in expected]


def test_query_as_json(made, capsys):
    folder, _, table = made
    code, out, err = call(capsys, "query", folder, SQL, "--format", "json")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == expected_rows(table)
    assert call(capsys, "query", folder, SQL, "--json") == (0, out, "")


@given(
    doubles=st.lists(st.floats(allow_nan=False), min_size=1),
    floats=st.lists(st.floats(width=32, allow_nan=False), min_size=1),
)
def test_numbers_for_programs_read_back_equal(doubles, floats):
    assert [float(t) for t in _texts(pa.chunked_array([doubles]))] == doubles
    narrow = _texts(pa.chunked_array([pa.array(floats, pa.float32())]))
    assert [np.float32(t) for t in narrow] == [np.float32(f) for f in floats]
    nested = _texts(pa.chunked_array([[doubles]]))
    assert [json.loads(t) for t in nested] == [doubles]


def test_a_float_of_32_bits_has_its_own_shortest_digits():
    assert _texts(pa.chunked_array([pa.array([0.1, None, -55.5], pa.float32())])) == ["0.1", "", "-55.5"]


@pytest.mark.parametrize("value", [Decimal("0.25"), Decimal("12345678901234567890.123456789")])
def test_a_decimal_keeps_its_digits_in_json(value):
    assert Decimal(str(json.loads(json.dumps(value, default=_plain)))) == value


def test_the_version_is_told(capsys):
    assert call(capsys, "--version") == (0, f"tensorbank {tb.__version__}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell):
    environment = {"_TENSORBANK_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "tensorbank ver"}
    environment |= {
        "COMP_WORDS": "tensorbank ver",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    command = [str(Path(sys.executable).parent / "tensorbank")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT | environment)
    assert "verify" in done.stdout


def test_query_as_csv_and_arrow(made):
    folder, bank, table = made
    done = run("query", folder, SQL, "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    expected = expected_rows(table)
    assert [(r["sample_id"], r["S2L2A"]) for r in rows] == [
        (e["sample_id"], address(e["S2L2A"])) for e in expected
    ]
    assert [json.loads(r["modalities"]) for r in rows] == [e["modalities"] for e in expected]
    done = run("query", folder, SQL, "--format", "arrow", text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    with pa.ipc.open_stream(done.stdout) as stream:
        assert stream.read_all().equals(bank.sql(SQL).arrow())


def test_query_with_bytes_times_and_nothing(made, capsys):
    folder, *_ = made
    sql = "SELECT '\\xAA\\x01'::BLOB AS b, TIMESTAMP '2021-06-01 12:00:00' AS t, [1.5::DOUBLE, NULL] AS l, 2.5 AS d, NULL AS n"
    code, out, _ = call(capsys, "query", folder, sql, "--format", "json")
    assert (code, json.loads(out)) == (
        0,
        {"b": "aa01", "t": "2021-06-01 12:00:00", "l": [1.5, None], "d": 2.5, "n": None},
    )
    for form in ("table", "csv", "arrow"):
        done = run(
            "query", folder, "SELECT sample_id FROM terramesh WHERE false", "--format", form, text=False
        )
        assert (done.returncode, done.stderr) == (0, b""), form


def test_numbers_that_are_none_stay_valid_json(made, capsys):
    folder, *_ = made
    code, out, _ = call(
        capsys, "query", folder, "SELECT 'nan'::DOUBLE AS a, ['inf'::DOUBLE] AS b", "--format", "json"
    )

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    assert code == 0
    assert json.loads(out, parse_constant=refuse) == {"a": None, "b": [None]}


def test_explain_and_save(made, capsys, tmp_path):
    folder, bank, _ = made
    sql = "SELECT S2L2A, sample_id FROM terramesh WHERE season = 'summer'"
    plan = bank.sql(sql).plan()
    code, out, err = call(capsys, "query", folder, sql, "--explain")
    assert (code, err, out) == (0, "", plan.explain() + "\n")
    file = tmp_path / "summer.plan"
    code, out, _ = call(capsys, "query", folder, sql, "--save", file)
    assert code == 0
    assert out == f"{len(plan)} samples, plan {plan.fingerprint} saved to {file}\n"
    assert tb.Plan.load(file) == plan
    code, out, _ = call(capsys, "query", folder, sql, "--save", file, "--explain")
    assert (code, out) == (0, plan.explain() + "\n")


def test_output_into_a_pipe_that_is_closed(made):
    folder, *_ = made
    sql = "SELECT x.sample_id, y.S2L2A FROM terramesh x, terramesh y, terramesh z"
    for form in ("table", "arrow"):
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "tensorbank", "query", str(folder), sql, "--format", form]
        process = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        os.close(writer)
        os.read(reader, 10)
        os.close(reader)
        _, err = process.communicate(timeout=60)
        assert err == "", (form, err[-500:])
        assert process.returncode in (0, 1), form


# ---------------------------------------------------------------- failing


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("show", "BANK", "teramesh"), "Did you mean 'terramesh'?"),
        (("history", "BANK", "teramesh"), "Did you mean 'terramesh'?"),
        (("query", "BANK", "SELECT * FROM teramesh"), "Did you mean 'terramesh'?"),
        (("query", "BANK", "SELECT cloud_kover FROM terramesh"), "'cloud_cover'"),
        (("query", "BANK", "SELECT bands(S2L2A, ['B8']) FROM terramesh", "--explain"), "'B08'"),
        (("query", "BANK", "SELEC 1"), "syntax error"),
        (("query", "BANK", "DROP TABLE terramesh"), "one SELECT statement"),
        (("query", "BANK", ""), "one SELECT statement"),
        (("tables", "ftp://somewhere"), "'ftp://somewhere' is not a bank URL"),
        (("tables", "s3:/bucket"), "not a bank URL"),
        (("tables", "BANK/nowhere"), "no folder"),
        (("show", "BANK/nowhere", "terramesh"), "no folder"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_mistakes_are_one_sentence_and_exit_2(made, capsys, arguments: Sequence[str], pattern: str):
    folder, *_ = made
    code, out, err = call(capsys, *(a.replace("BANK", str(folder)) for a in arguments))
    assert (code, out) == (2, "")
    assert pattern in one_sentence(err)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("tabels",), "tabels"),
        (("tables",), "BANK"),
        (("tables", "BANK", "--jsn"), "--jsn"),
        (("query", "BANK", "SELECT 1", "--format", "xml"), "xml"),
        (("show", "BANK"), "TABLE"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_wrong_usage_is_named_and_exits_2(made, capsys, arguments: Sequence[str], word: str):
    folder, *_ = made
    code, out, err = call(capsys, *(a.replace("BANK", str(folder)) for a in arguments))
    assert (code, out) == (2, "")
    assert word in err
    assert "Usage" in err
    assert "Traceback" not in err


def test_an_address_that_nobody_answers_and_damage_exit_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    code, out, err = call(capsys, "tables", "s3://bucket", "--endpoint", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    assert "cannot be reached" in one_sentence(err)
    bank = tb.create(tmp_path)
    make_table(bank, "t", parts=1, n=3)
    (file,) = bank.catalog.files("t", "samples").files
    (tmp_path / file.key).write_bytes(b"nonsense")
    code, out, err = call(capsys, "query", tmp_path, "SELECT count(*) AS n FROM t")
    assert (code, out) == (1, "")
    assert Path(file.key).name in one_sentence(err)


def test_a_file_that_cannot_be_written_is_one_sentence(made, capsys, tmp_path):
    folder, *_ = made
    file = tmp_path / "no" / "such" / "folder" / "a.plan"
    code, _, err = call(capsys, "query", folder, "SELECT S2L2A FROM terramesh", "--save", file)
    assert code == 1
    assert str(file) in one_sentence(err)


def test_main_can_be_called_again_and_again(made, capsys):
    folder, *_ = made
    first = call(capsys, "--help")
    assert first[0] == 0
    for command in ("tables", "show", "history", "query", "ingest", "demo", "verify"):
        assert first[1].count(f" {command} ") >= 1, command
        assert call(capsys, command, "--help")[0] == 0
    assert call(capsys, "--help") == first
    assert call(capsys, "tables", folder)[0] == 0


def test_a_start_imports_nothing_that_only_some_commands_need():
    heavy = ("fastapi", "matplotlib", "pandas", "rasterio", "tensorbank_indexer.ingestion", "torch")
    code = (
        "import sys\nfrom tensorbank.cli import main\n"
        f"assert main(['--help']) == 0\nprint([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "demo-pretrain" in done.stdout
    assert done.stderr == "[]\n"


def test_without_arguments_there_is_help(capsys):
    code, out, err = call(capsys)
    assert code in (0, 2)
    assert "Usage" in out + err


def test_the_script_and_the_module_are_one_command(made):
    folder, *_ = made
    script = Path(sys.executable).with_name("tensorbank")
    for command in ([str(script)], [sys.executable, "-m", "tensorbank"]):
        done = subprocess.run(
            [*command, "show", str(folder), "nope"],
            capture_output=True,
            text=True,
            timeout=60,
            env=ENVIRONMENT,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "no table 'nope'" in one_sentence(done.stderr)


# ---------------------------------------------------------------- ingest

ARCHIVE = ("terramesh", "--samples", "6", "--per-tar", "6")


def test_ingest_twice(make_archives, tmp_path, capsys):
    source, _ = make_archives(*ARCHIVE)
    bank, report = tmp_path / "bank", tmp_path / "report.json"
    command = ("ingest", source, bank, "--table", "terramesh", "--workers", "1", "--json")
    code, out, err = call(capsys, *command, "--report", report)
    assert code == 0, err
    said = json.loads(out)
    assert (said["n_found"], said["n_added"], said["n_present"], said["n_skipped"]) == (6, 6, 0, 0)
    assert json.loads(report.read_text()) == said
    assert "Traceback" not in err
    code, out, _ = call(capsys, *command)
    again = json.loads(out)
    assert code == 0
    assert (again["n_found"], again["n_added"], again["n_present"]) == (6, 0, 6)
    code, out, _ = call(capsys, *command[:-1])
    assert (code, out) == (0, "terramesh: 0 samples added; 6 were there already\n")
    assert json.loads(call(capsys, "tables", bank, "--json")[1])[0]["n_samples"] == 6
    assert len(json.loads(call(capsys, "history", bank, "terramesh", "--json")[1])) == 2
    code, out, _ = call(capsys, "verify", bank)
    assert (code, out.rstrip().endswith("all sound")) == (0, True)


def test_ingest_strictly(make_archives, tmp_path, capsys):
    source, _ = make_archives(*ARCHIVE, "--trap", "nan-only-band")
    bank = tmp_path / "bank"
    command = ("ingest", source, bank, "--table", "t", "--workers", "1")
    code, out, err = call(capsys, *command, "--strict")
    assert (code, out) == (1, "")
    assert "nan-only-band" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert tb.open(bank).tables() == [], "a refused ingest leaves no table"
    code, out, _ = call(capsys, *command)
    assert code == 0
    assert "6 samples added" in out
    assert "nan-only-band" in out
    radar = next(m for m in tb.open(bank).table("t").schema if m.name.startswith("S1"))
    bands = [f"({radar.name}.{b}.mean)" for b in radar.band_names]
    for band in bands:
        rows = tb.open(bank).sql(f"SELECT count(*) AS n FROM t WHERE isnan{band}").arrow()
        assert rows["n"].to_pylist() == [0]
    missing = " OR ".join(
        f"({radar.name}.{b}.valid = 0 AND {radar.name}.{b}.mean IS NULL)" for b in radar.band_names
    )
    rows = tb.open(bank).sql(f"SELECT count(*) AS n FROM t WHERE {missing}").arrow()
    assert rows["n"].to_pylist() == [1]


def test_ingest_that_cannot_start(tmp_path, capsys, make_archives):
    source, _ = make_archives(*ARCHIVE)
    for arguments, pattern in (
        ((tmp_path / "nowhere", tmp_path / "bank", "--table", "t"), "nowhere"),
        ((source, tmp_path / "bank", "--table", "a-b"), "cannot name a table"),
        ((source, tmp_path / "bank", "--table", "t", "--profile", "fast"), "profile"),
        ((source, tmp_path / "bank", "--table", "t", "--format", "netcdf"), "netcdf"),
        ((source, "ftp://bank", "--table", "t"), "not a bank URL"),
    ):
        code, out, err = call(capsys, "ingest", *arguments)
        assert (code, out) == (2, ""), arguments
        assert pattern in one_sentence(err)
    assert not (tmp_path / "bank" / "t").exists()


def test_what_no_other_words_would_mend_is_a_failure(answering, made, capsys, tmp_path, monkeypatch):
    """1 where the store, the network or the bank are at fault; 2 where the command line is."""
    folder, *_ = made
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    answering.refuse(403, "SignatureDoesNotMatch")
    failures = [
        ("tables", "s3://bucket", "--endpoint", "http://127.0.0.1:9"),
        ("query", "s3://bucket", "SELECT 1 AS one FROM t", "--endpoint", "http://127.0.0.1:9"),
        ("tables", "s3://bucket", "--endpoint", answering.url),
    ]
    for words in failures:
        code, out, err = call(capsys, *words)
        assert (code, out) == (1, ""), words
        one_sentence(err)
    mistakes = [
        ("tables", "s3://bucket", "--endpoint", "minio:9000"),
        ("tables", "s3://bucket/a%20b"),
        ("tables", tmp_path / "nothing"),
        ("show", folder, "nope"),
    ]
    for words in mistakes:
        code, out, err = call(capsys, *words)
        assert (code, out) == (2, ""), words
        one_sentence(err)


def test_a_profile_can_be_named(answering, no_aws, capsys):
    no_aws(
        config=f"[profile eo]\nregion = eu-west-1\nendpoint_url = {answering.url}\n",
        credentials="[eo]\naws_access_key_id = EOKEY\naws_secret_access_key = s\n",
    )
    answering.refuse(403, "AccessDenied", "Not you.")
    code, _, err = call(capsys, "tables", "s3://bucket", "--aws-profile", "eo")
    assert code == 1
    assert "AccessDenied: Not you." in one_sentence(err)
    assert "Credential=EOKEY/" in answering.asked[0].headers["authorization"]
    code, _, err = call(capsys, "tables", "s3://bucket", "--aws-profile", "oe")
    assert code == 2
    assert "they have eo" in one_sentence(err)
