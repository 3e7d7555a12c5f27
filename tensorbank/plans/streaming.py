"""Streaming of plans and mixes: the one place of the core that imports `tensorbank_loader`, which is optional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

from tensorbank.errors import ErrorKind, InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from tensorbank.bank import Bank
    from tensorbank.fetch import FetchOptions
    from tensorbank.plans.plan import Plan
    from tensorbank.queries import Answers, Mix
    from tensorbank_loader import DataLoader, RunLineage, StreamingDataset, World
    from tensorbank_loader.budgets import TokenBudget
    from tensorbank_loader.epochs import OnIter
    from tensorbank_loader.order import Even, Shuffle, Times
    from tensorbank_loader.transforms import Transform

__all__ = ["DatasetOptions", "LoaderOptions", "dataset_of", "lineage_of", "loader_of", "loader_of_query"]


class DatasetOptions(TypedDict, total=False):
    """The options of :class:`tensorbank_loader.StreamingDataset`, which says what they mean."""

    global_batch_size: int | None
    seed: int | None
    shuffle: Shuffle
    replacement: bool | None
    n_draws: int | None
    drop_last: bool
    even: Even
    times: Times | None
    budget: TokenBudget | None
    on_iter: OnIter
    world: World | None
    options: FetchOptions | None
    transform: Transform | None
    lease: bool | None


class LoaderOptions(DatasetOptions, total=False):
    """The options of :class:`tensorbank_loader.DataLoader`, which says what they mean.

    ``Query``, ``Selection``, ``Plan`` and ``Mix`` take them in ``dataloader()``. Type checkers compare all of these with the
    loader's own.
    """

    batch_size: int | None
    device: str | torch.device | None
    transform_ahead: int


def loader_of(streamed: Plan | Mix, **options: Unpack[LoaderOptions]) -> DataLoader:
    """Return a loader of a plan or a mix.

    Raises
    ------
    InvalidInputError
        A package that it needs is not installed, or the loader refuses its options.
    """
    try:
        from tensorbank_loader import DataLoader
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return DataLoader(streamed, **options)


def loader_of_query(query: Answers, **options: Unpack[LoaderOptions]) -> DataLoader:
    """Return a loader of a query, planned once for all ranks; raises as :func:`loader_of` does, and as planning does."""
    try:
        from tensorbank_loader import shared_plan
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    by_date = options.get("times") is not None
    return shared_plan(query, by_date=by_date, world=options.get("world")).dataloader(**options)


def dataset_of(streamed: Plan | Mix, **options: Unpack[DatasetOptions]) -> StreamingDataset:
    """Return a dataset of a plan or a mix for a loader of torch's; raises as :func:`loader_of` does."""
    try:
        from tensorbank_loader import StreamingDataset
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return StreamingDataset(streamed, **options)


def lineage_of(
    checkpoint: Path, bank: Bank, *, plans: Sequence[Plan] = (), reports: Sequence[Path] = ()
) -> list[RunLineage]:
    """Return what the runs of a checkpoint have seen; see :func:`tensorbank_loader.lineage`.

    Parameters
    ----------
    plans
        Saved plans of the runs.
    reports
        Files with what ``tensorbank verify --json`` printed.

    Raises
    ------
    InvalidInputError, NotFoundError, FormatError
        As there; also if a package that it needs is not installed.
    """
    try:
        from tensorbank_loader import lineage
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return lineage(checkpoint, bank, plans=plans, reports=reports)


def _missing(error: ModuleNotFoundError) -> InvalidInputError:
    return InvalidInputError(
        f"streaming needs {error.name}; pip install 'tensorbank[loader]'", kind=ErrorKind.MISSING_EXTRA
    )
