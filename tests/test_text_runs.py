"""Runs on texts: trained, resumed, shared between devices, exported, explained."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from apps import savedmodel, sentiment
from apps.native import library_path
from bigkeras import control, serving, text_search
from bigkeras.__main__ import main
from bigkeras.artifact import export
from bigkeras.assembly import fitted
from bigkeras.classifier_artifact import export_classifier
from bigkeras.data.source import DataError
from bigkeras.evaluation import evaluate
from bigkeras.inheritance import continued, inherited
from bigkeras.models import MODELS, build
from bigkeras.origin import package_folder
from bigkeras.parity import session_loader
from bigkeras.recipe import Choice, Recipe, RecipeError, load
from bigkeras.recipe_data import load_splits
from bigkeras.recipes import RECIPES
from bigkeras.run import RunError
from bigkeras.runtime import Machine
from bigkeras.scored_data import asked_recipe
from bigkeras.signals import Interrupted, Log
from bigkeras.tasks import load_preprocessor
from bigkeras.tasks.text_classification import text_classification
from bigkeras.train import _tell, fit

QUIET = Log(quiet=True)
ROOT = Path(__file__).resolve().parent.parent
NOUNS = ("film", "meal", "play", "book", "很好的", "tour")
GOOD, BAD = ("great", "lovely", "fine"), ("awful", "boring", "poor")


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """A CSV of 216 reviews of several lengths, one of three good, decided by one word each."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    rows = []
    for i in range(216):
        word = GOOD[i % 9 // 3] if i % 3 == 0 else BAD[i % 9 // 3]
        rows.append(f'"{"the " * (i % 11)}{NOUNS[i % 6]} was {word}, number {i}",{"good" if i % 3 == 0 else "bad"}')
    path.write_text("\n".join(["review,label", *rows]), encoding="utf-8")
    return path


def recipe_for(path, **values):
    settings = {
        "name": "texts",
        "data": Choice("text_table", {"file": str(path)}),
        "task": Choice("text_classification", {"ngrams": 2, "buckets": 64, "min_count": 1}),
        "model": Choice("bag_of_ngrams", {"width": 8}),
        "optimizer": Choice("adamw", {"learning_rate": 0.05}),
        "augmentation": (Choice("word_dropout"),),
        "epochs": 3,
        "batch_size": 16,
    }
    return Recipe(**{**settings, **values})


def weights(run_dir):
    return keras.models.load_model(run_dir / "last.keras", compile=False).get_weights()


@pytest.fixture(scope="module")
def run(reviews, tmp_path_factory):
    directory = tmp_path_factory.mktemp("texts") / "run"
    fit(recipe_for(reviews), directory, log=QUIET)
    return directory


@pytest.fixture(scope="module")
def artifact(run, tmp_path_factory):
    directory = tmp_path_factory.mktemp("artifacts") / "texts"
    export(run, directory)
    return directory


def test_a_run_learns_and_says_what_it_got_wrong(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["validation"]["accuracy"] > 0.9
    assert metrics["validation"]["at_threshold"]["threshold"] == metrics["threshold"]
    report = (run / "report.md").read_text()
    assert "Decided for good from a probability of" in report
    assert (run / "pictures" / "ranking.png").exists()


def test_tuned_answers_know_labels_with_other_separators_and_never(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    second = "good\u2028or so"
    (tmp_path / "labels.txt").write_text(f"bad\n{second}\n", "utf-8")
    answer = (sentiment.Review("1", "a text"), sentiment.Answer([(second, 1.0), ("bad", 0.0)]))
    for threshold, first in ((1.0, second), (np.nextafter(1.0, 2.0), "bad")):
        (tmp_path / "metrics.json").write_text(json.dumps({"threshold": float(threshold)}))
        assert sentiment._decision(tmp_path)(answer)[1].labels[0][0] == first
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "current").symlink_to(tmp_path / "1")  # of a version alone
    assert sentiment._decision(tmp_path / "elsewhere" / "current")(answer)[1].labels[0][0] == first


def test_what_was_found_and_left_out_is_said_once(reviews, tmp_path, capsys):
    (tmp_path / "t.csv").write_text(reviews.read_text("utf-8") + "\nno label,\n", "utf-8")
    splits = load_splits(recipe_for(tmp_path / "t.csv"))
    log = Log()
    for _ in range(2):
        _tell(splits, log)
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/t.csv: 216 texts in 'review', 2 labels in 'label', parted by ',', read as utf-8",
        f"1 left out, the first {tmp_path}/t.csv:218: no label (''); all are in bad_samples.csv",
    ]


def test_other_rows_than_those_of_the_run_are_not_taken_for_its_own(reviews, tmp_path):
    place = tmp_path / "t.csv"
    place.write_text(reviews.read_text("utf-8"), "utf-8")
    fit(recipe_for(place, epochs=1), tmp_path / "run", log=QUIET)
    own = evaluate(tmp_path / "run", data=str(reviews))  # the same rows, elsewhere
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"] == own["test"]
    export(tmp_path / "run", tmp_path / "model")
    assert evaluate(tmp_path / "model")["test"]["accuracy"] == own["test"]["accuracy"]
    with open(place, "a", encoding="utf-8") as file:
        file.write("one more,good\n,bad\n")
    for scored in (tmp_path / "run", tmp_path / "model"):
        with pytest.raises(RunError, match="its data has changed since it was trained"):
            evaluate(scored)
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"its data has changed since it began \(train: .*take another --run-dir"):
        fit(recipe_for(place, epochs=1), tmp_path / "run", log=QUIET)


def test_of_other_data_it_is_told_where_a_part_alone_is_scored(run, reviews, tmp_path, capsys):
    shutil.copy(reviews, tmp_path / "same.csv")
    (tmp_path / "other.csv").write_text(reviews.read_text("utf-8").replace("film", "picture"), "utf-8")
    told = []
    for name, split in (("same", "test"), ("other", "test"), ("other", "all")):
        evaluate(run, split=split, data=str(tmp_path / f"{name}.csv"), log=Log())
        told.append("are scored, the test part; --split all" in capsys.readouterr().err)
    assert told == [False, True, False]


def test_too_many_bad_rows_are_told_before_anything_is_made_of_the_data(reviews, tmp_path, monkeypatch):
    monkeypatch.setattr("bigkeras.train._fit", lambda *_: pytest.fail("it begins"))
    (tmp_path / "t.csv").write_text(reviews.read_text("utf-8") + "\n,bad" * 100, "utf-8")
    with pytest.raises(DataError, match="more than max_bad_fraction"):
        fit(recipe_for(tmp_path / "t.csv", epochs=1), tmp_path / "run", log=QUIET)
    assert (tmp_path / "run" / "bad_samples.csv").read_text().count("an empty text") == 100


def test_a_run_that_has_learned_nothing_takes_mended_data(reviews, tmp_path):
    place = tmp_path / "t.csv"
    place.write_text(reviews.read_text("utf-8") + "\n,bad" * 100, "utf-8")
    with pytest.raises(DataError, match="more than max_bad_fraction"):
        fit(recipe_for(place, epochs=1), tmp_path / "run", log=QUIET)
    place.write_text(reviews.read_text("utf-8"), "utf-8")
    fit(recipe_for(place, epochs=1), tmp_path / "run", log=QUIET)


def test_a_split_that_is_not_there_or_is_drawn_anew_is_none_of_the_run(run, reviews, tmp_path):
    with pytest.raises(RunError, match="with these settings its data is other"):
        evaluate(run, settings={"data.seed": 1})
    (tmp_path / "t.csv").write_text("review,label,split\nvery good,good,test\nvery bad,bad,test\n", "utf-8")
    with pytest.raises(RunError, match="has no train split"):
        evaluate(run, split="train", data=str(tmp_path / "t.csv"))
    whole = Choice("text_table", {"file": str(reviews), "test": 0.0})
    fit(recipe_for(reviews, epochs=1, data=whole), tmp_path / "run", log=QUIET)
    assert evaluate(tmp_path / "run", data=str(tmp_path / "t.csv"))["test"]["examples"] == 2
    assert "test" not in json.loads((tmp_path / "run" / "metrics.json").read_text())
    # What it has learned, or some of it, is no test split.
    with pytest.raises(RunError, match=r"with these settings its data is other \(train"):
        evaluate(tmp_path / "run", settings={"data.test": 0.2})


def test_a_class_without_an_example_to_train_on_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("review,label,split\na,x,train\nb,y,test\nc,x,val\n", "utf-8")
    with pytest.raises(DataError, match="class 'y' has no example to train on"):
        load_splits(recipe_for(tmp_path / "t.csv"))


def test_a_table_for_testing_alone_is_scored_and_changes_nothing_of_the_run(run, tmp_path, capsys):
    before = (run / "metrics.json").read_text()
    place = tmp_path / "new.csv"
    place.write_text("review,label,split\nvery good,good,test\nvery bad,bad,test\nno label,,test\n", "utf-8")
    found = evaluate(run, split="all", data=str(place), log=Log())["all"]
    assert found["examples"] == 2
    assert "1 left out, the first " in capsys.readouterr().err
    assert (run / "metrics.json").read_text() == before


def test_all_rows_of_another_table_are_scored_whatever_was_learned_from(reviews, tmp_path):
    limited = Choice("text_table", {"file": str(reviews), "limit_train": 40})
    fit(recipe_for(reviews, epochs=1, data=limited), tmp_path / "run", log=QUIET)
    place = tmp_path / "new.csv"
    place.write_text("review,label\n" + "".join(f"so {i},{('good', 'bad')[i % 2]}\n" for i in range(200)), "utf-8")
    assert evaluate(tmp_path / "run", split="all", data=str(place))["all"]["examples"] == 200
    assert evaluate(tmp_path / "run", split="all", settings={"data.file": str(place)})["all"]["examples"] == 200
    assert evaluate(tmp_path / "run", split="train", data=str(reviews))["train"]["examples"] == 40  # its own


def test_rows_of_one_class_are_scored_and_not_learned_from(run, tmp_path):
    place = tmp_path / "new.csv"
    place.write_text("review,label\nvery good,good\nvery bad,good\nso good,good\n", "utf-8")
    assert evaluate(run, split="all", data=str(place))["all"]["examples"] == 3
    with pytest.raises(DataError, match=f"{place}: only one class, 'good': at least two are needed"):
        fit(recipe_for(place), tmp_path / "run", log=QUIET)


def test_an_interrupted_run_ends_as_one_that_was_not(run, reviews, tmp_path, monkeypatch):
    original = control.Control.on_train_batch_end

    def interrupting(self, batch, logs=None):
        if self.total_steps in (3, 15) and not self.asked and self.total_steps not in seen:
            seen.append(self.total_steps)
            self.asked.append(signal.SIGTERM)
        original(self, batch, logs)

    seen: list[int] = []
    monkeypatch.setattr(control.Control, "on_train_batch_end", interrupting)
    while not (tmp_path / "run" / "metrics.json").exists():
        try:
            fit(recipe_for(reviews), tmp_path / "run", log=QUIET)
        except Interrupted:
            continue
    assert len(seen) == 2
    assert all(np.array_equal(a, b) for a, b in zip(weights(run), weights(tmp_path / "run"), strict=True))


def test_two_replicas_with_micro_batches_train_what_one_device_trains(reviews, tmp_path):
    recipe = recipe_for(reviews, optimizer=Choice("sgd", {"learning_rate": 0.5}), micro_batches=2, epochs=2)
    fit(recipe, tmp_path / "one", log=QUIET)
    fit(recipe, tmp_path / "two", log=QUIET, machine=Machine(strategy="mirrored", replicas=2))
    pairs = zip(weights(tmp_path / "one"), weights(tmp_path / "two"), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) < 2e-6


def test_a_run_goes_on_from_another_with_its_vocabulary(run, reviews, tmp_path):
    other = recipe_for(reviews, start_from=str(run), epochs=1, optimizer=Choice("sgd", {"learning_rate": 0.0}))
    fit(other, tmp_path / "more", log=QUIET)
    assert (tmp_path / "more" / "vocabulary.txt").read_text() == (run / "vocabulary.txt").read_text()
    best = keras.models.load_model(run / "best.keras", compile=False).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(best, weights(tmp_path / "more"), strict=True))
    for name, value, has in (("tokens", "character", "word"), ("buckets", 32, 64)):
        with pytest.raises(RecipeError, match=rf"task\.{name}={value}: start_from=.* has {has}"):
            fit(other.override(**{f"task.{name}": value}), tmp_path / "wrong", log=QUIET)


@pytest.mark.parametrize(
    "names", [{"good": "approve", "bad": "reject"}, {"good": "good", "bad": "bad", "lovely": "so"}]
)
@pytest.mark.parametrize(
    "model", [Choice("bag_of_ngrams", {"width": 8}), Choice("nb_cnn", {"filters": 2, "latent": 2})]
)
def test_what_belongs_to_classes_begins_anew_where_they_are_others(model, names, reviews, tmp_path):
    """The first two are in the other order than those of the earlier run: by their places each would be the other."""
    fit(recipe_for(reviews, model=model, epochs=1), tmp_path / "first", log=QUIET)
    header, *lines = reviews.read_text().splitlines()
    for word, name in names.items():
        lines = [f"{line.rpartition(',')[0]},{name}" if word in line else line for line in lines]
    (tmp_path / "other.csv").write_text("\n".join([header, *lines]))
    still = recipe_for(
        tmp_path / "other.csv", model=model, epochs=1, optimizer=Choice("sgd", {"learning_rate": 0.0}),
        task=Choice("text_classification", {"vocabulary": str(tmp_path / "first")}),
    )  # fmt: skip
    fit(still, tmp_path / "fresh", log=QUIET)
    fit(still.override(start_from=str(tmp_path / "first"), task="text_classification"), tmp_path / "more", log=QUIET)
    first, fresh, more = (keras.models.load_model(tmp_path / n / "last.keras") for n in ("first", "fresh", "more"))
    kept = [layer for layer in more.layers if layer.name == "stage1" or type(layer) is keras.layers.Embedding]
    anew = [layer for layer in more.layers if "logits" in layer.name or hasattr(layer, "adapt_labelled")]
    assert kept and anew
    for layers, origin in ((kept, first), (anew, fresh)):
        for layer in layers:
            for a, b in zip(layer.get_weights(), origin.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)


def test_letters_go_from_training_into_the_artifact_and_a_new_run(reviews, tmp_path, capsys):
    asked = recipe_for(reviews, model=Choice("nb_ngrams"), epochs=2).override(**{"task.letters": 4})
    metrics = fit(asked, tmp_path / "run", log=QUIET)
    assert metrics["validation"]["accuracy"] > 0.9
    export(tmp_path / "run", tmp_path / "model")  # which compares both
    assert load_preprocessor(tmp_path / "model").letters == 4
    again = recipe_for(reviews, model=Choice("nb_ngrams"), start_from=str(tmp_path / "run"), epochs=1)
    again = again.override(task="text_classification")
    assert fit(again, tmp_path / "more", log=QUIET)["validation"]["accuracy"] > 0.9
    with pytest.raises(RecipeError, match=r"task\.letters=3: start_from=.* has 4, and its vocabulary is kept"):
        fit(again.override(**{"task.letters": 3}), tmp_path / "other", log=QUIET)
    hidden = {
        "model": "bert", "task": "masked_language_model", "task.vocabulary": str(tmp_path / "run"), "augmentation": [],
    }  # fmt: skip
    with pytest.raises(DataError, match="a run with n-grams, whose words cannot be hidden"):
        fit(recipe_for(reviews).override(**hidden), tmp_path / "hidden", log=QUIET)


def test_published_weights_of_bert_are_refused_for_another_model(reviews, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    for origin in (tmp_path, tmp_path / "model.safetensors"):
        asked = recipe_for(reviews, model=Choice("lstm"), start_from=str(origin))
        with pytest.raises(RecipeError, match="is a published BERT, for --set model=bert; this is lstm"):
            fit(asked, tmp_path / "run", log=QUIET)
    # Neither is a model of one's own, which may hold one, nor a run's file that lies beside.
    for name, origin in (("mine", str(tmp_path)), ("lstm", str(tmp_path / "best.keras"))):
        asked = recipe_for(reviews, model=Choice(name), start_from=origin)
        try:
            inherited(asked, ("", ""))
        except RecipeError as error:
            assert "is a published BERT" not in str(error)


def test_a_table_that_is_utf8_is_read_so_whatever_the_runs_was(reviews, tmp_path):
    rows = reviews.read_text()
    for name, encoding in (("chinese", "gb18030"), ("utf8", "utf-8"), ("again", "gb18030")):
        (tmp_path / f"{name}.csv").write_text(rows.replace("good", "good 很好吃"), encoding=encoding)
    asked = recipe_for(tmp_path / "chinese.csv", epochs=1).override(**{"data.encoding": "gb18030"})
    fit(asked, tmp_path / "run", log=QUIET)
    scores = [evaluate(tmp_path / "run", split="all", data=str(tmp_path / f"{n}.csv")) for n in ("utf8", "again")]
    # Of signs in seven bits nothing tells but what was said.
    recipe = load(tmp_path / "run").override(**{"data.encoding": "iso2022_jp"})
    (tmp_path / "seven.csv").write_text("text,label\nとても,good", encoding="iso2022_jp")
    assert asked_recipe(recipe, str(tmp_path / "seven.csv"), {}, "all").data.args["encoding"] == "iso2022_jp"
    assert scores[0]["all"]["loss"] == pytest.approx(scores[1]["all"]["loss"], abs=1e-6)


def test_a_model_that_has_nothing_but_what_belongs_to_classes_keeps_its_vocabulary(run, reviews, tmp_path, capsys):
    ratios = recipe_for(reviews, model=Choice("nb_ngrams"), epochs=1)
    fit(ratios, tmp_path / "first", log=QUIET)
    other = tmp_path / "other.csv"
    other.write_text(reviews.read_text().replace(",good", ",1").replace(",bad", ",0"))
    settings = {"data.file": str(other), "start_from": str(tmp_path / "first"), "task": "text_classification"}
    metrics = fit(ratios.override(**settings), tmp_path / "more")
    assert "all its weights belong to classes, which are others: they begin anew" in capsys.readouterr().err
    assert metrics["validation"]["per_class"][1]["name"] == "1"
    # Another model is no origin, of whatever classes.
    for place in (reviews, other):
        asked = recipe_for(place, model=Choice("nb_ngrams"), start_from=str(run), task=Choice("text_classification"))
        with pytest.raises(RecipeError, match="no layer of nb_ngrams has the name of a layer with weights in bag_of_"):
            fit(asked, tmp_path / "wrong", log=QUIET)


@pytest.mark.parametrize("origin", ["run", "artifact"])
def test_model_auto_goes_on_with_the_recipe_of_an_earlier_run(origin, reviews, tmp_path, request):
    path = request.getfixturevalue(origin)
    recipe = Recipe(
        name="own", data=Choice("text_table", {"file": str(reviews)}), task=Choice("text_classification"),
        model=Choice("auto"), start_from=str(path), epochs=1,
    )  # fmt: skip
    assert fit(recipe, tmp_path / "more", log=QUIET)["validation"]["accuracy"] > 0.9
    told = json.loads((tmp_path / "more" / "recipe.json").read_text())
    assert (told["name"], told["model"]["args"], told["epochs"]) == ("own", {"width": 8}, 1)
    assert (tmp_path / "more" / "vocabulary.txt").read_text() == (path / "vocabulary.txt").read_text()
    with pytest.raises(RecipeError, match=r"start_from=.* is of text_classification, not of image_classification"):
        fit(recipe.override(**{"task": "image_classification"}), tmp_path / "wrong", log=QUIET)
    (tmp_path / "left").mkdir()  # a search that was broken off
    recipe.override(start_from=None).save(tmp_path / "left" / "recipe.json")
    with pytest.raises(RecipeError, match=r"start_from=.*left: no model yet: .*goes on with it"):
        fit(recipe.override(start_from=str(tmp_path / "left")), tmp_path / "wrong", log=QUIET)
    with pytest.raises(RecipeError, match=r"start_from=.*gone: no recipe\.json there"):
        fit(recipe.override(start_from=str(tmp_path / "gone")), tmp_path / "wrong", log=QUIET)


def test_what_is_asked_for_goes_before_the_earlier_run_where_it_is_the_usual_value_too(run, reviews, tmp_path, capsys):
    usual = {"epochs": 10, "batch_size": 128, "ema": None, "optimizer.learning_rate": 1e-3}
    asked = [part for key, value in usual.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    more = ["train", "text-csv", "--data", str(reviews), "--run-dir", str(tmp_path / "more")]
    assert main([*more, "--set", f"start_from={run}", *asked]) == 0
    told, theirs = (json.loads((place / "recipe.json").read_text()) for place in (tmp_path / "more", run))
    assert {key: told[key] for key in ("epochs", "batch_size", "ema")} == {"epochs": 10, "batch_size": 128, "ema": None}
    assert told["optimizer"] == {
        "name": theirs["optimizer"]["name"],
        "args": {**theirs["optimizer"]["args"], "learning_rate": 1e-3},
    }
    assert main([*more[:-1], str(tmp_path / "auto"), *asked[:2]]) == 1
    assert "epochs=10: model auto decides it; name a model, as --set model=text_cnn" in capsys.readouterr().err


def test_in_python_what_is_said_of_a_function_goes_into_the_earlier_runs(run, reviews):
    theirs = load(run)
    said = {"data.file": str(reviews), "start_from": str(run), "model.dropout": 0.2, "optimizer.learning_rate": 1e-4}
    found = continued(RECIPES["text-csv"].override(**said))
    assert found.model == Choice(theirs.model.name, {**theirs.model.args, "dropout": 0.2})
    assert found.optimizer == Choice(theirs.optimizer.name, {**theirs.optimizer.args, "learning_rate": 1e-4})
    assert found.schedule == theirs.schedule


@pytest.mark.parametrize("content", ["[]", "{}", "1"])
def test_a_damaged_preparation_of_an_origin_is_one_line(content, run, reviews, tmp_path):
    shutil.copytree(run, tmp_path / "earlier")
    (tmp_path / "earlier" / "preprocessor.json").write_text(content)
    recipe = recipe_for(reviews, start_from=str(tmp_path / "earlier"))
    with pytest.raises(RecipeError, match=r"preprocessor\.json is damaged|is no model of texts"):
        inherited(recipe, ("", ""))
    pictures = RECIPES["image-folder"].override(start_from=str(tmp_path / "earlier"), model="resnet")
    with pytest.raises(RecipeError, match=r"preprocessor\.json is damaged|is no model of pictures"):
        inherited(pictures, ("", ""))


def test_the_artifact_scores_what_the_run_scores(run, artifact):
    ours, theirs = evaluate(run, report=False)["test"], evaluate(artifact)["test"]
    assert ours["confusion"] == theirs["confusion"]
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def test_an_artifact_with_operations_of_tensorflow_text_is_scored_in_a_process_of_its_own(artifact, run_cli):
    done = run_cli("evaluate", artifact, "--split", "validation")
    assert done.rc == 0, done.stderr
    assert "validation: accuracy" in done.stdout


def test_low_rank_updates_are_merged_into_what_a_run_leaves(reviews, tmp_path):
    sizes = {"depth": 1, "width": 8, "num_heads": 2, "feed_forward": 8}
    recipe = recipe_for(reviews, model=Choice("transformer", sizes), task=Choice("text_classification"), epochs=1)
    fit(recipe, tmp_path / "whole", log=QUIET)
    tuned = recipe.override(start_from=str(tmp_path / "whole"), lora=2)
    fit(tuned, tmp_path / "tuned", log=QUIET)
    before, after = (keras.models.load_model(tmp_path / n / "best.keras", compile=False) for n in ("whole", "tuned"))
    changed = {a.path for a, b in zip(before.weights, after.weights, strict=True) if not np.array_equal(a, b)}
    assert changed == {
        "stage1_attention_query_key_value/kernel", "stage1_attention_output/kernel", "logits/kernel", "logits/bias"
    }  # fmt: skip


def test_an_artifact_says_nothing_of_the_folders_where_it_was_made(run, artifact):
    graph = (artifact / "1" / "saved_model.pb").read_bytes()
    assert b"vocabulary.txt" in graph and str(artifact.parent).encode() not in graph and str(run).encode() not in graph


def test_the_vocabulary_lies_in_the_artifact(artifact):
    assert (artifact / "1" / "assets" / "vocabulary.txt").read_bytes() == (artifact / "vocabulary.txt").read_bytes()


ODD = ["great", "", " \0\n", b"\xff\xfe\x00", "😀 e\u0301", "مرحبا بالعالم", "x" * 2**20, "boring " * 3000]


def test_both_loaders_answer_whatever_text_comes(artifact):
    texts = np.array([t if isinstance(t, bytes) else t.encode() for t in ODD], object)
    loaded = tf.saved_model.load(str(artifact / "1"))
    first = loaded.signatures["serving_default"](text=tf.constant(texts.tolist()))
    with session_loader(artifact / "1") as session:
        second = session("serving_default", "text", texts)
    assert np.array_equal(first["label"].numpy(), second["label"])
    assert np.isfinite(second["probability"]).all()
    assert first["label"].numpy()[0, 0] == b"good"


def test_neighbours_and_padding_change_no_probability(artifact):
    loaded = tf.saved_model.load(str(artifact / "1"))
    answer = loaded.signatures["serving_default"]
    together = answer(text=tf.constant([t if isinstance(t, bytes) else t.encode() for t in ODD]))["probability"].numpy()
    alone = np.concatenate([answer(text=tf.constant([t]))["probability"].numpy() for t in ODD])
    assert np.abs(together - alone).max() <= 1e-5
    short = tf.constant([[2, 3, 4]])
    more = loaded.signatures["logits"](tokens=tf.pad(short, [[0, 0], [0, 9]]))["logits"]
    assert np.abs(loaded.signatures["logits"](tokens=short)["logits"] - more).max() <= 1e-5


@pytest.mark.parametrize("tokens", ["word", "character", "wordpiece", "sentencepiece"])
def test_every_kind_of_tokens_answers_the_same_whoever_loads_it(tokens, reviews, tmp_path):
    nfkc = False if tokens == "word" else None  # so without any operation of TensorFlow Text
    task = text_classification(
        load_splits(recipe_for(reviews)), tokens=tokens, nfkc=nfkc, vocabulary_size=320, length=32
    )
    keras.utils.set_random_seed(0)
    model = build(MODELS["bag_of_ngrams"], task.model_arguments, {"width": 8})
    model.set_weights([w + 0.3 * np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    texts = [t if isinstance(t, bytes) else t.encode() for t in ODD]
    export_classifier(model, task.preprocessor, ["bad", "good"], tmp_path / "model", examples=texts)
    assert bool(savedmodel.text_libraries(tmp_path / "model" / "1")) is (tokens != "word")
    answers = [
        tf.saved_model.load(str(tmp_path / "model" / "1")).signatures["serving_default"](text=tf.constant(texts))
    ]
    with session_loader(tmp_path / "model" / "1") as session:
        answers.append(session("serving_default", "text", np.array(texts, object)))
    if library_path() is not None:
        answers.append(savedmodel.load(tmp_path / "model", "c").run("serving_default", {"text": texts}))
        # Alone in a process, where no TensorFlow was imported: WordPiece's operations ended most of them.
        ask = (
            "import sys; from apps import savedmodel; print(*savedmodel.load(sys.argv[1], 'c').run('serving_default', "
        )
        ask += "{'text': [b'lovely']})['label'][0])"
        command = [sys.executable, "-c", ask, str(tmp_path / "model")]
        for _ in range(3 if tokens == "wordpiece" else 1):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0 and sorted(done.stdout.split()) == ["b'bad'", "b'good'"], done.stderr
    for answer in answers:
        assert np.isfinite(answer["probability"]).all()
        assert np.array_equal(answer["label"], answers[0]["label"])
        np.testing.assert_allclose(answer["probability"], answers[0]["probability"], atol=1e-6)


SMALL = {
    "bert": {"size": "tiny"},
    "gru": {"units": 8, "embedding_width": 6, "pooling": "max"},
    "lstm": {"units": 8, "embedding_width": 6, "bidirectional": True, "pooling": "mean"},
    "nb_cnn": {"filters": 4, "latent": 3},
    "nb_ngrams": {},
    "rnn": {"units": 8, "embedding_width": 6},
    "text_cnn": {"embedding_width": 6, "filters": 4},
    "transformer": {"depth": 2, "width": 8, "num_heads": 2, "feed_forward": 16, "positions": "rotary"},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("lstm", "transformer"))) for name in SMALL]
)
def test_neighbours_and_padding_change_no_answer_of_any_exported_model(name, run, tmp_path):
    preprocessor = load_preprocessor(run)
    sizes = {"vocabulary_size": preprocessor.vocabulary_size, "length": preprocessor.shape[0], "num_classes": 2}
    keras.utils.set_random_seed(0)
    model = MODELS[name](**sizes, **SMALL[name])
    model.set_weights([w + 0.3 * np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    texts = [t if isinstance(t, bytes) else t.encode() for t in ODD]
    export_classifier(model, preprocessor, ["bad", "good"], tmp_path / name, examples=texts)
    answer = tf.saved_model.load(str(tmp_path / name / "1")).signatures["serving_default"]
    together = answer(text=tf.constant(texts))
    alone = [answer(text=tf.constant([text])) for text in texts]
    assert np.array_equal(together["label"], np.concatenate([one["label"] for one in alone]))
    np.testing.assert_allclose(
        together["probability"], np.concatenate([one["probability"] for one in alone]), atol=1e-5, rtol=0
    )


def test_the_explanation_names_the_word_that_decided(artifact):
    loaded = tf.saved_model.load(str(artifact / "1"))
    texts = tf.constant(["the film\twas boring, all of it", "", "很好的 lovely tour"])
    told = loaded.signatures["explain"](text=texts)
    words, weights = told["word"].numpy(), told["weight"].numpy()
    assert b"".join(words[0]) == b"the film was boring, all of it"
    assert words[0, weights[0].argmax()] == b"boring, "
    assert not weights[1].any()
    assert words[2, :5].tolist() == ["很".encode(), "好".encode(), "的".encode(), b" ", b"lovely "]
    answers = loaded.signatures["serving_default"](text=texts)
    assert np.array_equal(told["label"].numpy(), answers["label"][:, 0].numpy())


def test_long_texts_are_explained_in_parts_as_if_there_were_memory_for_all(monkeypatch):
    def answer(texts):
        lengths = tf.cast(tf.strings.length(texts), tf.float32)
        return tf.stack([lengths, -lengths], 1) / 100

    texts = tf.constant(["the film was rather good and more", "", "好看", "x"])
    whole = serving.explanation(answer, ["a", "b"])(texts)
    for most in (1, 70, 200):
        monkeypatch.setattr(serving, "MOST_BYTES", most)
        parts = serving.explanation(answer, ["a", "b"])(texts)
        for name, value in whole.items():
            np.testing.assert_array_equal(parts[name], value)
    np.testing.assert_allclose(whole["weight"][0, :3], [0.04, 0.05, 0.04], atol=1e-6)


def test_a_long_text_is_explained_some_words_at_a_time(artifact):
    loaded = tf.saved_model.load(str(artifact / "1"))
    text = "the film was " * 300 + "boring"
    told = loaded.signatures["explain"](text=tf.constant([text]))
    assert told["word"].shape == (1, 901)
    with session_loader(artifact / "1") as session:
        again = session("explain", "text", np.array([text.encode()], object))
    np.testing.assert_allclose(again["weight"], told["weight"].numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"augmentation": (Choice("flip"),)}, "augmentation 'flip' is not one of word_dropout"),
        ({"model": Choice("resnet")}, "model resnet: .*vocabulary_size"),
        ({"monitor": "val_top5_accuracy"}, "is measured with more than 5 classes; there are 2"),
        ({"freeze_until": "stem"}, "freeze_until='stem': no such layer; embedding, features are among them"),
        ({"model": Choice("bag_of_ngrams", {"length": 9})}, "argument 'length' is not one of"),
    ],
)
def test_what_does_not_fit_texts_is_refused(values, message, reviews, tmp_path):
    with pytest.raises(RecipeError, match=message):
        fit(recipe_for(reviews, **values), tmp_path / "run", log=QUIET)


def test_what_a_vocabulary_that_is_there_does_not_heed_is_said(reviews, tmp_path):
    (tmp_path / "words.txt").write_text("[PAD]\n[UNK]\nfilm\n", "utf-8")
    splits = load_splits(recipe_for(reviews))
    asked = {"vocabulary": str(tmp_path / "words.txt"), "min_count": 9, "buckets": 64}
    said = []
    fitted(recipe_for(reviews, task=Choice("text_classification", asked)), splits, said.append)
    assert said == [
        f"task.min_count=9: not heeded: the vocabulary is {tmp_path}/words.txt",
        "task.buckets=64: not heeded: there are no n-grams without task.ngrams=2 or more, or task.letters",
    ]
    fit(recipe_for(reviews, epochs=1), tmp_path / "run", log=QUIET)
    asked = {"vocabulary": str(tmp_path / "run"), "tokens": "word", "ngrams": 1, "min_count": 1}
    said.clear()
    fitted(recipe_for(reviews, task=Choice("text_classification", asked)), splits, said.append)
    assert said == [f"task.ngrams=1: not heeded: {tmp_path}/run has 2"]


def test_averages_over_pictures_are_refused(run):
    with pytest.raises(RecipeError, match="average flips: is for images"):
        evaluate(run, average="flips")


def test_a_run_may_learn_its_validation_split_and_is_tested_on_what_it_was(reviews, tmp_path):
    asked = recipe_for(reviews, learn_validation=True, epochs=1)
    plain, whole = (load_splits(asked.override(learn_validation=learned)) for learned in (False, True))
    assert whole.validation is None and len(whole.train) == len(plain.train) + len(plain.validation)
    assert whole.test.columns["text"].tolist() == plain.test.columns["text"].tolist()
    fit(asked, tmp_path / "run", log=QUIET)
    assert evaluate(tmp_path / "run")["test"]["examples"] == len(plain.test)
    with pytest.raises(RunError, match="has learned from its validation split"):
        evaluate(tmp_path / "run", split="validation")
    # So it has where the same data lies elsewhere; of other data it has learned nothing.
    moved = tmp_path / "moved.csv"
    moved.write_bytes(reviews.read_bytes())
    with pytest.raises(RunError, match="has learned from its validation split"):
        evaluate(tmp_path / "run", split="validation", data=str(moved))
    other = tmp_path / "other.csv"
    other.write_text("review,label\n" + "".join(f"so {i},{('good', 'bad')[i % 2]}\n" for i in range(40)))
    assert evaluate(tmp_path / "run", split="validation", data=str(other))["validation"]["examples"] == 4


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("preprocessor.json", r"preprocessor\.json: damaged, or not all there"),
        ("best.keras", r"best\.keras: cannot be read as a Keras model"),
        ("1/variables/variables.data-00000-of-00001", "1: cannot be loaded"),
    ],
)
def test_a_damaged_run_or_artifact_is_one_line(damage, told, run, artifact, tmp_path):
    copy = shutil.copytree(artifact if damage.startswith("1/") else run, tmp_path / "copy")
    whole = (copy / damage).read_bytes()
    (copy / damage).write_bytes(whole[: len(whole) // 3])
    with pytest.raises((DataError, RunError), match=told) as caught:
        evaluate(copy)
    assert "\n" not in str(caught.value)


def test_a_run_finds_its_data_from_any_folder_however_it_was_named(reviews, tmp_path, monkeypatch):
    (tmp_path / "r.csv").write_bytes(reviews.read_bytes())
    recipe_for(tmp_path / "gone.csv", epochs=1).save(tmp_path / "recipe.json")
    monkeypatch.chdir(tmp_path)
    asked = ["train", "recipe.json", "--run-dir", "run", "--set", "data.file=r.csv"]
    assert main(asked) == 0
    before = (tmp_path / "run" / "recipe.json").read_text()
    # As a run of before has it.
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("r.csv", "~/r.csv"):
        (tmp_path / "run" / "recipe.json").write_text(before.replace(str(tmp_path / "r.csv"), named))
        assert main(asked) == 0 and main(["train", "run"]) == 0
    assert evaluate("run", settings={"data.file": "r.csv"})["test"]["examples"] == 22
    assert "test" in json.loads((tmp_path / "run" / "metrics.json").read_text())
    (tmp_path / "run" / "recipe.json").write_text(before)
    monkeypatch.chdir(tmp_path / "run")
    assert main(["evaluate", "."]) == 0


@pytest.mark.slow
def test_model_auto_keeps_the_best_of_its_candidates(reviews, tmp_path, monkeypatch):
    monkeypatch.setattr(text_search, "PRETRAINED_LOOKS", 200)
    recipe = Recipe(
        name="own", data=Choice("text_table", {"file": str(reviews)}), task=Choice("text_classification"),
        model=Choice("auto"),
    )  # fmt: skip
    fit(recipe, tmp_path / "run", log=QUIET)
    search = json.loads((tmp_path / "run" / "search.json").read_text())
    pretrained = {"own-pretrained"} if package_folder("minilm") else set()
    assert set(search["tried"]) == {"own-ratios", "own-convolutions", "own-words", "own-characters"} | pretrained
    told = f"Model auto tried several candidates and kept **{search['kept']}**; validation accuracy: "
    assert (tmp_path / "run" / "report.md").read_text().count(told) == 1
    evaluate(tmp_path / "run")
    assert (tmp_path / "run" / "report.md").read_text().count(told) == 1
    export(tmp_path / "run", tmp_path / "own")
    assert (tmp_path / "own" / "1" / "saved_model.pb").exists()
