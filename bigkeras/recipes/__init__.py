"""The recipes, by name. Imports no TensorFlow."""

from bigkeras.recipes.text import RECIPES as TEXT
from bigkeras.recipes.translation import RECIPES as TRANSLATION
from bigkeras.recipes.vision import RECIPES as VISION

RECIPES = {**VISION, **TEXT, **TRANSLATION}
