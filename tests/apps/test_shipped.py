"""The shipped models, asked with the samples as the README's first screen does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps import savedmodel
from bigkeras.evaluation import evaluate
from bigkeras.run import RunError

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "apps" / "samples"


def answers(app, *arguments):
    command = [sys.executable, "-m", f"apps.{app}", *map(str, arguments), "--json"]
    environment = {**os.environ, "BIGKERAS_MODELS": str(ROOT / "saved_models")}
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, timeout=300, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        ("digits", {"four.png": "4", "one.png": "1", "seven.png": "7", "two.png": "2"}),
        ("fashion", {"bag.png": "bag", "t-shirt.png": "t-shirt/top", "trouser.png": "trouser"}),
        ("photos10", {"cat.jpg": "cat"}),
    ],
)
def test_a_shipped_image_model_knows_its_samples(model, labels):
    told = answers("image_classification", SAMPLES / model, "--model", model)
    found = {Path(one["path"]).name: one["answers"][0]["label"].lower() for one in told}
    assert found == labels


def test_apps_answer_where_no_model_is_named():
    (told,) = answers("image_classification", SAMPLES / "photos10" / "cat.jpg")
    assert told["answers"][0]["label"] == "cat"
    (told,) = answers("sentiment", "Well done, all of it: a joy.")
    assert told["answers"][0]["label"] == "positive"
    (told,) = answers("translation", "Good morning!")
    assert told["translation"] == "Guten Morgen!"


@pytest.mark.parametrize("runtime", ["c", "python"])
def test_answers_are_the_same_where_turkish_is_spoken(runtime, monkeypatch):
    said = "sentiment", "I LIKE IT", "--model", "sentiment-en", "--runtime", runtime
    here = answers(*said)
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    assert answers(*said) == here


@pytest.mark.parametrize(
    ("names", "language"),
    [
        ({"LANG": "tr_TR.UTF-8"}, "C.UTF-8"),
        ({"LC_ALL": "az_AZ.UTF-8"}, "C.UTF-8"),
        ({"LC_MESSAGES": "lt_LT", "LANG": "de_DE.UTF-8"}, "C.UTF-8"),
        ({"LC_ALL": "de_DE.UTF-8", "LANG": "tr_TR.UTF-8"}, "de_DE.UTF-8"),
        ({}, None),
    ],
)
def test_tensorflow_is_told_to_speak_no_turkish(names, language, monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    savedmodel._speak_no_turkish()
    assert os.environ.get("LC_ALL") == language


@pytest.mark.parametrize(
    ("model", "texts"), [("sentiment-en", ("So dull.", "A joy!")), ("sentiment-zh", ("太慢了", "很好吃"))]
)
def test_neighbours_change_no_answer_of_a_shipped_classifier(model, texts):
    loaded = savedmodel.load(ROOT / "saved_models" / model)
    alone = [loaded.run("serving_default", {"text": [text.encode()]}) for text in texts]
    both = loaded.run("serving_default", {"text": [*(text.encode() for text in texts), " ".join(texts * 500).encode()]})
    for row, one in enumerate(alone):
        assert both["label"][row].tolist() == one["label"][0].tolist()
        np.testing.assert_allclose(both["probability"][row], one["probability"][0], atol=1e-5)


@pytest.mark.parametrize(("model", "letters"), [("translate-en-de", "äöüß"), ("translate-en-zh", "的我你")])
def test_a_shipped_translator_answers_every_line(model, letters):
    file = SAMPLES / model / "sentences.txt"
    told = answers("translation", "--file", file, "--model", model)
    assert [one["text"] for one in told] == file.read_text("utf-8").splitlines()
    translations = [one["translation"] for one in told]
    assert all(translations) and set("".join(translations)) & set(letters)
    assert sum(path.stat().st_size for path in (ROOT / "saved_models" / model).rglob("*") if path.is_file()) < 30e6


def test_a_shipped_translator_is_not_scored_on_another_release_of_its_sentences(tmp_path, monkeypatch):
    """It may have learned what is held out there."""
    (tmp_path / "tatoeba-deu-eng").mkdir()
    lines = [f"Go {'there ' * i}\tGeh {'dort ' * i}\tauthors\n" for i in range(1, 60)]
    (tmp_path / "tatoeba-deu-eng" / "deu.txt").write_text("".join(lines), encoding="utf-8")
    monkeypatch.setenv("BIGKERAS_DATA", str(tmp_path))
    with pytest.raises(RunError, match="translate-en-de: its data has changed since it was trained"):
        evaluate(ROOT / "saved_models" / "translate-en-de")
