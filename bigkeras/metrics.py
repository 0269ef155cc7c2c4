"""Scores of a classifier, from labels and probabilities. NumPy and scikit-learn; no TensorFlow."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics as scores

# A probability of exactly zero would make the whole loss infinite.
SMALLEST_PROBABILITY = 1e-12
CALIBRATION_BINS = 15
NO_SCORE = (-np.inf, -np.inf)  # of an epoch without validation


def classification_metrics(
    labels: Any, probabilities: Any, class_names: Sequence[str], weights: Any | None = None
) -> dict[str, Any]:
    """The scores of a classifier, as plain values that JSON can hold.

    `labels` (n,) whole numbers below `classes`; `probabilities` (n, classes), rows that sum to 1; `weights` (n,) at
    least 0: an example of weight 0 counts nowhere. All scores are from 0 to 1 but `loss`, in nats.

    Gives `examples`, `accuracy`, `top_k` and `top_k_accuracy` (5, or less than the number of classes), `loss` (mean
    negative log likelihood), `calibration_error` and its `reliability` bins, `per_class` (name, precision, recall, f1,
    support), their `macro` averages over the classes that occur or are answered, as scikit-learn has them, and
    `weighted` ones over the examples, and `confusion` (rows are the true classes); `roc_auc` and
    `average_precision` of the second of two classes, of more the mean of each against all others, over those that
    occur; None where only one does.

    Raises ValueError that names the shape, the label or the row that does not fit.
    """
    labels, probabilities, weights = _checked(labels, probabilities, class_names, weights)
    classes = len(class_names)
    predicted = probabilities.argmax(1)
    k = max(1, min(5, classes - 1))
    likelihood = probabilities[np.arange(len(labels)), labels]
    result: dict[str, Any] = {
        "examples": len(labels),
        "accuracy": _mean(predicted == labels, weights),
        "top_k": k,
        "top_k_accuracy": _mean(_ranks(labels, probabilities) < k, weights),
        "loss": _mean(-np.log(np.maximum(likelihood, SMALLEST_PROBABILITY)), weights),
        **_calibration(predicted == labels, probabilities.max(1), weights),
        **_per_class(labels, predicted, class_names, weights),
    }
    areas = []
    for place in [1] if classes == 2 else np.unique(labels):
        own = labels == place
        if 0 < own.sum() < len(own):
            arguments = {"y_true": own, "y_score": probabilities[:, place], "sample_weight": weights}
            areas.append([scores.roc_auc_score(**arguments), scores.average_precision_score(**arguments)])
    means: Any = np.mean(areas, 0).tolist() if areas else (None, None)
    result["roc_auc"], result["average_precision"] = means
    return result


def best_threshold(labels: Any, probabilities: Any) -> float:
    """From which probability of the second of two classes to decide for it, so that the mean F1 is highest.

    `labels` (n,) 0 or 1, `probabilities` (n, 2). Halfway between two neighbouring probabilities, 0 for always, or the
    next number above 1 for never; of equally good places the one nearest to 0.5, which is also the answer where only
    one class occurs.
    """
    labels, scores_of_one = np.asarray(labels), np.asarray(probabilities, np.float64)[:, 1]
    order = np.argsort(scores_of_one, kind="stable")
    sorted_labels, values = labels[order], scores_of_one[order]
    ones, zeros = sorted_labels.sum(), len(labels) - sorted_labels.sum()
    if not ones or not zeros:
        return 0.5
    # Below place k the answer is the first class.
    missed = np.concatenate([[0], np.cumsum(sorted_labels)])
    refused = np.arange(len(labels) + 1) - missed
    taken_wrongly = zeros - refused
    f1_of_zero = 2 * refused / (2 * refused + missed + taken_wrongly)
    f1_of_one = 2 * (ones - missed) / (2 * (ones - missed) + missed + taken_wrongly)
    places = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [np.nextafter(1.0, 2.0)]])
    f1 = f1_of_zero + f1_of_one
    f1[1:-1][values[1:] == values[:-1]] = -1  # equal probabilities cannot be told apart
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(places[best[np.argmin(np.abs(places[best] - 0.5))]])


def scores_at(threshold: float, labels: Any, probabilities: Any) -> dict[str, float]:
    """Accuracy, mean F1, and precision, recall and F1 of the second class, decided for from `threshold` on."""
    # In float32 the number above 1 would be 1, and a place between two neighbours one of them.
    labels, given = np.asarray(labels), np.asarray(probabilities, np.float64)[:, 1] >= threshold
    precision, recall, f1, _ = scores.precision_recall_fscore_support(labels, given, labels=[0, 1], zero_division=0)
    second = {"precision": float(precision[1]), "recall": float(recall[1]), "f1": float(f1[1])}
    mean = macro_f1(scores.confusion_matrix(labels, given, labels=[0, 1]))
    return {"threshold": threshold, "accuracy": float((given == labels).mean()), "macro_f1": mean, **second}


def bootstrap_interval(correct: Any, seed: int, samples: int = 10_000) -> tuple[float, float]:
    """The 95 % percentile interval of the accuracy, from `samples` resamplings of the test set.

    Where all are right, or all wrong, these are all alike: then Wilson's score interval (1927).

    `correct` (n,) says for every example whether its answer is right. Drawing n of n examples with replacement and
    counting the right ones is one binomial draw, so no resampled set is ever made. Efron & Tibshirani 1993, ch. 13.
    """
    correct = np.asarray(correct, bool)
    if not correct.size:
        raise ValueError("no examples: an interval needs at least one")
    n, z = correct.size, 1.96
    if correct.all():
        return n / (n + z**2), 1.0
    if not correct.any():
        return 0.0, z**2 / (n + z**2)
    draws = np.random.default_rng(seed).binomial(correct.size, correct.mean(), samples) / correct.size
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def macro_f1(confusion: Any) -> float:
    """The mean F1 of the classes that occur or are answered, from a confusion matrix (classes, classes); 0 of none.

    Its rows are the true ones, counts that were summed over batches and replicas; scikit-learn's function, which has
    the same mean, wants every label.
    """
    confusion = np.asarray(confusion, np.float64)
    both = confusion.sum(0) + confusion.sum(1)
    f1 = 2 * confusion.diagonal() / np.maximum(both, 1)
    return float(f1.sum() / max(np.count_nonzero(both), 1))


def epoch_score(row: Mapping[str, Any], monitor: str) -> tuple[float, float]:
    """How good an epoch of the log was, more is better: the monitored value, and the loss where that is equal.

    One of which either is no number, as of weights too large for half precision, was not scored.
    """
    if "val_loss" not in row or monitor not in row:
        return NO_SCORE
    value, loss = float(row[monitor]), float(row["val_loss"])
    if math.isnan(value) or math.isnan(loss):
        return NO_SCORE
    return -value if monitor == "val_loss" else value, -loss


def occurring(per_class: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of the classes that have an example, or were an answer that was right: an F1 of others says nothing."""
    return [row for row in per_class if row["support"] or row["f1"]]


def had_enough(history: Sequence[Mapping[str, Any]], monitor: str, patience: int | None) -> bool:
    """Whether the last `patience` epochs of the log that were scored brought nothing better; BLEU is not always."""
    scores = [score for score in (epoch_score(row, monitor) for row in history) if score > NO_SCORE]
    return bool(patience and scores and len(scores) - 1 - scores.index(max(scores)) >= patience)


def worst_mistakes(labels: Any, probabilities: Any, count: int) -> np.ndarray:
    """The indices (at most `count`,) of wrong answers, the surest one first."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count]


def _checked(labels: Any, probabilities: Any, class_names: Sequence[str], weights: Any | None) -> tuple[Any, Any, Any]:
    """Arrays of the examples that count: int64 labels, float64 probabilities and weights."""
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities, np.float64)
    weights = np.ones(labels.shape) if weights is None else np.asarray(weights, np.float64)
    expected = (len(labels), len(class_names))
    if labels.ndim != 1 or probabilities.shape != expected or weights.shape != labels.shape:
        raise ValueError(
            f"labels {labels.shape}, probabilities {probabilities.shape} and weights {weights.shape} do not fit "
            f"{len(class_names)} classes: (n,), (n, {len(class_names)}) and (n,) do"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("weights: a negative or not finite one; at least 0")
    counted = weights > 0
    labels, probabilities, weights = labels[counted].astype(np.int64), probabilities[counted], weights[counted]
    if not len(labels):
        raise ValueError("no examples: scores need at least one of a weight above 0")
    outside = labels[(labels < 0) | (labels >= len(class_names))]
    if len(outside):
        raise ValueError(f"label {outside[0]}: from 0 to {len(class_names) - 1}")
    off = ~np.isclose(probabilities.sum(1), 1, atol=1e-2) | (probabilities < 0).any(1)
    if off.any():
        row = int(off.argmax())
        raise ValueError(f"row {row} of the probabilities is not a distribution: it sums to {probabilities[row].sum()}")
    return labels, probabilities, weights


def _mean(values: Any, weights: np.ndarray) -> float:
    return float(np.average(np.asarray(values, np.float64), weights=weights))


def _ranks(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How many classes stand before the true one; among equals the first stands before, as in argmax."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    return ((probabilities > own) | ((probabilities == own) & before)).sum(1)


def _calibration(correct: np.ndarray, confidence: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Expected calibration error over 15 equal bins of confidence: Guo et al. 2017, section 2."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    reliability, error = [], 0.0
    for number in range(CALIBRATION_BINS):
        inside = bins == number
        row: dict[str, Any] = {
            "low": number / CALIBRATION_BINS,
            "high": (number + 1) / CALIBRATION_BINS,
            "examples": int(inside.sum()),
            "confidence": None,
            "accuracy": None,
        }
        if inside.any():
            row["confidence"] = _mean(confidence[inside], weights[inside])
            row["accuracy"] = _mean(correct[inside], weights[inside])
            share = float(weights[inside].sum() / weights.sum())
            error += share * abs(row["confidence"] - row["accuracy"])
        reliability.append(row)
    return {"calibration_error": error, "reliability": reliability}


def _per_class(
    labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], weights: np.ndarray
) -> dict[str, Any]:
    numbers = range(len(class_names))
    options = {"labels": numbers, "sample_weight": weights, "zero_division": 0}
    columns = np.stack(scores.precision_recall_fscore_support(labels, predicted, **options)[:3], 1)
    support = np.bincount(labels, minlength=len(class_names))
    share = np.bincount(labels, weights, minlength=len(class_names)) / weights.sum()
    confusion = scores.confusion_matrix(labels, predicted, labels=numbers)
    seen = confusion.sum(0) + confusion.sum(1) > 0  # of others there is nothing to be right or wrong about
    keys = ("precision", "recall", "f1")
    return {
        "per_class": [
            {"name": str(name), **dict(zip(keys, map(float, row), strict=True)), "support": int(number)}
            for name, row, number in zip(class_names, columns, support, strict=True)
        ],
        "macro": dict(zip(keys, map(float, columns[seen].mean(0)), strict=True)),
        "weighted": dict(zip(keys, map(float, share @ columns), strict=True)),
        "confusion": confusion.tolist(),
    }
