"""The shipped recipes: every name and argument in them is one that exists."""

import inspect

import pytest

from bigkeras.checks import check_recipe
from bigkeras.data import DATASETS
from bigkeras.recipe import Choice, RecipeError, load
from bigkeras.recipe_data import with_data
from bigkeras.recipes import RECIPES


@pytest.mark.parametrize("name", ["", "..", "../x", "/x", "a\\b", "a\nb"])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(RecipeError, match="the name of a folder"):
        RECIPES["digits"].override(name=name)


def test_a_place_that_is_not_utf8_is_kept(tmp_path):
    recipe = with_data(RECIPES["image-folder"], "/data/caf\udce9")
    recipe.save(tmp_path / "recipe.json")
    assert load(tmp_path) == recipe


def test_values_that_must_agree_may_come_in_any_order_and_names_are_never_empty(tmp_path):
    recipe = RECIPES["photos10"]
    assert recipe.ema
    assert recipe.override(average_checkpoints=5, ema=None).average_checkpoints == 5
    for name in ("start_from", "teacher", "back_translator", "freeze_until"):
        with pytest.raises(RecipeError, match=f"{name}='': a name, or null for none"):
            recipe.override(**{name: ""})
    # A run of an earlier version has it in its file.
    (tmp_path / "recipe.json").write_text(recipe.to_json().replace('"teacher": null', '"teacher": ""'))
    assert load(tmp_path).teacher is None
    with pytest.raises(RecipeError, match="teacher=''"):
        load(tmp_path / "recipe.json")
    assert recipe.override(micro_batches=3, batch_size=96).batch_size == 96
    told = {"model": {"name": "resnet", "args": {"depth": 20}}, "model.width": 8}
    assert recipe.override(**told).model == Choice("resnet", {"depth": 20, "width": 8})


@pytest.mark.parametrize("asked", [{"average_checkpoints": 1}, {"average_checkpoints": 5, "ema": 0.9}])
def test_a_mean_of_one_checkpoint_or_beside_other_averages_is_refused(asked):
    with pytest.raises(RecipeError, match="average_checkpoints="):
        RECIPES["digits"].override(**{"ema": None, **asked})


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_passes_its_check(name):
    recipe = RECIPES[name]
    assert recipe.name == name and recipe.claim and recipe.data.name in DATASETS
    places = {"directory", "file"} & set(inspect.signature(DATASETS[recipe.data.name]).parameters)
    check_recipe(with_data(recipe, "my-data") if places else recipe)
