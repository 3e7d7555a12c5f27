"""Archives of which some files changed: what they hold now is taken over, modality by modality, and nothing else is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import tensorbank as tb
from support.tiny_source import BANDS, TinySource, pixels
from tensorbank.verification import verify
from tensorbank_indexer import Archive, Finding, IngestOptions, RawSample, SampleRef, SourceFile, ingest
from tensorbank_indexer.modality_changes import ModalityJob
from tensorbank_indexer.parts import PartWriter

OPTIONS = IngestOptions(n_workers=1, samples_per_shard=4, n_tiles=2)
REFRESH = replace(OPTIONS, refresh=True)
NAMES = ("DEM", "S1RTC", "S2L2A")


class Release(TinySource):
    """An archive whose modalities have editions of their own, in a folder of its release; ``copied`` ones have other ETags."""

    def __init__(
        self,
        n: int,
        first: int = 0,
        editions: Mapping[str, int] | None = None,
        *,
        folder: str = "v1",
        root: str = "tiny://archive",
        copied: Sequence[str] = (),
        damaged: Sequence[int] = (),
    ) -> None:
        super().__init__(n, first, modalities=NAMES)
        self.editions = dict.fromkeys(NAMES, 1) | dict(editions or {})
        self.modalities = tuple(self.editions)
        self.folder, self.root, self.copied, self.damaged = folder, root, tuple(copied), tuple(damaged)

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        files = tuple(
            SourceFile(m, f"{self.folder}/{m}", 1000, f"{m}-{n}" + "-copy" * (m in self.copied))
            for m, n in self.editions.items()
        )
        return [Archive(self.folder, "train", "made", files)], []

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        for raw in super().read(refs):
            number = int(raw.ref.stem.removeprefix("sample-"))
            for name, modality in raw.modalities.items():
                assert modality.bands == BANDS[name]
                side = 7 if number in self.damaged and self.editions[name] > 1 else 8
                modality.pixels = pixels(number, name, self.editions[name])[..., :side]
            yield raw


@pytest.fixture
def bank(tmp_path):
    """A bank with eight samples in two parts, of three modalities."""
    bank = tb.create(tmp_path / "bank")
    for first in (0, 4):
        ingest(Release(4, first), bank, "t", OPTIONS)
    return bank


def require(bank: tb.Bank, editions: Mapping[str, int], n: int = 8) -> None:
    """Compare all pixels with what the editions hold, and the index with the pixels."""
    table = bank.table("t")
    assert len(bank.sql("SELECT sample_id FROM t").arrow()) == n
    for number in range(n):
        sample = table.read(f"sample-{number:04d}")
        assert sample.keys() == editions.keys()
        for name, edition in editions.items():
            np.testing.assert_array_equal(sample[name], pixels(number, name, edition))
    assert verify(bank, "t", deep=True).findings == []


def shards(tmp_path) -> set[str]:
    return {p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("bank/t/tensors/*/*/c/*/0/0/0/0")}


def test_of_one_file_that_changed_one_modality_is_written(bank, tmp_path):
    table = bank.table("t")
    ids = [f"sample-{n:04d}" for n in range(8)]
    table.add_columns(pa.table({"sample_id": ids, "caption": [f"of {i}" for i in ids]}))
    before, version = shards(tmp_path), table.snapshot().version
    reissued = Release(8, editions={"S1RTC": 2})
    told = ingest(reissued, bank, "t", OPTIONS)
    assert [(f.kind, f.modality) for f in told.findings] == [("changed-source", "S1RTC")]
    assert (told.n_changed, told.n_replaced, table.snapshot().version) == (8, 0, version)
    report = ingest(reissued, bank, "t", REFRESH)
    assert (report.n_changed, report.n_replaced, report.n_present, report.n_added) == (8, 8, 0, 0)
    require(bank, {"DEM": 1, "S1RTC": 2, "S2L2A": 1})
    added = shards(tmp_path) - before
    assert len(added) == 2
    assert all("/S1RTC/" in key for key in added), "a shard of another modality"
    assert table.snapshot().version == version + 1
    entry = table.history()[0]
    assert (entry.operation, entry.details["modalities"], entry.details["n_replaced"]) == (
        "refresh",
        ["S1RTC"],
        8,
    )
    captions = bank.sql("SELECT caption FROM t ORDER BY sample_id").arrow()["caption"].to_pylist()
    assert captions == [f"of {i}" for i in ids]
    again = ingest(reissued, bank, "t", REFRESH)
    assert (again.n_changed, again.findings, table.snapshot().version) == (0, [], version + 1)
    back = ingest(Release(8), bank, "t", OPTIONS)
    assert [(f.kind, f.modality) for f in back.findings] == [("changed-source", "S1RTC")], "an edition before"


def test_all_that_changed_is_one_commit_after_those_of_new_samples(bank):
    table = bank.table("t")
    version = table.snapshot().version
    report = ingest(Release(10, editions={"DEM": 2, "S2L2A": 3}), bank, "t", REFRESH)
    assert (report.n_added, report.n_replaced, report.n_present) == (2, 8, 0)
    assert [h.operation for h in table.history()[:2]] == ["refresh", "ingest"]
    assert table.snapshot().version == version + 2
    assert table.history()[0].details["modalities"] == ["DEM", "S2L2A"]
    require(bank, {"DEM": 2, "S1RTC": 1, "S2L2A": 3}, n=10)


def test_an_archive_that_was_completed_gives_the_modality_alone(tmp_path):
    bank = tb.create(tmp_path / "bank")
    ingest(TinySource(4, modalities=("DEM",)), bank, "t", OPTIONS)
    before = shards(tmp_path)
    report = ingest(TinySource(4, modalities=("DEM", "S1RTC")), bank, "t", REFRESH)
    assert (report.n_replaced, report.findings[0].kind) == (4, "new-source-file")
    assert [key.split("/")[4] for key in shards(tmp_path) - before] == ["S1RTC"]
    require(bank, {"DEM": 1, "S1RTC": 1}, n=4)


@pytest.mark.parametrize("at", [{"folder": "v2"}, {"root": "tiny://mirror"}], ids=["folder", "root"])
def test_the_same_files_under_another_path_are_told_and_nothing_is_done(bank, at):
    version = bank.table("t").snapshot().version
    report = ingest(Release(8, **at), bank, "t", OPTIONS)
    assert (report.n_present, report.n_moved, report.n_changed) == (8, 8, 0)
    (found,) = report.findings
    assert (found.kind, found.action) == ("moved-source", "nothing to do")
    names = ("v1/DEM", "v2/DEM") if "folder" in at else ("tiny://archive/v1/DEM", "tiny://mirror/v1/DEM")
    assert all(name in found.reason for name in names)
    assert not report.harmful
    assert "8 of these come from other paths" in report.summary()
    assert bank.table("t").snapshot().version == version


@pytest.mark.parametrize("at", [{"folder": "v2"}, {"root": "tiny://mirror"}], ids=["folder", "root"])
def test_a_newer_edition_under_another_path_is_named_with_both_and_replaces(bank, at):
    newer = Release(8, editions={"DEM": 2}, **at)
    told = ingest(newer, bank, "t", OPTIONS)
    (found,) = [f for f in told.findings if f.kind == "changed-source"]
    names = ("v1/DEM", "v2/DEM") if "folder" in at else ("tiny://archive/v1/DEM", "tiny://mirror/v1/DEM")
    assert all(name in found.reason for name in (*names, "DEM-1", "DEM-2", "8 samples"))
    assert (told.n_changed, found.modality) == (8, "DEM")
    require(bank, dict.fromkeys(NAMES, 1))
    assert ingest(newer, bank, "t", REFRESH).n_replaced == 8
    require(bank, {"DEM": 2, "S1RTC": 1, "S2L2A": 1})
    assert ingest(newer, bank, "t", OPTIONS).n_changed == 0


def test_archives_that_were_copied_are_read_and_no_tensor_is_written(bank, tmp_path):
    """All files have other ETags, as copies on a disk do; one has other pixels, too."""
    before = shards(tmp_path)
    copied = Release(8, folder="copy", editions={"DEM": 2}, copied=("S1RTC", "S2L2A"))
    assert ingest(copied, bank, "t", OPTIONS).n_changed == 8
    report = ingest(copied, bank, "t", REFRESH)
    assert (report.n_replaced, report.n_same) == (8, 0)
    assert {key.split("/")[4] for key in shards(tmp_path) - before} == {"DEM"}
    require(bank, {"DEM": 2, "S1RTC": 1, "S2L2A": 1})
    held = shards(tmp_path)
    again = Release(8, folder="again", editions={"DEM": 2}, copied=NAMES)
    report = ingest(again, bank, "t", REFRESH)
    assert (report.n_changed, report.n_replaced, report.n_same, report.n_present) == (8, 0, 8, 8)
    assert "8 have the pixels that they had" in report.summary()
    assert shards(tmp_path) == held
    path = bank.sql("SELECT DISTINCT DEM.source.path AS p FROM t").arrow()["p"].to_pylist()
    assert path == ["again/DEM"]
    report = ingest(again, bank, "t", OPTIONS)
    assert (report.n_changed, report.n_moved) == (0, 8)  # S1RTC and S2L2A, which are those of "copy"


def test_what_cannot_be_read_any_more_keeps_what_the_table_has(bank):
    damaged = Release(8, editions={"DEM": 2}, damaged=(1, 5))
    report = ingest(damaged, bank, "t", REFRESH)
    assert (report.n_changed, report.n_replaced, report.n_present) == (8, 6, 2)
    kinds = sorted(f.kind for f in report.findings)
    assert kinds == ["changed-source", "other-shape", "other-shape"]
    for number in range(8):
        sample = bank.table("t").read(f"sample-{number:04d}")
        assert sample.keys() == {*NAMES}
        expected = pixels(number, "DEM", 1 if number in (1, 5) else 2)
        np.testing.assert_array_equal(sample["DEM"], expected)
    assert ingest(damaged, bank, "t", OPTIONS).n_changed == 0, "they were tried"
    version = bank.table("t").snapshot().version
    report = ingest(Release(8, editions={"DEM": 3}, damaged=range(8)), bank, "t", REFRESH)
    assert (report.n_replaced, bank.table("t").snapshot().version) == (0, version)
    assert "unusable-modality" in {f.kind for f in report.findings}


class Both(Release):
    """A source with two releases of the same samples, the newer one second."""

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        newer = Release(self.n, self.first, {"DEM": 2}, folder="v2")
        return [*super().archives()[0], *newer.archives()[0]], []


def test_a_sample_that_a_source_has_twice_is_that_of_the_first_archive(bank):
    version = bank.table("t").snapshot().version
    for options in (OPTIONS, REFRESH, replace(REFRESH, samples_per_part=8)):
        report = ingest(Both(8), bank, "t", options)
        assert (report.n_changed, report.n_replaced, report.n_present) == (0, 0, 16)
        assert [(f.kind, f.archive) for f in report.findings] == [("duplicate-sample", "v2")]
    assert bank.table("t").snapshot().version == version
    require(bank, dict.fromkeys(NAMES, 1))
    assert ingest(Release(8, editions={"DEM": 2}, folder="v2"), bank, "t", OPTIONS).n_changed == 8


def test_a_run_that_was_killed_after_its_commit_is_completed_and_says_so(tmp_path, monkeypatch):
    bank = tb.create(tmp_path / "bank")

    def killed(*_given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartWriter, "save_report", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(Release(4), bank, "t", OPTIONS)
    assert not list(tmp_path.rglob("*.ingest.json"))
    report = ingest(Release(4), bank, "t", OPTIONS)
    (part,) = bank.table("t").parts()
    assert (report.n_present, report.completed) == (4, [part])
    assert f"killed after its commit, is completed: {part}" in report.summary()
    (saved,) = tmp_path.rglob("*.ingest.json")
    assert part in saved.name
    assert part in saved.read_text()
    assert not list(tmp_path.rglob("*.progress"))
    assert ingest(Release(4), bank, "t", OPTIONS).completed == []


def test_a_refresh_that_was_killed_after_its_commit_leaves_nothing_and_is_told(bank, tmp_path, monkeypatch):
    def killed(*_given: object) -> None:
        raise KeyboardInterrupt

    newer = Release(8, editions={"DEM": 2})
    with monkeypatch.context() as patch:
        patch.setattr(ModalityJob, "end", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(newer, bank, "t", REFRESH)
    left = {p.name.removesuffix(".progress") for p in tmp_path.rglob("*.progress")}
    report = ingest(newer, bank, "t", REFRESH)
    assert (report.n_changed, {*report.completed}) == (0, left)
    assert len(left) == 2
    assert not list(tmp_path.rglob("*.progress"))
    require(bank, {"DEM": 2, "S1RTC": 1, "S2L2A": 1})
