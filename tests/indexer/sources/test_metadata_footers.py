"""A table of members whose footer lies about single columns: an error or an answer, never the end of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ASKS = """
import sys, pyarrow.parquet as pq
group = pq.read_metadata(sys.argv[1] + "/train_metadata.parquet").row_group(0)
[group.column(i) for i in range(group.num_columns)]
"""
READS = """
import sys
from tensorbank_indexer.containers.files import SourceFiles
from tensorbank_indexer.sources.metadata_table import MetadataTable
try:
    MetadataTable(SourceFiles(sys.argv[1]), "train", False).rows("a.tar", ["s1", "s2"])
except Exception as error:
    print(type(error).__name__)
"""


def code_of(script: str, folder: Path) -> int:
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, timeout=60)
    return done.returncode


def test_a_footer_that_pyarrow_does_not_survive_ends_no_process(tmp_path):
    n = 50
    texts = [f"s{i}.zarr.zip" for i in range(n)]
    table = pa.table(
        {
            "zarr": texts,
            "sample_id": texts,
            "center_lon": [1.0] * n,
            "center_lat": [2.0] * n,
            "tar": ["a.tar"] * n,
        }
    )
    path = tmp_path / "train_metadata.parquet"
    pq.write_table(table, path)
    sound = path.read_bytes()
    start = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    n_deadly = 0
    # The type of a column's metadata, a zigzag number behind the header 0x15 of Thrift's compact protocol.
    for at in (
        i + 1 for i in range(start, len(sound) - 8) if sound[i] == 0x15 and sound[i + 1] in (4, 8, 10, 12)
    ):
        for bit in (1, 2, 3):
            body = bytearray(sound)
            body[at] ^= 1 << bit
            path.write_bytes(body)
            if n_deadly < 1 and code_of(ASKS, tmp_path) == -6:
                n_deadly += 1
                assert code_of(READS, tmp_path) == 0
        if n_deadly == 1:
            break
    assert n_deadly == 1, "is the workaround still needed?"
