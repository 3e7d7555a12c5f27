"""An index that is read by ranges: the same answers as of whole files, few of the bytes, and no wrong byte in an answer."""

from __future__ import annotations

import multiprocessing
import uuid
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

import synthetic_index
import tensorbank as tb
from support.differential.bed import open_bed, write_bed
from support.differential.check import compare
from support.differential.grammar import statement
from support.handmade_index import make_table
from support.made_once import folder_of_run, made_once
from support.ranged import RemoteFolder, index_bytes, is_index_file, remote_bank, small_pieces
from tensorbank import IntegrityError, NotFoundError
from tensorbank.sql import instances

N_STATEMENTS = 40
FIRST = date.today().toordinal() * 10_000
N_SAMPLES = 40_000
TYPICAL = "SELECT sample_id, S2L2A, S1RTC FROM world WHERE NDVI.mean > 0.6"
STATEMENTS = {
    "by a statistic": TYPICAL,
    "by place": "SELECT sample_id, S2L2A FROM world WHERE season = 'summer' AND lon BETWEEN -90 AND 40 AND lat > 0",
    "by id": "SELECT sample_id, S2L2A FROM world WHERE sample_id = 's00001234'",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A bank whose index is large enough for what lies beside columns, and whole pieces, to weigh little."""

    def write(made: Path) -> None:
        assert list(synthetic_index.write(made / "bank", N_SAMPLES, 1, 11, 1)) == [N_SAMPLES]

    return made_once(folder_of_run(tmp_path_factory) / "ranged_world", write) / "bank"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A small bank that was written with small pieces."""
    folder = tmp_path_factory.mktemp("small") / "bank"
    with small_pieces():
        bank = tb.create(folder)
        make_table(bank, "t", parts=3, n=200)
        make_table(bank, "u", parts=1, n=50)
    return folder


ROWS = "SELECT sample_id, S2L2A, cloud_cover FROM t WHERE NDVI.mean > 0.2 ORDER BY ALL"


def rows(bank: tb.Bank, sql: str = ROWS) -> list[dict[str, object]]:
    found: list[dict[str, object]] = bank.sql(sql).arrow().to_pylist()
    return found


# ---------------------------------------------------------------- answers


@pytest.mark.timeout(600)
def test_generated_statements_are_answered_by_ranges_as_by_plain_duckdb(tmp_path):
    outcomes, wrong, n_ranges = [], [], 0
    with small_pieces(**{"tensorbank.planning.pixel_judge.TILES_FROM": 1}):
        write_bed(tmp_path / "bed" / "bank")
        with open_bed(tmp_path / "bed" / "bank") as bed:
            for number in range(FIRST, FIRST + N_STATEMENTS):
                if number % 8 == 0:
                    store = RemoteFolder(tmp_path / "bed" / "bank")
                    bank = remote_bank(store, tmp_path / f"cache{number // 8 % 3}")
                    bank.register("pick", bed.truth.sql("SELECT * FROM pick").to_arrow_table())
                asked = statement(bed, number)
                outcome = compare(replace(bed, bank=bank), asked)
                outcomes.append(outcome)
                if outcome.wrong is not None:
                    wrong.append(f"statement {number}: {outcome.wrong}\n{asked.ours}")
                n_ranges += sum(is_index_file(key) for key, _, _ in store.ranges)
                assert not [k for k in store.wholes if is_index_file(k) and "/deleted/" not in k]
    assert not wrong, "\n\n".join(wrong)
    assert n_ranges > 100
    assert sum(o.n_rows > 0 for o in outcomes) > N_STATEMENTS * 0.2


def test_a_real_store_is_read_by_ranges(s3_server, tmp_path):
    url = f"{s3_server.url}/{uuid.uuid4().hex}"
    keys = {name: getattr(s3_server, name) for name in ("endpoint", "access_key", "secret_key")}
    with small_pieces():
        make_table(tb.create(url, cache=tmp_path / "writer", **keys), "t", parts=2, n=150)
        found = rows(tb.open(url, cache=tmp_path / "ranges", **keys))
    assert list(tmp_path.glob("ranges/*/pieces/t/index/samples/*.parquet"))
    assert rows(tb.open(url, cache=tmp_path / "whole", **keys)) == found
    assert not list(tmp_path.glob("whole/*/pieces"))
    assert found


@pytest.mark.parametrize("sql", STATEMENTS.values(), ids=STATEMENTS)
def test_a_cold_query_moves_a_twentieth_of_the_index_at_most(world, tmp_path, sql):
    store = RemoteFolder(world)
    bank = remote_bank(store, tmp_path)
    plan = bank.sql(sql).plan()
    assert plan.fingerprint == tb.open(world).sql(sql).plan().fingerprint
    assert len(plan) > 0
    assert plan.source.levels == tb.open(world).sql(sql).plan().source.levels
    assert 0 < store.n_index_bytes <= 0.05 * index_bytes(world)
    n = store.n_index_bytes
    assert bank.sql(sql).plan().fingerprint == plan.fingerprint
    assert remote_bank(store, tmp_path).sql(sql).plan().fingerprint == plan.fingerprint
    assert store.n_index_bytes - n < 0.005 * index_bytes(world), "the second time all is on the disk"


def test_statements_that_read_everything_end_with_a_copy_of_the_whole(small, tmp_path):
    store = RemoteFolder(small)
    bank = remote_bank(store, tmp_path)
    everything = "SELECT COLUMNS(*)::VARCHAR FROM t ORDER BY ALL"
    with small_pieces():
        answers = [rows(bank, everything) for _ in range(3)]
        assert rows(tb.open(small), everything) == answers[0] == answers[1] == answers[2]
        files = bank.catalog.files("t", "samples").files
        folder = next(p for p in tmp_path.iterdir())
        assert [(folder / f.key).stat().st_size for f in files] == [f.n_bytes for f in files]
        assert store.n_index_bytes < 1.6 * index_bytes(small)


# ---------------------------------------------------------------- what goes wrong


def test_bytes_that_are_flipped_on_the_way_or_on_the_disk_are_in_no_answer(small, tmp_path):
    expected = rows(tb.open(small))
    spoilt: set[tuple[int, int]] = set()

    def spoil(key: str, start: int, data: memoryview) -> memoryview:
        if not is_index_file(key) or (start, len(data)) in spoilt:
            return data
        spoilt.add((start, len(data)))
        wrong = bytearray(data)
        wrong[start * 37 % len(wrong)] ^= 16
        return memoryview(bytes(wrong))

    store = RemoteFolder(small, spoil)
    with small_pieces():
        for number in range(6):
            assert rows(remote_bank(store, tmp_path / "cache")) == expected
            for path in (tmp_path / "cache").rglob("pieces/**/*.parquet"):
                body = bytearray(path.read_bytes())
                for at in range(number * 11, len(body), 211):
                    body[at] ^= 2
                path.write_bytes(body)
    assert len(spoilt) > 3


def test_a_damaged_column_in_the_store_is_an_error_and_other_columns_are_answered(world, tmp_path):
    def spoil(key: str, start: int, data: memoryview) -> memoryview:
        wrong = bytearray(data)
        if is_index_file(key) and "/samples/" in key and start < 2048:
            wrong[: 2048 - start] = b"\1" * min(len(wrong), 2048 - start)
        return memoryview(bytes(wrong))

    bank = remote_bank(RemoteFolder(world, spoil), tmp_path)
    with pytest.raises(IntegrityError, match="are not what its checksums say"):
        rows(bank, "SELECT sample_id FROM world")
    northern = "SELECT count(*) AS n FROM world WHERE lat > 20"
    assert rows(bank, northern) == rows(tb.open(world), northern)


def test_a_file_that_is_gone_is_told(small, tmp_path):
    def spoil(key: str, start: int, data: memoryview) -> memoryview:
        if is_index_file(key) and start < 1024:
            raise NotFoundError(f"there is no {key}")
        return data

    with small_pieces():
        bank = remote_bank(RemoteFolder(small, spoil), tmp_path)
        with pytest.raises((NotFoundError, IntegrityError), match=r"there is no t/index|gone"):
            rows(bank, "SELECT sample_id FROM t")


def test_a_file_that_was_replaced_is_found_out(small, tmp_path):
    store = RemoteFolder(small)
    with small_pieces():
        bank = remote_bank(store, tmp_path)
        first, second = (f.key for f in bank.catalog.files("t", "samples").files[:2])
        store.spoil = lambda key, start, data: (
            memoryview((small / second).read_bytes())[start : start + len(data)] if key == first else data
        )
        with pytest.raises(IntegrityError):
            rows(bank)


def test_files_without_a_list_are_copied_whole(tmp_path):
    bank = tb.create(tmp_path / "bank")
    make_table(bank, "t", parts=2, n=100)
    store = RemoteFolder(tmp_path / "bank")
    with small_pieces():
        assert rows(remote_bank(store, tmp_path / "cache")) == rows(bank)
        assert [k for k in store.wholes if is_index_file(k)]
        n = store.n_index_bytes
        assert rows(remote_bank(store, tmp_path / "cache")) == rows(bank)
        assert store.n_index_bytes == n


def test_an_instance_of_duckdb_goes_from_bank_to_bank(small, tmp_path):
    with small_pieces():
        banks = [remote_bank(RemoteFolder(small), tmp_path / str(i)) for i in range(2)]
        for bank in (*banks, tb.open(small), *banks):
            assert rows(bank) == rows(tb.open(small))
            assert len(instances._IDLE._waiting) > 0
            for _, idle in instances._IDLE._waiting:
                assert idle.failure is None


# ---------------------------------------------------------------- copies


def test_the_limit_of_copies_is_an_option(tmp_path):
    assert tb.open(tmp_path, cache_bytes=1 << 20).catalog.mirror.max_bytes == 1 << 20
    with pytest.raises(tb.InvalidInputError, match="cache_bytes is 0"):
        tb.open(tmp_path, cache_bytes=0)


def test_answers_are_the_same_while_all_pieces_are_removed_at_once(small, tmp_path):
    with small_pieces():
        store = RemoteFolder(small)
        bank = remote_bank(store, tmp_path, 1)
        for _ in range(3):
            assert rows(bank) == rows(tb.open(small))
        assert not list(tmp_path.glob("*/pieces/**/*.parquet"))


def test_copies_stay_within_their_limit_and_answers_are_the_same(world, tmp_path):
    limit = 3 << 20
    expected = {sql: tb.open(world).sql(sql).plan().fingerprint for sql in STATEMENTS.values()}
    store = RemoteFolder(world)
    bank = remote_bank(store, tmp_path, limit)
    held = []
    for sql in [*STATEMENTS.values()] * 2:
        assert bank.sql(sql).plan().fingerprint == expected[sql]
        held.append(sum(p.stat().st_blocks * 512 for p in tmp_path.rglob("index/*/*.parquet")))
    assert max(held) <= limit * 1.1
    bank.catalog.mirror._room.make()
    assert sum(p.stat().st_blocks * 512 for p in tmp_path.rglob("index/*/*.parquet")) <= limit


def _ask(folder: Path, cache: Path, number: int) -> tuple[str, int]:
    store = RemoteFolder(folder)
    sql = list(STATEMENTS.values())[number % len(STATEMENTS)]
    return remote_bank(store, cache).sql(sql).plan().fingerprint, store.n_index_bytes


def test_processes_share_the_pieces(world, tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        together = pool.starmap(_ask, [(world, tmp_path, number) for number in range(6)])
        after = pool.starmap(_ask, [(world, tmp_path, number) for number in range(3)])
    local = [tb.open(world).sql(sql).plan().fingerprint for sql in STATEMENTS.values()]
    assert [found for found, _ in together] == local * 2
    assert [found for found, _ in after] == local
    assert sum(n for _, n in after) < 0.01 * index_bytes(world)
