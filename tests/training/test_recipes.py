"""One dial sets the sizes of a recipe, and rates to match."""

from __future__ import annotations

import pytest

from etude.training.recipes import RECIPES, RecipeError, TextRecipe, sized, with_settings


def test_a_size_sets_width_heads_and_adamws_rate_in_proportion() -> None:
    modern = RECIPES["modern"]
    assert isinstance(modern, TextRecipe)
    large = sized(modern, 4 * modern.n_layer)
    assert (large.n_layer, large.n_embd, large.n_head) == (16, 512, 16)
    assert large.n_embd // large.n_head == modern.n_embd // modern.n_head
    assert large.learning_rate == pytest.approx(modern.learning_rate / 2)
    assert large.matrix_learning_rate == modern.matrix_learning_rate
    assert (large.steps, large.batch_size) == (modern.steps, modern.batch_size)


@pytest.mark.parametrize("name", ["micro", "chords", "classic", "modern"])
def test_its_own_size_changes_nothing_in_a_recipe(name: str) -> None:
    assert sized(RECIPES[name], RECIPES[name].n_layer) == RECIPES[name]


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(RecipeError, match="from the model that it begins from"):
        sized(RECIPES["finetune"], 4)
    with pytest.raises(RecipeError, match="at least 1"):
        sized(RECIPES["classic"], 0)
    with pytest.raises(RecipeError, match="the recipe bigram is as wide as the vocabulary"):
        sized(RECIPES["bigram"], 2)


def test_a_share_of_the_run_can_be_set_as_a_warm_up() -> None:
    for name in ("classic", "modern", "finetune", "gpt2-124m"):
        changed = with_settings(RECIPES[name], ["warmup=0.05"])
        assert isinstance(changed, TextRecipe) and changed.warmup == 0.05
    with pytest.raises(RecipeError, match="steps takes a whole number"):
        with_settings(RECIPES["classic"], ["steps=1.5"])
