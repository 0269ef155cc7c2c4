"""What a recipe can be told with `--set`: every key, its value, what it takes, and the docstrings that explain them."""

import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigkeras.checks import AUTO
from bigkeras.data import DATASETS
from bigkeras.models import MODELS
from bigkeras.optimization import OPTIMIZERS, OURS, SCHEDULES
from bigkeras.recipe import BALANCES, ON_CHECKPOINT_ERROR, PRECISIONS, SPOKEN, Choice, Recipe, known
from bigkeras.search import OPEN, name_a_model
from bigkeras.signals import json_line
from bigkeras.tasks import LOSSES, MODEL_ARGUMENTS, MONITORS, TASKS, augmentation, text_classification

AUGMENTATIONS: Mapping[str, Mapping[str, Callable]] = {
    "image_classification": augmentation.AUGMENTATIONS,
    "text_classification": text_classification.AUGMENTATIONS,
}


@dataclass(frozen=True)
class Setting:
    """A key of `--set`. `takes`: what it may be, in words. `about`: what it means; of a function its docstring."""

    key: str
    value: Any
    takes: str
    about: str = ""


def settings(recipe: Recipe) -> list[Setting]:
    """All keys of a recipe and of the functions that it names, with its own values or their defaults.

    Of model auto those that it heeds. The value of an argument that has no default and that the recipe does not say is
    None. Raises RecipeError for names that are not there.
    """
    known("task", recipe.task.name, TASKS)
    hints, meant = typing.get_type_hints(Recipe), meanings()
    found: list[Setting] = []
    for field in dataclasses.fields(Recipe):
        if recipe.model.name == AUTO and field.name not in (*OPEN, "start_from"):
            continue
        value, functions = getattr(recipe, field.name), _functions(recipe, field.name)
        if isinstance(value, Choice):
            found += _of_choice(field.name, value, functions)
        elif field.name == "augmentation":
            told = f"a list of names and arguments; names: {', '.join(functions) or 'none for this task'}"
            about = "\n".join([meant[field.name], *map(_called, functions, functions.values())])
            found.append(Setting(field.name, [dataclasses.asdict(choice) for choice in value], told, about))
        else:
            takes = ", ".join(_names(recipe, field.name)) or spoken(hints[field.name])
            found.append(Setting(field.name, value, takes, meant[field.name]))
    return found


def _called(name: str, function: Callable) -> str:
    """How an augmentation is called: its name, and its arguments but those that the trainer gives."""
    parameters = inspect.signature(function).parameters.values()
    own = [p for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in augmentation.GIVEN]
    return f"{name}({', '.join(str(p.replace(annotation=p.empty)) for p in own)})"


def meanings() -> dict[str, str]:
    """What `Recipe`'s docstring says of each key."""
    entries = re.findall(r"^(\w+): (.*(?:\n {4}.*)*)", inspect.getdoc(Recipe) or "", re.M)
    return {key: " ".join(text.split()) for key, text in entries}


def _functions(recipe: Recipe, field: str) -> Mapping[str, Callable]:
    task = recipe.task.name
    tables: dict[str, Mapping[str, Callable]] = {
        "data": DATASETS,
        "task": TASKS,
        "model": MODELS,
        "loss": LOSSES[task],
        "augmentation": AUGMENTATIONS.get(task, {}),
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
    }
    return tables.get(field, {})


def _names(recipe: Recipe, field: str) -> Sequence[str]:
    """The values of a field that has few."""
    few = {"precision": PRECISIONS, "balance": BALANCES, "monitor": MONITORS[recipe.task.name]}
    return {**few, "on_checkpoint_error": ON_CHECKPOINT_ERROR}.get(field, ())


def _of_choice(field: str, choice: Choice, functions: Mapping[str, Callable]) -> Iterator[Setting]:
    names = sorted([*functions, *([AUTO] if choice.name == AUTO else [])])
    if choice.name not in names and field == "model":  # one's own, given to `fit` in Python
        yield Setting(field, choice.name, f"{', '.join(names)}; {choice.name} is one of your own")
        return
    function = functions.get(known(field, choice.name, names))
    if function is None:
        yield Setting(field, choice.name, ", ".join(names))
        return
    about = inspect.getdoc(function) or ""  # of Keras' own without the arguments, some of which are the trainer's
    yield Setting(field, choice.name, ", ".join(names), about.partition("\nArgs:")[0].strip())
    given = {"task": ("splits", "augmentation"), "model": MODEL_ARGUMENTS, "optimizer": OURS}.get(field, ())
    hints = typing.get_type_hints(function if inspect.isroutine(function) else function.__init__)
    parameters = inspect.signature(function).parameters
    for name in choice.args:
        known(f"{field} {choice.name}: argument", name, [n for n in parameters if n not in given])
    for name, parameter in parameters.items():
        if name in given or parameter.kind is parameter.VAR_KEYWORD:
            continue
        needed = parameter.default is parameter.empty
        default = None if needed else parameter.default
        takes = spoken(hints[name] if name in hints else Any if default is None else type(default))
        yield Setting(f"{field}.{name}", choice.args.get(name, default), takes + ("; needed" if needed else ""))


def spoken(hint: Any) -> str:
    """A type hint in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(spoken, inner))
    if origin is typing.Literal:
        return ", ".join(map(str, inner))
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        return "a list"
    if origin in (dict, Mapping) or hint is dict:
        return "an object"
    return {**SPOKEN, Any: "any"}.get(hint, getattr(hint, "__name__", str(hint)))


def as_json(recipe: Recipe) -> str:
    """The settings for programs: a list of objects with key, value, takes and about."""
    return json_line([dataclasses.asdict(one) for one in settings(recipe)])


def as_text(recipe: Recipe) -> str:
    """The settings for people: a line a key, and below it what it means, or the docstring of the function it names."""
    lines = [f"{recipe.name}: {recipe.claim}", ""]
    for one in settings(recipe):
        inner = "  " if "." in one.key else ""
        value = json.dumps(one.value, ensure_ascii=False, default=str)
        lines.append(f"{inner}{one.key}={value}    ({one.takes})")
        about = one.about if "\n" in one.about else textwrap.fill(one.about, 110)
        lines += [f"    | {line}".rstrip() for line in about.splitlines()]
    if recipe.model.name == AUTO:
        lines.append(f"(model auto decides all else; to do that yourself, {name_a_model(recipe)})")
    return "\n".join(lines)
