"""Trials: a file is damaged and read, and what came of it judged."""

from __future__ import annotations

import importlib
import json
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tensorbank as tb
from support.flips.bed import LOADER, N_SAMPLES, TABLE, TAGS, Bed
from support.flips.damage import damaged
from tensorbank.catalog import key_of
from tensorbank.errors import IntegrityError, TensorBankError
from tensorbank.retention import find_tag
from tensorbank.verification import verify

__all__ = ["KINDS", "Kind", "Trial", "run"]

Asked = Callable[[Bed], Any]


@dataclass(frozen=True)
class Trial:
    """One trial. ``outcome`` is ``right`` or ``named``; else what is wrong: ``unnamed`` for an error that does not name the file,
    ``foreign`` for one that is none of ours, ``wrong`` for another answer."""

    number: int
    kind: str
    file: str
    damage: str
    outcome: str
    message: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of files: patterns of their paths, what reads them, how often it is chosen, and the part of it that is damaged."""

    patterns: tuple[str, ...]
    asked: tuple[str, ...]
    weight: int
    region: Callable[[bytes], tuple[int, int]] = lambda data: (0, len(data))
    swaps: bool = True


def footer(data: bytes) -> tuple[int, int]:
    """Return the bytes of a Parquet file's footer."""
    n_bytes = int.from_bytes(data[-8:-4], "little")
    return len(data) - 8 - n_bytes, len(data)


def pages(data: bytes) -> tuple[int, int]:
    """Return the bytes of a Parquet file's pages."""
    return 0, footer(data)[0]


def shard_index(data: bytes) -> tuple[int, int]:
    """Return the bytes of the index of a shard: as many blocks at the end as it has room for."""
    n_blocks = next(n for n in range(1, 64) if int.from_bytes(data[-4 - 16 * n :][:8], "little") == 0)
    return len(data) - 4 - 16 * n_blocks, len(data)


def blocks(data: bytes) -> tuple[int, int]:
    """Return the bytes of the blocks of a shard."""
    return 0, shard_index(data)[0]


INDEX = "bank/t/index"
SHARDS = "bank/t/tensors/part-*/*/c/*/0/0/0/0"
KINDS: Mapping[str, Kind] = {
    "commit of samples": Kind((f"{INDEX}/samples/_delta_log/*.json",), ("schema", "history", "plan"), 6),
    "commit of another level": Kind(
        tuple(f"{INDEX}/{level}/_delta_log/*.json" for level in ("tiles", "shards", "keys")),
        ("tiles", "describe", "membership"),
        6,
    ),
    "checkpoint": Kind(
        (f"{INDEX}/*/_delta_log/*.checkpoint.*", f"{INDEX}/*/_delta_log/_last_checkpoint"),
        ("plan", "tiles", "describe", "membership"),
        5,
    ),
    "footer of samples": Kind((f"{INDEX}/samples/*.parquet",), ("plan",), 6, footer),
    "pages of samples": Kind((f"{INDEX}/samples/*.parquet",), ("plan",), 6, pages),
    "footer of another level": Kind(
        tuple(f"{INDEX}/{level}/*.parquet" for level in ("tiles", "shards", "keys")),
        ("tiles", "describe", "membership"),
        4,
        footer,
    ),
    "pages of another level": Kind(
        tuple(f"{INDEX}/{level}/*.parquet" for level in ("tiles", "shards", "keys")),
        ("tiles", "describe", "membership"),
        4,
        pages,
    ),
    "copy of a log": Kind(("cache/*/t/index/*/log-*/**/*",), ("copied plan",), 4),
    "copy of an index file": Kind(("cache/*/t/index/*/*.parquet",), ("copied plan",), 4),
    "checksum of a copy": Kind(("cache/*/checksums/**/*",), ("copied plan",), 1),
    "tag": Kind(("bank/t/tags/*",), ("tagged",), 2),
    "document of a part": Kind(("bank/t/tensors/part-*/zarr.json",), ("provenance", "verify"), 6),
    "document of an array": Kind(("bank/t/tensors/part-*/*/zarr.json",), ("verify",), 4),
    # A shard in the place of another of the same layout to the byte has sound blocks: only their content tells.
    "blocks of a shard": Kind((SHARDS,), ("pixels", "verify"), 8, blocks, swaps=False),
    "index of a shard": Kind((SHARDS,), ("verify",), 5, shard_index, swaps=False),
    "saved plan": Kind(("saved.plan",), ("load",), 15),
    "state of a loader": Kind(("saved.state",), ("resume",), 15),
    "segment of the cache": Kind(("ranges/v1/*.segment",), ("cached pixels",), 8),
    "index of the cache": Kind(("ranges/v1/*.sqlite*",), ("cached pixels",), 8),
}


# ---------------------------------------------------------------- what is asked


def _plan(bed: Bed, *, mirrored: bool = False) -> Any:
    plan = bed.sql(mirrored=mirrored)
    return plan.fingerprint, plan.table.to_pylist()


def _membership(bed: Bed) -> Any:
    catalog = bed.opened().catalog
    found = catalog.membership(catalog.version(TABLE))
    names = [f"sample-{i:04d}" for i in range(2 * sum(N_SAMPLES))]
    samples = np.array([key_of("train", name) for name in names])
    stems = np.array([key_of("train", "made", name) for name in names])
    return found.has_samples(samples).tolist(), found.has_stems(stems).tolist()


def _load(bed: Bed) -> Any:
    plan = tb.Plan.load(bed.root / "saved.plan")
    return plan.fingerprint, plan.source, plan.handles, plan.table.to_pylist()


def _resume(bed: Bed) -> Any:
    try:
        state = json.loads((bed.root / "saved.state").read_bytes())
    except ValueError as error:
        raise IntegrityError("saved.state") from error
    with bed.plan.dataloader(**LOADER) as loader:
        try:
            loader.load_state_dict(state)
        except TensorBankError as error:
            raise IntegrityError("saved.state") from error  # it has no file's name
        return loader.state_dict()


def _verified(bed: Bed) -> Any:
    found = verify(bed.opened(), TABLE, deep=True).findings
    return [f"{f.key}: {f.reason}" for f in found]


ASKED: Mapping[str, Asked] = {
    "schema": lambda bed: bed.opened().table(TABLE).schema,
    "history": lambda bed: bed.opened().table(TABLE).history(),
    "plan": _plan,
    "copied plan": partial(_plan, mirrored=True),
    "tiles": lambda bed: bed.opened().sql(f"SELECT * FROM {TABLE}.tiles ORDER BY ALL").arrow().to_pylist(),
    "describe": lambda bed: bed.opened().table(TABLE).describe(),
    "membership": _membership,
    "provenance": lambda bed: bed.opened().table(TABLE).provenance(),
    "tagged": lambda bed: [find_tag(bed.opened().catalog.store, TABLE, tag) for tag in TAGS],
    "verify": _verified,
    "pixels": lambda bed: bed.pixels(),
    "cached pixels": lambda bed: bed.pixels(cached=True),
    "load": _load,
    "resume": _resume,
}


# ---------------------------------------------------------------- trials


def judged(bed: Bed, path: Path, asked: Sequence[str], truth: Mapping[str, str]) -> tuple[str, str]:
    """Ask, and return the worst outcome of the answers with what was said."""
    worst, said = "", ""
    order = ("", "right", "named", "unnamed", "foreign", "wrong")
    for name in asked:
        message = ""
        try:
            found = ASKED[name](bed)
        except TensorBankError as error:
            message = str(error)
            outcome = "named" if names(bed, path, message) else "unnamed"
        except Exception:  # any other is a finding
            outcome, message = "foreign", traceback.format_exc()[-1500:]
        else:
            if repr(found) == truth[name]:
                outcome = "right" if name != "verify" or is_same(path) else "wrong"
            elif name == "verify":
                outcome = "named" if any(names(bed, path, text) for text in found) else "wrong"
            else:
                outcome = "wrong"
            message = "" if outcome != "wrong" else f"{name}: {found!r}"[:1000]
        if order.index(outcome) > order.index(worst):
            worst, said = outcome, message
    return worst, said


def names(bed: Bed, path: Path, message: str) -> bool:
    """Tell whether a message names a file: by its path within the bank, or by its own name if that is no number."""
    below = path.relative_to(bed.root).as_posix()
    key = below.partition("/")[2]
    own = path.name.partition(".checkpoint")[0] + ".checkpoint" if ".checkpoint" in path.name else path.name
    return key in message or (own in message and not own.isdigit())


def is_same(path: Path) -> bool:
    """Tell whether a damaged document says the same as before."""
    sound = path.with_name(f"{path.name}.sound")
    try:
        return bool(json.loads(path.read_bytes()) == json.loads(sound.read_bytes()))
    except (ValueError, OSError):
        return False


def run(
    made: str, root: str, numbers: Sequence[int], kinds: Sequence[str], progress: str, without: str = ""
) -> list[dict[str, Any]]:
    """Run trials of some numbers, one after the other, on a copy of what was made. The number of the present one is noted.

    ``without`` names a function, as ``module:name``, that returns None from now on: a check that is left out.
    """
    if without:
        module, _, name = without.partition(":")
        setattr(importlib.import_module(module), name, lambda *_: None)
    return [asdict(trial) for trial in _trials(Path(made), Path(root), numbers, kinds, Path(progress))]


def _trials(
    made: Path, root: Path, numbers: Sequence[int], kinds: Sequence[str], progress: Path
) -> Iterator[Trial]:
    root.mkdir()
    bed = Bed.copied(made, root)
    asked = {name for kind in kinds for name in KINDS[kind].asked}
    truth = {name: repr(ASKED[name](bed)) for name in sorted(asked)}
    assert truth.get("verify", "[]") == "[]"
    files = {kind: list(bed.files(*KINDS[kind].patterns)) for kind in kinds}
    kinds = [kind for kind in kinds if files[kind]]
    caches = {path: path.read_bytes() for path in bed.files("cache/**/*", "ranges/**/*")}
    for number in numbers:
        draws = random.Random(number)
        name = draws.choices(kinds, [KINDS[k].weight for k in kinds])[0]
        kind = KINDS[name]
        path = draws.choice(files[name])
        sound = path.read_bytes()
        peers = [p.read_bytes() for p in files[name] if p != path] if kind.swaps else []
        if not sound:
            continue
        what, content = damaged(draws, sound, kind.region(sound), peers)
        below = path.relative_to(root).as_posix()
        progress.write_text(json.dumps(asdict(Trial(number, name, below, what, "died"))))
        path.write_bytes(content)
        kept = path.with_name(f"{path.name}.sound")
        if path.name == "zarr.json":
            kept.write_bytes(sound)
        outcome, message = judged(bed, path, kind.asked, truth)
        yield Trial(number, name, below, what, outcome, message)
        kept.unlink(missing_ok=True)
        path.write_bytes(sound)
        if name.startswith(("copy", "checksum", "segment", "index of the cache")):
            _restore(bed, caches)


def _restore(bed: Bed, caches: Mapping[Path, bytes]) -> None:
    """Put the caches back, which mend themselves."""
    for path in bed.files("cache/**/*", "ranges/**/*"):
        if path not in caches:
            path.unlink()
    for path, data in caches.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
