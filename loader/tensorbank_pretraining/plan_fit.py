"""The fit of a plan to a recipe: what a plan lacks, or has otherwise, is named before anything is read."""

from __future__ import annotations

from tensorbank import Plan
from tensorbank.errors import InvalidInputError, nearest
from tensorbank_loader.terramind import Crops
from tensorbank_pretraining.recipe import Recipe

__all__ = ["require_fit"]


def require_fit(plan: Plan, recipe: Recipe) -> None:
    """Return if a plan has what a recipe needs.

    Raises
    ------
    InvalidInputError
        The plan lacks a modality, has fewer samples than a batch, other numbers of bands, pixels too few for the crops, or tokens
        of another grid or of other crops.
    """
    handles = {h.name: h for h in plan.handles}
    selected = [*handles, *plan.metadata_columns]
    if missing := [n for n in (*recipe.names, "sample_id") if n not in selected]:
        raise InvalidInputError(
            f"the recipe needs {', '.join(missing)}, which the plan does not select.{nearest(missing[0], selected)}"
        )
    if len(plan) < recipe.global_batch_size:
        raise InvalidInputError(
            f"the plan has {len(plan)} samples, fewer than a batch of {recipe.global_batch_size}"
        )
    crops = recipe.crop_settings()
    reach = (
        max(c.y for c in recipe.crops) + recipe.crop_size,
        max(c.x for c in recipe.crops) + recipe.crop_size,
    )
    for pixels in recipe.pixels:
        handle = handles[pixels.name]
        if len(handle.bands) != pixels.n_bands:
            raise InvalidInputError(
                f"the recipe takes {pixels.n_bands} bands of {pixels.name}, and the plan selects {len(handle.bands)}"
            )
        height, width = handle.modality.height, handle.modality.width
        if height < reach[0] or width < reach[1]:
            raise InvalidInputError(
                f"the recipe's crops reach to {reach[0]} x {reach[1]}, and {pixels.name} has {height} x {width} pixels"
            )
    for token in recipe.tokens:
        handle = handles[token.name]
        grid = (handle.modality.height, handle.modality.width)
        if grid != (recipe.grid, recipe.grid):
            raise InvalidInputError(
                f"{token.name} has {grid[0]} x {grid[1]} tokens, and crops of {recipe.crop_size} pixels in patches of "
                f"{recipe.patch} have {recipe.grid} x {recipe.grid}"
            )
        made_of = Crops.of(plan, [token.name])
        if made_of is None and len(handle.bands) != len(recipe.crops):
            raise InvalidInputError(
                f"{token.name} has tokens of {len(handle.bands)} crops, and the recipe lists {len(recipe.crops)}"
            )
        if made_of is not None and made_of != crops:
            raise InvalidInputError(
                f"{token.name} has tokens of the crops {', '.join(made_of.band_names)}, and the recipe has "
                f"{', '.join(crops.band_names)}; give the crops of the tokens, in their order"
            )
