"""Ways to look at the answer of a query, the same for each kind of query."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Unpack

import pyarrow as pa

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.plans import LoaderOptions, Plan, loader_of_query

if TYPE_CHECKING:
    import pandas as pd
    import xarray

    from tensorbank_loader import DataLoader

__all__ = ["MAX_DATASET_BYTES", "Answers"]

MAX_DATASET_BYTES = 4 << 30
"""The most bytes of tensors that :meth:`Answers.to_xarray` puts into memory, unless told otherwise."""


class Answers(ABC):
    """The ways to answer a query; each method plans or reads anew."""

    __slots__ = ()

    @abstractmethod
    def arrow(self) -> pa.Table:
        """Return the rows as an Arrow table."""

    @abstractmethod
    def plan(self, *, by_date: bool = False) -> Plan:
        """Return the frozen answer."""

    @property
    @abstractmethod
    def question(self) -> str:
        """The text of what is asked, and of which bank: processes that ask the same may share one plan."""

    @abstractmethod
    def adopted(self, plan: Plan) -> Plan:
        """Return a plan that another process made of this query, to be read from where this one reads, with its credentials."""

    def dataloader(self, **options: Unpack[LoaderOptions]) -> DataLoader:
        """Plan and stream in batches; takes what :meth:`Plan.dataloader` takes.

        In a process group of ``torch.distributed``, rank 0 plans for all ranks, each of which has to call this; see
        :func:`tensorbank_loader.shared_plan`.
        """
        return loader_of_query(self, **options)

    @abstractmethod
    def _first(self, n: int) -> pa.Table:
        """Return at most ``n`` rows, those that come first if the query has an order."""

    @abstractmethod
    def _count(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def _dataset(self, plan: Plan, max_bytes: int) -> xarray.Dataset:
        """Read the tensors of a plan of this query."""

    def __len__(self) -> int:
        """Count the rows, by a query."""
        return self._count()

    def __bool__(self) -> bool:
        """Return True: a query that selects nothing is a query, and asking for its truth must not run it."""
        return True

    def df(self) -> pd.DataFrame:
        """Return the rows as a pandas data frame; a tensor is the address of its bytes.

        Raises
        ------
        InvalidInputError
            pandas is not installed (``kind`` is ``missing-package``), or the SQL is wrong.
        """
        return _as_frame(self.arrow())

    def head(self, n: int = 5) -> pd.DataFrame:
        """Return the first ``n`` rows as a pandas data frame.

        Raises
        ------
        InvalidInputError
            ``n`` is no count, pandas is not installed, or the SQL is wrong.
        """
        if isinstance(n, bool) or not hasattr(n, "__index__") or n < 0:
            raise InvalidInputError(f"head() takes the number of rows, at least 0, got {n!r}")
        return _as_frame(self._first(n))

    def explain(self) -> str:
        """Plan, and say what was considered, pruned and kept, and what reading will take."""
        return self.plan().explain()

    def to_xarray(self, *, max_bytes: int = MAX_DATASET_BYTES) -> xarray.Dataset:
        """Read the selected tensors into memory, as variables ``(sample, time, band, y, x)`` with coordinates.

        Selected columns and names of bands are coordinates. Where samples lack a modality it holds the fill value, and the
        coordinate ``<modality>_present`` tells.

        Parameters
        ----------
        max_bytes
            The size of the tensors, at most.

        Raises
        ------
        InvalidInputError
            The tensors are larger (``kind`` is ``too-large``), the query selects none, or xarray is not installed.
        IntegrityError, StorageError
            Blocks are damaged, or the store does not answer.
        """
        return self._dataset(self.plan(), max_bytes)


def _as_frame(rows: pa.Table) -> pd.DataFrame:
    try:
        frame: Any = rows.to_pandas()
    except ModuleNotFoundError:
        raise InvalidInputError(
            "a data frame needs pandas: pip install pandas; .arrow() gives the same rows without it",
            kind=ErrorKind.MISSING_PACKAGE,
        ) from None
    return frame
