"""A translator from pairs to scores: subwords, batches, the step, decoding, evaluation."""

import csv
import io
import json
import os
import shutil
import signal
import unicodedata
from dataclasses import replace

import keras
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from bigkeras import control
from bigkeras import translator as translator_module
from bigkeras.artifact import export
from bigkeras.assembly import fitted
from bigkeras.checks import check_recipe
from bigkeras.data import DATASETS
from bigkeras.data.cleaning import Pair, tidy
from bigkeras.data.pair_splits import all_pairs, pair_source
from bigkeras.data.pipeline import ordered_plan, plan_rows
from bigkeras.data.plan import ROWS, epoch_plan, steps_per_epoch, token_plan
from bigkeras.data.source import ArraySource, DataError, Splits, joined
from bigkeras.evaluation import evaluate
from bigkeras.inheritance import inherited, wired_alike
from bigkeras.progress import counted
from bigkeras.recipe import Choice, Recipe, RecipeError
from bigkeras.recipe_data import load_splits, ready, with_data
from bigkeras.recipes import RECIPES
from bigkeras.signals import Interrupted, Log
from bigkeras.tasks import TASKS, load_preprocessor, load_task
from bigkeras.tasks.pairs import clean, pieces
from bigkeras.tasks.subwords import VERSIONS
from bigkeras.train import fit, resolved
from bigkeras.transfer import artifact_model, start_from
from bigkeras.translation_metrics import corpus_bleu, kept_names, translation_metrics, unspaced_language
from bigkeras.translator import Translator, references_of

WORDS = {
    "one": "eins", "two": "zwei", "red": "rot", "green": "grün", "cat": "Katze", "dog": "Hund",
    "sees": "sieht", "likes": "mag", "the": "das", "house": "Haus", "small": "klein", "tree": "Baum",
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A TSV of 400 pairs of three to nine words, each word of which has one translation."""
    draw = np.random.default_rng(0)
    sources = [" ".join(draw.choice(list(WORDS), draw.integers(3, 10))) for _ in range(400)]
    lines = [f"{source}\t{' '.join(WORDS[word] for word in source.split())}\n" for source in sources]
    path = tmp_path_factory.mktemp("pairs") / "toy.tsv"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def recipe(pairs, **values):
    chosen = Recipe(
        name="toy",
        data=Choice("translation_pairs", {"file": str(pairs), "source_language": "en", "target_language": "de"}),
        task=Choice("translation", {"vocabulary_size": 340, "length": 48, "beam": 2, "sampling": 0.5}),
        model=Choice("transformer_translator", {"depth": 2, "width": 32, "num_heads": 2, "feed_forward": 64}),
        loss=Choice("cross_entropy", {"label_smoothing": 0.1}),
        optimizer=Choice("adamw", {"learning_rate": 3e-3, "weight_decay": 0.0}),
        batch_size=512,
        epochs=2,
        monitor="val_bleu",
    )
    return chosen.override(**values)


def model_of(run):
    return keras.models.load_model(run / "best.keras", compile=False)


@pytest.fixture(scope="module")
def task(pairs):
    splits = DATASETS["translation_pairs"](file=str(pairs))
    return splits, TASKS["translation"](splits, vocabulary_size=340, length=48)


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "toy"
    fit(recipe(pairs), directory, log=Log(quiet=True))
    return directory


def test_translations_of_every_second_epoch_tell_which_model_is_the_best(pairs, tmp_path, monkeypatch):
    scores, seen = iter([5.0, 1.0]), []

    def validation_scores(translator, source, between):
        seen.append(translator.network.get_weights())
        return {"val_bleu": next(scores)}, ""

    monkeypatch.setattr(control, "validation_scores", validation_scores)
    fit(recipe(pairs, epochs=4, score_every=2), tmp_path / "run", log=Log(quiet=True))
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [row["val_bleu"] for row in rows] == ["", "5.0", "", "1.0"]
    first, last = seen
    for weight, one in zip(model_of(tmp_path / "run").get_weights(), first, strict=True):
        np.testing.assert_array_equal(weight, one)
    assert any((one != other).any() for one, other in zip(first, last, strict=True))


def test_a_run_leaves_between_the_translations_of_its_validation_and_goes_on_as_if_it_had_not(
    pairs, run, tmp_path, monkeypatch
):
    left = []

    def validation_scores(translator, source, between):
        if not left:
            left.append(os.kill(os.getpid(), signal.SIGTERM))
        return translator_module.validation_scores(translator, source, between)

    monkeypatch.setattr(control, "validation_scores", validation_scores)
    with pytest.raises(Interrupted):
        fit(recipe(pairs), tmp_path / "run", log=Log(quiet=True))
    assert "\n2," not in (tmp_path / "run" / "log.csv").read_text()  # of the second epoch, which is the first scored
    fit(recipe(pairs), tmp_path / "run", log=Log(quiet=True))
    for one, other in zip(model_of(tmp_path / "run").get_weights(), model_of(run).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    told, whole = (list(csv.DictReader((place / "log.csv").open())) for place in (tmp_path / "run", run))
    assert [row["loss"] for row in told] == [row["loss"] for row in whole]
    assert [row["val_bleu"] for row in told] == [row["val_bleu"] for row in whole]


def test_any_text_comes_back_from_its_ids(task):
    _, fitted = task
    tokenizers = fitted.preprocessor.tokenizers()
    texts = ["the small cat", "Schrödinger’s 猫 😀, „ja“!", "", "tabs\tand  spaces\n", "e\u0301"]
    back = tokenizers.sentences(tokenizers.target_ids(tf.constant(texts)).to_tensor())
    assert [text.decode() for text in back.numpy()] == [
        "the small cat", "Schrödinger’s 猫 😀, „ja“!", "", "tabs and spaces", "é",
    ]  # fmt: skip


def test_marks_without_width_part_no_word():
    marked = ["Zusammen\u00adarbeit", "\ufeffa\u200bb", "e\u00ad\u0301", "a\x07b"]
    wanted = ["Zusammenarbeit", "ab", "é", "a b"]
    assert [text.decode() for text in clean(tf.constant(marked)).numpy()] == wanted
    assert [tidy(text) for text in marked] == ["Zusammenarbeit", "ab", "e\u0301", "a b"]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_a_vocabulary_is_as_large_as_the_data_allows_and_never_smaller_than_its_characters(pairs, algorithm):
    few = DATASETS["translation_pairs"](file=str(pairs))
    fitted = TASKS["translation"](few, vocabulary_size=20_000, length=48, algorithm=algorithm)
    assert 300 < fitted.preprocessor.vocabulary_sizes()[0] < 2000
    rows = [Pair("", chr(0x4E00 + i) * 3 + chr(0x4E00 + i + 1), chr(0x5E00 + i) * 2) for i in range(400)]
    many = replace(few, train=pair_source(rows))
    with pytest.raises(DataError, match=r"task\.vocabulary_size=320: the characters of these texts alone need \d+"):
        TASKS["translation"](many, vocabulary_size=320, length=48, algorithm=algorithm)


def test_a_vocabulary_of_ones_own_must_have_bytes(pairs, tmp_path):
    model, options = io.BytesIO(), {"vocab_size": 40, "pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
    lines = iter(pairs.read_text(encoding="utf-8").split())
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, hard_vocab_limit=False, minloglevel=2, **options
    )
    (tmp_path / "own.model").write_bytes(model.getvalue())
    with pytest.raises(DataError, match=r"own\.model: has no bytes for rare signs"):
        TASKS["translation"](DATASETS["translation_pairs"](file=str(pairs)), vocabulary=str(tmp_path / "own.model"))


def test_all_splits_together_keep_all_known_translations(tmp_path):
    lines = [f"sentence {i} here\t{word} {i} hier\n" for i in range(30) for word in ("Satz", "Spruch")]
    (tmp_path / "p.tsv").write_text("".join(lines))
    splits = DATASETS["translation_pairs"](file=str(tmp_path / "p.tsv"), validation=0.1, test=0.1)
    columns = all_pairs(splits).columns
    assert sorted(columns["source"]) == sorted(f"sentence {i} here".encode() for i in range(30))
    assert [text.count(b"\n") + 1 for text in columns["references"]] == [2] * 30


def test_both_aligned_files_are_found_from_any_folder(pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = recipe(pairs, data=Choice("aligned_files", {"target_file": "x.de"}))
    args = with_data(asked, "x.en").data.args
    assert args == {"file": str(tmp_path / "x.en"), "target_file": str(tmp_path / "x.de")}


def test_the_vocabulary_is_learned_from_the_training_split_and_always_the_same(pairs, task):
    splits, fitted = task
    again = TASKS["translation"](DATASETS["translation_pairs"](file=str(pairs)), vocabulary_size=340, length=48)
    assert again.preprocessor == fitted.preprocessor
    other = TASKS["translation"](splits, vocabulary_size=340, length=48, joint=False, algorithm="bpe")
    assert other.preprocessor.vocabulary_sizes() != fitted.preprocessor.vocabulary_sizes()
    assert not other.preprocessor.joint


def test_a_vocabulary_knows_nothing_of_the_other_splits(task):
    splits, fitted = task
    held = splits.train.take([0] * 200)
    held.columns["source"][:] = held.columns["target"][:] = b"xylophone"
    again = TASKS["translation"](replace(splits, validation=held, test=held), vocabulary_size=340, length=48)
    assert again.preprocessor.models == fitted.preprocessor.models


def test_learned_positions_reach_to_the_widest_batch(pairs):
    splits = DATASETS["translation_pairs"](file=str(pairs))
    fitted = TASKS["translation"](splits, vocabulary_size=340, length=9)
    width = fitted.sample(splits.train, 32)[0].shape[1]
    assert 9 < width <= fitted.model_arguments["length"]


def test_the_preprocessor_is_the_same_after_its_files_are_read(task, tmp_path):
    _, fitted = task
    for name, data in fitted.preprocessor.files().items():
        (tmp_path / name).write_bytes(data)
    assert load_task(tmp_path, ()) == fitted


@pytest.mark.parametrize("algorithm, alpha", [("unigram", 0.2), ("bpe", 0.3)])
def test_segmentations_drawn_at_random_are_the_same_text_and_the_first_is_the_likeliest(pairs, algorithm, alpha):
    splits = DATASETS["translation_pairs"](file=str(pairs))
    options = {"vocabulary_size": 340, "length": 48, "algorithm": algorithm}
    fitted = TASKS["translation"](splits, **options, sampling=alpha)
    train, plain = fitted.ready(splits).train, TASKS["translation"](splits, **options).ready(splits).train
    index = np.arange(20)
    shown = [train.fetch(index, place / VERSIONS)["target"] for place in range(VERSIONS)]
    texts = [fitted.preprocessor.tokenizers().sentences(ids.to_tensor()).numpy().tolist() for ids in shown]
    assert texts == [texts[0]] * len(texts)
    assert shown[0].to_list() == plain.fetch(index)["target"].to_list()
    assert sum(ids.to_list() != shown[0].to_list() for ids in shown[1:]) == len(shown) - 1
    assert (train.lengths >= plain.lengths).all() and train.lengths.max() <= 48
    again = fitted.ready(splits).train.fetch(index, 3 / VERSIONS)["target"]
    assert again.to_list() == shown[3].to_list()


def test_in_the_first_epochs_every_pair_is_learned_each_way_then_as_it_is(pairs):
    splits = DATASETS["translation_pairs"](file=str(pairs))
    options = {"vocabulary_size": 340, "length": 48}
    task = TASKS["translation"](splits, **options, both_directions=2)
    train = task.ready(splits).train
    rows = plan_rows(lambda e: token_plan(train.lengths, 400, seed=1, epoch=e), range(3))
    seen: list[list] = []
    for (sources, _), labels, weights in task.dataset(train, rows, 400, True, lambda _: None):
        if not seen or len(seen[-1]) == len(train):
            seen.append([])
        real = weights.numpy()[:, 0] > 0
        sides = ([tuple(i for i in ids if i) for ids in side.numpy()[real].tolist()] for side in (sources, labels))
        seen[-1] += zip(*sides, strict=True)
    whole = train.fetch(np.arange(len(train)))
    asked = list(zip(*(map(tuple, whole[side].to_list()) for side in ("source", "target")), strict=True))
    other = [pair[::-1] for pair in asked]
    assert sorted(seen[0] + seen[1]) == sorted(asked + other)
    assert 0.3 < sum(pair in other for pair in seen[0]) / len(train) < 0.7
    assert sorted(seen[2]) == sorted(asked)
    with pytest.raises(DataError, match="both_directions=2 needs"):
        TASKS["translation"](splits, **options, joint=False, both_directions=2)


def test_chinese_punctuation_stays_as_wide_as_it_is():
    assert clean(tf.constant(["你好，世界！"]))[0].numpy().decode() == "你好，世界！"


def test_pairs_that_are_too_long_are_left_out_and_told(pairs, task, capsys):
    splits, whole = task[0], task[1].ready(task[0])
    longest = whole.train.lengths.max(1)

    def of_length(length):
        return ready(replace(task[1], preprocessor=replace(task[1].preprocessor, length=length)), splits, Log())

    most = int(longest.max()) - 1
    made, cut = of_length(most), int((longest > most).sum())
    assert len(made.train) == len(whole.train) - cut > 0 and made.train.lengths.max() == most
    line = capsys.readouterr().err
    assert line.startswith(f"{cut} are not learned from, the first ")
    assert f"{most} subwords or more: length is {most}, the end with them" in line
    # Those that just fit are whole.
    fitting = of_length(most + 1)
    assert np.array_equal(fitting.train.source[0], whole.train.source[0]) and len(fitting.train) == len(whole.train)
    assert not capsys.readouterr().err


def test_the_rate_of_pairs_counts_the_target_tokens_that_are_read_and_no_padding(pairs):
    splits = DATASETS["translation_pairs"](file=str(pairs))
    train = TASKS["translation"](splits, vocabulary_size=340, length=48, sampling=0.2).ready(splits).train
    read = [train.fetch(np.arange(len(train)), place / 8)["target"].flat_values.shape[0] for place in range(8)]
    assert train.target_tokens == np.mean(read) < train.lengths[:, 1].sum()
    assert counted(2048, train.target_tokens, 2) == round(np.mean(read) / 2)
    assert counted(2048, None, 2) == 2048


def test_a_token_plan_shows_every_pair_once_in_few_shapes():
    lengths = np.random.default_rng(0).integers(2, 60, (700, 2))
    plan = epoch_plan(np.zeros(700), batch_size=512, seed=1, epoch=2, lengths=lengths)
    assert sorted(plan.indices[plan.weights > 0]) == list(range(700))
    shapes = set()
    for indices in plan.indices:
        used = indices[indices >= 0]
        assert len(used) % ROWS == 0
        shapes.add(len(used))
        assert len(used) * lengths[used].max() <= max(512, ROWS * 64)
    assert len(shapes) <= 7
    assert (plan.weights[plan.indices >= 0] == 0).sum() < ROWS * 2
    assert len(plan.indices) == steps_per_epoch(np.zeros(700), 512, lengths=lengths)


def test_a_token_plan_is_a_function_of_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(2, 60, (300, 2))
    plans = [epoch_plan(np.zeros(300), batch_size=256, seed=0, epoch=e, lengths=lengths).indices for e in (0, 0, 1)]
    assert np.array_equal(plans[0], plans[1]) and not np.array_equal(plans[0], plans[2])


def test_the_decoder_reads_what_it_wrote_and_padding_has_no_weight(task):
    splits, fitted = task
    source = fitted.opened(splits.validation)
    plan = ordered_plan(source, 256, fitted.lengths(source))
    seen = 0
    for (source_ids, before), labels, weights in fitted.dataset(
        source, plan_rows(lambda _: plan, range(1)), 256, False, print
    ):
        assert source_ids.shape == before.shape == labels.shape == weights.shape
        assert np.all(before[:, 0] == 2) and np.all(before[:, 1:] == labels[:, :-1])
        assert np.all(weights.numpy()[labels.numpy() == 0] == 0)
        seen += int(tf.reduce_sum(weights))
    assert seen == fitted.lengths(source)[:, 1].sum()


def test_a_run_has_its_scores_and_translations_in_report_and_log(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["validation"]["bleu"] <= 100 and "tok:13a" in metrics["validation"]["signatures"]["bleu"]
    report = (run / "report.md").read_text()
    assert "The worst sentences" in report and "## By length" in report
    assert "val_bleu" in (run / "log.csv").read_text().splitlines()[0]


def test_tensorboard_has_translations_and_what_they_looked_at(run):
    events = [
        value.tag
        for file in sorted((run / "tensorboard" / "validation").iterdir())
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    assert "translations" in events and {"attention 1", "attention 2", "attention 3"} <= set(events)


def test_fewer_long_sentences_share_a_batch(run):
    texts, counts = [b"the small cat", b"two dogs", b"two dogs and the small cat", b"", b"dogs"] * 3, []
    wanted = Translator(model_of(run), load_preprocessor(run))(texts)
    for ids in (1, 30, 10_000):
        batches: list[int] = []
        answers = Translator(model_of(run), load_preprocessor(run), ids=ids)(texts, lambda b=batches: b.append(1))
        assert answers == wanted
        counts.append(len(batches))
    assert counts[0] == len(texts) > counts[1] > counts[2] == 1


def test_targets_that_no_translation_is_as_long_as_are_told(pairs, capsys):
    asked = recipe(pairs)
    splits = load_splits(asked)
    draw = np.random.default_rng(0)
    rows = [Pair(str(i), str(i), "".join(draw.choice(list("bcdfgjkpqvwxyz"), 36))) for i in range(3)]
    more = replace(splits, train=joined(Splits(splits.train, pair_source(rows), None, ())))
    ready(fitted(asked, more), more, Log())
    assert "3 of " in (told := capsys.readouterr().err) and "the first 0\n" in told
    assert "targets have more subwords than a translation ever has (a translation gets 2 for each" in told


def test_what_a_translation_looked_at_adds_up_to_one(run):
    found = Translator(model_of(run), load_preprocessor(run)).alignments([b"the small cat", b"two dogs"])
    for source, target, weight in found:
        assert weight.shape == (len(target), len(source)) and source[-1] == target[-1] == "</s>"
        np.testing.assert_allclose(weight.sum(1), 1, rtol=1e-5)


def test_evaluate_scores_the_test_split_of_a_run(run):
    values = evaluate(run, split="test")["test"]
    assert values["sentences"] == 12 and "test" in json.loads((run / "metrics.json").read_text())


def test_other_files_than_those_of_the_run_are_named_both(run, tmp_path):
    new = {"en": "the small cat\ntwo dogs\n" * 3, "de": "die kleine Katze\nzwei Hunde\n" * 3}
    for language, text in new.items():
        (tmp_path / f"new.{language}").write_text(text, encoding="utf-8")
    shutil.copytree(run, tmp_path / "run")
    told = json.loads((run / "recipe.json").read_text())
    args = {"file": "old.en", "target_file": "old.de", "validation": 0.0, "test": 0.0}
    told["data"] = {"name": "aligned_files", "args": args}
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(told))
    with pytest.raises(RecipeError, match=r"--data .*new\.en: of two aligned files; say --set data\.target_file"):
        evaluate(tmp_path / "run", data=str(tmp_path / "new.en"))
    files = {"data.target_file": str(tmp_path / "new.de")}
    found = evaluate(tmp_path / "run", split="all", data=str(tmp_path / "new.en"), settings=files)
    assert found["all"]["sentences"] == 2
    assert "all" not in json.loads((tmp_path / "run" / "metrics.json").read_text())
    # What was held out at the place before is not that of the new one.
    told["data"] = {"name": "aligned_files", "args": {**args, "test_file": "no.en", "test_target_file": "no.de"}}
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(told))
    found = evaluate(tmp_path / "run", split="all", data=str(tmp_path / "new.en"), settings=files)
    assert found["all"]["sentences"] == 2
    with pytest.raises(
        RecipeError, match=r"the run's test pairs lie in a file of their own; say --set data\.test_file"
    ):
        evaluate(tmp_path / "run", data=str(tmp_path / "new.en"), settings=files)
    args |= {"file": str(tmp_path / "new.en"), "target_file": str(tmp_path / "new.de")}
    told["data"]["args"] = args
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(told))
    for language, text in new.items():
        (tmp_path / f"held.{language}").write_text(text.splitlines()[0] + "\n", encoding="utf-8")
    files = {"data.test_file": str(tmp_path / "held.en"), "data.test_target_file": str(tmp_path / "held.de")}
    assert evaluate(tmp_path / "run", settings=files)["test"]["sentences"] == 1
    with pytest.raises(RecipeError, match=r"--set epochs: of a trained model, arguments of the data alone"):
        evaluate(run, settings={"epochs": 3})


def test_data_of_other_languages_than_the_runs_are_not_scored(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    recipe = json.loads((run / "recipe.json").read_text())
    for key in ("source_language", "target_language"):
        recipe["data"]["args"].pop(key, None)
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe))
    preprocessor = json.loads((run / "preprocessor.json").read_text())
    (tmp_path / "run" / "preprocessor.json").write_text(json.dumps({**preprocessor, "languages": ["en", "de"]}))
    rows = [f"Das ist Nummer {i} und nicht die Katze.\tThis is number {i} and not the cat.\n" for i in range(9)]
    (tmp_path / "new.tsv").write_text("de\ten\n" + "".join(rows))
    with pytest.raises(DataError, match="translates from en to de, and the data are from de to en"):
        evaluate(tmp_path / "run", split="all", data=str(tmp_path / "new.tsv"))
    turned = {"data.source": "en", "data.target": "de"}
    assert evaluate(tmp_path / "run", split="all", data=str(tmp_path / "new.tsv"), settings=turned)
    recipe["task"]["args"] |= {"both_directions": recipe["epochs"], "joint": True}
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe))
    assert evaluate(tmp_path / "run", split="all", data=str(tmp_path / "new.tsv"))
    # It is scored as what it writes then: English by words, not by characters as what it usually writes.
    (tmp_path / "run" / "preprocessor.json").write_text(json.dumps({**preprocessor, "languages": ["en", "ja"]}))
    rows = [f"これは{i}番の猫ではありません。\tThis is number {i} and not the cat.\n" for i in range(9)]
    (tmp_path / "new.tsv").write_text("ja\ten\n" + "".join(rows), encoding="utf-8")
    found = evaluate(tmp_path / "run", split="all", data=str(tmp_path / "new.tsv"))
    assert "tok:13a" in found["all"]["signatures"]["bleu"]


def test_data_that_says_no_languages_is_held_against_the_runs(run, tmp_path):
    rows = [f"Das ist Nummer {i} und nicht die Katze.\tThis is number {i} and not the cat.\n" for i in range(9)]
    (tmp_path / "new.tsv").write_text("".join(rows))
    silent = {"data.source_language": "", "data.target_language": ""}
    with pytest.raises(
        DataError, match=r"of the data: en stands where de should, and the other way: --set data.source"
    ):
        evaluate(run, split="all", data=str(tmp_path / "new.tsv"), settings=silent)
    assert evaluate(
        run, split="all", data=str(tmp_path / "new.tsv"), settings={**silent, "data.source": 2, "data.target": 1}
    )


def test_all_that_was_left_out_of_one_name_is_listed(pairs, tmp_path):
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>{source}</seg></tuv><tuv xml:lang="xx"><seg>{target}</seg></tuv></tu>\n'
        for source, target in (line.split("\t") for line in pairs.read_text().splitlines())
    )
    several = '<tuv xml:lang="xx"><seg>one</seg></tuv><tuv xml:lang="xx"><seg>一二三四五六七八</seg></tuv>'
    units += f'<tu><tuv xml:lang="en"><seg>one</seg></tuv>{several}</tu>\n'
    path = tmp_path / "m.tmx"
    path.write_text(f'<tmx version="1.4"><header srclang="en"/><body>\n{units}</body></tmx>', encoding="utf-8")
    told = recipe(pairs, epochs=1)
    args = {"file": str(path)}
    fit(replace(told, data=Choice("tmx", args)), tmp_path / "run", log=Log(quiet=True))
    rows = list(csv.DictReader((tmp_path / "run" / "bad_samples.csv").open(encoding="utf-8")))
    of_the_last = {row["reason"] for row in rows if row["sample"] == f"{path}:402"}
    assert "source and target are equal" in of_the_last and len(of_the_last) == 2


def test_all_pairs_are_scored_and_reported(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    values = evaluate(run, split="all")["all"]
    assert f"| all | {values['sentences']} |" in (run / "report.md").read_text()


@pytest.mark.parametrize("target", [2024, None])
def test_a_place_that_is_no_text_is_left_to_who_checks_it(pairs, target):
    told = replace(recipe(pairs), data=Choice("aligned_files", {"file": "a.en", "target_file": target}))
    assert with_data(told, str(pairs)).data.args["target_file"] == target


def test_micro_batches_that_pairs_do_not_divide_by_are_told(pairs, tmp_path):
    with pytest.raises(RecipeError, match=r"^micro_batches=16: pairs=8 does not divide by them$"):
        fit(recipe(pairs, micro_batches=16), tmp_path / "run", log=Log(quiet=True))


def test_micro_batches_train_the_same_weights(pairs, tmp_path):
    import keras

    weights = []
    for parts in (1, 2):
        changes = {"micro_batches": parts, "epochs": 1, "model.dropout": 0.0, "optimizer": "sgd", "ema": 0.9}
        fit(recipe(pairs, **changes), tmp_path / str(parts), log=Log(quiet=True))
        weights.append(keras.models.load_model(tmp_path / str(parts) / "last.keras", compile=False).get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_recurrent_translator_learns_and_is_scored(pairs, tmp_path, cell):
    model = Choice("seq2seq_rnn", {"cell": cell, "units": 48, "embedding_width": 32, "dropout": 0.0})
    fit(recipe(pairs, model=model, epochs=8), tmp_path, log=Log(quiet=True))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    loss = [float(line.split(",")[lines[0].split(",").index("val_loss")]) for line in lines[1:]]
    assert len(loss) == 8 and loss[-1] < 0.8 * loss[0]
    assert evaluate(tmp_path, split="test")["test"]["sentences"] == 12


@pytest.mark.slow
def test_a_toy_language_is_learned(pairs, tmp_path):
    metrics = fit(recipe(pairs, epochs=30, model__dropout=0.0), tmp_path / "run", log=Log(quiet=True))
    assert metrics["validation"]["bleu"] > 40


@pytest.mark.slow
def test_a_run_becomes_an_artifact_with_its_card(run, tmp_path):
    export(run, tmp_path / "toy")
    card = (tmp_path / "toy" / "README.md").read_text(encoding="utf-8")
    assert "\nIt translates sentences from en to de.\n" in card and "classes" not in card.lower()
    assert "| validation | " in card and f"bigkeras evaluate {tmp_path / 'toy'} --split validation" in card
    assert not (tmp_path / "toy" / "labels.txt").exists()
    found, given = evaluate(tmp_path / "toy", split="test")["test"], evaluate(run, split="test")["test"]
    assert {key: found[key] for key in ("bleu", "chrf")} == {key: given[key] for key in ("bleu", "chrf")}
    for w, v in zip(model_of(run).get_weights(), artifact_model(tmp_path / "toy").get_weights(), strict=True):
        np.testing.assert_array_equal(w, v)


def test_a_translator_goes_on_from_another_with_its_vocabulary(pairs, run, tmp_path):
    still = {"start_from": str(run), "epochs": 1, "optimizer": Choice("sgd", {"learning_rate": 0.0})}
    fit(recipe(pairs, task=Choice("translation", {"beam": 1}), **still), tmp_path / "on", log=Log(quiet=True))
    theirs, ours = load_preprocessor(run), load_preprocessor(tmp_path / "on")
    assert ours.models == theirs.models
    for w, v in zip(model_of(run).get_weights(), model_of(tmp_path / "on").get_weights(), strict=True):
        np.testing.assert_array_equal(w, v)


def test_what_vocabularies_that_are_there_do_not_heed_is_said(pairs, run):
    said = []
    asked = recipe(pairs, start_from=str(run), task__joint=False, task__length=20)
    fitted(asked, DATASETS["translation_pairs"](file=str(pairs)), said.append)
    heeded, languages = said  # the size is the run's own
    assert heeded == f"task.joint=False: not heeded: the vocabulary is {run}"
    assert languages.startswith(f"translates from en to de, as {run} does: of other languages say data.source_language")


def test_languages_that_the_data_does_not_say_are_those_of_the_vocabularies_run(pairs, run, task):
    splits = DATASETS["translation_pairs"](file=str(pairs))
    assert splits.languages == ("", "")
    for said, told in ((("", ""), ("en", "de")), (("", "xx"), ("en", "xx"))):
        fitted = TASKS["translation"](replace(splits, languages=said), vocabulary=str(run))
        assert fitted.preprocessor.languages == told
    english, german = ([f"{text} {i}".encode() for i in range(30)] for text in ("this is the cat", "das ist die Katze"))
    swapped = pair_source([Pair("", s.decode(), t.decode()) for s, t in zip(german, english, strict=True)])
    with pytest.raises(DataError, match=r"en stands where de should, .*say data\.source_language"):
        TASKS["translation"](replace(splits, train=swapped), vocabulary=str(run))


def test_a_translator_of_another_language_takes_the_layers_and_the_subwords_that_both_know(pairs, run, tmp_path):
    other = tmp_path / "other.tsv"
    lines = [line.split("\t") for line in pairs.read_text(encoding="utf-8").splitlines()]
    other.write_text("".join(f"{a}\t{b.translate(str.maketrans('sai', 'xyw'))}\n" for a, b in lines), encoding="utf-8")
    asked = recipe(
        other, start_from=str(run), epochs=1, optimizer=Choice("sgd", {"learning_rate": 0.0}),
        data=Choice("translation_pairs", {"file": str(other), "source_language": "en", "target_language": "xx"}),
        task=Choice("translation", {"vocabulary_size": 330, "length": 48, "beam": 1, "joint": False}),
    )  # fmt: skip
    fit(asked, tmp_path / "run", log=Log(quiet=True))
    theirs, ours = load_preprocessor(run), load_preprocessor(tmp_path / "run")
    first, second = model_of(run), model_of(tmp_path / "run")
    assert not ours.joint and ours.source_model != theirs.source_model
    given = dict(zip(pieces(theirs.target_model), first.get_layer("embedding").get_weights()[0], strict=True))
    rows = dict(zip(pieces(ours.target_model), second.get_layer("target_embedding").get_weights()[0], strict=True))
    both = [piece for piece in rows if piece in given]
    assert 0 < len(both) < len(rows)
    np.testing.assert_array_equal([rows[piece] for piece in both], [given[piece] for piece in both])
    for layer in first.layers:
        if layer.weights and layer.name != "embedding":
            for w, v in zip(layer.get_weights(), second.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(w, v)


def test_what_is_written_in_another_script_is_not_the_earlier_runs_language(run, tmp_path):
    lines = [f"the dog runs {'far ' * i}\t狗{'远' * i}跑\n" for i in range(1, 30)]
    (tmp_path / "zh.tsv").write_text("".join(lines), encoding="utf-8")
    splits = DATASETS["translation_pairs"](file=str(tmp_path / "zh.tsv"))
    with pytest.raises(DataError, match=r"the target is written in .*, not in de, .*: say data\.target_language"):
        TASKS["translation"](splits, vocabulary=str(run))
    lines = [
        f"the dog runs {'far ' * i}\tle chien que les enfants cherchent est {'si ' * i}loin\n" for i in range(1, 30)
    ]
    (tmp_path / "fr.tsv").write_text("".join(lines), encoding="utf-8")
    splits = DATASETS["translation_pairs"](file=str(tmp_path / "fr.tsv"))
    with pytest.raises(DataError, match=r"the target seems to be fr, not de, .*: say data\.target_language"):
        TASKS["translation"](splits, vocabulary=str(run))


def test_a_file_of_weights_has_the_vocabulary_beside_it(pairs, run, tmp_path):
    asked = recipe(pairs, start_from=str(run / "best.keras"))
    assert inherited(asked, ("en-GB", "de"))["vocabulary"] == str(run)
    assert "vocabulary" not in inherited(asked, ("en", "fr"))
    assert "vocabulary" not in inherited(asked.override(start_from=None), ("en", "de"))
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged" / "source.model").write_bytes(b"no model")
    for origin, message in (
        (tmp_path / "damaged", "damaged"),
        (tmp_path, "holds no preprocessor.json"),
        (tmp_path / "none", "nothing is there"),
    ):
        network = model_of(run)
        with pytest.raises(RecipeError, match=f"start_from=.*{message}"):
            start_from(str(origin), network, load_preprocessor(run))
    with pytest.raises(RecipeError, match=r"start_from=.*damaged"):
        inherited(recipe(pairs, start_from=str(tmp_path / "damaged")), ("en", "de"))


def test_a_translator_cannot_start_from_one_of_another_width(pairs, run, tmp_path):
    small = Choice("transformer_translator", {"depth": 2, "width": 16, "num_heads": 2, "feed_forward": 64})
    asked = recipe(pairs, start_from=str(run), model=small)
    with pytest.raises(RecipeError, match=r"start_from=.*: layer embedding is of shapes"):
        fit(asked, tmp_path / "same", log=Log(quiet=True))
    with pytest.raises(RecipeError, match=r"has 2 heads in the source and 4 in the target"):
        fit(recipe(pairs, start_from=str(run), model__num_heads=4), tmp_path / "heads", log=Log(quiet=True))
    with pytest.raises(RecipeError, match=r"layer encoder_stage1 is LayerNormalization in the source and Add in"):
        fit(recipe(pairs, start_from=str(run), model__norm="pre"), tmp_path / "norm", log=Log(quiet=True))
    for depth, told in ((1, "the source alone has encoder_stage2"), (3, "the target alone has encoder_stage3")):
        with pytest.raises(RecipeError, match=rf"start_from=.*{told}: give both the same depth"):
            fit(recipe(pairs, start_from=str(run), model__depth=depth), tmp_path / "deep", log=Log(quiet=True))
    asked = asked.override(task=Choice("translation", {"vocabulary": None, "algorithm": "bpe"}))
    with pytest.raises(RecipeError, match=r"start_from=.*: its embeddings are 32 wide, the model's 16"):
        fit(asked, tmp_path / "other", log=Log(quiet=True))


def test_what_no_shape_shows_of_a_model_is_taken_from_the_one_that_a_run_starts_from(pairs, run):
    other = {"model__norm": "pre", "model__num_heads": 4, "model__positions": "learned", "model__depth": 3}
    asked = recipe(pairs, start_from=str(run), **other)
    assert wired_alike(asked).model.args == recipe(pairs, model__norm="post", model__positions="sinusoidal").model.args
    assert wired_alike(asked, said=("depth",)).model.args["depth"] == 3
    alone = recipe(pairs, **other)
    assert wired_alike(alone) == alone
    rnn = asked.override(model=Choice("seq2seq_rnn", {"units": 8}))
    assert wired_alike(rnn) == rnn


def test_from_python_too_paths_are_made_whole_and_what_is_not_said_of_the_model_is_the_origins(tmp_path, monkeypatch):
    earlier = RECIPES["imdb-transformer"].override(**{"model.pooling": "max"})
    earlier.save(tmp_path / "recipe.json")
    (tmp_path / "reviews.csv").write_text("text,label\n")
    monkeypatch.chdir(tmp_path)
    data = Choice("text_table", {"file": "reviews.csv"})
    asked = RECIPES["imdb-transformer"].override(start_from=".", data=data)
    found = resolved(asked, None, tmp_path / "run")
    assert found.start_from == str(tmp_path) and found.data.args["file"] == str(tmp_path / "reviews.csv")
    assert found.model.args["pooling"] == "max" and resolved(found, None, tmp_path / "run") == found
    said = resolved(asked.override(**{"model.pooling": "mean"}), None, tmp_path / "run")
    assert said.model.args["pooling"] == "mean"


def test_how_texts_are_pooled_is_taken_from_the_run_that_one_starts_from(tmp_path):
    earlier = RECIPES["imdb-transformer"].override(**{"model.pooling": "max"})
    earlier.save(tmp_path / "recipe.json")
    asked = RECIPES["imdb-transformer"].override(start_from=str(tmp_path))
    assert wired_alike(asked).model == earlier.model and wired_alike(asked, said=("pooling",)).model == asked.model


def test_several_references_and_lower_case_raise_the_score():
    references = [["The cat sat on the mat today."], ["A dog ran home late.", "A hound ran home very late."]]
    translations = ["the cat sat on the mat today.", "A hound ran home very late."]
    values = translation_metrics(translations, references, "en")
    assert values["bleu"] < values["bleu_lower"] == pytest.approx(100.0)
    assert corpus_bleu(translations, [known[:1] for known in references], "en").score < values["bleu"]


def test_names_and_numbers_are_kept_that_stand_in_the_translation_as_in_source_and_reference():
    sources = ["Tom left Rome at 12:30 with Tom.", "Mary has 3 cats.", "I am Li, of NASA."]
    references = [["Tom fuhr um 12 Uhr 30.", "Tom verließ Rome."], ["Maria hat 3 Katzen."], ["Ich bin Li von NASA."]]
    assert kept_names(sources, references, ["Tom um 12:03", "Mary hat drei.", ""]) == {"shared": 5, "kept": 2}
    assert kept_names(["I am Tom, 24."], [["我叫Tom，24岁。"]], ["我是Tom吗？"]) == {"shared": 2, "kept": 1}


def test_references_are_compared_in_the_form_that_models_write():
    written = ["müde", "মেয়ে"]  # the second is decomposed in NFC
    source = ArraySource(
        {
            "source": np.array([b"a", b"b"], object),
            "target": np.array([unicodedata.normalize("NFD", written[0]).encode(), "মে\u09dfে".encode()], object),
        },
        [0, 0],
    )
    assert references_of(source) == [[unicodedata.normalize("NFC", text)] for text in written]


def test_chinese_is_scored_by_its_characters():
    for text, language in (
        ("我喜欢小狗。", "zh"),
        ("この犬が好きです。", "ja"),
        ("ฉันชอบสุนัข", "th"),
        ("ខ្ញុំចូលចិត្តឆ្កែ", "km"),
        ("ຂ້ອຍມັກໝາ", "lo"),
        ("ကျွန်တော်ခွေးကြိုက်တယ်", "my"),
        ("Ich mag 狗.", ""),
    ):
        assert unspaced_language([[text]]) == language
    assert corpus_bleu(["我喜欢小猫。"], [["我喜欢小狗。"]], "").signature.count("tok:zh") == 1
    for code in ("zh-CN", "zh_CN"):
        found = translation_metrics(["我喜欢小猫。"], [["我喜欢小狗。"]], code)
        assert found["bleu"] > 0 and "tok:zh" in found["signatures"]["bleu"]
        assert found["by_length"][0]["length"] == "6 to 10"


def test_a_glossary_that_is_all_right_has_all_points_and_the_signature_says_how():
    words = ["Hund", "Katze", "rotes Haus"]
    found = corpus_bleu(words, [[word] for word in words], "de")
    assert found.score == pytest.approx(100) and "eff:yes" in found.signature
    assert corpus_bleu([*words[:2], "Haus"], [[word] for word in words], "de").score < 100
    long = ["Das Haus ist rot und klein."]
    assert "eff:no" in corpus_bleu([*words, *long], [[text] for text in [*words, *long]], "de").signature


@pytest.mark.parametrize(
    "code, sentence, tokeniser, length",
    [
        ("cmn-Hans-CN", "我喜欢小狗。", "zh", "6 to 10"),
        ("zho", "我喜欢小狗。", "zh", "6 to 10"),
        ("jp", "この犬が好きです。", "char", "6 to 10"),
        ("tha", "ฉันชอบสุนัข", "char", "11 to 15"),
        ("deu", "Ich mag Hunde.", "13a", "1 to 5"),
        ("kor", "나는 개를 좋아한다.", "char", "1 to 5"),
        ("ko-KR", "나는 개를 좋아한다.", "char", "1 to 5"),
        ("zh", "Ich mag Hunde.", "zh", "11 to 15"),
    ],
)
def test_other_codes_of_languages_without_spaces_are_told_by_the_references(code, sentence, tokeniser, length):
    found = translation_metrics([sentence], [[sentence]], code)
    assert found["by_length"][0]["length"] == length
    for signature in (found["signatures"]["bleu"], corpus_bleu([sentence], [[sentence]], code).signature):
        assert f"tok:{tokeniser}" in signature


@pytest.mark.parametrize(
    "change, message",
    [
        ({"monitor": "val_macro_f1"}, "monitor 'val_macro_f1' is not one of"),
        ({"loss": "focal"}, "loss 'focal' is not one of cross_entropy"),
        ({"balance": "oversample"}, "no classes to balance"),
        ({"augmentation": [{"name": "word_dropout"}]}, "translation has none"),
    ],
)
def test_a_recipe_that_means_nothing_for_pairs_is_refused(pairs, change, message):
    with pytest.raises(RecipeError, match=message):
        check_recipe(recipe(pairs, **change))


@pytest.mark.parametrize("damage", ["preprocessor.json", "source.model"])
def test_a_damaged_run_whose_vocabularies_are_asked_for_is_told_in_a_line(task, damage, tmp_path):
    splits, fitted = task
    for name, data in fitted.preprocessor.files().items():
        (tmp_path / name).write_bytes(b"{" if name == damage else data)
    with pytest.raises(DataError, match=f"task.vocabulary={tmp_path}: ") as told:
        TASKS["translation"](splits, vocabulary=str(tmp_path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "args, message",
    [
        ({"coverage_penalty": 9}, "task.coverage_penalty=9: from 0 to 5"),
        ({"coverage_penalty": 5.1}, "task.coverage_penalty=5.1: from 0 to 5"),
        ({"sampling": 0}, "task.sampling=0: above 0"),
        ({"names": 1.5}, "task.names=1.5: a share"),
    ],
)
def test_a_task_that_cannot_be_is_refused(task, args, message):
    with pytest.raises(DataError, match=message):
        TASKS["translation"](task[0], vocabulary_size=340, length=48, **args)
