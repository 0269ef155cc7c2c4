"""bigkeras: recipes, models, trainer and artifacts for Keras 3 on TensorFlow.

The public names below are imported when they are first used: `import bigkeras` itself is instant.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_PLACES = {
    "Choice": "bigkeras.recipe",
    "Recipe": "bigkeras.recipe",
    "RECIPES": "bigkeras.recipes",
    "MODELS": "bigkeras.models",
    "DATASETS": "bigkeras.data",
    "Machine": "bigkeras.runtime",
    "fit": "bigkeras.train",
    "evaluate": "bigkeras.evaluation",
    "export": "bigkeras.artifact",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'bigkeras' has no attribute {name!r}; it has {', '.join(__all__)}")
    if name in ("fit", "evaluate", "export"):
        runtime = import_module("bigkeras.runtime")
        if name != "fit" or not runtime.on_jax():  # which fit trains on
            runtime.check_backend()  # before Keras is imported, which might not find its own
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
