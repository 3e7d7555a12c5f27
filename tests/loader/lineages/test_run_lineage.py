"""The lineage of real runs: what a loader handed out, written down batch by batch, beside what is told without a log."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.distributed import checkpoint as distributed_checkpoint
from torchdata.stateful_dataloader import StatefulDataLoader

import tensorbank as tb
from support.streamed_bank import add_part, make_bank
from tensorbank.cli.app import main
from tensorbank.served import ServedEngine
from tensorbank_loader import DataLoader, StreamingDataset, World, lineage

N = 50
SQL = "SELECT sample_id, split, S2, S1 FROM land"
Log = Counter[tuple[str, str]]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> tb.Bank:
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    make_bank(bank, "land", N)
    return bank


@pytest.fixture(scope="module")
def plan(bank: tb.Bank) -> tb.Plan:
    return bank.at({"land": 1}).sql(SQL).plan()


def keys_of(batch: dict[str, Any]) -> list[tuple[str, str]]:
    return list(zip(batch["split"], batch["sample_id"], strict=True))


def train(
    streamed: Any,
    n_ranks: int,
    n_steps: int,
    log: Log,
    state: dict[str, Any] | None = None,
    set_epoch: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Make steps with so many ranks, from a state on and over ends of epochs; write down what came, and return the new state."""
    ranks = [
        DataLoader(streamed, global_batch_size=8, seed=5, world=World(rank, n_ranks), **options)
        for rank in range(n_ranks)
    ]
    states = []
    for loader in ranks:
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        if set_epoch is not None:
            loader.set_epoch(set_epoch)
        left = n_steps
        while left:
            for batch in loader:
                padding = batch.get(
                    "padding", torch.zeros(len(batch["sample_id"]), dtype=torch.bool)
                ).tolist()
                log.update(k for k, is_padding in zip(keys_of(batch), padding, strict=True) if not is_padding)
                left -= 1
                if not left:
                    break
        states.append(loader.state_dict())
        loader.close()
    assert all(s == states[0] for s in states)
    assert len(json.dumps({k: v for k, v in states[0].items() if k != "source"})) < 1024
    return states[0]


def told(state: Any, bank: tb.Bank, **more: Any) -> Log:
    """Return how often each sample was seen by what ``lineage`` tells."""
    (run,) = lineage(state, bank, **more)
    found: Log = Counter()
    for table in run.tables:
        for row in table.samples.to_pylist():
            found[row["split"], row["sample_id"]] += row["n_seen"]
    return found


def long_sql(n: int) -> str:
    """A statement of n names that no sample has, whose hashes do not compress, beside thirty that some have."""
    ids = [f"part-0-{i:04d}" for i in range(30)]
    ids += [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]
    return f"{SQL} WHERE sample_id IN ({', '.join(map(repr, ids))})"


OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "planned order": {"shuffle": None},
    "window": {"shuffle": "window"},
    "drop_last": {"drop_last": True},
    "padded": {"even": "pad"},
    "remainders dropped": {"even": "drop"},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("steps", [(3, 2), (5, 9), (7, 7)], ids=str)
def test_a_resumed_run_of_other_ranks(bank, plan, options, steps):
    """Three ranks, then two: 3 + 2 steps end in the first epoch, 5 + 9 and 7 + 7 in the second or at its end."""
    log: Log = Counter()
    state = train(plan, 3, steps[0], log, **OPTIONS[options])
    state = train(plan, 2, steps[1], log, state, **OPTIONS[options])
    assert 0 < log.total() <= 8 * sum(steps)
    assert told(state, bank) == log


def test_when_a_sample_came_last(bank, plan):
    log: Log = Counter()
    last = {}
    loader = DataLoader(plan, global_batch_size=8, seed=5, world=World())
    for epoch in range(2):
        for number, batch in enumerate(loader):
            last.update(dict.fromkeys(keys_of(batch), (epoch, number)))
            log.update(keys_of(batch))
            if (epoch, number) == (1, 2):
                break
    (run,) = lineage(loader.state_dict(), bank)
    loader.close()
    assert (run.epoch, run.batch, run.n_batches, run.n_selected) == (1, 3, 7, N)
    rows = run.tables[0].samples.to_pylist()
    assert len(rows) == N
    assert {(r["split"], r["sample_id"]): (r["last_epoch"], r["last_batch"]) for r in rows} == last
    assert run.tables[0].n_more_often == sum(n > 1 for n in log.values()) == 24


@pytest.mark.parametrize("replacement", [True, False])
def test_weighted_draws(bank, replacement):
    weighted = bank.at({"land": 1}).sql(f"{SQL.replace('S2,', 'S2, lat + 80 AS weight,')}").plan()
    log: Log = Counter()
    options = {"replacement": replacement, "n_draws": 40}
    state = train(weighted, 2, 8, log, **options)
    assert max(log.values()) > 1
    assert told(state, bank) == log


def test_dates_of_samples_are_not_told_apart(bank):
    plan = bank.at({"land": 1}).sql("SELECT sample_id, split, S2 FROM land").plan(by_date=True)
    log: Log = Counter()
    state = train(plan, 2, 4, log, times=1)
    assert state["source"]["plans"][0]["by_date"] is True
    assert told(state, bank) == log


def sources(bank: tb.Bank) -> list[tb.Plan]:
    pinned = bank.at({"land": 1})
    return [pinned.sql(f"{SQL} WHERE split = '{split}'").plan() for split in ("train", "val")]


@pytest.mark.parametrize("homogeneous", [True, False])
def test_a_mix_whose_weights_change(bank, homogeneous):
    mixed = tb.mix([(p, w) for p, w in zip(sources(bank), (1.0, 2.0), strict=True)], homogeneous=homogeneous)
    log: Log = Counter()
    loader = DataLoader(mixed, global_batch_size=8, seed=5, world=World())
    for _ in range(2):
        for batch in loader:
            log.update(keys_of(batch))
    loader.set_weights([5.0, 1.0])
    for number, batch in enumerate(loader):
        log.update(keys_of(batch))
        if number == 2:
            break
    state = loader.state_dict()
    loader.close()
    assert state["mix"]["since"] == 2
    assert told(state, bank) == log
    state = train(mixed, 2, 4, log, state)
    assert told(state, bank) == log
    state = train(mixed, 1, 2, log, state, set_epoch=7)  # leaves an epoch, and skips some
    assert told(state, bank) == log


def test_a_mix_that_skipped_epochs_before_its_weights_changed(bank):
    loader = DataLoader(tb.mix(sources(bank)), global_batch_size=8, seed=5, world=World())
    loader.set_epoch(3)
    loader.set_weights([1.0, 1.0])
    next(iter(loader))
    state = loader.state_dict()
    loader.close()
    with pytest.raises(tb.InvalidInputError, match="weights of the mix were changed") as caught:
        lineage(state, bank)
    assert caught.value.kind == "other-state"


def test_epochs_that_were_left_count_what_came(bank, plan):
    """The first is left and begun anew, then two are skipped, with other ranks each time."""
    log: Log = Counter()
    state = train(plan, 3, 4, log)
    state = train(plan, 2, 2, log, state, set_epoch=0)  # goes on: the state is of this epoch
    assert "had" not in state
    state = train(plan, 2, 3, log, state, set_epoch=3)
    assert state["had"] == {"earlier": [[0, 0, 0, 6, 0, 1]], "since": [3, 0]}
    state = train(plan, 1, 5, log, state)
    assert state["epoch"] == 4
    assert told(state, bank) == log


def test_an_epoch_that_begins_anew_counts_twice(bank, plan):
    log: Log = Counter()
    loader = DataLoader(plan, global_batch_size=8, seed=5, world=World())
    for n_steps in (2, 3, 1):
        for number, batch in enumerate(loader, start=1):
            log.update(keys_of(batch))
            if number == n_steps:
                break
    assert loader.state_dict()["position"] == 1
    assert told(loader.state_dict(), bank) == log
    assert max(log.values()) == 3
    for _ in range(4):
        next(iter(loader))
    with pytest.raises(tb.InvalidInputError, match="left or skipped epochs more often") as caught:
        told(loader.state_dict(), bank)
    assert caught.value.kind == "other-state"
    assert len(json.dumps(loader.state_dict())) < 1024
    loader.close()


def test_remainders_that_other_ranks_left_out(bank, plan):
    """Three ranks leave out two samples of a batch of 8, five leave out three, four none."""
    log: Log = Counter()
    state = train(plan, 3, 3, log, even="drop")
    state = train(plan, 5, 2, log, state, even="drop")
    state = train(plan, 4, 4, log, state, even="drop")
    state = train(plan, 3, 1, log, state, even="exact")
    # The last batch of epoch 0 has two samples, and four ranks pass it by.
    assert log.total() == 3 * 6 + 2 * 5 + 4 * 8 + 8
    assert told(state, bank) == log


def test_single_samples_of_a_batch(bank, plan):
    log: Log = Counter()
    states = []
    for rank in range(2):
        dataset = StreamingDataset(plan, seed=5, world=World(rank, 2))
        samples = iter(dataset)
        for _ in range(19):
            sample = next(samples)
            log[sample["split"], sample["sample_id"]] += 1
        states.append(dataset.state_dict())
        samples.close()
    assert states[0] == states[1]
    assert states[0]["skip"] == 19
    assert told(states[0], bank) == log


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_workers_of_a_stateful_loader(bank, plan, tmp_path):
    dataset = StreamingDataset(plan, global_batch_size=8, seed=5, world=World())
    loader = StatefulDataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="forkserver")
    log: Log = Counter()
    for number, batch in enumerate(loader, start=1):
        log.update(keys_of(batch))
        if number == 3:
            break
    state = loader.state_dict()
    del loader
    torch.save({"loader": state, "model": {"weight": torch.ones(3)}}, tmp_path / "checkpoint.pt")
    assert told(tmp_path / "checkpoint.pt", bank) == log


# ---------------------------------------------------------------- other checkpoints


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("sql", [SQL, long_sql(100)], ids=["short", "long"])
def test_a_sharded_checkpoint_of_a_resumed_run(bank, tmp_path, sql):
    """Three ranks, then two, saved by torch.distributed.checkpoint beside a model."""
    plan = bank.at({"land": 1}).sql(sql).plan()
    log: Log = Counter()
    state = train(plan, 3, 4, log)
    state = train(plan, 2, 5, log, state)
    tree = {
        "app": {"model": {"w": torch.ones(5)}, "step": 9, "loaders": [{"train": state, "of": torch.ones(1)}]}
    }
    distributed_checkpoint.save(tree, checkpoint_id=tmp_path / "dcp", no_dist=True)
    assert told(tmp_path / "dcp", bank) == log


def test_a_long_statement_is_told_whole(bank):
    plan = bank.at({"land": 1}).sql(long_sql(500)).plan()
    log: Log = Counter()
    state = train(plan, 3, 2, log)
    assert 16_000 < len(json.dumps(state["source"])) < 64 << 10
    state = train(plan, 2, 3, log, state)
    assert told(state, bank) == log
    assert len(log) == 30
    mixed = tb.mix([plan, *sources(bank)])
    log = Counter()
    assert told(train(mixed, 2, 4, log), bank) == log


def test_a_statement_that_is_too_long_for_a_state_needs_the_plan(bank, tmp_path):
    plan = bank.at({"land": 1}).sql(long_sql(2_000)).plan()
    log: Log = Counter()
    state = train(plan, 1, 2, log)
    assert state["source"] == {}
    with pytest.raises(tb.InvalidInputError, match="--plan") as caught:
        lineage(state, bank)
    assert caught.value.kind == "other-plan"
    assert told(state, bank, plans=[plan]) == log
    with pytest.raises(tb.InvalidInputError, match="none fits its fingerprint"):
        lineage(state, bank, plans=sources(bank))


def test_a_plan_with_a_table_of_ones_own_needs_the_plan(bank):
    mine = bank.at({"land": 1})
    mine.register("mine", pa.table({"sample_id": [f"part-0-{i:04d}" for i in range(20)]}))
    plan = mine.sql(f"{SQL.replace('sample_id', 'land.sample_id')} JOIN mine USING (sample_id)").plan()
    log: Log = Counter()
    state = train(plan, 1, 2, log)
    with pytest.raises(tb.InvalidInputError, match="--plan") as caught:
        lineage(state, bank)
    assert caught.value.kind == "other-plan"
    assert told(state, bank, plans=[plan]) == log
    assert told(state, mine) == log


def test_a_mix_of_saved_plans_in_any_order(bank):
    plans = sources(bank)
    plans[0] = plans[0].take(np.arange(9))
    mixed = tb.mix(plans)
    log: Log = Counter()
    state = train(mixed, 1, 2, log)
    with pytest.raises(tb.InvalidInputError, match="another planner made it, or it was changed"):
        lineage(state, bank)
    assert told(state, bank, plans=plans[::-1]) == log


def test_another_bank(bank, plan, tmp_path):
    state = train(plan, 1, 2, Counter())
    other = tb.create(tmp_path / "other")
    with pytest.raises(tb.InvalidInputError, match="cannot be planned"):
        lineage(state, other)
    make_bank(other, "land", N)
    for plans in ((), (plan,)):
        with pytest.raises(tb.InvalidInputError, match="made anew, or this is another bank") as caught:
            lineage(state, other, plans=plans)
        assert caught.value.kind == "other-table"
    served = tb.Bank(ServedEngine(SimpleNamespace(url="https://host/v1/banks/eo")))
    with pytest.raises(tb.InvalidInputError, match="open the bank at its store") as caught:
        lineage(state, served)
    assert caught.value.kind == "served"


def test_a_state_of_version_3(bank, plan):
    """A state as the loader before this one wrote it: it goes on, and its lineage is told with the plan."""
    log: Log = Counter()
    state = train(plan, 2, 4, log)
    old = {k: v for k, v in state.items() if k not in ("digest", "even", "source")} | {"version": 3}
    text = json.dumps(old, sort_keys=True, separators=(",", ":"))
    old["digest"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert told(old, bank, plans=[plan]) == log
    new = train(plan, 3, 5, log, old)
    assert new["version"] == 4
    assert told(new, bank) == log


# ---------------------------------------------------------------- several tables


def test_a_join_of_two_tables(tmp_path):
    bank = tb.create(tmp_path)
    rows = {name: make_bank(bank, name, 12) for name in ("a", "b")}
    plan = bank.sql(
        "SELECT a.sample_id, a.split, a.S2 AS mine, bands(b.S2, ['B08']) AS other, b.S1 AS third FROM a JOIN b USING (sample_id) "
        "ORDER BY sample_id LIMIT 8"
    ).plan()
    state = train(plan, 1, 1, Counter())
    (run,) = lineage(state, bank)
    assert [t.table for t in run.tables] == ["a", "b"]
    for table in run.tables:
        ids = sorted(r["sample_id"] for r in rows[table.table])[:8]
        assert sorted(table.samples["sample_id"].to_pylist()) == ids
        assert set(table.samples["n_seen"].to_pylist()) == {1}


def test_a_statement_that_names_its_version(tmp_path):
    bank = tb.create(tmp_path)
    make_bank(bank, "land", 12)
    add_part(bank, "land", "part-1", 3)
    log: Log = Counter()
    state = train(bank.sql(f"{SQL} AT (VERSION => 1)").plan(), 1, 1, log)
    add_part(bank, "land", "part-2", 3)
    (run,) = lineage(state, bank)
    assert (run.tables[0].version, run.tables[0].newest) == (1, 3)
    assert told(state, bank) == log
    both = bank.sql(f"{SQL} UNION ALL {SQL} AT (VERSION => 1)").plan()
    with pytest.raises(tb.InvalidInputError, match="at one version") as caught:
        lineage(train(both, 1, 1, log), bank)
    assert caught.value.kind == "other-plan"


# ---------------------------------------------------------------- the command


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_the_command(tmp_path, capsys):
    bank = tb.create(tmp_path / "bank")
    rows = make_bank(bank, "land", N)
    log: Log = Counter()
    state = train(bank.sql(SQL).plan(), 3, 5, log)
    state = train(bank.sql(SQL).plan(), 2, 4, log, state)
    add_part(bank, "land", "part-1", 3)
    checkpoint = tmp_path / "checkpoint.json"
    checkpoint.write_text(json.dumps({"step": 9, "loaders": [state]}))
    damaged = next(r for r in rows if log[r["split"], r["sample_id"]] == 2)
    damage = {
        "kind": "damaged-block",
        "sample_ids": [damaged["sample_id"]],
        "modality": "S2",
        "key": damaged["S2"]["ref"]["key"],
        "reason": "checksum",
    }
    report = tmp_path / "verified.json"
    report.write_text(json.dumps({"table": "land", "version": 1, "findings": [damage]}) + "\n")

    code, out, err = call(
        capsys, "lineage", checkpoint, tmp_path / "bank", "--bad", report, "--ids", tmp_path / "ids.jsonl"
    )
    assert (code, err) == (0, "")
    first, header, row = out.splitlines()
    assert first == f"plan {state['fingerprint']} of 50 samples: up to batch 2 of 7 in epoch 1"
    assert dict(zip(header.split("\t"), row.split("\t"), strict=True)) == {
        "table": "land",
        "snapshot": "1",
        "newest": "2",
        "epochs done": "1",
        "seen once": "34",
        "more often": "16",
        "deleted": "0",
        "replaced": "0",
        "bad": "1",
    }
    lines = [json.loads(line) for line in (tmp_path / "ids.jsonl").read_text().splitlines()]
    assert {(i["split"], i["sample_id"]): i["n_seen"] for i in lines} == log
    assert [i["sample_id"] for i in lines if i["bad"]] == [damaged["sample_id"]]
    assert {(i["table"], i["version"], i["fate"]) for i in lines} == {("land", 1, "kept")}

    code, out, err = call(capsys, "lineage", checkpoint, tmp_path / "bank", "--json")
    assert (code, err) == (0, "")
    (run,) = json.loads(out)
    assert run["tables"] == [
        {"table": "land", "version": 1, "newest": 2, "n_seen": 50, "n_more_often": 16}
        | {"n_deleted": 0, "n_replaced": 0, "n_bad": 0}
    ]


def test_what_is_no_checkpoint(tmp_path, capsys):
    tb.create(tmp_path / "bank")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "half.json").write_text("{")
    (tmp_path / "folder").mkdir()
    torch.save({"path": Path("x")}, tmp_path / "classes.pt")
    for name, code, words in [
        ("missing", 2, "there is no checkpoint"),
        ("text", 2, "neither JSON nor a file of torch.save"),
        ("list.json", 2, "holds no state of a loader"),
        ("half.json", 2, "is no JSON"),
        ("folder", 2, "but none of torch.distributed.checkpoint"),
        ("classes.pt", 2, "holds no state of a loader"),
    ]:
        got, out, err = call(capsys, "lineage", tmp_path / name, tmp_path / "bank")
        assert (got, out) == (code, ""), name
        assert err.startswith("error: "), name
        assert words in err, name
        assert err.count("\n") == 1, name
