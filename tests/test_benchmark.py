"""The benchmark: its statistics, a small run without PyTorch, and that the peers are the same models."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from benchmarks import (
    cold_start,
    comparison,
    multi30k_tokenised,
    own_texts,
    predict_text,
    scaling,
    slow_worker,
    text_artifact,
    text_contenders,
    train_image,
    train_text,
    train_translator,
    translate,
    translator_contenders,
    unseen_names,
    unseen_sentences,
    waimai_splits,
)
from benchmarks.comparison import markdown, parse, summary
from benchmarks.contenders import CLASSES, WORKLOADS, examples, stock_model
from benchmarks.interleave import Worker, WorkerError, ratio_interval, rounds
from benchmarks.translation_artifacts import batches as sentence_batches
from benchmarks.translators import up_to_end

from bigkeras.data import DATASETS
from bigkeras.data.fingerprint import fingerprints
from bigkeras.data.source import ArraySource, DataError, Splits

ROOT = Path(__file__).resolve().parents[1]


def test_the_ratio_is_that_of_the_medians_and_lies_in_its_interval():
    random = np.random.default_rng(1)
    times, reference = random.normal(3, 0.1, 30), random.normal(2, 0.1, 30)
    ratio, low, high = ratio_interval(times, reference)
    assert ratio == np.median(times) / np.median(reference)
    assert low < ratio < high
    assert low < 1.5 < high


def test_what_disturbs_whole_rounds_leaves_the_ratio():
    slower = np.array([1.0, 5.0, 1.0, 2.0, 9.0, 1.0, 3.0])
    assert np.allclose(ratio_interval(1.25 * slower, slower), 1.25)


def test_the_interval_narrows_with_more_rounds_and_is_the_same_again():
    random = np.random.default_rng(2)
    times, reference = random.normal(1, 0.1, (2, 200))
    _, low, high = ratio_interval(times[:10], reference[:10])
    _, closer_low, closer_high = ratio_interval(times, reference)
    assert closer_high - closer_low < high - low
    assert ratio_interval(times, reference, seed=3) == ratio_interval(times, reference, seed=3)


@pytest.mark.parametrize(("times", "reference"), [([], []), ([1.0, 2.0], [1.0])])
def test_rounds_that_do_not_pair_are_refused(times, reference):
    with pytest.raises(ValueError, match="as many of both"):
        ratio_interval(times, reference)


class Counting:
    """In the place of a worker: notes its turns."""

    def __init__(self, name: str, turns: list[str]):
        self.name, self.turns = name, turns

    def ask(self, steps: int) -> dict:
        self.turns.append(self.name)
        return {"seconds": 1.0}


def test_every_round_has_each_contender_once_and_starts_with_another():
    turns: list[str] = []
    answers = rounds({name: Counting(name, turns) for name in "abc"}, 4, 1)
    assert "".join(turns) == "abcbcacababc"
    assert {name: len(of) for name, of in answers.items()} == {"a": 4, "b": 4, "c": 4}


def test_real_input_is_charged_for_the_batches_of_its_next_turn():
    answer = {"seconds": 2.0, "settled": 3.0, "cpu_seconds": 4.0, "loss": 1.0, "peak_mb": 10.0}
    both = {"ours": [answer], "ours, real input": [answer]}
    found = summary(both, {"ours": 2.0, "ours, real input": 2.0}, steps=2)
    assert found["ours"]["median"] == 1.0
    assert found["ours, real input"]["median"] == 1.5
    assert found["ours, real input"]["times_ours"] == (1.5, 1.5, 1.5)


def test_a_worker_that_ends_says_why():
    worker = Worker("benchmarks.no_such_module", {}, {})
    with pytest.raises(WorkerError, match="no_such_module"):
        worker.answer()
    worker.close()


def test_unknown_models_are_named(capsys):
    with pytest.raises(SystemExit):
        parse(train_image.SUITE, ["--models", "lenet,alexnet"])
    assert "'alexnet' is not one of lenet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "options", "message"),
    [
        ("scaling", ["--rounds", "0"], "--rounds: 0: at least 1"),
        ("scaling", ["--checkpoint-model", "alexnet"], "--checkpoint-model: invalid choice: 'alexnet'"),
        ("accelerator", ["--rounds", "0"], "--rounds: 0: at least 1"),
        ("slow_worker", ["--share", "1"], "--share 1: at least 0, and less than 1"),
        ("slow_worker", ["--share", "-0.1"], "--share -0.1: at least 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(program, options, message, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # accelerator sets it: afterwards it is as before
    with pytest.raises(SystemExit) as left:
        importlib.import_module(f"benchmarks.{program}").main(options)
    assert left.value.code == 2 and message in capsys.readouterr().err


def test_without_a_worker_to_slow_nothing_is_measured():
    with pytest.raises(WorkerError, match="worker 1, which was to be slowed, is not there"):
        slow_worker.worker_one(os.getpid())


def test_examples_of_a_class_are_alike_and_always_the_same():
    images, labels = examples((8, 8, 1), 40)
    again, _ = examples((8, 8, 1), 40)
    assert images.dtype == np.uint8 and (images == again).all()
    assert set(labels) == set(range(CLASSES))
    means = np.array([images[labels == label].mean((0, 3)).ravel() for label in range(CLASSES)])
    apart = np.abs(means[:, None] - images.reshape(40, 1, 64).transpose(1, 0, 2)).mean(-1)
    assert (apart.argmin(0) == labels).all()


@pytest.mark.timeout(1500)  # seconds on a free machine, minutes beside a training
@pytest.mark.parametrize(
    ("suite", "models", "contenders"),
    [
        (train_image.SUITE, "tiny", ["ours", "ours, real input", "stock Keras"]),
        (train_text.SUITE, "tiny-lstm,tiny-encoder", ["ours", "stock Keras"]),
        (train_translator.SUITE, "toy", ["ours"]),
    ],
)
def test_a_small_run_learns_and_reports(suite, models, contenders, tmp_path):
    report = tmp_path / "report.json"
    module = f"benchmarks.{suite.program.replace('-', '_')}"
    command = [sys.executable, "-m", module, "--models", models, "--rounds", "2"]
    done = subprocess.run(
        [*command, "--without-pytorch", "--threads", "1", "--json", str(report)],
        cwd=ROOT / "scripts",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1400,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(report.read_text(encoding="utf-8"))
    for result in written["results"]:
        found = result["contenders"]
        assert list(found) == contenders
        assert all(len(values["seconds_per_step"]) == 2 for values in found.values())
        assert all(values["last_loss"] < values["first_loss"] for values in found.values())
    table = markdown(suite, written)
    assert "\n".join(table) in done.stdout
    cells = table[4].split(" | ")
    assert f" | steps/s | {suite.units}/s | " in table[2] and float(cells[5].replace(",", "")) > float(cells[4])


@pytest.mark.timeout(900)  # seconds on a free machine, minutes beside a training
def test_a_tiny_training_is_timed_on_one_device_and_on_two_workers_and_others_are_predicted(tmp_path, capsys):
    report = tmp_path / "report.json"
    options = ["--models", "tiny", "--checkpoint-model", "tiny", "--contenders", "one,workers", "--rounds", "2"]
    assert scaling.main([*options, "--json", str(report)]) == 0
    times = json.loads(report.read_text(encoding="utf-8"))["results"]["tiny"]
    assert list(times) == ["one device", "two workers"]
    assert all(len(of) == 2 and min(of) > 0 for of in times.values())
    table = capsys.readouterr().out.splitlines()
    ratio = np.median(times["one device"]) / np.median(times["two workers"])
    cells = ["tiny", "two workers", f"{np.median(times['two workers']) * 1000:.4g}", f"{ratio:.2f} ("]
    assert any(line.startswith(f"| {' | '.join(cells)}") for line in table)
    predicted = [line.split(" | ")[:5] for line in table if line.startswith("| tiny |")][2:]
    assert [row[4] for row in predicted] == ["1", "8", "64", "512"]
    assert any(line.startswith("A checkpoint of tiny (") for line in table)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_a_slow_worker_each_way_of_training_tells_when_it_had_which_loss(tmp_path, capfd):
    report = tmp_path / "report.json"
    options = ["--epochs", "2", "--share", "0.5", "--set", "batch_size=250", "--set", "augmentation=[]"]
    assert slow_worker.main([*options, "--json", str(report), "--picture", str(tmp_path / "curves.png")]) == 0
    curves = json.loads(report.read_text(encoding="utf-8"))["curves"]
    assert list(curves) == ["synchronous", "asynchronous"]
    table = capfd.readouterr().out
    for name, ((began, loss), (seconds, later)) in curves.items():
        assert 0 <= began < seconds and later > 0
        assert f"| {name} | {loss:.3f} at {began:.0f} s | {later:.3f} at {seconds:.0f} s |" in table
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_made_words_differ_and_made_texts_have_the_lengths_of_reviews():
    words = text_artifact.made_words(30_000)
    texts = text_artifact.made_texts(words, 300, 175)
    lengths = [len(text.split()) for text in texts]
    assert len(set(words)) == 30_000
    assert texts == text_artifact.made_texts(words, 300, 175)
    assert 150 < np.median(lengths) < 200 and max(lengths) > 500


@pytest.mark.parametrize(("count", "batch", "found"), [(9, 4, 2), (4, 4, 1), (3, 7, 1)])
def test_batches_of_texts_are_whole(count, batch, found):
    parts = text_artifact.batches(list(range(count)), batch)
    assert [len(part) for part in parts] == [batch] * found
    assert [n for part in parts for n in part] == [n % count for n in range(found * batch)]


def test_the_app_is_held_to_a_quarter_of_the_time_and_to_less_memory():
    def told(seconds: float, megabytes: float) -> str:
        start = cold_start.Start(4.0, 700.0, "positive", 0.9)
        of = {cold_start.APP: [cold_start.Start(seconds, megabytes, "positive", 0.9)], cold_start.PYTHON: [start]}
        return predict_text.goals({"model": "tiny", "starts": predict_text.start_summary(of)})

    assert "missed" not in told(1.0, 400.0)
    assert "missed: more than a quarter of the time of Python TensorFlow." in told(1.1, 400.0)
    assert "missed: no less memory than Python TensorFlow." in told(1.0, 700.0)


@pytest.mark.timeout(900)  # half a minute on a free machine, minutes beside a training
def test_predictors_of_a_tiny_model_are_measured_without_peers(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.predict_text", "--models", "tiny", "--rounds", "1", "--batch", "4"]
    done = subprocess.run(
        [*command, "--without-peers", "--threads", "1", "--json", str(report)],
        cwd=ROOT / "scripts",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(report.read_text(encoding="utf-8"))
    (found,) = written["results"]
    for kind, calls in predict_text.TURNS.items():
        assert list(found[kind]) == ["ours", "ours, from texts", "Python TensorFlow"]
        assert all(len(of["seconds"]) == calls for of in found[kind].values())
        assert all(of["difference"] <= predict_text.TOLERANCE for of in found[kind].values())
    assert list(found["starts"]) == [cold_start.APP, cold_start.PYTHON]
    assert "\n".join(predict_text.markdown(written)) in done.stdout


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
@pytest.mark.timeout(600)
def test_a_tiny_bert_on_jax_is_measured_against_the_matrix_peak(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.accelerator", "--models", "tiny", "--matrix", "64", "--rounds", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [*command, "--json", str(report)], cwd=ROOT / "scripts", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    tiny = found["results"]["tiny"]
    # Six for each parameter that is no embedding, two products of 128 × 8 a token, forward once and backward twice.
    blocks = 2 * 12 * 128**2
    assert tiny["flops"] == pytest.approx(4 * 8 * (6 * blocks + 2 * 12 * 8 * 128) / np.median(tiny["seconds"]))
    assert f"{tiny['flops'] / found['peak']:.1%}" in done.stdout


@pytest.mark.timeout(900)
def test_own_texts_are_scored_beside_a_linear_machine_on_the_same_split(tmp_path, monkeypatch, capsys):
    rows = [f"the {('film', 'meal', 'tour')[i % 3]} was {('great', 'awful')[i % 2]} {i},{i % 2}" for i in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    monkeypatch.setattr(own_texts, "COSTS", (0.3, 1.0))
    settings = ["--set", "model=nb_ngrams", "--set", "epochs=3", "--set", "data.test=0.25"]
    report = tmp_path / "report.json"
    assert own_texts.main(["--data", str(tmp_path / "t.csv"), *settings, "--json", str(report)]) == 0
    written = json.loads(report.read_text(encoding="utf-8"))
    assert written["rows"] == {"train": 90, "test": 30}
    for found in written["contenders"].values():
        low, high = found["accuracy_95"]
        assert low <= found["accuracy"] <= high and found["accuracy"] > 0.9 and found["seconds"] > 0
    assert "\n".join(own_texts.markdown(written)) in capsys.readouterr().out


def test_captions_that_are_not_there_are_told(tmp_path, capsys):
    assert multi30k_tokenised.main(["no-model", "--data", str(tmp_path)]) == 1
    assert "multi30k: " in capsys.readouterr().err


def test_tokenised_captions_are_scored_as_they_stand(monkeypatch):
    monkeypatch.setattr(multi30k_tokenised, "tokenised", lambda texts: [text.lower() for text in texts])
    score, signature = multi30k_tokenised.tokenised_bleu(["Ein Hund läuft , ja ."], ["ein hund läuft , ja ."])
    assert score == pytest.approx(100) and "tok:none" in signature
    # What is not parted is another word.
    assert multi30k_tokenised.tokenised_bleu(["Ein Hund läuft, ja ."], ["ein hund läuft , ja ."])[0] < 60


def test_captions_are_tokenised_by_moses_rules():
    pytest.importorskip("sacremoses", reason="sacremoses is installed by scripts/benchmark only")
    assert multi30k_tokenised.tokenised(["Ein „Hund“, der läuft!"]) == ["ein &quot; hund &quot; , der läuft !"]


@pytest.mark.parametrize("name", ["imdb-endings", "waimai", "sst2"])
def test_a_sample_is_a_table_of_the_published_reviews(name, has_data, tmp_path, monkeypatch):
    has_data(*{"imdb-endings": ("imdb",), "waimai": ("waimai-10k",), "sst2": ("sst2",)}[name])
    monkeypatch.setitem(own_texts.SAMPLES, name, (own_texts.SAMPLES[name][0], 50, *own_texts.SAMPLES[name][2:]))
    found = own_texts.split(own_texts.sample(name, tmp_path), own_texts.PARTED[name])
    assert sum(len(texts) for texts, _ in found.values()) == 50 and set(found["test"][1]) == {0, 1}
    texts = [text for some, _ in found.values() for text in some]
    assert not any("<br" in text for text in texts) and len(set(texts)) > 45


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (comparison.new_file, "no/folder/times.json"),
        (comparison.new_file, "."),
        (comparison.new_picture, "curves.foo"),
        (comparison.above_zero, "0"),
    ],
)
def test_what_could_not_be_written_or_used_is_told_before_anything_is_measured(check, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(argparse.ArgumentTypeError):
        check(text)
    assert comparison.new_file("times.json") == "times.json" and not list(tmp_path.iterdir())


def test_names_never_seen_are_put_in_the_place_of_tom(tmp_path, capsys):
    folder = tmp_path / "tatoeba-deu-eng"
    folder.mkdir()
    lines = [f"Tom saw Sabine {i}.\tTom sah Sabine {i}.\tCC-BY 2.0" for i in range(300)]
    (folder / "deu.txt").write_text("\n".join(lines), encoding="utf-8")
    names, pairs = unseen_names.renamed(DATASETS["tatoeba"](target_language="de", directory=str(tmp_path)))
    unseen = [name for name in unseen_names.NAMES.split() if name != "Sabine"]
    assert pairs and names == unseen[: len(pairs)] == [source.split()[0] for source, _ in pairs]
    assert all(target.split()[0] == source.split()[0] for source, target in pairs)
    assert unseen_names.main(["--data", str(tmp_path)]) == 1
    assert "translate-en-de: has other held-out sentences than this data" in capsys.readouterr().err
    assert unseen_names.main(["--data", str(tmp_path / "none")]) == 1
    assert "tatoeba is not in" in capsys.readouterr().err


def test_held_out_sentences_are_parted_by_what_another_model_has_seen(tmp_path, capsys):
    english = [f"Go there {i} times" for i in range(200)]
    for folder, code, some in (("deu", "deu", english[:150]), ("cmn", "cmn", english)):
        (tmp_path / f"tatoeba-{folder}-eng").mkdir()
        lines = [f"{text}\t{'去' * (i % 3 + 1)}{i}\tauthors\n" for i, text in enumerate(some)]
        if folder == "deu":
            lines = [f"{text}\tGeh {i} mal\tauthors\n" for i, text in enumerate(some)]
        (tmp_path / f"tatoeba-{folder}-eng" / f"{code}.txt").write_text("".join(lines), encoding="utf-8")
    for language in ("zh", "de"):
        splits = DATASETS["tatoeba"](target_language=language, directory=str(tmp_path))
        (tmp_path / language).mkdir()
        (tmp_path / language / "data.json").write_text(json.dumps(fingerprints(splits)))
    for models in (("translate-en-zh", tmp_path / "de"), (tmp_path / "zh", "translate-en-de")):
        with pytest.raises(DataError, match="has other held-out sentences than this data"):
            unseen_sentences.parted(*models, "test", str(tmp_path))
    parts = unseen_sentences.parted(tmp_path / "zh", tmp_path / "de", "test", str(tmp_path))
    german = DATASETS["tatoeba"](target_language="de", directory=str(tmp_path)).train.columns["source"].tolist()
    assert sum(map(len, parts.values())) == 4
    for name, source in parts.items():
        assert all((text in german) is (name == "seen") for text in source.columns["source"].tolist())
    assert unseen_sentences.main(["--data", str(tmp_path / "none")]) == 1
    assert "tatoeba is not in" in capsys.readouterr().err


def test_a_baseline_is_scored_on_what_it_has_not_learned():
    words = np.array(["很好吃", "太难吃了", "还可以吧"])
    rows = np.random.default_rng(0).integers(0, 3, 90)
    texts = np.array([words[row].encode() for row in rows], object)
    whole = ArraySource({"text": texts}, rows == 1, "reviews")
    parts = [whole.take(range(start, start + 30)) for start in (0, 30, 60)]
    assert waimai_splits.baseline(Splits(*parts, ("positive", "negative"))) == {"accuracy": 1.0, "rare_f1": 1.0}
    assert waimai_splits.rare_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == pytest.approx(2 / 3)
    found = {"one": [{"accuracy": 0.5, "rare_f1": 0.25}, {"accuracy": 1.0, "rare_f1": 0.75}]}
    assert waimai_splits.markdown(found)[-1] == "| one | 50.00%, 100.00% | 75.00% | 0.250, 0.750 | 0.500 |"


def test_own_texts_that_cannot_be_used_are_one_line(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text,label\na,1\nb,1\n", encoding="utf-8")
    assert own_texts.main(["--data", str(tmp_path / "t.csv")]) == 1
    assert "only one class" in capsys.readouterr().err


@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="the script would make another environment")
def test_paths_on_a_scripts_line_begin_where_it_is_called(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,1\nb,1\n", encoding="utf-8")
    command = [ROOT / "scripts" / "benchmark", "own-texts", "--data", "t.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert "only one class" in done.stderr


def test_peers_that_are_missing_are_named(monkeypatch, capsys):
    monkeypatch.setattr(predict_text, "PEERS", ("no_such_peer",))
    assert predict_text.main(["--models", "tiny"]) == 1
    assert "no_such_peer not installed" in capsys.readouterr().err


@pytest.fixture(scope="module")
def translator_run(tmp_path_factory):
    """A run directory of a translator with weights as they start, and its data."""
    import keras

    from bigkeras.models import MODELS
    from bigkeras.recipe_data import load_splits
    from bigkeras.recipes import RECIPES
    from bigkeras.tasks import TASKS

    folder = tmp_path_factory.mktemp("translator")
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(["one", "two", "red", "cat", "dog"], n % 6 + 2)) for n in range(120)]
    (folder / "pairs.tsv").write_text("".join(f"{t}\t{t.upper()}\n" for t in texts), encoding="utf-8")
    recipe = RECIPES["translation-pairs"].override(
        **{"data.file": str(folder / "pairs.tsv"), "task.vocabulary_size": 300, "task.length": 24}
    )
    splits = load_splits(recipe)
    task = TASKS["translation"](splits, **recipe.task.args)
    sizes = {"depth": 1, "width": 16, "num_heads": 2, "feed_forward": 16}
    keras.utils.set_random_seed(0)  # with others BEGIN may be the likeliest, which our search never takes
    MODELS["transformer_translator"](**task.model_arguments, **sizes).save(folder / "best.keras")
    recipe.save(folder / "recipe.json")
    for name, content in task.preprocessor.files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_translator_is_measured_by_both_of_its_signatures(translator_run, tmp_path):
    report, sentences = tmp_path / "report.json", tmp_path / "sentences.txt"
    sentences.write_text("one cat\ntwo dogs\n\na red dog\none\ntwo cats\nred\n", encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.translate", "--run", str(translator_run), "--without-peers"]
    options = ["--sentences", str(sentences), "--batch", "4", "--beam", "2", "--rounds", "2", "--threads", "1"]
    done = subprocess.run(
        [*command, *options, "--kinds", "many", "--json", str(report)],
        cwd=ROOT / "scripts",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(report.read_text(encoding="utf-8"))
    assert [result["search"] for result in written["results"]] == ["greedy", "beam"]
    for result in written["results"]:
        assert list(result["contenders"]) == ["ours", "ours compiled"] and result["sentences"] == 6
        assert all(len(of["seconds"]) == 2 for of in result["contenders"].values())
        assert all(of["tokens_per_second"] > 0 for of in result["contenders"].values())
    assert "\n".join(translate.markdown(written)) in done.stdout


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_our_translator_in_other_libraries_writes_the_same(norm, tmp_path):
    pytest.importorskip("ctranslate2", reason="CTranslate2 is installed by scripts/benchmark only")
    pytest.importorskip("transformers", reason="transformers is installed by scripts/benchmark only")
    import keras
    from benchmarks.translation_peers import write_ctranslate2, write_hugging_face
    from benchmarks.translators import CONTENDERS, FLOAT32, HUGGING_FACE

    from bigkeras.decoding import greedy
    from bigkeras.models import MODELS
    from bigkeras.models.stepper import stepper

    keras.utils.set_random_seed(0)  # with others BEGIN may be the likeliest, which our search never takes
    sizes = {"depth": 1, "width": 16, "num_heads": 2, "feed_forward": 16}
    model = MODELS["transformer_translator"](vocabulary_size=260, length=24, norm=norm, **sizes)
    write_ctranslate2(model, tmp_path / "ctranslate2")
    write_hugging_face(model, tmp_path / "hugging_face")
    ids = np.random.default_rng(0).integers(4, 250, (5, 9))
    # Not with beams: a network that has learned nothing writes one word again and again, and ends nowhere.
    wanted = [up_to_end(row) for row in greedy(stepper(model), ids.astype(np.int32))[0].numpy()[:, 0].tolist()]
    options = {"folder": str(tmp_path), "threads": 2, "batch": 5, "beams": 1}
    for name in (FLOAT32, HUGGING_FACE):
        found = CONTENDERS[name]({**options, "contender": name})([{"ids": row.tolist()} for row in ids])
        # In the last place that it allows, ours ends a sentence, the others go on.
        assert [row[:27] for row in found] == [row[:27] for row in wanted]


def test_every_turn_of_sentences_has_short_and_long_ones():
    assert sentence_batches(range(10), 2, 2) == [range(0, 2), range(4, 6), range(8, 10), range(2, 4), range(6, 8)]
    assert up_to_end([7, 9, 3, 8]) == [7, 9] and up_to_end([7, 0]) == [7] and up_to_end([7]) == [7]


def test_a_run_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        translate.main(["--run", str(tmp_path)])
    assert left.value.code == 2
    assert "no recipe.json there" in capsys.readouterr().err


@pytest.mark.parametrize("name", train_image.SUITE.defaults)
def test_the_models_in_pytorch_have_our_numbers_of_parameters(name):
    pytest.importorskip("torch", reason="PyTorch is installed by scripts/benchmark only")
    from benchmarks.pytorch_models import MODELS

    workload = WORKLOADS[name]
    theirs = MODELS[name](workload.shape, CLASSES).parameters()
    ours = stock_model(workload, "float32").trainable_variables
    assert sorted(p.numel() for p in theirs) == sorted(int(np.prod(v.shape)) for v in ours)


@pytest.mark.parametrize("name", train_text.SUITE.defaults)
def test_the_text_models_of_all_three_have_as_many_parameters(name):
    from bigkeras.models import MODELS

    workload = text_contenders.WORKLOADS[name]
    ours = MODELS[workload.model](**text_contenders.sizes(workload)).count_params()
    assert text_contenders.STOCK[workload.model](workload).count_params() == ours
    torch = pytest.importorskip("torch", reason="PyTorch is installed by scripts/benchmark only")
    from benchmarks.pytorch_texts import MODELS as THEIRS

    theirs = THEIRS[workload.model](workload.vocabulary, CLASSES, **workload.args)
    # PyTorch's LSTM has every bias twice.
    twice = [p for n, p in theirs.named_parameters() if n.startswith("layers.bias_hh")]
    assert sum(p.numel() for p in theirs.parameters()) - sum(p.numel() for p in twice) == ours
    assert torch.isfinite(theirs(torch.ones((2, 5), dtype=torch.int64))).all()


def test_the_encoders_of_all_three_have_the_same_activation():
    from bigkeras.layers import ApproximateGelu

    points = np.linspace(-3, 3, 9, dtype=np.float32)
    ours = ApproximateGelu()(points)
    stock = text_contenders.stock_encoder(text_contenders.WORKLOADS["tiny-encoder"])
    (feed,) = [layer for layer in stock.layers if getattr(layer, "units", None) == 16]
    np.testing.assert_allclose(feed.activation(points), ours, atol=1e-5)  # of the exact GELU up to 4e-4 off
    torch = pytest.importorskip("torch", reason="PyTorch is installed by scripts/benchmark only")
    from benchmarks.pytorch_texts import Block

    np.testing.assert_allclose(Block(8, 2, 16).feed[1](torch.from_numpy(points)), ours, atol=1e-5)


@pytest.mark.parametrize("name", translator_contenders.WORKLOADS)
def test_the_translators_of_both_have_as_many_parameters(name):
    torch = pytest.importorskip("torch", reason="PyTorch is installed by scripts/benchmark only")
    from benchmarks.pytorch_translator import Translator

    workload = translator_contenders.WORKLOADS[name]
    theirs = Translator(workload.vocabulary, **workload.args)
    assert sum(p.numel() for p in theirs.parameters()) == translator_contenders.our_network(workload).count_params()
    ids = torch.ones((2, 5), dtype=torch.int64)
    assert theirs(ids, ids).shape == (2, 5, workload.vocabulary)


def test_the_stock_model_has_no_layer_of_ours_and_answers_the_same():
    import keras

    from bigkeras.models import MODELS

    workload = WORKLOADS["resnet20"]
    keras.utils.set_random_seed(0)
    stock = stock_model(workload, "float32")
    assert not [layer for layer in stock.layers if type(layer).__module__.startswith("bigkeras")]
    own = MODELS[workload.model](input_shape=workload.shape, num_classes=CLASSES, **workload.args)
    own.set_weights(stock.get_weights())
    images = np.random.default_rng(0).standard_normal((2, *workload.shape), np.float32)
    np.testing.assert_allclose(own(images), stock(images), rtol=1e-4, atol=1e-4)
