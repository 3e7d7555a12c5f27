"""A modality of another archive takes the place of a table's, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

import tensorbank as tb
from support.tiny_source import TinySource, pixels
from tensorbank.errors import ConflictError, ErrorKind, FormatError, IntegrityError, NotFoundError
from tensorbank.verification import verify
from tensorbank_indexer import IngestOptions, ingest, open_source, replace_modality

SECOND = [pixels(i, "DEM", 2) for i in range(8)]
FIRST = [pixels(i, "DEM") for i in range(8)]


def pinned(bank: tb.Bank, version: int) -> tb.Plan:
    return bank.at({"t": version}).sql("SELECT sample_id, DEM, DEM.mean AS mean FROM t").plan()


def test_samples_of_the_source_are_replaced_and_the_others_keep_theirs(bank, options, stored, same):
    version = bank.table("t").snapshot().version
    before = pinned(bank, version)
    report = replace_modality(TinySource(5, 1, edition=2), bank, "t", "DEM", options)
    assert (report.n_given, report.n_kept, report.n_without, report.n_unknown) == (5, 3, 0, 0)
    table = bank.table("t")
    same(stored(table, "DEM"), [FIRST[0], *SECOND[1:6], *FIRST[6:]])
    same(stored(table, "S2L2A"), [pixels(i, "S2L2A") for i in range(8)])
    same(stored(table.at(version), "DEM"), FIRST)
    assert pinned(bank, version).fingerprint == before.fingerprint
    assert pinned(bank, version).table.equals(before.table)
    assert verify(bank, "t").findings == []


def test_the_index_says_of_new_pixels_what_numpy_says(bank, options):
    replace_modality(TinySource(4, 2, edition=2), bank, "t", "DEM", options)
    truth = np.stack([*FIRST[:2], *SECOND[2:6], *FIRST[6:]]).astype(np.float64)
    rows = bank.sql(
        "SELECT DEM.mean AS mean, DEM.max AS max, DEM.source.etag AS etag FROM t ORDER BY sample_id"
    )
    found = rows.arrow().to_pydict()
    np.testing.assert_allclose(found["mean"], truth.mean(axis=(1, 2, 3, 4)))
    np.testing.assert_array_equal(found["max"], truth.max(axis=(1, 2, 3, 4)))
    assert found["etag"] == ["edition-1"] * 2 + ["edition-2"] * 4 + ["edition-1"] * 2
    tiles = bank.sql("SELECT DEM.min AS low FROM t.tiles ORDER BY sample_id, tile").arrow()["low"].to_pylist()
    cells = truth.reshape(8, 2, 4, 2, 4).min(axis=(2, 4)).reshape(-1)
    np.testing.assert_array_equal(tiles, cells)
    whole = bank.table("t").describe()["DEM"].bands[0]
    assert (whole.count, whole.min, whole.max) == (8 * 64, truth.min(), truth.max())
    assert whole.mean == pytest.approx(truth.mean())


def test_a_replaced_modality_is_judged_by_its_pixels(bank, options):
    replace_modality(TinySource(8, edition=2), bank, "t", "DEM", options)
    sql = "SELECT sample_id FROM t WHERE pixels_share(DEM, '> 1500') > 0.5 ORDER BY sample_id"
    expected = [f"sample-{i:04d}" for i in range(8) if (SECOND[i] > 1500).mean() > 0.5]
    assert 0 < len(expected) < 8
    assert bank.sql(sql).arrow()["sample_id"].to_pylist() == expected


def test_history_tells_what_was_replaced(bank, options):
    replace_modality(
        TinySource(2, edition=2),
        bank,
        "t",
        "DEM",
        IngestOptions(n_workers=1, revision="2026-03"),
        where="lon < 10.05",
    )
    entry = bank.table("t").history()[0]
    assert entry.operation == "replace-modality"
    assert entry.details == {
        "modality": "DEM",
        "source": "tiny://archive",
        "source_format": "tiny",
        "revision": "2026-03",
        "n_samples": 1,
        "where": "lon < 10.05",
    }


def test_a_second_run_finds_nothing_to_do_and_reads_nothing(bank, options):
    replace_modality(TinySource(8, edition=2), bank, "t", "DEM", options)
    version = bank.table("t").snapshot().version

    class Unreadable(TinySource):
        def read(self, refs):
            raise AssertionError("a member is read again")

    report = replace_modality(Unreadable(8, edition=2), bank, "t", "DEM", options)
    assert (report.changed, report.n_given, report.n_kept) == (False, 0, 8)
    assert bank.table("t").snapshot().version == version


def once(do):
    """Return a progress callback that does something once, after the first shard."""
    todo = [do]

    def meanwhile(what, _done, _total):
        if what == "write" and todo:
            todo.pop()()

    return meanwhile


def test_an_interrupted_run_shows_nothing_and_resumes_at_its_shard(bank, options, stored, same, tmp_path):
    def end():
        raise KeyboardInterrupt

    source = TinySource(8, edition=2)
    with pytest.raises(KeyboardInterrupt):
        replace_modality(source, bank, "t", "DEM", options, progress=once(end))
    same(stored(bank.table("t"), "DEM"), FIRST)
    report = replace_modality(source, bank, "t", "DEM", options)
    assert (report.n_given, report.n_resumed) == (8, 2)
    same(stored(bank.table("t"), "DEM"), SECOND)
    assert not list(tmp_path.rglob("*.progress")), "checkpoints are removed after the commit"


def test_a_sample_that_cannot_be_read_keeps_what_it_has(bank, options, stored, same):
    class Odd(TinySource):
        def read(self, refs):
            for raw in super().read(refs):
                if raw.ref.stem == "sample-0002":
                    raw.modalities["DEM"].pixels = raw.modalities["DEM"].pixels[..., :7]
                yield raw

    report = replace_modality(Odd(8, edition=2), bank, "t", "DEM", options)
    assert (report.n_given, report.n_kept) == (7, 1)
    assert [f.kind for f in report.findings] == ["other-shape"]
    same(stored(bank.table("t"), "DEM"), [*SECOND[:2], FIRST[2], *SECOND[3:]])
    strict = IngestOptions(n_workers=1, strict=True)
    with pytest.raises(FormatError, match="strict"):
        replace_modality(Odd(8, edition=3), bank, "t", "DEM", strict)
    same(stored(bank.table("t"), "DEM"), [*SECOND[:2], FIRST[2], *SECOND[3:]])


class OtherShape(TinySource):
    def read(self, refs):
        for raw in super().read(refs):
            raw.modalities["DEM"].pixels = raw.modalities["DEM"].pixels[:, :, :4]
            yield raw


class OtherBands(TinySource):
    def read(self, refs):
        for raw in super().read(refs):
            raw.modalities["DEM"].bands = ("height",)
            yield raw


@pytest.mark.parametrize(
    ("source", "modality", "error", "kind"),
    [
        (OtherShape(8, edition=2), "DEM", FormatError, ErrorKind.OTHER_TABLE),
        (OtherBands(8, edition=2), "DEM", FormatError, ErrorKind.OTHER_TABLE),
        (TinySource(8, edition=2), "S1RTC", NotFoundError, ErrorKind.UNKNOWN_MODALITY),
        (TinySource(8, edition=2), "S2L2A", NotFoundError, ErrorKind.UNKNOWN_MODALITY),
        (TinySource(8, 100, edition=2), "DEM", NotFoundError, ErrorKind.UNKNOWN_SAMPLE),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    bank, options, tmp_path, source, modality, error, kind
):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "bank").rglob("*")}
    with pytest.raises(error) as refused:
        replace_modality(source, bank, "t", modality, options)
    assert refused.value.kind == kind
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "bank").rglob("*")} == before


def test_unknown_samples_are_told_of(bank, options):
    report = replace_modality(TinySource(10, 4, edition=2), bank, "t", "DEM", options)
    assert (report.n_given, report.n_unknown) == (4, 6)
    assert [(f.kind, f.reason) for f in report.findings] == [
        ("unknown-sample", "6 samples are not in the table, such as sample-0008")
    ]


def test_pixels_that_are_kept_must_be_sound(bank, options, tmp_path):
    first = min((tmp_path / "bank/t/tensors").glob("*/DEM/c/0/0/0/0/0"))
    damaged = bytearray(first.read_bytes())
    damaged[20] ^= 1
    first.write_bytes(damaged)
    version = bank.table("t").snapshot().version
    with pytest.raises(IntegrityError):
        replace_modality(
            TinySource(8, edition=2),
            bank,
            "t",
            "DEM",
            options,
            where="sample_id LIKE '%1' OR sample_id LIKE '%6'",
        )
    assert bank.table("t").snapshot().version == version


def test_samples_that_are_added_meanwhile_stay(bank, options, stored, same):
    more = TinySource(2, 8, modalities=("DEM", "S2L2A"))
    meanwhile = once(lambda: ingest(more, bank, "t", options))
    report = replace_modality(TinySource(8, edition=2), bank, "t", "DEM", options, progress=meanwhile)
    assert report.changed
    same(stored(bank.table("t"), "DEM", 10), [*SECOND, pixels(8, "DEM"), pixels(9, "DEM")])


def test_of_two_replacements_at_once_the_second_is_made_of_the_first(bank, options, stored, same):
    other = TinySource(8, edition=3)
    meanwhile = once(lambda: replace_modality(other, bank, "t", "DEM", options))
    report = replace_modality(TinySource(3, edition=2), bank, "t", "DEM", options, progress=meanwhile)
    assert (report.n_given, report.n_kept) == (3, 5)
    same(stored(bank.table("t"), "DEM"), [*SECOND[:3], *(pixels(i, "DEM", 3) for i in range(3, 8))])
    assert [e.operation for e in bank.table("t").history()[:2]] == ["replace-modality"] * 2


def test_who_always_loses_says_so(bank, options):
    editions = iter(range(10, 30))

    def meanwhile(what, _done, _total):
        if what == "write":
            replace_modality(TinySource(8, edition=next(editions)), bank, "t", "DEM", options)

    with pytest.raises(ConflictError) as lost:
        replace_modality(TinySource(2, edition=2), bank, "t", "DEM", options, progress=meanwhile)
    assert lost.value.kind == ErrorKind.LOST_RACE


def test_members_of_a_real_archive_are_replaced_by_worker_processes(write_members, pixels_of, tmp_path):
    bank = tb.create(tmp_path / "bank")
    options = IngestOptions(n_workers=2, samples_per_shard=2)
    ingest(open_source(str(write_members(4, ("S1RTC", "DEM"), name="first"))), bank, "t", options)
    new = [(pixels_of(i, "S1RTC") + 2).astype(np.float16) for i in range(3)]
    odd = {i: {"pixels": {"S1RTC": p}} for i, p in enumerate(new)}
    second = open_source(str(write_members(3, ("S1RTC",), odd, name="second")))
    report = replace_modality(second, bank, "t", "S1RTC", options)
    assert (report.n_given, report.n_kept, report.n_unknown) == (3, 1, 0)
    for i in range(4):
        found = bank.table("t").read(f"282D_485L_{i // 4}_{i % 4}")
        np.testing.assert_array_equal(found["S1RTC"], [*new, pixels_of(3, "S1RTC")][i])
        np.testing.assert_array_equal(found["DEM"], pixels_of(i, "DEM"))
    assert verify(bank, "t").findings == []


def test_deleted_samples_stay_deleted_and_the_others_are_counted_right(bank, options, stored, same):
    bank.table("t").delete("sample_id IN ('sample-0001', 'sample-0006')")
    report = replace_modality(TinySource(8, edition=2), bank, "t", "DEM", options)
    assert (report.n_given, report.n_kept, report.n_without, report.n_unknown) == (6, 0, 0, 2)
    left = [0, 2, 3, 4, 5, 7]
    rows = bank.sql("SELECT sample_id, DEM.mean AS mean FROM t ORDER BY sample_id").arrow().to_pydict()
    assert rows["sample_id"] == [f"sample-{i:04d}" for i in left]
    np.testing.assert_allclose(rows["mean"], [SECOND[i].mean() for i in left])
    assert bank.table("t").snapshot().n_samples == 6
    whole = bank.table("t").describe()["DEM"].bands[0]
    assert whole.mean == pytest.approx(np.mean([SECOND[i].mean() for i in left]))


def test_other_dates_than_the_columns_say_are_told_of(bank, options):
    class Later(TinySource):
        def read(self, refs):
            for raw in super().read(refs):
                raw.modalities["S2L2A"].times_ns = raw.modalities["S2L2A"].times_ns + 86_400 * 10**9
                yield raw

    report = replace_modality(Later(1, edition=2, modalities=("S2L2A",)), bank, "t", "S2L2A", options)
    ((kind, reason),) = [(f.kind, f.reason) for f in report.findings]
    assert kind == "other-times"
    assert "2020-07-07" in reason
    assert "2020-07-06" in reason
    same_dates = replace_modality(
        TinySource(1, edition=3, modalities=("S2L2A",)), bank, "t", "S2L2A", options
    )
    assert same_dates.findings == []
