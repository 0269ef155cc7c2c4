"""What a recipe takes over from the run that it starts from: recipe, wiring, vocabulary, preparation of pictures."""

import json
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bigkeras.data.cleaning import other_languages
from bigkeras.data.files import expanded
from bigkeras.models import MODELS
from bigkeras.models.pretrained import LITE0_MEAN, LITE0_STD
from bigkeras.models.pretrained_text import bert_sizes, lower_case, preset_size, preset_vocabulary, tokenizer_words
from bigkeras.origin import PACKAGES, UNREADABLE, first_line, is_preset, origin_folder, pair_preprocessor, start_folder
from bigkeras.recipe import Choice, Recipe, RecipeError, defaults, load
from bigkeras.run import without_model
from bigkeras.tasks import TASKS

# How a classifier is trained that starts from a language model: after Devlin et al. 2018, appendix A.3, whose rates, of
# 2e-5 to 5e-5, are of large models; the small ones that train here take a larger one.
FINE_TUNED = Recipe(
    name="fine-tuned",
    data=Choice("text_table"),
    task=Choice("text_classification"),
    model=Choice("bert"),
    optimizer=Choice("adamw", {"learning_rate": 1e-4, "weight_decay": 0.01}),
    schedule=Choice("linear", {"warmup_epochs": 0.3}),
    clip_norm=1.0,
    epochs=4,
    batch_size=32,
)

# Arguments of models that no weight's shape shows.
WIRING = ("norm", "positions", "activation", "num_heads", "depth", "pooling")
OF_VOCABULARIES = ("vocabulary_size", "min_count", "proper_names", "algorithm", "joint")  # how one is learned
OF_TEXTS = ("tokens", "ngrams", "letters", "lower", "truncation")
PREPARED = ("height", "width", "channels", "resize")  # of pictures


def absolute(recipe: Recipe, *settings: str) -> Recipe:
    """The recipe with whole paths in these settings, where there are such: so that it is repeated from any folder."""
    for setting in settings:
        part, _, argument = setting.partition(".")
        named = getattr(recipe, part).args.get(argument) if argument else getattr(recipe, part)
        if isinstance(named, str) and named not in ("", "imagenet", *PACKAGES) and expanded(named).exists():
            recipe = recipe.override(**{setting: str(expanded(named).resolve())})
    return recipe


def wired_alike(recipe: Recipe, said: Collection[str] = ()) -> Recipe:
    """The recipe with its origin's values of WIRING, where both are the same model: others spoil the weights.

    What was `said` of the model stays, and is refused where it does not fit.
    """
    if not recipe.start_from or recipe.model.name not in MODELS:
        return recipe
    origin = origin_folder(Path(start_folder(recipe.start_from)))
    if not (origin / "recipe.json").is_file():
        return recipe
    theirs = load(origin).model
    usual = defaults(MODELS[recipe.model.name])
    known = [name for name in WIRING if name in usual and name not in said and theirs.name == recipe.model.name]
    found = {name: theirs.args.get(name, usual[name]) for name in known}
    other = {n: v for n, v in found.items() if v is not None and recipe.model.args.get(n, usual[n]) != v}
    return recipe.override(**{f"model.{name}": value for name, value in other.items()})


def continued(recipe: Recipe, own_model: bool = False) -> Recipe:
    """Of model "auto" that starts from a run or a shipped model: that one's recipe on this one's data.

    Of a text classifier that starts from a language model, a run's or published BERT weights, the same encoder,
    fine-tuned. What this recipe says itself goes before. Another recipe, and one whose model is given beside it
    (`own_model`) and starts from a file of weights, is given back as it is. Raises RecipeError for an origin of another
    task, and a file of weights where no model is named.
    """
    if recipe.model.name != "auto" or recipe.start_from in (None, "imagenet"):
        return recipe
    origin = Path(start_folder(recipe.start_from))
    if origin.is_file() and own_model:
        return recipe
    if origin.is_file():
        folder = origin_folder(origin)
        known = (folder / "recipe.json").is_file() or (folder / "config.json").is_file()
        raise RecipeError(
            f"start_from={recipe.start_from}: a file of weights says of no model what it is: "
            + (f"take the folder that it lies in, {folder}" if known else "name the model, as --set model=…")
        )
    size = _language_model(recipe.start_from, origin) if recipe.task.name == "text_classification" else None
    if size is not None:
        encoder = replace(FINE_TUNED, model=Choice("bert", {"size": size, "pooling": "mean"}))
        return replace(encoder, **{**_given(recipe, encoder), "claim": f"{recipe.start_from}, fine-tuned on"})
    if not (origin / "recipe.json").is_file():
        raise RecipeError(f"start_from={origin}: no recipe.json there: neither a run directory nor a shipped model")
    # What it learned besides its own training examples is not there.
    theirs = replace(
        load(origin), teacher=None, teacher_sure=Recipe.teacher_sure, back_translator=None, learn_validation=False
    )
    if recipe.ema or recipe.average_checkpoints:  # one excludes the other
        theirs = replace(theirs, ema=None, average_checkpoints=None)
    if theirs.model.name == "auto":
        raise RecipeError(f"start_from={origin}: {without_model(origin)}")
    if theirs.task.name != recipe.task.name:
        raise RecipeError(f"start_from={origin}: is of {theirs.task.name}, not of {recipe.task.name}")
    task = Choice(recipe.task.name, {**_without_sides(theirs.task.args, recipe.task.args), **recipe.task.args})
    own = {**_given(recipe, theirs), "claim": f"{theirs.name}, trained on"}
    return replace(theirs, **{**own, "task": task})


def _without_sides(theirs: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Theirs, without height and width where one's own has one: alone it means a square, not one with theirs."""
    sides = ("height", "width") if own.get("height") or own.get("width") else ()
    return {name: value for name, value in theirs.items() if name not in sides}


def _given(recipe: Recipe, theirs: Recipe) -> dict[str, Any]:
    """What a recipe of model "auto" says otherwise than by default, in the place of `theirs`.

    Of a function whose name it does not change, argument by argument.
    """
    usual: dict[str, Any] = {f.name: f.default for f in fields(recipe)} | {"model": Choice("auto")}
    given = {name: getattr(recipe, name) for name, default in usual.items() if getattr(recipe, name) != default}
    for name in ("model", "loss", "optimizer", "schedule"):
        own, base, other = getattr(recipe, name), usual[name], getattr(theirs, name)
        said = {key: value for key, value in own.args.items() if key not in base.args or base.args[key] != value}
        if own.name == base.name and said:
            given[name] = Choice(other.name, {**other.args, **said})
    return given


def _language_model(named: str, origin: Path) -> str | None:
    """The size of the BERT that a masked run, published weights or a preset hold; None for anything else."""
    if is_preset(named):
        try:
            return preset_size(named)
        except (*UNREADABLE, ImportError) as error:
            raise RecipeError(f"start_from={first_line(error)}") from None
    if (origin / "config.json").is_file():
        try:
            return bert_sizes(origin)["size"]
        except UNREADABLE as error:
            raise RecipeError(f"start_from={origin}: {first_line(error)}") from None
    if (origin / "recipe.json").is_file():
        recipe = load(origin)
        if recipe.task.name == "masked_language_model":
            return recipe.model.args.get("size", "base")
    return None


def inherited(recipe: Recipe, languages: tuple[str, str]) -> dict[str, Any]:
    """The task's arguments; those of texts are an earlier run's: its weights mean nothing without its vocabulary.

    Pictures are prepared as the earlier run's, where the recipe does not say otherwise. A folder of published BERT
    weights has its vocabulary beside them, and a preset has one. A translator keeps the
    earlier one's vocabularies where its `languages` are not known to be others. Raises RecipeError where the recipe
    asks for tokens that the earlier run does not have.
    """
    own = dict(recipe.task.args)
    named = recipe.start_from
    if not named:
        return own
    origin = origin_folder(Path(start_folder(named)))
    if recipe.task.name == "translation":
        return _of_translator(recipe, origin, languages)
    if recipe.task.name == "image_classification":
        return {**_without_sides(_of_pictures(recipe, origin), own), **own}
    if recipe.task.name in ("text_classification", "masked_language_model"):
        return _of_texts(recipe, named, origin)
    return own


def unheeded(recipe: Recipe, vocabulary: Any, preprocessor: Any) -> list[str]:
    """A line for each of the task's arguments that nothing heeds: of the making of a vocabulary that is there already,
    or of n-grams where there are none."""
    own = recipe.task.args
    lines = []
    added = Path(vocabulary).with_name("added_tokens.json") if vocabulary and isinstance(vocabulary, str) else None
    if added and added.is_file():
        lines.append(f"{added}: not heeded: its tokens are cut as other words are, and their embeddings left out")
    if vocabulary:
        path = expanded(vocabulary) if isinstance(vocabulary, str) else None
        task = load(path).task if path and (path / "recipe.json").is_file() else Choice(recipe.task.name)
        theirs = defaults(TASKS[task.name]) | dict(task.args)
        made = {n: own[n] for n in OF_VOCABULARIES if n in own and own[n] != theirs.get(n)}
        place = vocabulary if path else "another's"
        lines += [f"task.{name}={value}: not heeded: the vocabulary is {place}" for name, value in made.items()]
        has = {name: getattr(preprocessor, name, own[name]) for name in OF_TEXTS if name in own}
        lines += [f"task.{n}={own[n]}: not heeded: {place} has {has[n]}" for n in has if has[n] != own[n]]
    if "buckets" in own and getattr(preprocessor, "ngrams", 2) == 1 and not getattr(preprocessor, "letters", 0):
        told = "there are no n-grams without task.ngrams=2 or more, or task.letters"
        lines.append(f"task.buckets={own['buckets']}: not heeded: {told}")
    return lines


def _of_translator(recipe: Recipe, origin: Path, languages: tuple[str, str]) -> dict[str, Any]:
    own = dict(recipe.task.args)
    if "vocabulary" in own or not (origin / "preprocessor.json").is_file():
        return own
    try:
        found = pair_preprocessor(origin)
    except UNREADABLE as error:
        raise RecipeError(f"start_from={origin}: {first_line(error)}") from None
    return own if other_languages(found.languages, languages) else {**own, "vocabulary": str(origin)}


def _of_texts(recipe: Recipe, named: str, origin: Path) -> dict[str, Any]:
    """Published weights' WordPieces, or the vocabulary of an earlier run."""
    own = dict(recipe.task.args)
    published = any((origin / name).is_file() for name in ("vocab.txt", "config.json"))
    published &= not named.endswith((".keras", ".h5"))
    if published and recipe.model.name in MODELS and not recipe.model.name.startswith("bert"):
        told = f"this is {recipe.model.name} (text-csv fine-tunes it where no model is named)"
        raise RecipeError(f"start_from={named}: is a published BERT, for --set model=bert; {told}")
    if recipe.model.name.startswith("bert") and is_preset(named):
        try:
            words, lower = preset_vocabulary(named)
        except (*UNREADABLE, ImportError) as error:
            raise RecipeError(f"start_from={first_line(error)}") from None
        return _published({"vocabulary": words, "lower": lower}, own, named)
    if (origin / "vocab.txt").is_file():
        try:
            lower = lower_case(origin)
        except UNREADABLE as error:
            raise RecipeError(f"start_from={named}: {first_line(error)}") from None
        return _published({"vocabulary": str(origin / "vocab.txt"), "lower": lower}, own, named)
    if (origin / "preprocessor.json").is_file():
        return _of_text_run(recipe, origin)
    if published and "vocabulary" not in own and (origin / "tokenizer.json").is_file():
        try:
            bert_sizes(origin)  # of another model than BERT that is to be told
            words, lower = tokenizer_words(origin)
        except UNREADABLE as error:
            raise RecipeError(f"start_from={named}: {first_line(error)}") from None
        return _published({"vocabulary": words, "lower": lower}, own, named)
    if "vocabulary" not in own and (origin / "config.json").is_file():
        try:
            bert_sizes(origin)  # of another model than BERT that is to be told
        except UNREADABLE as error:
            raise RecipeError(f"start_from={named}: {first_line(error)}") from None
        raise RecipeError(
            f"start_from={named}: published weights without their vocab.txt, so what their tokens are "
            "is not known: place it or tokenizer.json beside them, or say task.vocabulary"
        )
    if "vocabulary" not in own and origin != Path(start_folder(named)) and origin.is_dir():
        raise RecipeError(
            f"start_from={named}: no preprocessor.json lies beside it, so what its words are is not "
            "known: take the directory of its run, or say task.vocabulary"
        )
    return own


def _published(theirs: Mapping[str, Any], own: Mapping[str, Any], named: str) -> dict[str, Any]:
    """The arguments with a published vocabulary of WordPieces, whose weights know no other tokens."""
    if own.get("tokens", "wordpiece") != "wordpiece":
        raise RecipeError(f"task.tokens={own['tokens']}: start_from={named} has wordpiece")
    return {"tokens": "wordpiece", **theirs, **own}


def _of_text_run(recipe: Recipe, origin: Path) -> dict[str, Any]:
    """The vocabulary of a run, which keeps it: what a recipe says of its own making must be the same."""
    own = dict(recipe.task.args)
    theirs = _preparation(origin)
    if theirs.get("kind") not in ("text", "masked_text") or "length" not in theirs:
        raise RecipeError(f"start_from={origin}: is no model of texts")
    for name, value in own.items():
        heeded = name != "rate" and (name != "buckets" or theirs.get("ngrams", 1) > 1 or theirs.get("letters", 0))
        if heeded and value is not None and theirs.get(name, value) != value:
            raise RecipeError(
                f"task.{name}={value}: start_from={origin} has {theirs[name]}, and its vocabulary is kept"
            )
    given = own.get("vocabulary")
    known = [str(origin), *([load(origin).task.args.get("vocabulary")] if (origin / "recipe.json").is_file() else [])]
    places = [expanded(value).resolve() for value in known if isinstance(value, str)]
    if given and given not in known and not (isinstance(given, str) and expanded(given).resolve() in places):
        raise RecipeError(f"task.vocabulary={given}: start_from={origin} has a vocabulary, and it is kept")
    # What the file does not tell, the task compares.
    asked = {k: v for k, v in own.items() if k in ("vocabulary_size", "min_count", "proper_names", "rate")}
    if recipe.task.name == "text_classification":
        return {**asked, "vocabulary": str(origin)}
    return {**asked, "vocabulary": str(origin), "length": theirs["length"]}


def _preparation(origin: Path) -> dict[str, Any]:
    """What preprocessor.json says."""
    try:
        found = json.loads((origin / "preprocessor.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"start_from={origin}: preprocessor.json cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise RecipeError(f"start_from={origin}: preprocessor.json is damaged, or not all there")
    return found


def _of_pictures(recipe: Recipe, origin: Path) -> dict[str, Any]:
    """How an origin's pictures were prepared: its weights know no others."""
    if recipe.start_from == "imagenet" and recipe.model.args.get("variant") == "lite0":
        return {"channels": 3, "mean": [LITE0_MEAN / 255] * 3, "std": [LITE0_STD / 255] * 3}
    if not (origin / "preprocessor.json").is_file():
        return {}
    found = _preparation(origin)
    if found.get("kind", "image") != "image" or not {*PREPARED, "mean", "std", "crop_fraction"} <= found.keys():
        raise RecipeError(f"start_from={origin}: is no model of pictures")
    # Of grey pictures where colour ones are asked for, the statistics say nothing.
    same = recipe.task.args.get("channels") in (None, found["channels"])
    kept = (*PREPARED, "mean", "std") if same else PREPARED
    if recipe.task.args.get("resize", found["resize"]) == found["resize"]:
        kept = (*kept, "crop_fraction")
    return {name: found[name] for name in kept}
