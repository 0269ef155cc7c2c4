"""Runs on texts: trained, resumed, shared between devices, exported, explained."""

import json
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras import control
from bigkeras.artifact import export
from bigkeras.evaluation import evaluate
from bigkeras.parity import session_loader
from bigkeras.recipe import Choice, Recipe, RecipeError
from bigkeras.runtime import Machine
from bigkeras.signals import Interrupted, Log
from bigkeras.train import fit

QUIET = Log(quiet=True)
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
    with pytest.raises(RecipeError, match=r"task\.tokens=character: start_from=.* has word"):
        fit(other.override(**{"task.tokens": "character"}), tmp_path / "wrong", log=QUIET)


def test_the_artifact_scores_what_the_run_scores(run, artifact):
    ours, theirs = evaluate(run, report=False)["test"], evaluate(artifact)["test"]
    assert ours["confusion"] == theirs["confusion"]
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


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
        ({"model": Choice("bag_of_ngrams", {"length": 9})}, "argument 'length' is not one of"),
    ],
)
def test_what_does_not_fit_texts_is_refused(values, message, reviews, tmp_path):
    with pytest.raises(RecipeError, match=message):
        fit(recipe_for(reviews, **values), tmp_path / "run", log=QUIET)


def test_averages_over_pictures_are_refused(run):
    with pytest.raises(RecipeError, match="average flips: is for images"):
        evaluate(run, average="flips")


@pytest.mark.slow
def test_model_auto_keeps_the_best_of_its_candidates(reviews, tmp_path):
    recipe = Recipe(
        name="own", data=Choice("text_table", {"file": str(reviews)}), task=Choice("text_classification"),
        model=Choice("auto"),
    )  # fmt: skip
    fit(recipe, tmp_path / "run", log=QUIET)
    search = json.loads((tmp_path / "run" / "search.json").read_text())
    assert set(search["tried"]) == {"own-ratios", "own-words", "own-characters"}
    export(tmp_path / "run", tmp_path / "own")
    assert (tmp_path / "own" / "1" / "saved_model.pb").exists()
