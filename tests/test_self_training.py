"""Self-training: which unlabelled examples become training examples, and with which labels."""

from dataclasses import replace

import numpy as np
import pytest

import bigkeras
from bigkeras import self_training
from bigkeras.data.reviews import text_array
from bigkeras.data.source import ArraySource
from bigkeras.recipe import RecipeError
from bigkeras.recipe_data import load_splits
from bigkeras.self_training import taught

UNLABELLED = [b"good good good", b"bad bad bad", b"neither"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run that knows good from bad, its recipe and its splits with unlabelled texts."""
    folder = tmp_path_factory.mktemp("teacher")
    rows = [f"{word} {i},{word}" for i in range(20) for word in ("good", "bad")]
    (folder / "table.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    recipe = bigkeras.RECIPES["text-csv"].override(
        data__file=str(folder / "table.csv"), model=bigkeras.Choice("nb_ngrams"), epochs=8, batch_size=8,
        optimizer=bigkeras.Choice("adam", {"learning_rate": 0.1}),
    )  # fmt: skip
    bigkeras.fit(recipe, folder / "run")
    unlabelled = ArraySource({"text": text_array(UNLABELLED)}, np.zeros(3, np.int32), "unlabelled")
    splits = replace(load_splits(recipe), unlabelled=unlabelled)
    return recipe.override(teacher=str(folder / "run"), teacher_sure=0.9), splits


def test_what_the_teacher_is_sure_of_is_learned_as_it_answers(teacher):
    recipe, splits = teacher
    more = taught(recipe, splits)
    added = more.train.take(range(len(splits.train), len(more.train)))
    names = [splits.class_names[label] for label in added.labels]
    assert dict(zip(added.columns["text"].tolist(), names, strict=True)) == {
        UNLABELLED[0]: "good",
        UNLABELLED[1]: "bad",
    }
    assert "2 of 3 unlabelled" in more.found
    assert more.validation is splits.validation and more.labelled is splits.train


def test_a_run_goes_on_with_the_answers_that_it_began_with(teacher, tmp_path):
    recipe, splits = teacher
    first = taught(recipe, splits, tmp_path)
    (tmp_path / "best.keras").touch()  # it has learned
    again = taught(recipe.override(teacher="moved", teacher_sure=0.99999), splits, tmp_path)
    assert again.train.labels.tolist() == first.train.labels.tolist() and len(again.train) == len(splits.train) + 2
    other = replace(splits, unlabelled=splits.unlabelled.take([0, 2]))
    assert len(taught(recipe, other, tmp_path).train) == len(splits.train) + 1
    assert len(taught(recipe, splits, tmp_path).train) == len(first.train)


def test_answers_of_a_run_that_ended_before_its_first_checkpoint_are_not_asked_for_again(
    teacher, tmp_path, monkeypatch
):
    recipe, splits = teacher
    first, answers = taught(recipe, splits, tmp_path), self_training._answers
    monkeypatch.setattr(self_training, "_answers", lambda *_: pytest.fail("asked again"))
    assert taught(recipe, splits, tmp_path).train.labels.tolist() == first.train.labels.tolist()
    monkeypatch.setattr(self_training, "_answers", answers)
    assert len(taught(recipe.override(teacher_sure=0.5), splits, tmp_path).train) == len(splits.train) + 3


def test_a_teacher_that_cannot_teach_is_one_line(teacher):
    recipe, splits = teacher
    with pytest.raises(RecipeError, match="no unlabelled examples"):
        taught(recipe, replace(splits, unlabelled=None))
    with pytest.raises(RecipeError, match=r"no such directory; it is an earlier run .* train that first"):
        taught(recipe.override(teacher="nowhere"), splits)
    with pytest.raises(RecipeError, match="its classes are bad, good, not cats, dogs"):
        taught(recipe, replace(splits, class_names=("cats", "dogs")))
    unsure = ArraySource({"text": text_array(UNLABELLED[2:])}, [0], "unlabelled")
    with pytest.raises(RecipeError, match="sure of none of 1 examples"):
        taught(recipe, replace(splits, unlabelled=unsure))
