"""The shipped recipes: every name and argument in them is one that exists."""

import inspect

import pytest

from bigkeras.checks import check_recipe
from bigkeras.data import DATASETS
from bigkeras.evaluation import with_data
from bigkeras.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_passes_its_check(name):
    recipe = RECIPES[name]
    assert recipe.name == name and recipe.claim and recipe.data.name in DATASETS
    places = {"directory", "file"} & set(inspect.signature(DATASETS[recipe.data.name]).parameters)
    check_recipe(with_data(recipe, "my-data") if places else recipe)
