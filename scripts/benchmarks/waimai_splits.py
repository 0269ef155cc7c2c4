"""Recipes for waimai beside TF-IDF and a linear SVM, on three splits by seed: ./scripts/benchmark waimai-splits.

The SVM has one to three characters; its cost, and whether counts are sublinear, are those that are best on validation.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import cores, environment, new_file, tell
from benchmarks.interleave import ROOT
from bigkeras.data import DATASETS
from bigkeras.data.source import DataError, Splits

SVM = "TF-IDF of 1–3 characters, linear SVM"
RECIPES = ("waimai-nb-cnn", "waimai-characters")
COSTS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains all on each split and prints a table; gives 1 where the data is not here or a training fails."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark waimai-splits", description=__doc__)
    parser.add_argument("--recipes", default=",".join(RECIPES), help="names of recipes, parted by commas")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], help="those of the splits (0,1,2)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write what was measured")
    options = parser.parse_args(arguments)
    machine = environment(cores(), ("tensorflow", "keras", "scikit-learn"))
    found: dict[str, list[dict[str, float]]] = {}
    try:
        for seed in options.seeds:
            found.setdefault(SVM, []).append(baseline(DATASETS["waimai"](seed=seed)))
            for recipe in options.recipes.split(","):
                found.setdefault(recipe, []).append(ours(recipe, seed))
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print((error.stderr.strip().splitlines() or [str(error)])[-1], file=sys.stderr)
        return 1
    tell(markdown(found), {"environment": machine, "seeds": options.seeds, "contenders": found}, options.json)
    return 0


def numbers(text: str) -> list[int]:
    """0,1,2 as numbers. Raises ValueError."""
    return [int(word) for word in text.split(",")]


def baseline(splits: Splits) -> dict[str, float]:
    """Test accuracy and F1 of the rarer class, of the SVM that is best on validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    parts = [splits.train, splits.validation, splits.test]
    texts = [[text.decode() for text in part.columns["text"]] for part in parts]  # type: ignore[union-attr]
    labels = [np.asarray(part.labels) for part in parts]  # type: ignore[union-attr]
    best: tuple[float, Any, Any] = (-1.0, None, None)
    for sublinear, cost in itertools.product((False, True), COSTS):
        counted = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=sublinear, min_df=2)
        svm = LinearSVC(C=cost, random_state=0).fit(counted.fit_transform(texts[0]), labels[0])
        right = float((svm.predict(counted.transform(texts[1])) == labels[1]).mean())
        best = max(best, (right, counted, svm), key=lambda one: one[0])
    answers = best[2].predict(best[1].transform(texts[2]))
    return {"accuracy": float((answers == labels[2]).mean()), "rare_f1": rare_f1(labels[2], answers)}


def rare_f1(labels: np.ndarray, answers: np.ndarray) -> float:
    """F1 of the class that fewer examples have."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, answers, pos_label=int(np.argmin(np.bincount(labels)))))


def ours(recipe: str, seed: int) -> dict[str, float]:
    """The same of a recipe, by the command line. Raises CalledProcessError."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        for words in (["train", recipe, "--run-dir", run, "--set", f"data.seed={seed}"], ["evaluate", run]):
            command = [sys.executable, "-m", "bigkeras", *words]
            subprocess.run(command, env=settings, check=True, capture_output=True, text=True)
        test = json.loads(Path(run, "metrics.json").read_text(encoding="utf-8"))["test"]
    rarest = min(test["per_class"], key=lambda row: row["support"])
    return {"accuracy": test["accuracy"], "rare_f1": rarest["f1"]}


def markdown(found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """A row for each contender: accuracy of each split and their mean, F1 of the rarer class likewise."""
    lines = ["| | test accuracy | mean | F1 of the rarer class | mean |", "|---|---|---:|---|---:|"]
    for name, rows in found.items():
        shares, scores = ([row[key] for row in rows] for key in ("accuracy", "rare_f1"))
        told = ", ".join(f"{share:.2%}" for share in shares), ", ".join(f"{score:.3f}" for score in scores)
        lines.append(f"| {name} | {told[0]} | {np.mean(shares):.2%} | {told[1]} | {np.mean(scores):.3f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
