"""Masked language modelling: what is hidden, what is asked, and where a classifier starts from it."""

import csv
import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras.artifact import export
from bigkeras.assembly import make_step
from bigkeras.checks import check_recipe
from bigkeras.data import DATASETS
from bigkeras.data.reviews import text_array
from bigkeras.data.source import ArraySource, DataError, Splits
from bigkeras.evaluation import evaluate
from bigkeras.inheritance import continued, inherited
from bigkeras.parity import ExportError
from bigkeras.recipe import Choice, Recipe, RecipeError, load
from bigkeras.recipe_data import load_splits
from bigkeras.recipes import RECIPES
from bigkeras.run import RunError
from bigkeras.runtime import Machine
from bigkeras.signals import Log
from bigkeras.tasks import TASKS, load_task
from bigkeras.tasks.masked_language_model import MaskedLanguageModel, hider, word_beginnings
from bigkeras.tasks.text import TextPreprocessor
from bigkeras.train import fit

QUIET = Log(quiet=True)
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "##s", "the", "film", "dog", "runs")
WORDPIECE = TextPreprocessor(tokens="wordpiece", length=400, vocabulary=PIECES)
CLS, SEP, MASK = 2, 3, 4
NOUNS, VERBS = ("cat", "dog", "bird", "horse"), ("sleeps", "runs", "sings", "jumps")


def hide(ids, seeds=None, rate=0.15):
    ids = tf.constant(ids, tf.int32)
    seeds = tf.range(len(ids), dtype=tf.int64) if seeds is None else tf.constant(seeds, tf.int64)
    (hidden, places), labels, weights = hider(WORDPIECE, rate)(ids, seeds)
    return tuple(t.numpy() for t in (ids, hidden, places, labels, weights))


def many_texts(rows=200):
    words = np.random.default_rng(0).integers(5, len(PIECES), (rows, 98))
    padding = np.zeros((rows, 20), int)
    return np.concatenate([np.full((rows, 1), CLS), words, np.full((rows, 1), SEP), padding], 1)


def test_fifteen_percent_are_hidden_of_them_80_10_10_and_never_a_special_token():
    ids, hidden, places, labels, weights = hide(many_texts())
    real = ids >= 5
    asked = np.zeros(ids.shape, bool)
    rows, columns = np.nonzero(weights)
    asked[rows, places[rows, columns]] = True
    assert asked.sum() == weights.sum()  # no place twice
    assert not (asked & ~real).any()
    assert asked.sum() / real.sum() == pytest.approx(0.15, abs=0.01)
    np.testing.assert_array_equal(hidden[~asked], ids[~asked])
    np.testing.assert_array_equal(labels[rows, columns], ids[rows, places[rows, columns]])
    masked, kept = (hidden == MASK)[asked].mean(), (hidden == ids)[asked].mean()
    assert masked == pytest.approx(0.8, abs=0.03)
    # One of seven random tokens is the old one.
    assert kept == pytest.approx(0.1 + 0.1 / 7, abs=0.03)
    assert (hidden[asked] >= MASK).all()


def test_words_are_hidden_whole():
    _, _, places, _, weights = hide(np.tile([[CLS, *[5, 6, 7] * 30, SEP]], (50, 1)), rate=0.1)
    for row, chosen in zip(places, weights, strict=True):
        words = (row[chosen > 0] - 1) // 3
        counts = np.bincount(words, minlength=30)
        assert set(counts[counts > 0]) <= {3}
    assert weights.sum(1).min() < weights.sum(1).max() <= weights.shape[1]


def test_the_same_seed_hides_the_same_and_another_one_other_words():
    texts = many_texts(2)
    first, again, other = (hide(texts, [seed, seed])[1] for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_what_stands_beside_a_text_changes_nothing_of_what_is_hidden():
    texts = many_texts(400)[:, :48]
    texts[:, 47] = SEP
    widths = [int(WORDPIECE.width(longest)) for longest in (48, 200)]
    alone, beside = (hide(np.pad(texts, ((0, 0), (0, width - 48)))) for width in widths)
    np.testing.assert_array_equal(alone[1], beside[1][:, : widths[0]])
    assert alone[4].sum() == beside[4].sum() and beside[4].shape[1] > alone[4].shape[1]


def test_of_every_text_something_is_asked_and_of_a_text_without_words_nothing():
    ids = np.tile([[CLS, 5, 8, 9, SEP, 0]], (200, 1))
    _, _, places, _, weights = hide(ids)
    assert weights.sum(1).min() == 1
    assert set(places[weights > 0]) == {1, 2, 3}
    assert hide([[CLS, SEP, 0, 0, 0, 0]])[4].sum() == 0


def test_special_tokens_may_stand_anywhere_and_a_vocabulary_without_words_is_refused():
    last = replace(WORDPIECE, vocabulary=(*PIECES[:MASK], *PIECES[MASK + 1 :], "[MASK]"))
    ids = tf.tile([[CLS, *range(4, 11), SEP]], [300, 1])
    (hidden, places), _, weights = hider(last, 0.4)(ids, tf.range(300, dtype=tf.int64))
    shown = tf.gather(hidden, places, batch_dims=1).numpy()[weights.numpy() > 0]
    assert set(shown.tolist()) == set(range(4, 12))
    with pytest.raises(DataError, match="no words"):
        hider(TextPreprocessor(tokens="word", length=8, vocabulary=("[PAD]", "[UNK]")), 0.15)


@pytest.mark.parametrize("frame", [True, False])
def test_a_long_text_is_learned_in_parts(frame):
    words = ("[PAD]", "[UNK]", *"abcdefghij")
    kind = replace(WORDPIECE, length=6) if frame else TextPreprocessor(tokens="word", length=4, vocabulary=words)
    texts = ["the film the dog the runs the play the", "", "dog"] if frame else ["a b c d e f g h i", "", "j"]
    task = MaskedLanguageModel(kind)
    source = ArraySource({"text": text_array([t.encode() for t in texts])}, np.zeros(3), ["long", "none", "short"])
    opened = task.opened(source)
    assert [opened.name(i) for i in range(len(opened))] == ["long", "long", "long", "none", "short"]
    ids = tf.RaggedTensor.from_row_lengths(opened.values, opened.lengths).to_list()
    if frame:
        assert all(row[0] == CLS and row[-1] == SEP for row in ids)
        ids = [row[1:-1] for row in ids]
    assert [len(row) for row in ids[:3]] == [3, 3, 3]
    whole, _ = replace(kind, length=400).tokenizer()
    inner = slice(1, -1) if frame else slice(None)
    assert [number for row in ids[:3] for number in row] == whole(tf.constant(texts[:1])).to_list()[0][inner]
    assert task.shown(opened, 2) == texts[0]
    # What is trained on are the same parts.
    ready = task.ready(Splits(source, source, None, ()))
    for part in (ready.train, ready.validation):
        np.testing.assert_array_equal(part.values, opened.values)
        np.testing.assert_array_equal(task.lengths(part), opened.lengths)


def test_in_a_script_without_spaces_every_piece_is_a_word():
    pieces = ("<pad>", "<unk>", "<s>", "</s>", "▁the", "ing", "很好", "▁菜", "。")
    begins = word_beginnings(TextPreprocessor(tokens="sentencepiece", length=8, vocabulary=pieces))
    assert dict(zip(pieces[4:], begins[4:].tolist(), strict=True)) == {
        "▁the": True, "ing": False, "很好": True, "▁菜": True, "。": False,
    }  # fmt: skip


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A text file in which what an animal does follows from the animal."""
    path = tmp_path_factory.mktemp("lines") / "animals.txt"
    random = np.random.default_rng(0)
    rows = (f"number {i} says that the {NOUNS[k]} {VERBS[k]}" for i, k in enumerate(random.integers(0, 4, 300)))
    path.write_text("\n\n".join(rows), encoding="utf-8")
    return path


def recipe_for(path, **values):
    settings = {
        "data": Choice("plain_text", {"file": str(path), "validation": 0.1}),
        "task": Choice("masked_language_model", {"tokens": "word", "length": 16, "rate": 0.2}),
        "model": Choice("bert_mlm", {"size": "tiny", "dropout": 0.0}),
        "optimizer": Choice("adamw", {"learning_rate": 2e-3}),
        "name": "animals",
        "monitor": "val_loss",
        "epochs": 12,
        "batch_size": 32,
    }
    return Recipe(**{**settings, **values})


@pytest.fixture(scope="module")
def run(lines, tmp_path_factory):
    directory = tmp_path_factory.mktemp("masked") / "run"
    fit(recipe_for(lines), directory, log=QUIET)
    return directory


def history(directory):
    with (directory / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_learns_which_word_follows_and_reports_its_guesses(run):
    metrics = json.loads((run / "metrics.json").read_text())["validation"]
    assert metrics["examples"] == 30
    # Of six words, four never change, and the verb follows from the noun: only numbers cannot be known.
    assert metrics["accuracy"] > 0.5
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["loss"]))
    report = (run / "report.md").read_text()
    assert r"\_\_\_\_" in report
    assert evaluate(run, split="validation")["validation"] == metrics
    # With the share of words that the run hides.
    assert load_task(run, ()).rate == 0.2
    assert metrics["loss"] == pytest.approx(min(float(r["val_loss"]) for r in history(run)), rel=1e-5)


def test_a_classifier_starts_from_it_with_its_vocabulary(run, tmp_path):
    table = tmp_path / "animals.csv"
    rows = [f"the {noun} {verb},{'big' if noun == 'horse' else 'small'}" for noun in NOUNS for verb in VERBS] * 3
    table.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    recipe = recipe_for(
        "",
        data=Choice("text_table", {"file": str(table)}),
        task=Choice("text_classification"),
        model=Choice("bert", {"size": "tiny", "pooling": "mean", "dropout": 0.0}),
        start_from=str(run),
        freeze_until="stage2",
        monitor="val_accuracy",
        epochs=1,
    )
    fit(recipe, tmp_path / "run", log=QUIET)
    assert (tmp_path / "run" / "vocabulary.txt").read_bytes() == (run / "vocabulary.txt").read_bytes()
    ours, theirs = (keras.models.load_model(d / "best.keras", compile=False) for d in (tmp_path / "run", run))
    for name in ("embedding", "stage2_feed_forward_2"):
        for mine, first in zip(ours.get_layer(name).get_weights(), theirs.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(mine, first)


def test_low_rank_updates_train_the_pooler_that_a_language_model_lacks(run, tmp_path):
    table = tmp_path / "animals.csv"
    table.write_text("\n".join(["text,label", *[f"a {noun},{noun}" for noun in NOUNS] * 10]), encoding="utf-8")
    recipe = recipe_for(
        "", data=Choice("text_table", {"file": str(table)}), task=Choice("text_classification"), lora=2,
        model=Choice("bert", {"size": "tiny"}), start_from=str(run), monitor="val_accuracy",
    )  # fmt: skip
    splits = load_splits(recipe)
    task = TASKS[recipe.task.name](splits, **inherited(recipe, splits.languages))
    network = make_step(recipe, task.ready(splits), task, Machine(), None).network
    trained = {weight.path.split("/")[0] for weight in network.trainable_weights}
    assert {"features", "logits", "stage1_attention_output"} <= trained
    assert not trained & {"embedding", "positions", "stem_norm", "stage1", "stage1_feed_forward_1"}


def test_own_texts_with_nothing_else_said_take_its_encoder(run, tmp_path):
    table = tmp_path / "animals.csv"
    table.write_text("\n".join(["text,label", *[f"a {noun},{noun}" for noun in NOUNS] * 10]), encoding="utf-8")
    asked = RECIPES["text-csv"].override(**{"data.file": str(table), "epochs": 1})
    fit(asked.override(start_from=str(run)), tmp_path / "run", log=QUIET)
    assert keras.models.load_model(tmp_path / "run" / "best.keras", compile=False).name == "bert_tiny"
    # What the recipe says itself goes before; the size is the run's.
    recipe = continued(asked.override(start_from=str(run)))
    assert (recipe.name, recipe.epochs, recipe.model.args["size"]) == ("text-csv", 1, "tiny")


def test_texts_of_which_no_word_is_known_have_no_score(run, tmp_path):
    (tmp_path / "other.txt").write_text("这是 一个 句子\n" * 20, "utf-8")
    with pytest.raises(DataError, match="no word of the vocabulary in these texts"):
        evaluate(run, split="all", data=str(tmp_path / "other.txt"))


def test_pretraining_goes_on_from_an_earlier_run_with_its_vocabulary(run, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(f"the {noun} eats apple number {i}" for i in range(10) for noun in NOUNS), "utf-8")
    recipe = recipe_for(other, task=Choice("masked_language_model"), start_from=str(run), epochs=1)
    fit(recipe, tmp_path / "run", log=QUIET)
    assert (tmp_path / "run" / "vocabulary.txt").read_bytes() == (run / "vocabulary.txt").read_bytes()


def test_a_run_whose_vocabulary_was_given_is_gone_on_from(run, lines, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    given = Choice("masked_language_model", {**load(run).task.args, "vocabulary": "words.txt"})
    replace(load(run), task=given).save(copy / "recipe.json")
    whole = Choice("masked_language_model", {**given.args, "vocabulary": str(Path("words.txt").resolve())})
    for asked in (given, whole):
        assert inherited(recipe_for(lines, start_from=str(copy), task=asked), ("", ""))["vocabulary"] == str(copy)


def test_what_cannot_be_done_is_one_line(run, lines, tmp_path):
    with pytest.raises(ExportError, match="start_from"):
        export(run, tmp_path / "model")
    with pytest.raises(RecipeError, match="no classes to balance"):
        check_recipe(recipe_for(lines, balance="oversample"))
    with pytest.raises(RecipeError, match="word_dropout"):
        check_recipe(recipe_for(lines, augmentation=(Choice("word_dropout"),)))
    with pytest.raises(DataError, match=r"task.rate=0.9"):
        fit(recipe_for(lines, task=Choice("masked_language_model", {"rate": 0.9})), tmp_path / "run", log=QUIET)
    damaged = shutil.copytree(run, tmp_path / "damaged") / "best.keras"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    with pytest.raises(RunError, match=r"best\.keras: cannot be read as a Keras model"):
        evaluate(damaged.parent, split="validation")
    on = {"start_from": str(run), "task": Choice("masked_language_model", {"vocabulary": "mine.txt"})}
    with pytest.raises(RecipeError, match=r"task.vocabulary=mine.txt: start_from=.* has a vocabulary"):
        inherited(recipe_for(lines, **on), ("", ""))
    smaller = Choice("masked_language_model", {"vocabulary_size": 50})
    with pytest.raises(DataError, match=r"task.vocabulary_size=50: .* has 8000"):
        fit(recipe_for(lines, start_from=str(run), task=smaller), tmp_path / "more", log=QUIET)
    assert inherited(
        recipe_for(lines, start_from=str(run), task=Choice("masked_language_model", {"length": None})), ("", "")
    )


def test_texts_of_a_folder_are_read_once_each_and_empty_ones_are_listed(tmp_path):
    for name, text in (("a.txt", "one"), ("b.md", "two"), ("deep/c.txt", "one"), ("d.txt", " \n"), ("e.csv", "three")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    splits = DATASETS["plain_text"](file=str(tmp_path), validation=0.0)
    assert sorted(splits.train.columns["text"]) == [b"one", b"two"]
    assert [why for _, why in splits.bad] == ["an empty text"]
    (tmp_path / "only").mkdir()
    with pytest.raises(DataError, match="no text in it"):
        DATASETS["plain_text"](file=str(tmp_path / "only"))
    with pytest.raises(DataError, match="No such file"):
        DATASETS["plain_text"](file=str(tmp_path / "none.txt"))


def test_names_are_in_its_vocabulary_and_a_classifier_that_asks_for_none_is_refused(tmp_path):
    words = TextPreprocessor(tokens="word", length=8, vocabulary=("[PAD]", "[UNK]", "Tom"))
    for name, data in words.files().items():
        (tmp_path / name).write_bytes(data)
    RECIPES["pretrain-text"].override(data__file="texts.txt", task__tokens="word").save(tmp_path / "recipe.json")
    splits = Splits(ArraySource({"text": text_array([b"a", b"b"])}, [0, 1]), None, None, ("x", "y"))
    made = TASKS["text_classification"](splits, vocabulary=str(tmp_path))
    assert made.preprocessor.vocabulary == words.vocabulary
    with pytest.raises(DataError, match=r"task\.proper_names=False: .* has True, and its vocabulary is taken over"):
        TASKS["text_classification"](splits, vocabulary=str(tmp_path), proper_names=False)


def test_reviews_without_labels_that_stand_in_a_labelled_part_are_none_to_learn_from(tmp_path, monkeypatch):
    monkeypatch.setattr("bigkeras.data.formats.SHA256", {})
    reviews = {
        "train/pos/0_9.txt": "A joy.<br />Truly", "train/pos/1_8.txt": "So good", "train/neg/0_2.txt": "Dull, dull",
        "train/neg/1_1.txt": "Never again", "test/pos/0_9.txt": "Loved it,<br />all of it", "test/neg/0_1.txt": "Bad",
        "train/unsup/0_0.txt": "loved  IT all of it", "train/unsup/1_0.txt": "a joy. TRULY",
        "train/unsup/2_0.txt": "Seen twice", "train/unsup/3_0.txt": "Seen twice", "train/unsup/4_0.txt": "New",
    }  # fmt: skip
    (tmp_path / "imdb").mkdir()
    with tarfile.open(tmp_path / "imdb" / "aclImdb_v1.tar.gz", "w:gz") as archive:
        for name, text in reviews.items():
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))

    def texts(name):
        splits = DATASETS[name](directory=str(tmp_path), validation=0.0)
        return sorted((splits.unlabelled or splits.train).columns["text"].tolist())

    assert texts("imdb_with_unlabelled") == [b"New", b"Seen twice"]
    labelled = [text.encode() for name, text in reviews.items() if name.startswith(("train/pos", "train/neg"))]
    assert texts("imdb_unlabelled") == sorted([*labelled, b"New", b"Seen twice", b"a joy. TRULY"])


@pytest.mark.slow
def test_no_unlabelled_review_stands_in_the_test_part(real_data):
    if not list((real_data / "imdb-unsup").glob("*.xz")) or not (real_data / "imdb").is_dir():
        pytest.skip("no imdb-unsup, or no imdb")
    splits = DATASETS["imdb_unlabelled"](directory=str(real_data), validation=0.0)
    tested = set(DATASETS["imdb_reviews"](directory=str(real_data)).test.columns["text"])
    texts = splits.train.columns["text"].tolist()
    assert 73_000 < len(texts) == len(set(texts)) < 75_000
    assert not tested.intersection(texts)
    assert RECIPES["imdb-pretrain"].data.name == "imdb_unlabelled"


def test_labelled_texts_are_learned_from_without_their_labels(lines, tmp_path):
    rows = [f"{text},{i % 2}" for i, text in enumerate(lines.read_text().split("\n\n")[:40])]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]))
    recipe = recipe_for(lines, data=Choice("text_table", {"file": str(tmp_path / "t.csv")}), epochs=1)
    metrics = fit(recipe, tmp_path / "run", log=QUIET)
    assert metrics["validation"]["perplexity"] > 1


def test_a_length_is_checked_beside_a_runs_vocabulary_too(run, lines):
    with pytest.raises(DataError, match=r"task\.length=0: at least 4"):
        TASKS["masked_language_model"](load_splits(recipe_for(lines)), vocabulary=str(run), length=0)
