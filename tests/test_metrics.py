"""The scores, against scikit-learn and against cases that can be counted by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics as scores

from bigkeras import report
from bigkeras.metrics import (
    best_threshold,
    bootstrap_interval,
    classification_metrics,
    epoch_score,
    had_enough,
    macro_f1,
    occurring,
    scores_at,
    worst_mistakes,
)
from bigkeras.pictures import f1_bars


def example(classes=10, n=500, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    labels = rng.integers(classes, size=n)
    logits[np.arange(n), labels] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, probabilities, [f"class {i}" for i in range(classes)]


def test_scores_equal_those_of_scikit_learn():
    labels, probabilities, names = example()
    result = classification_metrics(labels, probabilities, names)
    predicted = probabilities.argmax(1)
    assert result["accuracy"] == pytest.approx(scores.accuracy_score(labels, predicted))
    assert result["loss"] == pytest.approx(scores.log_loss(labels, probabilities))
    assert result["top_k"] == 5
    assert result["top_k_accuracy"] == pytest.approx(scores.top_k_accuracy_score(labels, probabilities, k=5))
    report = scores.classification_report(labels, predicted, target_names=names, output_dict=True)
    for row in result["per_class"]:
        expected = report[row["name"]]
        assert row["f1"] == pytest.approx(expected["f1-score"])
        assert row["support"] == expected["support"]
    for average in ("macro", "weighted"):
        for key, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert result[average][key] == pytest.approx(report[f"{average} avg"][theirs])
    assert result["confusion"] == scores.confusion_matrix(labels, predicted).tolist()


def test_calibration_error_by_hand():
    # Two examples in the bin of 0.9, one right: |0.9 - 0.5|; one in the bin of 0.6, right: |0.6 - 1|.
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]
    result = classification_metrics([0, 1, 0], probabilities, ["no", "yes"])
    assert result["calibration_error"] == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.4)
    assert sum(row["examples"] for row in result["reliability"]) == 3


def test_two_classes_have_areas_under_curves():
    labels, probabilities, names = example(classes=2)
    result = classification_metrics(labels, probabilities, names)
    assert result["roc_auc"] == pytest.approx(scores.roc_auc_score(labels, probabilities[:, 1]))
    assert result["average_precision"] == pytest.approx(scores.average_precision_score(labels, probabilities[:, 1]))
    assert result["top_k"] == 1 and result["top_k_accuracy"] == result["accuracy"]


def test_more_classes_have_the_mean_area_of_each_against_the_others():
    labels, probabilities, names = example(classes=4)
    result = classification_metrics(labels, probabilities, names)
    assert result["roc_auc"] == pytest.approx(scores.roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert result["average_precision"] == pytest.approx(scores.average_precision_score(labels, probabilities))
    # A class that does not occur has no area.
    absent = np.pad(probabilities, ((0, 0), (0, 1)))
    assert classification_metrics(labels, absent, [*names, "absent"])["roc_auc"] == pytest.approx(result["roc_auc"])


def test_one_class_alone_has_no_area():
    result = classification_metrics([1, 1], [[0.2, 0.8], [0.6, 0.4]], ["no", "yes"])
    assert result["roc_auc"] is None and result["average_precision"] is None


def test_weight_zero_counts_nowhere():
    labels, probabilities, names = example(n=60)
    weights = np.r_[np.ones(40), np.zeros(20)]
    part = classification_metrics(labels[:40], probabilities[:40], names)
    assert classification_metrics(labels, probabilities, names, weights) == part


def test_weight_two_counts_as_two_examples():
    labels, probabilities, names = example(n=30)
    weights = np.where(np.arange(30) < 10, 2, 1)
    heavy = classification_metrics(labels, probabilities, names, weights)
    twice = classification_metrics(np.repeat(labels, weights), np.repeat(probabilities, weights, axis=0), names)
    for key in ("accuracy", "loss", "calibration_error", "top_k_accuracy"):
        assert heavy[key] == pytest.approx(twice[key])
    assert heavy["weighted"] == pytest.approx(twice["weighted"])


def test_result_goes_through_json_unchanged():
    labels, probabilities, names = example(classes=3, n=9)
    result = classification_metrics(labels, probabilities.astype(np.float32), names)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_class_without_examples_scores_zero_and_does_not_warn(recwarn):
    result = classification_metrics([0, 0], [[0.9, 0.1, 0], [0.8, 0.1, 0.1]], ["a", "b", "c"])
    assert result["per_class"][2] == {"name": "c", "precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert not [warning for warning in recwarn.list if issubclass(warning.category, (UserWarning, RuntimeWarning))]


def test_a_class_that_neither_occurs_nor_is_answered_has_no_part_in_the_means():
    labels, probabilities = [0, 1, 1, 0], np.eye(5)[[0, 1, 2, 1]]  # 2 is answered only, 3 and 4 are neither
    result = classification_metrics(labels, probabilities, list("abcde"))
    theirs = scores.precision_recall_fscore_support(labels, probabilities.argmax(1), average="macro", zero_division=0)
    assert [result["macro"][key] for key in ("precision", "recall", "f1")] == pytest.approx(theirs[:3])
    assert macro_f1(result["confusion"]) == pytest.approx(theirs[2])
    assert [row["f1"] for row in result["per_class"]][2:] == [0, 0, 0]


def test_scores_at_a_threshold_count_no_class_that_is_not_there():
    assert scores_at(0.5, [0, 0], [[0.9, 0.1], [0.8, 0.2]])["macro_f1"] == 1


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_is_the_best_there_is_and_of_equals_the_one_nearest_to_a_half(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=12)
    labels[:2] = 0, 1
    ones = random.integers(0, 7, size=12) / 7 + 0.03  # some are equal, and no threshold parts them
    probabilities = np.stack([1 - ones, ones], 1)
    values = np.unique(ones)
    places = [0.0, *(values[1:] + values[:-1]) / 2, np.nextafter(1.0, 2.0)]
    found = [scores.f1_score(labels, ones >= place, average="macro") for place in places]
    best = [place for place, score in zip(places, found, strict=True) if score > max(found) - 1e-9]
    threshold = best_threshold(labels, probabilities)
    assert abs(threshold - 0.5) == pytest.approx(min(abs(place - 0.5) for place in best))
    assert scores_at(threshold, labels, probabilities)["macro_f1"] == pytest.approx(max(found))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_threshold_that_says_never_is_applied_so(kind):
    labels, probabilities = [0] * 9 + [1], np.array([[0, 1]] * 9 + [[1, 0]], kind)
    threshold = json.loads(json.dumps(best_threshold(labels, probabilities)))
    assert threshold > 1
    assert scores_at(threshold, labels, probabilities)["accuracy"] == 0.9


def test_a_threshold_between_neighbours_in_float32_parts_them():
    low, high = np.float32(0.7), np.nextafter(np.float32(0.7), np.float32(1))
    for first, second in ((low, high), (high, np.nextafter(high, np.float32(1)))):  # rounded, one of two goes down
        probabilities = np.array([[1 - first, first], [1 - second, second]], np.float32)
        threshold = best_threshold([0, 1], probabilities)
        assert scores_at(threshold, [0, 1], probabilities)["accuracy"] == 1


def test_a_probability_of_zero_keeps_the_loss_finite():
    assert np.isfinite(classification_metrics([1], [[1.0, 0.0]], ["a", "b"])["loss"])


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], r"\(2,\)"),
        ([2], [[0.5, 0.5]], "label 2: from 0 to 1"),
        ([-1], [[0.5, 0.5]], "label -1"),
        ([0], [[np.nan, 0.5]], "row 0"),
        ([0, 0], [[0.5, 0.5], [3.0, -2.0]], "row 1"),
        ([], np.zeros((0, 2)), "no examples"),
    ],
)
def test_what_does_not_fit_is_named(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, probabilities, ["a", "b"])


def test_bootstrap_interval_is_repeatable_and_near_the_normal_one():
    correct = np.r_[np.ones(900), np.zeros(100)]
    low, high = bootstrap_interval(correct, seed=1)
    assert (low, high) == bootstrap_interval(correct, seed=1)
    half = 1.96 * np.sqrt(0.9 * 0.1 / 1000)
    assert (low, high) == pytest.approx((0.9 - half, 0.9 + half), abs=2e-3)


def test_where_all_or_none_are_right_the_interval_has_a_width():
    # Wilson's: 20 of 20 have 20 / (20 + 1.96²).
    assert bootstrap_interval(np.ones(20), seed=0) == pytest.approx((0.8389, 1), abs=1e-4)
    assert bootstrap_interval(np.zeros(20), seed=0) == pytest.approx((0, 0.1611), abs=1e-4)


def test_bootstrap_interval_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no examples"):
        bootstrap_interval([], seed=0)


def test_worst_mistakes_come_surest_first():
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.05, 0.95], [0.6, 0.4]])
    assert worst_mistakes([0, 0, 0, 1], probabilities, 2).tolist() == [2, 1]


def test_macro_f1_of_a_confusion_matrix_is_that_of_the_labels():
    labels, probabilities, names = example(n=80)
    result = classification_metrics(labels, probabilities, names)
    assert macro_f1(result["confusion"]) == pytest.approx(result["macro"]["f1"])
    assert macro_f1(np.zeros((3, 3))) == 0


def test_classes_that_do_not_occur_are_not_the_weakest():
    names = [f"class {number}" for number in range(120)]
    labels = np.arange(0, 120, 2)  # every second class has an example
    answers = np.where(labels == 4, 6, labels)  # one of them is told wrong
    told = classification_metrics(labels, np.eye(120)[answers], names)
    assert len(occurring(told["per_class"])) == 60
    assert [text.get_text() for text in f1_bars(told["per_class"]).axes[0].get_yticklabels()][:1] == ["class 4"]
    shown = report._classes("test", told)
    assert "The 60 weakest of 120, of those that occur" in shown and "class 4 |" in shown and "class 5 |" not in shown


def test_of_equally_accurate_epochs_the_one_of_less_loss_is_better():
    rows = [{"val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in ((0.9, 0.5), (0.9, 0.3), (0.8, 0.1))]
    assert max(rows, key=lambda row: epoch_score(row, "val_accuracy")) == rows[1]
    assert max(rows, key=lambda row: epoch_score(row, "val_loss")) == rows[2]


def test_of_equal_probabilities_the_first_class_is_the_answer():
    told = classification_metrics([0, 1, 2], np.full((3, 3), 1 / 3), list("abc"))
    assert told["accuracy"] == pytest.approx(1 / 3)
    six = classification_metrics([4, 5], np.full((2, 6), 1 / 6), list("abcdef"))
    assert six["top_k"] == 5 and six["top_k_accuracy"] == 0.5


def test_patience_waits_for_scores_and_not_for_epochs_in_which_none_was_measured():
    log = [{"val_loss": 1.0}, {"val_loss": 1.0, "val_bleu": 5.0}, {"val_loss": 0.5}, {"val_loss": 0.4, "val_bleu": 4.0}]
    assert [had_enough(log[:epochs], "val_bleu", 1) for epochs in range(5)] == [False] * 4 + [True]
    assert not had_enough(log, "val_bleu", 2) and not had_enough(log, "val_loss", 1)
    assert not had_enough(log, "val_bleu", None) and not had_enough(log[:1], "val_bleu", 1)
