"""A plan or a mix as it is streamed: its epochs, its reader and the form of its batches."""

from __future__ import annotations

from tensorbank.arguments import instance, whole_number
from tensorbank.errors import InvalidInputError
from tensorbank.fetch import FetchOptions
from tensorbank.plans import Plan
from tensorbank.queries import Mix
from tensorbank.reading import SampleReader
from tensorbank_loader.batch import PADDING, BatchForm, MixForm, MixReader, PlanForm, Reader
from tensorbank_loader.budgets import BudgetDraws, TokenBudget
from tensorbank_loader.epochs import Epochs
from tensorbank_loader.order import DateChoice, OrderOptions, order_of_mix, order_of_plan
from tensorbank_loader.run_source import RunSource

__all__ = ["Streamed", "epochs_of", "form_of", "one_size", "plans_of", "reader_of"]

Streamed = Plan | Mix


def form_of(streamed: Streamed, epochs: Epochs, *, skipping: bool) -> BatchForm:
    """Return the form of the batches of a plan or a mix.

    Raises
    ------
    InvalidInputError
        A column has the name of the padding flags, or :meth:`PlanForm.of`, :meth:`DateChoice.of` or :meth:`BudgetDraws.of`
        refuses the plan.
    """
    padded = epochs.even == "pad"
    for plan in plans_of(streamed):
        if padded and PADDING in (*plan.metadata_columns, *(h.name for h in plan.handles)):
            raise InvalidInputError(f"padded batches have {PADDING!r} already; rename the column with AS")
    if isinstance(streamed, Mix) and streamed.homogeneous:
        choices = [_choice_of(plan, epochs) for plan in streamed.sources]
        budgets = [_draws_of(plan, epochs) for plan in streamed.sources]
        return MixForm(streamed, choices, budgets, skipping=skipping)
    plan = streamed if isinstance(streamed, Plan) else streamed.joined
    return PlanForm.of(plan, _choice_of(plan, epochs), _draws_of(plan, epochs), skipping=skipping)


def _choice_of(plan: Plan, epochs: Epochs) -> DateChoice | None:
    return None if epochs.times is None else DateChoice.of(plan, epochs.times, epochs.seed)


def _draws_of(plan: Plan, epochs: Epochs) -> BudgetDraws | None:
    return None if epochs.budget is None else BudgetDraws.of(plan, epochs.budget, epochs.seed)


def reader_of(streamed: Streamed, options: FetchOptions | None) -> Reader:
    """Return the reader of the batches of a plan or a mix."""
    if options is not None:
        instance("options", options, FetchOptions, "give FetchOptions(...), or leave it out")
    if isinstance(streamed, Plan):
        return SampleReader.of(streamed, options)
    return MixReader(streamed, options) if streamed.homogeneous else SampleReader.of(streamed.joined, options)


def plans_of(streamed: Streamed) -> tuple[Plan, ...]:
    """Return the plan alone, or the plans of a mix."""
    return (streamed,) if isinstance(streamed, Plan) else streamed.plans


def one_size(batch_size: int | None, global_batch_size: int | None) -> int:
    """Return the one batch size that was given.

    Raises
    ------
    InvalidInputError
        Both or none are given, or it is no positive whole number.
    """
    if (batch_size is None) == (global_batch_size is None):
        raise InvalidInputError(
            "give either batch_size, the samples of a rank, or global_batch_size, those of all ranks together"
        )
    if batch_size is not None:
        return whole_number("batch_size", batch_size, at_least=1)
    return whole_number("global_batch_size", global_batch_size, at_least=1)


def epochs_of(
    streamed: Streamed, options: OrderOptions, global_batch_size: int, budget: TokenBudget | None = None
) -> Epochs:
    """Return the epochs of a plan or a mix that a loader's options ask for.

    Raises
    ------
    InvalidInputError
        The options do not go together, or with what is streamed.
    """
    if not isinstance(streamed, Plan | Mix):
        raise InvalidInputError(
            f"a loader streams a plan or a mix of several, got {type(streamed).__name__}; give it query.plan()"
        )
    if budget is not None:
        instance("budget", budget, TokenBudget, "give TokenBudget(...), or leave it out")
    if isinstance(streamed, Plan):
        order, own_seed = order_of_plan(streamed, options, global_batch_size), 0
    else:
        order, own_seed = order_of_mix(streamed, options, global_batch_size), streamed.seed
    return Epochs(
        fingerprint=streamed.fingerprint,
        n_samples=len(streamed),
        global_batch_size=global_batch_size,
        seed=own_seed if options.seed is None else options.seed,
        order=order,
        drop_last=options.drop_last,
        even=options.even,
        times=options.times,
        budget=budget,
        source=RunSource.of(streamed).to_json(),
    )
