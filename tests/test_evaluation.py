"""Answers averaged over changed pictures, and labels of data that names its classes in another order."""

import fcntl
import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from bigkeras import evaluation
from bigkeras.data.source import ArraySource, DataError, FileSource, Splits, joined
from bigkeras.evaluation import is_artifact
from bigkeras.predictions import AVERAGES, predict_source
from bigkeras.recipe import RecipeError
from bigkeras.recipe_data import recipe_splits
from bigkeras.recipes import RECIPES
from bigkeras.run import RunError, saved_version, write_json
from bigkeras.scored_data import asked_recipe, numbered, with_columns
from bigkeras.tasks.classification import ImageClassification
from bigkeras.tasks.images import ImagePreprocessor


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("flips", {(2, 2): 1 / 2, (2, 3): 1 / 2}),
        ("shifts", {(2, 2): 1 / 2, (3, 3): 1 / 4, (1, 1): 1 / 4}),
        ("flips-shifts", {(2, 2): 1 / 4, (2, 3): 1 / 4, (3, 3): 1 / 8, (3, 2): 1 / 8, (1, 1): 1 / 8, (1, 4): 1 / 8}),
    ],
)
def test_one_bright_pixel_is_seen_where_the_changes_bring_it(name, weights):
    pixels = np.zeros((1, 6, 6, 1), "float32")
    pixels[0, 2, 2] = 1
    seen = AVERAGES[name](tf.identity)(tf.constant(pixels)).numpy()[0, ..., 0]
    assert {tuple(map(int, place)): seen[tuple(place)] for place in np.argwhere(seen)} == pytest.approx(weights)


def test_labels_of_other_data_are_those_of_the_models_classes():
    source = ArraySource({"text": np.zeros(3)}, [1, 0, 1], ["a", "b", "c"])
    assert numbered(source, ("bad", "good"), ("awful", "bad", "good")).labels.tolist() == [2, 1, 2]
    assert source.labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="a: class 'good' is none of the model's, 'bad', 'Great': 2 of 3 examples"):
        numbered(source, ("bad", "good"), ("bad", "Great"))


def test_another_table_is_read_by_the_columns_that_a_run_has_learned(tmp_path):
    rows = "".join(f"{'A very long title of a review ' * 3};{word} {i};{i % 2}\n" for i, word in enumerate(["ok"] * 40))
    (tmp_path / "new.csv").write_text("Titel;Kommentar;Note\n" + rows, encoding="utf-8")
    asked = RECIPES["text-csv"].override(**{"data.file": str(tmp_path / "new.csv")})
    assert with_columns(asked, tmp_path) == asked  # of a run that did not note them
    write_json(tmp_path / "data.json", {"train": {}, "columns": ["Kommentar", "Note"]})
    found = with_columns(asked, tmp_path)
    assert recipe_splits(found).columns == ("Kommentar", "Note") != recipe_splits(asked).columns
    # What is said goes before, and takes nothing from the other.
    for said, columns in (({"data.label": "Note"}, ("Kommentar", "Note")), ({"data.text": "Titel"}, ("Titel", "Note"))):
        assert recipe_splits(with_columns(asked.override(**said), tmp_path)).columns == columns
    both = asked.override(**{"data.text": "Titel", "data.label": "Note"})
    assert with_columns(both, tmp_path) == both


def test_a_header_that_a_run_has_learned_is_known_in_a_small_table(tmp_path):
    names = ["Was hat Ihnen an Ihrem Aufenthalt gefallen?", "Gesamturteil"]
    rows = ["Das Frühstück war sehr gut und reichlich.;zufrieden", "Nichts, das Zimmer war laut.;unzufrieden",
            "Die Lage, direkt am See.;zufrieden"]  # fmt: skip
    (tmp_path / "new.csv").write_text("\n".join([";".join(names), *rows, ""]), encoding="utf-8")
    write_json(tmp_path / "data.json", {"train": {}, "columns": names})
    asked = RECIPES["text-csv"].override(**{"data.file": str(tmp_path / "new.csv"), "data.test": 0.0})
    splits = recipe_splits(with_columns(asked, tmp_path))
    assert splits.class_names == ("unzufrieden", "zufrieden") and splits.columns == tuple(names)


def test_of_another_table_the_runs_column_of_parts_is_not_asked_for_where_all_is_scored():
    run = RECIPES["text-csv"].override(**{"data.file": "old.csv", "data.split": "part", "data.encoding": "utf-8"})
    assert "split" not in asked_recipe(run, "new.csv", {}, "all").data.args
    none = run.override(**{"data.split": None})
    assert asked_recipe(none, "new.csv", {}, "all").data.args["split"] is None
    assert asked_recipe(run, "new.csv", {}, "test").data.args["split"] == "part"
    assert asked_recipe(run, "new.csv", {"data.split": "which"}, "all").data.args["split"] == "which"
    with pytest.raises(RecipeError, match=r"data\.file=2024: text"):
        asked_recipe(run, None, {"data.file": 2024}, "all")


def test_another_table_may_write_whole_numbers_with_a_point():
    source = ArraySource({"text": np.zeros(3)}, [0, 1, 0], ["a", "b", "c"])
    assert numbered(source, ("0.0", "1.0"), ("0", "1", "1.50")).labels.tolist() == [0, 1, 0]
    assert numbered(source, ("True", "false"), ("false", "true")).labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="class 'yes' is none of the model's"):
        numbered(source, ("yes", "no"), ("Yes", "YES"))
    with pytest.raises(DataError, match=r"class '1\.5' is none of the model's"):
        numbered(source, ("0", "1.5"), ("0", "1", "1.50"))


def test_pictures_of_which_none_can_be_read_are_one_line(tmp_path):
    (tmp_path / "a.png").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    source = FileSource([str(tmp_path / "a.png")], [0])
    task = ImageClassification(ImagePreprocessor(height=4, width=4, channels=1), ("a", "b"), ())
    with pytest.raises(DataError, match=r"none of 1 examples can be read; the first, .*a\.png: "):
        predict_source(lambda x: np.full((len(x), 2), 0.5), source, task)


def test_answers_that_are_no_numbers_are_one_line():
    source = ArraySource({"image": np.zeros((3, 4, 4, 1), np.uint8)}, [0, 1, 0], "pictures")
    task = ImageClassification(ImagePreprocessor(height=4, width=4, channels=1), ("a", "b"), ())
    with pytest.raises(RunError, match=r"answers to 3 of 3 examples, such as pictures\[0\] are no numbers"):
        predict_source(lambda x: np.full((len(x), 2), np.nan), source, task)


def test_all_of_a_data_set_are_its_parts_one_after_the_other():
    arrays = [ArraySource({"x": np.full((n, 2), n)}, [n] * n, f"part{n}") for n in (3, 1, 2)]
    whole = joined(Splits(arrays[0], arrays[1], arrays[2], ("a",)))
    assert whole.labels.tolist() == [3, 3, 3, 1, 2, 2]
    assert whole.columns["x"][:, 0].tolist() == [3, 3, 3, 1, 2, 2]
    assert [whole.name(i) for i in (0, 3, 5)] == ["part3[0]", "part1[0]", "part2[1]"]

    files = [FileSource(names, [0] * len(names)) for names in (["a", "b"], ["c"])]
    assert joined(Splits(files[0], None, files[1], ("a",))).paths.tolist() == [b"a", b"b", b"c"]
    assert joined(Splits(files[0], None, None, ("a",))) is files[0]
    with pytest.raises(DataError, match="name one of train, validation and test"):
        joined(Splits(files[0], None, arrays[0], ("a",)))


def test_the_highest_version_that_holds_a_model_is_taken(tmp_path):
    assert saved_version(tmp_path / "none") is None and not is_artifact(tmp_path)
    for name in ("1", "9", "10", "old.11", "²"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "2024").mkdir()
    assert saved_version(tmp_path) == tmp_path / "10" and is_artifact(tmp_path)


def test_two_that_score_one_run_do_not_lose_each_others_scores(tmp_path, monkeypatch):
    """From the reading of metrics.json to the writing of it nobody else may write there."""
    (tmp_path / "log.csv").write_text("epoch,loss\n1,0.5\n")
    reports = []

    def write_report(directory, metrics, **_):
        with pytest.raises(BlockingIOError), open(directory / ".scores.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        reports.append(list(metrics))

    monkeypatch.setattr(evaluation, "write_report", write_report)
    for split in ("validation", "test"):
        evaluation._merge(tmp_path, None, {split: {"accuracy": 1}}, None, SimpleNamespace(kind="image"))
    assert list(json.loads((tmp_path / "metrics.json").read_text())) == reports[1] == ["validation", "test"]
