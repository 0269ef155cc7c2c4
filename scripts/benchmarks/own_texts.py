"""Own texts beside the usual baseline, TF-IDF and a linear SVM, on one split: ./scripts/benchmark own-texts."""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import cores, environment, new_file, tell
from benchmarks.interleave import ROOT
from bigkeras.data.source import DataError
from bigkeras.recipe import RecipeError, parse_setting

OURS, BASELINE = "bigkeras train text-csv", "TF-IDF, linear SVM"
# What cross-validation chooses from: n-grams of words, of characters, or of both, and how much a mistake costs.
NGRAMS = {
    "words 1–2": (("word", (1, 2)),),
    "words 1–3": (("word", (1, 3)),),
    "characters 1–3": (("char", (1, 3)),),
    "characters 2–5": (("char", (2, 5)),),
    "words 1–2 and characters 2–5": (("word", (1, 2)), ("char", (2, 5))),
}
COSTS = (0.1, 0.3, 1.0, 3.0)
FOLDS = 5
# Published reviews as a table such as people have: data set, rows, delimiter, encoding; and how it is parted.
SAMPLES = {
    "imdb-endings": ("imdb_reviews", 9000, ",", "utf-8"),
    "waimai": ("waimai", 8596, ";", "gb18030"),
    "sst2": ("sst2", 6917, "\t", "utf-8"),
}
PARTED = {
    "imdb-endings": ("data.test=0.55556", "data.seed=1"),
    "waimai": ("data.test=0.41834", "data.seed=1"),
    "sst2": ("data.test=0.42", "data.seed=1"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains both, prints a table and writes JSON; gives 1 where the data or our training fails."""
    options = parse(arguments)
    machine = environment(cores(), ("tensorflow", "keras", "scikit-learn"))
    with tempfile.TemporaryDirectory() as folder:
        try:
            if options.sample:
                options.data = sample(options.sample, Path(folder))
                options.set = [*PARTED[options.sample], *options.set]
            parts = split(options.data, options.set)
            found = {BASELINE: baseline(*parts["train"], *parts["test"], Path(folder))}
            found[OURS] = ours(options, Path(folder))
        except (DataError, RecipeError) as error:
            print(error, file=sys.stderr)
            return 1
        except ValueError as error:  # of scikit-learn, where a class has too few rows, say
            print(f"{options.data}: {str(error).splitlines()[0]}", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as error:
            print((error.stderr.strip().splitlines() or [str(error)])[-1], file=sys.stderr)
            return 1
    rows = {part: len(labels) for part, (_, labels) in parts.items()}
    report = {"environment": machine, "data": options.data, "rows": rows, "contenders": found}
    tell(markdown(report), report, options.json)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options. Leaves with exit status 2 for one that is not there."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark own-texts", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", metavar="FILE", help="CSV, TSV or JSON lines of text and label")
    where.add_argument("--sample", choices=SAMPLES, help="a table made of published reviews, most of it for testing")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of train: another recipe")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="where to write what was measured")
    return parser.parse_args(arguments)


def sample(name: str, folder: Path) -> str:
    """A table of the published reviews for training, or some, always the same; of IMDb's the last three sentences.

    Of the data sets' own test parts nothing is in it. Raises DataError where they are not here.
    """
    from bigkeras.data import DATASETS

    data, rows, delimiter, encoding = SAMPLES[name]
    parts = {"waimai": {"validation": 0.0, "test": 0.0}, "imdb_reviews": {"validation": 0.0}}
    splits = DATASETS[data](**parts.get(data, {}))
    chosen = np.random.default_rng(0).permutation(len(splits.train))[:rows]
    path = folder / f"{name}.csv"
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["review", "label"])
        for place in chosen.tolist():
            text = splits.train.columns["text"][place].decode()
            if name == "imdb-endings":
                text = " ".join(re.split(r"(?<=[.!?])\s+", text.replace("<br />", " ").strip())[-3:])
            writer.writerow([text, splits.class_names[splits.train.labels[place]]])
    return str(path)


def split(file: str, settings: Sequence[str]) -> dict[str, tuple[list[str], np.ndarray]]:
    """Texts and labels as the recipe parts them; "train" has those of validation, too. Raises DataError."""
    from bigkeras.recipe_data import load_splits
    from bigkeras.recipes import RECIPES

    splits = load_splits(RECIPES["text-csv"].override(**{**dict(map(parse_setting, settings)), "data.file": file}))
    if splits.test is None:
        raise DataError(f"{file}: no test split to score on")
    parts = {"train": [splits.train, splits.validation], "test": [splits.test]}
    found = {}
    for name, sources in parts.items():
        there = [source for source in sources if source is not None]
        texts = [text.decode() for source in there for text in source.columns["text"]]
        found[name] = (texts, np.concatenate([source.labels for source in there]))
    return found


def baseline(
    texts: list[str], labels: np.ndarray, test_texts: list[str], test_labels: np.ndarray, folder: Path
) -> dict[str, Any]:
    """Scikit-learn's, with n-grams and cost by cross-validation on all rows that are not for testing."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import FeatureUnion, Pipeline
    from sklearn.svm import LinearSVC

    from bigkeras.metrics import bootstrap_interval

    begin = time.perf_counter()
    vectors = {
        name: FeatureUnion(
            [
                (kind, TfidfVectorizer(analyzer=kind, ngram_range=sizes, sublinear_tf=True, min_df=2))
                for kind, sizes in parts
            ]
        )
        for name, parts in NGRAMS.items()
    }
    # The memory: n-grams are counted once for each fold, not for each cost again.
    steps = [("ngrams", vectors["words 1–2"]), ("svm", LinearSVC(random_state=0))]
    pipeline = Pipeline(steps, memory=str(folder / "counted"))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    grid = {"ngrams": list(vectors.values()), "svm__C": COSTS}
    search = GridSearchCV(pipeline, grid, cv=folds, n_jobs=cores()).fit(texts, labels)
    seconds = time.perf_counter() - begin
    right = search.predict(test_texts) == test_labels
    best = search.best_params_
    chosen = next(name for name, ngrams in vectors.items() if ngrams is best["ngrams"])
    return {
        "seconds": seconds,
        "accuracy": float(right.mean()),
        "accuracy_95": bootstrap_interval(right, seed=0),
        "chosen": f"{chosen}, C {best['svm__C']:g}",
    }


def ours(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The command line's training, timed from its start to its end, and its test score. Raises CalledProcessError."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    settings = [part for setting in options.set for part in ("--set", setting)]

    def command(*words: str) -> None:
        # In the folder of whoever calls, which the data's path may begin from.
        subprocess.run([sys.executable, "-m", "bigkeras", *words], env=environment, check=True,
                       capture_output=True, text=True)  # fmt: skip

    run = folder / "run"
    begin = time.perf_counter()
    command("train", "text-csv", "--data", options.data, "--run-dir", str(run), *settings)
    seconds = time.perf_counter() - begin
    command("evaluate", str(run))
    test = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    return {
        "seconds": seconds,
        "accuracy": test["accuracy"],
        "accuracy_95": test["accuracy_95"],
        "chosen": f"{recipe['name']}: {recipe['model']['name']}",
    }


def markdown(report: Mapping[str, Any]) -> list[str]:
    """The table, a row for each of both, and what it was measured on."""
    machine, rows = report["environment"], report["rows"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores; {machine['date']}; load before {machine['load']}; "
        + ", ".join(f"{k} {v}" for k, v in machine["packages"].items()),
        "",
        f"{Path(report['data']).name}: {rows['train']:,} texts to train and to choose on, {rows['test']:,} to test on.",
        "",
        "| | seconds | test accuracy (95 %) | chosen |",
        "|---|---:|---:|---|",
    ]
    for name, of in report["contenders"].items():
        low, high = of["accuracy_95"]
        lines.append(
            f"| {name} | {of['seconds']:.0f} | {of['accuracy']:.2%} ({low:.2%} to {high:.2%}) | {of['chosen']} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
