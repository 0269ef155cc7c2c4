"""The app as its users run it: in a process of its own, beside its files."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from apps.native import library_path
from apps.sentiment import GREEN, PLAIN, RED, _marked
from bigkeras.classifier_artifact import export_classifier
from bigkeras.tasks import TextPreprocessor

ROOT = Path(__file__).resolve().parents[2]
needs_library = pytest.mark.skipif(library_path() is None, reason="this wheel of TensorFlow has no native library")
WORDS = ("[PAD]", "[UNK]", "good", "bad", "好", "film")


def word_model():
    """Logits that count good and bad words."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(len(WORDS), 2, name="embedding")(tokens)
    x = keras.ops.sum(x, 1)
    model = keras.Model(tokens, keras.layers.Dense(2, name="logits")(x))
    vectors = np.zeros((len(WORDS), 2), np.float32)
    vectors[2] = vectors[4] = (0, 2)
    vectors[3] = (2, 0)
    model.set_weights([vectors, np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of models with one, `words`: its graph needs TensorFlow Text for NFKC."""
    folder = tmp_path_factory.mktemp("models")
    preprocessor = TextPreprocessor(tokens="word", length=64, vocabulary=WORDS)
    export_classifier(word_model(), preprocessor, ["差", "good"], folder / "words", examples=[b"good", b""])
    return folder


@pytest.fixture
def app(models, tmp_path):
    def run(*arguments, model="words", before='exec "$@"', **options):
        environment = os.environ | {"BIGKERAS_MODELS": str(models), "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "apps.sentiment", "--model", model, *map(str, arguments)]
        command = ["sh", "-c", before, "sh", *command]
        return subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, timeout=300, **options)

    return run


def labels(done):
    return [json.loads(line).get("answers", [{"label": None}])[0]["label"] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("runtime", ["c", "python"])
def test_both_runtimes_answer_with_the_operations_of_tensorflow_text(app, runtime):
    done = app("ＧＯＯＤ film", "a bad, bad film", "--json", "--runtime", runtime)
    assert labels(done) == ["good", "差"]
    assert (done.returncode, done.stderr.decode()) == (0, f"runtime: {runtime}\n")


def test_options_may_stand_between_texts(app):
    for said, texts in ((("fine food", "--json", "--", "-so"), ["fine food", "-so"]), (("--json", "--", "-x"), ["-x"])):
        lines = app(*said).stdout.splitlines()
        assert [json.loads(line)["text"] for line in lines] == texts


def test_standard_input_is_a_text_a_line_whatever_is_in_it(app):
    lines = [b"good", b"", b"\xff bad \x00", "好 😀 e\u0301 مرحبا".encode(), b"good " * 200_000]
    done = app("-", "--json", input=b"\n".join(lines))
    assert labels(done) == ["good", None, "差", "good", "good"]
    assert done.stderr.decode() == "standard input, line 2: an empty text\n"
    assert done.returncode == 1


def test_a_table_comes_back_with_two_more_columns(app, tmp_path):
    rows = ["id;review;x", '1;"good; very ""good""";a', "2;bad;b", "3;;c", "4;too;many;cells", "5;bro\udcffken good;d"]
    (tmp_path / "in.csv").write_text("\r\n".join([*rows, ""]), "utf-8", "surrogateescape", newline="")
    done = app("--file", "in.csv", "--output", "out.csv", "--batch", 2)
    written = (tmp_path / "out.csv").read_bytes().decode("utf-8", "surrogateescape")
    table = list(csv.reader(written.splitlines(), delimiter=";"))
    assert table[0] == ["id", "review", "x", "label", "probability"]
    copied = [row[:-2] if len(row) == 5 else row for row in table[1:]]
    assert copied == list(csv.reader(rows[1:], delimiter=";"))
    assert [row[3] for row in table[1:]] == ["good", "差", "", "cells", "good"]
    assert done.stdout == b""
    assert done.returncode == 1
    assert [line.partition(": ")[0] for line in done.stderr.decode().splitlines()] == [
        "in.csv, line 4",
        "in.csv, line 5",
    ]


def test_json_lines_have_their_texts_under_a_key(app, tmp_path):
    lines = ['{"id": 1, "review": "good"}', "", '{"review": 7}', "{broken", '{"review": "bad \\ud83d"}', "null"]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    done = app("--file", "in.jsonl", "--json")
    assert labels(done) == ["good", None, None, "差", None]
    assert "in.jsonl, line 3: no text under 'review'\nin.jsonl, line 4: not JSON: " in done.stderr.decode()
    assert done.stderr.decode().endswith("in.jsonl, line 6: not a JSON object\n")
    assert "no text under 'id'" in app("--file", "in.jsonl", "--column", "id").stderr.decode()
    (tmp_path / "in.jsonl").write_text('{"content": "bad", "review": "good"}')  # of two usual ones, as in a table
    assert labels(app("--file", "in.jsonl", "--json")) == ["good"]


def test_a_file_in_another_encoding_is_read_where_it_is_said(app, tmp_path):
    (tmp_path / "in.csv").write_bytes("评论,编号\n好 film 很长的评论,1\n".encode("gb18030"))
    assert app("--file", "in.csv").stderr.decode().startswith("in.csv: not UTF-8 text: --encoding says what it is")
    done = app("--file", "in.csv", "--encoding", "gb18030")
    assert done.stdout.decode().splitlines()[1].startswith("好 film 很长的评论,1,good,0.")


def test_the_explanation_marks_the_words_that_carried_the_answer(app):
    done = app("--explain", "the film was good, not bad")
    assert done.stdout.decode().splitlines()[1] == "    the film was [-good,] not [+bad]"
    words = json.loads(app("--explain", "--json", "good film").stdout)["words"]
    assert [word["word"] for word in words] == ["good ", "film"]
    assert words[0]["weight"] > 0.3
    marked = _marked([("the ", 0.0), ("good ", 0.5), ("bad", -0.4)], colours=True)
    assert marked == f"    the {GREEN}good{PLAIN} {RED}bad{PLAIN}"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "a TEXT, - or --file FILE"),
        (("a", "--file", "x.csv"), 2, "a TEXT, - or --file FILE"),
        (("--file", "in.csv", "--delimiter", '"'), 2, "--delimiter '\"': one character"),
        (("--file", "in.txt", "--column", "said"), 2, "--column goes with .csv, .tsv and .jsonl, not with in.txt"),
        (("--file", "in.txt", "--delimiter", ";"), 2, "--delimiter and --no-header go with a table"),
        (("--file", "twice.csv"), 1, "two columns are called 'text': --column takes one of 'text', 'Text'"),
        (("--file", "same.csv"), 1, "same.csv: two columns are called 'text': rename one"),
        (("--file", "header.csv"), 0, ""),
        (("--file", "none.txt"), 0, "none.txt: holds no text"),
        (("--file", "in.csv", "--column", "said", "--encoding", "idna"), 1, "--encoding idna: in.csv cannot be read"),
        (("--file", "in.txt", "--encoding", "idna"), 1, "--encoding idna: in.txt cannot be read"),
        (("--file", "gone.csv"), 1, "gone.csv: cannot be read: No such file"),
        (("--file", "in.csv", "--column", "body"), 1, "in.csv: no column 'body': --column takes one of 'id', 'said'"),
        (("--file", "in.csv"), 1, "in.csv: which column holds the texts?"),
        (("--file", "empty.csv"), 1, "empty.csv: the file is empty"),
        (("--file", "in.csv", "--encoding", "klingon"), 1, "--encoding klingon: no such encoding"),
        (("--file", "in.csv", "--column", "said", "--explain"), 2, "--explain goes with --json"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(app, arguments, status, message, tmp_path):
    (tmp_path / "in.csv").write_text("id,said\n1,good\n")
    (tmp_path / "in.txt").write_text("good\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "twice.csv").write_text("text,Text\ngood,bad\n")
    (tmp_path / "same.csv").write_text("text,text\ngood,bad\n")
    (tmp_path / "header.csv").write_text("text\n")
    (tmp_path / "none.txt").touch()
    done = app(*arguments)
    assert done.returncode == status
    assert message in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_closed_standard_input_is_named(app):
    done = app("-", before='exec "$@" <&-')
    assert (done.returncode, done.stderr.decode()) == (1, "standard input is closed\n")


def test_a_model_of_pictures_is_refused(app, models):
    from bigkeras.tasks import ImagePreprocessor

    pictures = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    import tensorflow as tf

    example = tf.io.encode_png(np.zeros((2, 2, 1), np.uint8)).numpy()
    preprocessor = ImagePreprocessor(height=2, width=2, channels=1)
    export_classifier(pictures, preprocessor, ["a", "b"], models / "pictures", examples=[example])
    done = app("good", model="pictures")
    assert done.returncode == 1
    assert "not a text classifier" in done.stderr.decode()


def test_two_classes_can_be_decided_at_the_threshold_tuned_on_validation(app, models, tmp_path):
    shutil.copytree(models / "words", tmp_path / "tuned")
    # A version that is kept elsewhere, behind a link.
    (tmp_path / "tuned" / "1").rename(tmp_path / "words-1")
    (tmp_path / "tuned" / "1").symlink_to(tmp_path / "words-1")
    (tmp_path / "tuned" / "metrics.json").write_text('{"threshold": 0.9}')
    texts = ["good film", "good good", "film"]  # 0.88, 0.98 and 0.5 for good
    assert labels(app(*texts, "--json", model=tmp_path / "tuned")) == ["good", "good", "差"]
    done = app(*texts, "", "--json", "--tuned", model=tmp_path / "tuned")
    assert labels(done) == ["差", "good", "差", None]
    done = app("good", "--tuned")
    assert (done.returncode, done.stderr.decode().count("\n")) == (1, 1)
    assert "--tuned: no threshold stands in its metrics.json" in done.stderr.decode()
    shutil.copytree(tmp_path / "words-1", tmp_path / "tuned" / "2")
    assert app("good", "--tuned", model=tmp_path / "tuned").returncode == 0
    told = "--tuned: the threshold in .*tuned/metrics.json is that of another version"
    done = app("good", "--tuned", model=tmp_path / "tuned" / "1")
    assert done.returncode == 1 and re.search(told, done.stderr.decode())
    shutil.copytree(models / "words" / "1", models / "words" / "7")
    assert "no threshold stands in its metrics.json" in app("good", "--tuned").stderr.decode()
    shutil.rmtree(models / "words" / "7")
    (tmp_path / "tuned" / "labels.txt").write_text("one\nother\n")
    done = app("good", "--tuned", model=tmp_path / "tuned")
    assert done.returncode == 1 and re.search(told, done.stderr.decode())


SHIPPED = {
    "sentiment-en": ("Well done, all of it.", "A dull, awful mess."),
    "sentiment-zh": ("很好吃，送得也快", "菜凉了，送得也慢"),
}


def test_every_shipped_text_model_has_two_texts_here():
    assert set(SHIPPED) == {folder.name for folder in (ROOT / "saved_models").glob("sentiment-*")}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_text_model_is_small_has_a_card_and_labels_and_answers(app, name):
    folder = ROOT / "saved_models" / name
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 15e6
    assert (folder / "labels.txt").read_text("utf-8").split() == ["negative", "positive"]
    assert (folder / "README.md").read_text("utf-8").startswith(f"# {name}\n")
    done = app(*SHIPPED[name], "--json", model=folder)
    assert (labels(done), done.returncode) == (["positive", "negative"], 0)


@needs_library
@pytest.mark.parametrize("named", [False, True])
def test_an_app_that_waits_for_input_ends_when_it_is_asked_to(named, models, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    place = ["--file", str(tmp_path / "pipe")] if named else ["-"]
    command = [sys.executable, "-m", "apps.sentiment", *place, "--model", "words", "--runtime", "c"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"BIGKERAS_MODELS": str(models), "PYTHONPATH": str(ROOT)},
    ) as app, open(tmp_path / "pipe" if named else os.dup(app.stdin.fileno()), "wb") as lines:  # fmt: skip
        lines.write(b"a good film\n")
        lines.flush()
        assert app.stdout.readline()
        app.send_signal(signal.SIGTERM)
        assert app.wait(60) == 128 + signal.SIGTERM
        assert b"Fatal" not in app.stderr.read()


# The peak of a process' child is at least its own: so a small one starts the app, not the one that tests.
PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
)


@pytest.mark.slow
@needs_library
def test_memory_does_not_grow_with_the_file(models, tmp_path):
    peaks = []
    for rows in (20_000, 400_000):
        (tmp_path / "in.csv").write_text("text\n" + "a good film\n" * rows)
        command = [sys.executable, "-c", PEAK, sys.executable, "-m", "apps.sentiment", "--model", "words"]
        done = subprocess.run(
            [*command, "--runtime", "c", "--file", "in.csv", "--output", "out.csv"], cwd=tmp_path, check=True,
            env=os.environ | {"BIGKERAS_MODELS": str(models), "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert sum(1 for _ in (tmp_path / "out.csv").open()) == rows + 1
        peaks.append(float(done.stdout))  # MB
    assert peaks[1] - peaks[0] < 50
