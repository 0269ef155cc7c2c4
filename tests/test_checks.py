"""What workers compare before they train: their recipe and their data."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bigkeras.checks import (
    check_alike,
    check_apart,
    check_data,
    check_kept,
    check_left,
    check_prepared,
    check_recipe,
    known_before,
)  # fmt: skip
from bigkeras.data.arrays import digits
from bigkeras.data.fingerprint import fingerprints
from bigkeras.data.source import ArraySource, DataError, FileSource, Splits
from bigkeras.recipe import Choice, RecipeError
from bigkeras.recipes import RECIPES
from bigkeras.run import RunError, write_bytes
from bigkeras.workers import Workers


class Group:
    """Workers that are threads of this process; their collective operation is a sum that all wait for."""

    def __init__(self, count: int):
        self.numbers: list = [None] * count
        self.barrier = threading.Barrier(count, timeout=30)

    def worker(self, index: int) -> Workers:
        made = Workers.__new__(Workers)
        spec = SimpleNamespace(as_dict=lambda: {"worker": [f"host{i}:1" for i in range(len(self.numbers))]})
        resolver = SimpleNamespace(cluster_spec=lambda: spec)
        made.count, made.index, made.strategy = len(self.numbers), index, SimpleNamespace(cluster_resolver=resolver)
        made._sum = lambda numbers: self.sum(index, numbers)
        return made

    def sum(self, index: int, numbers: np.ndarray) -> np.ndarray:
        self.numbers[index] = numbers
        self.barrier.wait()
        total = np.sum(self.numbers, axis=0)
        self.barrier.wait()
        return total


def outcomes(check, *arguments: tuple) -> list[str]:
    """What `check(worker, *arguments of that worker)` raises on each worker, as text; "" for nothing."""
    group = Group(len(arguments))

    def one(index: int) -> str:
        try:
            check(group.worker(index), *arguments[index])
        except (DataError, RecipeError) as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(arguments)) as threads:
        return list(threads.map(one, range(len(arguments))))


RECIPE = RECIPES["digits"]


def pictures(*names: str, folder: str = "/data") -> FileSource:
    return FileSource([f"{folder}/cat/{name}" for name in names], [0] * len(names))


def of(train, validation=None) -> Splits:
    return Splits(train, validation, None, ("cat",))


def test_workers_with_one_recipe_and_the_same_data_elsewhere_are_alike():
    found = [fingerprints(of(pictures("1.png", "2.png", folder=folder))) for folder in ("/data", "/mnt/copy")]
    assert outcomes(check_alike, (RECIPE, found[0]), (RECIPE, found[1])) == ["", ""]


def test_workers_whose_data_and_words_lie_in_other_folders_are_alike():
    settings = {"data": "text_table", "data.file": "/data/r.csv", "task": "text_classification"}
    recipe = RECIPE.override(**settings, **{"task.vocabulary": "/data/words.txt"})
    other = recipe.override(**{"data.file": "/mnt/r.csv", "task.vocabulary": "/mnt/words.txt"})
    found = fingerprints(digits())
    assert outcomes(check_alike, (recipe, found), (other, found)) == ["", ""]
    assert all(outcomes(check_alike, (recipe, found), (other.override(**{"task.vocabulary": "/mnt/b.txt"}), found)))


def test_a_worker_with_another_recipe_is_named_on_all():
    found = fingerprints(digits())
    others = outcomes(check_alike, (RECIPE, found), (RECIPE, found), (RECIPE.override(epochs=1), found))
    assert others == ["worker 2 (host2:1) has another recipe than the chief"] * 3


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_worker_with_other_examples_of_the_same_labels_is_named_on_all(part):
    mine = digits()
    source = getattr(mine, part)
    changed = ArraySource({"image": source.columns["image"] // 2}, source.labels)
    found = [fingerprints(splits) for splits in (mine, replace(mine, **{part: changed}))]
    count = f"{len(source):,}"
    told = f"worker 1 (host1:1) has other data than the chief ({part}: {count} examples, and the chief others)"
    assert outcomes(check_alike, (RECIPE, found[0]), (RECIPE, found[1])) == [told] * 2


def test_a_worker_that_cannot_read_a_picture_is_named_on_all():
    whole, less, other = (of(pictures(*names)) for names in (("1.png", "2.png"), ("1.png",), ("1.png", "3.png")))
    told = "worker 1 (host1:1) has other data than the chief (train: 1 examples, and the chief 2)"
    assert outcomes(check_left, (whole,), (less,)) == [told] * 2
    assert "examples, and the chief others" in outcomes(check_left, (whole,), (other,))[0]
    assert outcomes(check_left, (whole,), (of(pictures("1.png", "2.png", folder="/mnt")),)) == ["", ""]


def test_of_what_was_decoded_the_names_count_and_not_the_pixels():
    def decoded(value: int) -> Splits:
        return of(ArraySource({"image": np.full((1, 2, 2, 1), value, np.uint8)}, [0], ["/data/cat/1.png"]))

    assert outcomes(check_left, (decoded(7),), (decoded(8),)) == ["", ""]


def test_a_worker_that_starts_from_another_run_is_named_on_all():
    def prepared(words: bytes, mean: float, example: bytes = b"") -> SimpleNamespace:
        values = {"vocabulary.txt": words, "preprocessor.json": json.dumps({"mean": mean}).encode()}
        return SimpleNamespace(files=lambda splits: {**values, "examples/0.png": example})

    mine = prepared(b"a b", 0.5)
    assert outcomes(check_prepared, (mine, None), (prepared(b"a b", 0.5000001, b"other"), None)) == ["", ""]
    for other, name in ((prepared(b"a c", 0.5), "vocabulary.txt"), (prepared(b"a b", 0.4), "preprocessor.json")):
        told = f"worker 1 (host1:1) has another {name} than the chief: what does it start from?"
        assert outcomes(check_prepared, (mine, None), (other, None)) == [told] * 2


def test_a_run_goes_on_with_what_its_teacher_answered(tmp_path):
    recipe, found = RECIPE.override(teacher="runs/teacher"), fingerprints(digits())
    check_data(tmp_path, recipe, found)
    (tmp_path / "best.keras").touch()
    check_data(tmp_path, recipe, found)
    with pytest.raises(RunError, match=r"its data has changed since it began \(taught: "):
        check_data(tmp_path, recipe, {**found, "train": {"examples": 3, "sha256": "other"}})


@pytest.fixture
def earlier(tmp_path):
    """The directory of a run on `RECIPE`'s data, and what `fingerprints` gives of it."""
    found = fingerprints(digits())
    (tmp_path / "data.json").write_text(json.dumps(found))
    (tmp_path / "recipe.json").write_text(RECIPE.to_json())
    return tmp_path, found


def test_a_run_that_starts_from_one_that_knows_its_held_out_examples_says_so(earlier):
    directory, found = earlier
    recipe = RECIPE.override(start_from=str(directory))
    assert known_before(recipe, found) == []
    parted = fingerprints(digits(seed=1))
    (line,) = known_before(recipe, parted)
    assert line.startswith(f"start_from={directory}: learned from this data, parted otherwise")
    assert "validation and test split" in line
    (directory / "best.keras").touch()
    assert len(known_before(recipe.override(start_from=str(directory / "best.keras")), parted)) == 1
    assert known_before(recipe.override(data=Choice("digits", {"directory": "elsewhere"})), parted) == []
    # Another language of one data set, say, is other data, not other parts.
    elsewhere = RECIPE.override(data=Choice("tatoeba", {"target_language": "zh"}), start_from=str(directory))
    (directory / "recipe.json").write_text(RECIPE.override(data=Choice("tatoeba", {"target_language": "de"})).to_json())
    assert known_before(elsewhere, parted) == []
    (directory / "recipe.json").write_text(RECIPE.override(learn_validation=True).to_json())
    (line,) = known_before(recipe, found)
    assert "the validation split" in line
    (directory / "log.csv").write_text("epoch,loss\n1,2.0\n")
    stopped, _ = known_before(recipe, found)
    assert stopped.startswith(f"start_from: {directory}: not complete: 1 of {RECIPE.epochs} epochs")
    (directory / "log.csv").unlink()
    # A shipped model may not say what it has learned.
    (directory / "data.json").unlink()
    assert known_before(recipe, found) == []
    (line,) = known_before(recipe.override(**{"data.validation": 0.3}), found)
    assert line.startswith(f"start_from={directory}: learned from this data, which was perhaps parted otherwise")


def test_a_run_does_not_lie_in_the_texts_that_it_learns_from(tmp_path):
    recipe = RECIPES["pretrain-text"].override(data=Choice("plain_text", {"file": str(tmp_path)}))
    with pytest.raises(RecipeError, match="whose text files it learns from: take another --run-dir"):
        check_apart(recipe, tmp_path / "runs" / "pretrain-text")
    check_apart(recipe, tmp_path.parent / "runs")


@pytest.mark.parametrize("setting", [{"teacher_sure": 0.99}, {"score_every": 5}])
def test_what_nothing_would_heed_is_refused(setting):
    with pytest.raises(RecipeError, match=f"{next(iter(setting))}="):
        check_recipe(RECIPE.override(**setting))


def test_a_run_goes_on_with_the_vocabulary_that_it_began_with(tmp_path):
    files = {
        "preprocessor.json": b'{"mean": [0.13066], "length": 8}',
        "vocabulary.txt": b"a\nb\n",
        "examples/0.png": b"x",
    }
    for name, data in files.items():
        write_bytes(tmp_path / name, data)
    other = {**files, "vocabulary.txt": b"b\na\n"}
    check_kept(tmp_path, other)  # nothing is learned yet
    (tmp_path / "best.keras").touch()
    check_kept(tmp_path, {**files, "examples/0.png": b"y"})
    check_kept(tmp_path, {**files, "preprocessor.json": b'{"mean": [0.13067], "length": 8, "new": 1}'})
    for wrong in (other, {**files, "preprocessor.json": b'{"mean": [0.3], "length": 8}'}):
        with pytest.raises(RunError, match="would be another one now"):
            check_kept(tmp_path, wrong)


def test_a_run_that_folded_its_word_pieces_does_not_go_on_without(tmp_path):
    (tmp_path / "best.keras").touch()  # it has learned
    (tmp_path / "preprocessor.json").write_text('{"lower": true}')  # of before, which says nothing of it
    check_kept(tmp_path, {"preprocessor.json": b'{"lower": true, "folded": true}'})
    with pytest.raises(RunError, match=r"its preprocessor\.json would be another one now"):
        check_kept(tmp_path, {"preprocessor.json": b'{"lower": true, "folded": false}'})
