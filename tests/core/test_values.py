"""Values: schemas, errors, URLs, public names."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import tensorbank as tb
from tensorbank import Band, InvalidInputError, Modality, NotFoundError, StorageOptions, TableSchema
from tensorbank.index_schema import modality_columns, samples_schema, table_schema
from tensorbank.layout import dimension_names, modality_of_key, shard_key, table_of_key
from tensorbank.storage.address import normalize_url

S2 = Modality("S2L2A", "int16", (Band("B04", "1"), Band("B08", "1")), 1, 264, 264, attributes={"units": "1"})
LULC = Modality("LULC", "uint8", (Band("LULC"),), 1, 264, 264, classes=((0, "no_data"), (1, "water")))


def test_the_public_names_are_these():
    assert sorted(tb.__all__) == [
        "Band",
        "BandStats",
        "Bank",
        "ByteRange",
        "ConflictError",
        "FormatError",
        "IntegrityError",
        "InvalidInputError",
        "Mix",
        "Modality",
        "Normalization",
        "NotFoundError",
        "Plan",
        "Query",
        "Selection",
        "Snapshot",
        "Statistics",
        "StorageError",
        "StorageOptions",
        "Table",
        "TableSchema",
        "TensorBankError",
        "create",
        "mix",
        "normalization",
        "open",
    ]
    assert all(getattr(tb, name) is not None for name in tb.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = tb.nonsense


def test_import_brings_no_heavy_library():
    code = "import sys, tensorbank; print([m for m in ('torch', 'duckdb', 'pyarrow', 'fastapi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = "import sys, tensorbank as tb; tb.open('/tmp').sql('x'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_errors_keep_kind_and_class_through_pickle():
    tree = {c.__name__: c.__mro__[1].__name__ for c in tb.TensorBankError.__subclasses__()}
    assert tree == dict.fromkeys(
        [
            "ConflictError",
            "FormatError",
            "IntegrityError",
            "InvalidInputError",
            "NotFoundError",
            "StorageError",
        ],
        "TensorBankError",
    )
    error = pickle.loads(pickle.dumps(NotFoundError("no such thing", kind="unknown-table")))
    assert (type(error), str(error), error.kind) == (NotFoundError, "no such thing", "unknown-table")


def test_a_modality_survives_json_and_the_index_schema():
    assert Modality.from_json(S2.to_json()) == S2
    schema = samples_schema(TableSchema((S2, LULC)))
    assert table_schema(schema) == TableSchema((S2, LULC))
    assert set(modality_columns(schema)) == {"S2L2A", "LULC"}
    assert pa.types.is_struct(schema.field("S2L2A").type.field("B08").type)
    assert schema.field("LULC").type.field("share").type.get_field_index("water") == 1
    with pytest.raises(tb.FormatError):
        table_schema(pa.schema([("a", pa.int8())]))
    with pytest.raises(tb.FormatError):
        Modality.from_json("{}")


def test_a_modality_refuses_what_cannot_work():
    with pytest.raises(InvalidInputError, match="distinct"):
        Modality("M", "int16", (Band("a"), Band("a")), 1, 2, 2)
    with pytest.raises(InvalidInputError, match="reserved"):
        Modality("M", "int16", (Band("ref"), Band("a")), 1, 2, 2)
    with pytest.raises(InvalidInputError, match="numbers"):
        Modality("M", "U3", (Band("a"),), 1, 2, 2)
    with pytest.raises(NotFoundError, match="B08"):
        S2.band_index("B80")
    with pytest.raises(NotFoundError, match="S2L2A"):
        TableSchema((S2,))["S2L1A"]


def test_axes_of_unequal_length_have_unequal_names():
    dem = Modality("DEM", "int16", (Band("DEM"),), 1, 264, 264)
    series = Modality("S2L2A", "int16", S2.bands, 4, 264, 264)
    assert dimension_names(series, [series, dem]) == ("sample", "time", "S2L2A_band", "y", "x")
    assert dimension_names(dem, [series, dem]) == ("sample", "DEM_time", "DEM_band", "y", "x")


def test_keys_tell_table_and_modality():
    key = shard_key("t", "part-1", "S2L2A", 7)
    assert key == "t/tensors/part-1/S2L2A/c/7/0/0/0/0"
    assert (table_of_key(key), modality_of_key(key)) == ("t", "S2L2A")


@pytest.mark.parametrize(
    ("given", "url"), [("s3://b/p/", "s3://b/p"), ("file:///a/b", "file:///a/b"), ("/a/b", "file:///a/b")]
)
def test_urls(given, url):
    assert normalize_url(given) == url


@pytest.mark.parametrize("given", ["foo://x", "s3:/x", "s4://b"])
def test_wrong_urls_name_the_right_ones(given):
    with pytest.raises(InvalidInputError, match="s3://"):
        normalize_url(given)


def test_relative_folders_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert normalize_url("bank") == Path(tmp_path, "bank").resolve().as_uri()


def test_secrets_are_not_printed():
    options = StorageOptions("http://x", "key", "very-secret", "token-secret")
    assert "secret" not in repr(options)
