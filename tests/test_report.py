"""The report of a run, and its pictures."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bigkeras import pictures
from bigkeras.card import card
from bigkeras.markdown import signatures
from bigkeras.metrics import bootstrap_interval, classification_metrics
from bigkeras.recipe import Choice, Recipe
from bigkeras.recipes import RECIPES
from bigkeras.report import again, training, write_report
from bigkeras.translation_report import write_translation_report

NAMES = ("cat", "dog", "a|b <i>", "狗")
RECIPE = Recipe(
    name="tiny",
    data=Choice("digits"),
    task=Choice("image_classification"),
    model=Choice("lenet"),
    epochs=3,
    batch_size=8,
)
HISTORY = [
    {"epoch": e, "loss": 1 / e, "accuracy": 0.5 + e / 10, "val_loss": 1.1 / e, "val_accuracy": a, "learning_rate": 0.1}
    for e, a in ((1, 0.5), (2, 0.75), (3, 0.7))
]


def scored(seed=0, classes=4):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), 60)
    labels = rng.integers(classes, size=60)
    metrics = classification_metrics(labels, probabilities, NAMES[:classes])
    interval = bootstrap_interval(probabilities.argmax(1) == labels, 0)
    worst = [(rng.integers(0, 256, (8, 8, 1), dtype=np.uint8), int(labels[i]), probabilities[i]) for i in range(5)]
    predictions = SimpleNamespace(worst=worst, labels=labels, probabilities=probabilities)
    return {**metrics, "accuracy_95": list(interval)}, predictions


def report(directory, metrics, predictions=None, names=NAMES, history=HISTORY):
    task = SimpleNamespace(class_names=names, kind="image")
    path = write_report(directory, recipe=RECIPE, metrics=metrics, history=history, predictions=predictions, task=task)
    return path.read_text(encoding="utf-8")


def test_report_says_the_test_score_first(tmp_path):
    test, predictions = scored()
    text = report(tmp_path, {"epochs": 3, "validation": scored(1)[0], "test": test}, predictions)
    first = text.split("\n")[2]
    assert f"**{test['accuracy']:.2%} of the 60 test examples are right**" in first
    low, high = test["accuracy_95"]
    assert f"95 % interval {low:.2%} to {high:.2%}" in first
    assert text.index("| test |") < text.index("| validation |")


def test_report_tells_classes_epochs_command_and_the_best_epoch(tmp_path):
    text = report(tmp_path, {"validation": scored()[0]})
    assert "| cat |" in text and "| 狗 |" in text and "macro average" in text
    assert "The best by val_accuracy is epoch 2" in text
    assert "bigkeras train recipe.json --run-dir again" in text
    own = again(replace(RECIPES["digits"], model=Choice("two_layers")), tmp_path)
    assert 'bigkeras.fit(bigkeras.recipe.load("recipe.json"), "again", model=two_layers)' in own


def test_the_curves_are_named_where_they_lie(tmp_path):
    metrics = {"validation": scored()[0]}
    assert "tensorboard" not in report(tmp_path, metrics)  # as on JAX
    (tmp_path / "candidates" / "small" / "tensorboard").mkdir(parents=True)
    (tmp_path / "search.json").write_text('{"kept": "small", "tried": {"small": {"accuracy": 0.5}}}')
    assert "`tensorboard --logdir candidates/small/tensorboard`" in report(tmp_path, metrics)
    (tmp_path / "search.json").unlink()
    (tmp_path / "tensorboard").mkdir()
    assert "`tensorboard --logdir tensorboard`" in report(tmp_path, metrics)


@pytest.mark.parametrize(
    ("scores", "split"),
    [
        ({"examples": 8, "accuracy": 0.75, "macro": {"f1": 0.7}, "loss": 0.5, "calibration_error": 0.1}, ""),
        (
            {"sentences": 8, "bleu": 1, "bleu_lower": 1, "chrf": 1, "chrf_lower": 1, "signatures": {"bleu": "s"}},
            " --split test",
        ),
    ],
)
def test_a_card_says_what_was_measured_and_how_the_exported_model_is(scores, split):
    text = card(
        name="tiny", recipe={"data": {"name": "digits"}}, metrics={"test": scores}, environment={}, data_notes="",
        labels=["a", "b"], parameters=3, use=("", "", ""), directory="my models/tiny",
    )  # fmt: skip
    told = "Measured on the run, before its model was exported. The exported one is scored by"
    assert f"{told}\n\n    bigkeras evaluate 'my models/tiny'{split}\n" in text


def test_a_class_name_cannot_break_the_table(tmp_path):
    text = report(tmp_path, {"validation": scored()[0]})
    assert "a\\|b &lt;i>" in text and "<i>" not in text


@pytest.mark.parametrize(
    "text, shown",
    [
        ("![seen](http://there/1.png) *a* `b`", r"!\[seen\](http://there/1.png) \*a\* \`b\`"),
        ("<img src=x> &lt; AT&T\n~~no~~", r"&lt;img src=x> &amp;lt; AT&T \~\~no\~\~"),
        ("_so_ much of mixed_bfloat16 __", r"\_so\_ much of mixed_bfloat16 \_\_"),
    ],
)
def test_texts_are_no_markup_in_reports_and_cards(tmp_path, text, shown):
    metrics, predictions = scored()
    predictions.worst = [(text, 0, predictions.probabilities[0])]
    task = SimpleNamespace(class_names=NAMES, kind="text")
    told = write_report(
        tmp_path, recipe=RECIPE, metrics={"test": metrics}, history=HISTORY, predictions=predictions, task=task
    )
    assert f"| {shown} |" in told.read_text(encoding="utf-8")
    assert f"Classes: {shown}, b" in card(
        name="tiny", recipe={"data": {"name": "digits"}}, metrics={}, environment={}, data_notes="",
        labels=[text, "b"], parameters=3, use=("", "", ""),
    )  # fmt: skip


def test_every_picture_named_in_the_report_is_there_and_whole(tmp_path):
    metrics, predictions = scored()
    text = report(tmp_path, {"test": metrics}, predictions)
    named = {line.split("(")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert named == {f"pictures/{n}.png" for n in ("curves", "confusion", "f1", "reliability", "ranking", "mistakes")}
    for name in named:
        with Image.open(tmp_path / name) as image:
            assert np.asarray(image.convert("L")).std() > 10  # something is drawn
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(("classes", "curves"), [(2, 1), (4, 4), (12, 10)])
def test_each_of_at_most_ten_classes_has_its_curves(classes, curves):
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(classes, size=90), random.dirichlet(np.ones(classes), 90)
    figure = pictures.ranking(labels, probabilities, [f"class {i}" for i in range(classes)])
    for axes in figure.axes:
        told = [text.get_text() for text in axes.get_legend().get_texts()]
        assert len(told) == curves and (classes > 2 or told[0].endswith(" class 1"))


def test_areas_stand_in_the_table_of_scores_where_they_were_measured(tmp_path):
    test = scored()[0]
    without = {key: value for key, value in scored(1)[0].items() if key not in ("roc_auc", "average_precision")}
    text = report(tmp_path, {"validation": without, "test": test})
    assert "| macro ROC AUC | macro average precision |" in text
    assert f"| {test['roc_auc']:.4g} | {test['average_precision']:.4g} |" in text


def test_better_epochs_that_could_not_be_written_are_named_and_no_others():
    recipe = Recipe(name="r", data=Choice("digits"), task=Choice("image_classification"), model=Choice("lenet"))
    values = {1: (0.5, True), 2: (0.9, True), 3: (0.8, False)}
    rows = [
        {"epoch": e, "val_accuracy": v, "val_loss": 1.0, **({"best_unsaved": 1.0} if lost else {})}
        for e, (v, lost) in values.items()
    ]
    told = training(rows, recipe)
    told_so = "Better, but not kept (it could not be written, or is gone): epoch 2."
    assert f"is epoch 3, kept as best.keras. {told_so}" in told


def test_what_not_every_epoch_has_stands_in_the_table_all_the_same():
    recipe = replace(RECIPES["multi30k-en-de"], monitor="val_loss")
    rows = [{"epoch": 1, "val_loss": 2.0}, {"epoch": 2, "val_loss": 1.0, "val_bleu": 31.5}]
    rows.append({"epoch": 3, "val_loss": 1.5})
    assert "| epoch | val loss | val bleu |" in training(rows, recipe) and "| 31.5 |" in training(rows, recipe)


def test_signatures_are_told_for_each_split_where_they_differ():
    alike = {"test": {"bleu": "nrefs:1"}, "validation": {"bleu": "nrefs:1"}}
    assert signatures(alike) == ["By sacrebleu:", "", "- bleu: `nrefs:1`"]
    told = signatures({"test": {"bleu": "nrefs:var"}, "validation": {"bleu": "nrefs:1"}})
    assert told == ["By sacrebleu:", "", "- test, bleu: `nrefs:var`", "- validation, bleu: `nrefs:1`"]


def test_without_a_score_the_report_says_so(tmp_path):
    text = report(tmp_path, {"epochs": 3, "unreadable": 0})
    assert "no validation split was held back" in text
    assert "## Classes" not in text and (tmp_path / "pictures" / "curves.png").exists()


def test_two_classes_show_the_areas(tmp_path):
    metrics, _ = scored(classes=2)
    assert "ROC AUC" in report(tmp_path, {"test": metrics}, names=NAMES[:2])


def test_bad_samples_are_counted_and_the_environment_told(tmp_path):
    with (tmp_path / "bad_samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["sample", "reason"], *[[f"{i}.png", "truncated"] for i in range(12)]])
    environment = {"python": "3.11.7", "packages": {"keras": "3.15.1"}, "devices": ["CPU:0"]}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    text = report(tmp_path, {"validation": scored()[0]})
    assert "12 were left out" in text and "| 0.png | truncated |" in text and "11.png" not in text
    assert "| keras | 3.15.1 |" in text and "| devices | CPU:0 |" in text


def test_pairs_that_were_left_out_are_counted_by_their_reasons(tmp_path):
    rows = [*[[f"p.tsv:{i}", f"{90 + i} characters against {i}: too different"] for i in range(12)], ["a", "equal"]]
    with (tmp_path / "bad_samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["sample", "reason"], *rows])
    recipe = replace(RECIPE, task=Choice("translation"))
    path = write_translation_report(tmp_path, recipe=recipe, metrics={}, history=HISTORY, predictions=None)
    text = path.read_text(encoding="utf-8")
    assert "## Pairs left out\n\n13; all" in text and "## Left out\n" not in text
    assert "| … characters against …: too different | 12 |\n| equal | 1 |" in text


def test_no_mistakes_take_the_old_picture_away(tmp_path):
    metrics, predictions = scored()
    report(tmp_path, {"test": metrics}, predictions)
    report(tmp_path, {"test": metrics}, SimpleNamespace(**{**vars(predictions), "worst": []}))
    assert not (tmp_path / "pictures" / "mistakes.png").exists()


@pytest.mark.parametrize("count", [2, 30, 250])
def test_confusion_matrix_of_any_size_renders_without_a_warning(count, recwarn):
    names = [f"class {i}" for i in range(count)]
    image = pictures.pixels(pictures.confusion_matrix(np.eye(count) * 7, names), dpi=50)
    assert image.dtype == np.uint8 and image.shape[2] == 3 and image.min() < 100
    assert not [warning for warning in recwarn.list if issubclass(warning.category, (UserWarning, RuntimeWarning))]


def test_names_that_no_font_holds_become_numbers(recwarn):
    assert pictures._readable(["Credit reporting, repair services, or other personal reports"])[0][0].endswith("…")
    shown, _ = pictures._readable(["cat", "\U0001f9ff\U000e0fff", "$x$"])
    assert shown[0] == "cat" and shown[1] == "#1" and shown[2] == r"\$x\$"


def test_curves_have_no_point_where_the_log_is_empty():
    rows = [{"epoch": "1", "loss": "0.5", "val_loss": ""}, {"epoch": "2", "loss": "0.4", "val_loss": "0.6"}]
    figure = pictures.curves(rows)
    lines = figure.axes[0].get_lines()
    assert lines[1].get_xydata().tolist() == [[2.0, 0.6]]


def test_a_grid_of_answers_marks_the_wrong_ones():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    figure = pictures.answers(images, np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]]), ["cat", "dog"])
    titles = [text.get_text() for text in figure.axes[0].texts]
    assert titles == ["cat  90%\n", "dog  80%\ntrue: cat"]


def test_what_is_measured_in_some_epochs_only_is_drawn_in_long_runs_too():
    rows = [{"epoch": i, "loss": 1 / (i + 1), **({"val_bleu": i} if i % 2 else {})} for i in range(40)]
    (line,) = next(axes for axes in pictures.curves(rows).axes if axes.get_title(loc="left") == "bleu").lines
    np.testing.assert_array_equal(line.get_xydata(), [[i, i] for i in range(1, 40, 2)])
