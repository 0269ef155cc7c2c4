"""Recipe: a whole training run as plain values. Imports neither TensorFlow nor Keras."""

import dataclasses
import inspect
import json
import math
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The arguments of data that say where it lies, and of pairs where those that are held out do.
HELD_OUT = ("validation_file", "test_file", "validation_target_file", "test_target_file")
PLACES = ("directory", "file", "target_file", *HELD_OUT)
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")
BALANCES = ("none", "class_weights", "oversample", "undersample")
ON_CHECKPOINT_ERROR = ("stop", "go on")
# Types of values, for people.
SPOKEN = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


class RecipeError(ValueError):
    """A recipe that cannot be run, with the key, the value and what would be right."""


NEVER_EMPTY = ("start_from", "teacher", "back_translator", "freeze_until")  # keys that null leaves out


@dataclass(frozen=True)
class Choice:
    """One entry of a dict of functions, and keyword arguments for that function."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what is trained; what the machine decides (devices, XLA) is not in here.

    `bigkeras settings` shows each of these lines below its key; `data` to `schedule` name functions with arguments.

    name: What the recipe is called; a run of it is runs/NAME where nothing else is said.
    claim: A line for `bigkeras list` and for the card of the exported model.
    data: Which examples: a function of DATASETS.
    task: What is made of them, and how: a function of TASKS.
    model: A function of MODELS, one of your own in Python, or "auto" where several are tried.
    loss: A function of LOSSES for this task.
    augmentation: Functions that change training examples: of pictures random_resized_crop first, then flip and crop,
        and then the others; those that are left in this order.
    optimizer: One of Keras' own, with its arguments.
    schedule: How the learning rate goes over the run.
    epochs: How often the training split is learned from.
    batch_size: Examples of one optimizer step on all devices together; of a translator a budget of tokens: pairs times
        the padded length of the longer side.
    micro_batches: So many parts of a batch are computed one after the other and make one optimizer step.
    precision: What layers compute in; "auto" is the machine's fastest.
    seed: Of first weights, order, dropout and augmentation; the split has its own, data.seed.
    balance: How rare classes are made up for.
    l1: Times the sum of all absolute weights of kernels and embeddings, added to the loss.
    l2: Times the sum of their squares, added to the loss.
    clip_norm: The greatest length of the gradient of all weights together; null leaves it.
    ema: The share, below 1, of the old average in the averaged weights; these are what validation sees and what is
        kept (Polyak & Juditsky 1992, here exponentially). null: no average.
    average_checkpoints: In the last so many of `epochs`, validation sees, and a run keeps, the mean of the weights
        after each of these epochs so far (Vaswani et al. 2017, arXiv 1706.03762, section 6.1); in those before, the
        weights themselves. null: no mean.
    monitor: The validation metric that decides the best epoch; without a validation split it is the last one.
    patience: The run ends after so many scored epochs without a better `monitor`; null: never.
    max_bad_fraction: The run ends where a greater share of the examples cannot be read.
    on_checkpoint_error: Where a checkpoint cannot be written (a full disk), "stop" ends the run; "go on" says so and
        tries again at the next one.
    start_from: The first weights: the folder of a run, of a shipped model or of published BERT weights, a weights file,
        "imagenet", "minilm" or a KerasHub preset of BERT.
    teacher: A run whose answers are learned as labels of what has none; of sentence pairs, one whose translations of
        the training sentences are learned beside people's.
    teacher_sure: The least probability of a teacher's answer that is learned.
    back_translator: A run from the target language, or of both directions: what it makes of the targets is learned as
        their source, too.
    consistency: Every example goes through the network twice in a step, under other draws of dropout; this many times
        what parts the two answers is added to the loss (R-Drop, Wu et al. 2021, arXiv 2106.14448: 1 for classes of
        texts, 5 for translations). A step takes twice as long, and few examples teach more.
    learn_validation: Whether the validation split is learned from, too, once it has chosen what is trained; the last
        epoch is then the best one. Test examples stay what they are.
    score_every: After so many epochs, and the last of `epochs`, a translator's validation sentences are translated.
    freeze_until: The last layer, of those that come one after the other, that keeps its first weights.
    layer_decay: The learning rate is multiplied by this once for every stage that a layer lies below the top.
    lora: The rank of low-rank updates of the attention's layers; they and the last layer alone are trained.
    """

    name: str
    claim: str = ""
    data: Choice
    task: Choice
    model: Choice
    loss: Choice = Choice("cross_entropy")
    augmentation: tuple[Choice, ...] = ()
    optimizer: Choice = Choice("adamw", {"learning_rate": 1e-3})
    schedule: Choice = Choice("cosine")
    epochs: int = 10
    batch_size: int = 128
    micro_batches: int = 1
    precision: str = "float32"
    seed: int = 0
    balance: str = "none"
    l1: float = 0.0
    l2: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    average_checkpoints: int | None = None
    monitor: str = "val_accuracy"
    patience: int | None = None
    max_bad_fraction: float = 0.01
    on_checkpoint_error: str = "stop"
    start_from: str | None = None
    teacher: str | None = None
    teacher_sure: float = 0.9
    back_translator: str | None = None
    consistency: float = 0.0
    learn_validation: bool = False
    score_every: int = 2
    freeze_until: str | None = None
    layer_decay: float = 1.0
    lora: int | None = None

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            object.__setattr__(self, name, _typed(name, getattr(self, name), hint))
        if self.name in ("", ".", "..") or not self.name.isprintable() or set(self.name) & set("/\\"):
            raise RecipeError(f"name={self.name!r}: the name of a folder: no slash, nothing that is not seen")
        for name in NEVER_EMPTY:
            if getattr(self, name) == "":
                raise RecipeError(f"{name}='': a name, or null for none; is a variable of the shell empty?")
        positive = ("epochs", "batch_size", "micro_batches", "score_every")
        for name in positive:
            if getattr(self, name) < 1:
                raise RecipeError(f"{name}={getattr(self, name)}: at least 1")
        for name in ("l1", "l2", "consistency"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RecipeError(f"{name}={getattr(self, name)}: a number of at least 0")
        for name, low, high in (
            ("max_bad_fraction", 0, 1),
            ("teacher_sure", 0, 1),
            ("ema", 0, 1),
            ("layer_decay", 0, 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise RecipeError(f"{name}={value}: from {low} to {high}")
        if self.ema == 1:
            raise RecipeError("ema=1: below 1, or null for no averages")
        if self.average_checkpoints is not None and self.average_checkpoints < 2:
            raise RecipeError(f"average_checkpoints={self.average_checkpoints}: at least 2, or null for no mean")
        if self.average_checkpoints and self.ema:
            raise RecipeError(f"ema={self.ema}, average_checkpoints={self.average_checkpoints}: one of both averages")
        if not 0 <= self.seed < 2**32:
            raise RecipeError(f"seed={self.seed}: from 0 to 4294967295")
        seed = self.data.args.get("seed", 0)
        if isinstance(seed, int) and seed < 0:
            raise RecipeError(f"data.seed={seed}: at least 0")
        if self.patience is not None and self.patience < 1:
            raise RecipeError(f"patience={self.patience}: at least 1 epoch, or null to go on to the end")
        if self.lora is not None and self.lora < 1:
            raise RecipeError(f"lora={self.lora}: a rank of at least 1, or null to train all weights")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise RecipeError(f"clip_norm={self.clip_norm}: a number above 0, or null for no clipping")
        if self.batch_size % self.micro_batches:
            raise RecipeError(f"batch_size={self.batch_size} does not divide into micro_batches={self.micro_batches}")
        known("precision", self.precision, PRECISIONS)
        known("on_checkpoint_error", self.on_checkpoint_error, ON_CHECKPOINT_ERROR)
        known("balance", self.balance, BALANCES)

    def override(self, /, **values: Any) -> "Recipe":
        """A copy with other values; `model__depth=56` and `{"model.depth": 56}` reach into a Choice."""
        changed: dict[str, Any] = {}
        for key, value in values.items():
            changed |= _set({**vars(self), **changed}, key.replace("__", "."), value)
        return dataclasses.replace(self, **changed)  # at once: of two values that must agree both may be new

    def to_json(self) -> str:
        """The recipe as JSON text; `from_json` gives an equal recipe."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Writes the recipe, beside and renamed."""
        path = Path(path)
        beside = path.with_name(path.name + ".part")
        beside.write_text(self.to_json(), encoding="utf-8", errors="backslashreplace")
        os.replace(beside, path)


def from_json(text: str, origin: str = "recipe", *, of_run: bool = False) -> Recipe:
    """The recipe that `to_json` wrote; `of_run`: perhaps an earlier version's. RecipeError names origin and key."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{origin}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{origin}: a JSON object with a recipe's keys, not {type(values).__name__}")
    fields = {f.name: f for f in dataclasses.fields(Recipe)}
    for key in values:
        known(f"{origin}: key", key, fields)
    missing = [
        n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING and n not in values
    ]
    if missing:
        raise RecipeError(f"{origin}: lacks {', '.join(missing)}")
    if of_run:  # earlier versions wrote what was asked for as "", which is none
        values |= {name: None for name in NEVER_EMPTY if values.get(name) == ""}
    try:
        return Recipe(**values)
    except RecipeError as error:
        raise RecipeError(f"{origin}: {error}") from None


def load(path: str | Path) -> Recipe:
    """The recipe in a recipe.json, or in the run directory `path`."""
    path = Path(path)
    of_run = path.is_dir()
    if of_run:
        path = path / "recipe.json"
    try:
        return from_json(path.read_text(encoding="utf-8-sig"), str(path), of_run=of_run)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not UTF-8 text") from None


def parse_setting(text: str) -> tuple[str, Any]:
    """`model.depth=56` → ("model.depth", 56); a value that is not JSON is a string."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {text}: key=value, such as --set epochs=5 or --set model.depth=56")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value


def known(what: str, name: Any, choices: Any) -> Any:
    """`name`, if it is one of `choices`; else a RecipeError that lists them."""
    if name not in choices:
        raise RecipeError(f"{what} {name!r} is not one of {', '.join(sorted(map(str, choices)))}")
    return name


def check(kind: str, choice: Choice, functions: Mapping[str, Callable], given: tuple[str, ...] = ()) -> None:
    """Raises RecipeError unless the name, the argument names and their types fit the function's signature.

    `given` are the arguments that the caller supplies and a recipe may not set.
    """
    function = functions[known(kind, choice.name, functions)]
    parameters = inspect.signature(function).parameters
    allowed = [n for n, p in parameters.items() if n not in given and p.kind is not p.VAR_KEYWORD]
    hints = typing.get_type_hints(function if inspect.isroutine(function) else function.__init__)
    for key, value in choice.args.items():
        known(f"{kind} {choice.name}: argument", key, allowed)
        if key in hints:
            _typed(f"{kind}.{key}", value, hints[key])
        else:
            _alike(f"{kind}.{key}", value, parameters[key].default)
    for key in allowed:
        if parameters[key].default is inspect.Parameter.empty and key not in choice.args:
            hint = "--data PATH" if key in ("directory", "file") else f"--set {kind}.{key}=…"
            if kind == "augmentation":  # a list of functions
                hint = f'--set \'augmentation=[{{"name": "{choice.name}", "args": {{"{key}": …}}}}]\''
            raise RecipeError(f"{kind} {choice.name} needs {key}: {hint}")


def defaults(function: Callable) -> dict[str, Any]:
    """What a function's arguments are where nothing is said, by name; `inspect.Parameter.empty` where it must be."""
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}


def _alike(name: str, value: Any, default: Any) -> None:
    """Raises RecipeError for a value that is of no kind with its default: Keras' functions have no type hints."""
    if isinstance(default, bool) and not isinstance(value, bool):
        raise RecipeError(f"{name}={value!r}: true or false")
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    if name.startswith("optimizer."):  # Keras looks at none of these, and would fail in the middle of a step
        if default is None and isinstance(value, (str, bool, dict)):
            raise RecipeError(f"{name}={value!r}: a number or null")
        may_be_none = name.endswith(("weight_decay", "rms_rate"))
        if number and (isinstance(value, (list, tuple)) or (value is None and not may_be_none)):
            raise RecipeError(f"{name}={value!r}: a number")
    if number and isinstance(value, (str, bool, dict)):
        raise RecipeError(f"{name}={value!r}: a number")


def check_smoothing(label_smoothing: float) -> None:
    """Raises RecipeError for a share of the target that cannot be spread over the classes."""
    if not 0 <= label_smoothing < 1:
        raise RecipeError(f"loss.label_smoothing={label_smoothing}: from 0 to below 1")


def _set(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The field of a recipe of these values that a key such as model.depth changes, and what it becomes."""
    head, _, rest = key.partition(".")
    known("key", head, [f.name for f in dataclasses.fields(Recipe)])
    current = values[head]
    if isinstance(current, Choice):
        if rest:
            value = Choice(current.name, {**current.args, rest: value})
        elif isinstance(value, str):
            # The arguments of one function mean nothing to another.
            value = current if value == current.name else Choice(value)
    elif rest:
        raise RecipeError(f"{key}: {head} is a plain value, without {rest!r}")
    return {head: _typed(head, value, typing.get_type_hints(Recipe)[head])}


def _typed(name: str, value: Any, hint: Any) -> Any:
    """`value` as the hinted type (ints become floats, lists tuples, JSON objects Choices), or a RecipeError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in args:
            try:
                return _typed(name, value, option)
            except RecipeError:
                continue
        raise RecipeError(f"{name}={value!r}: {' or '.join(_spoken(a) for a in args)}")
    if hint is type(None) or hint is None:
        if value is None:
            return None
        raise RecipeError(f"{name}={value!r}: null")
    if hint is Choice:
        return _choice(name, value)
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{name}={value!r}: a list")
        inner = args[0] if args else Any
        return tuple(_typed(name, v, inner) for v in value)
    if origin is typing.Literal:
        return known(name, value, args)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = hint in (int, float, str, bool)
    if plain and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise RecipeError(f"{name}={value!r}: {_spoken(hint)}")
    return value


def _choice(name: str, value: Any) -> Choice:
    if isinstance(value, Choice):
        return value
    if isinstance(value, str):
        return Choice(value)
    if isinstance(value, dict) and isinstance(value.get("name"), str) and set(value) <= {"name", "args"}:
        if not isinstance(value.get("args", {}), dict):
            raise RecipeError(f"{name}.args: an object of arguments")
        return Choice(value["name"], value.get("args", {}))
    raise RecipeError(f'{name}={value!r}: a name, or {{"name": …, "args": {{…}}}}')


def _spoken(hint: Any) -> str:
    return SPOKEN.get(hint, getattr(hint, "__name__", str(hint)))
