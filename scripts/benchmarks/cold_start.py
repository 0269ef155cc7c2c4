"""From process start to the answer to one text: the app, Python TensorFlow, and a Hugging Face pipeline.

`python -m benchmarks.cold_start '{…}'` writes the model of the pipeline.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.interleave import ROOT, WorkerError
from benchmarks.text_artifact import SEED, made_words

APP, PYTHON, PIPELINE = "the app", "Python TensorFlow", "Hugging Face pipeline"
TOLERANCE = 1e-4
# Layers and width of the BERTs of Turc et al. 2019 (arXiv 1908.08962), 4.4 to 110 million parameters; 64 wide a head.
BERTS = {4.4e6: (2, 128), 11.2e6: (4, 256), 28.8e6: (4, 512), 41.4e6: (8, 512), 109.5e6: (12, 768)}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

IN_PYTHON = """
import json, sys
import tensorflow as tf
directory, text, *libraries = sys.argv[1:]
for library in libraries:
    tf.load_op_library(library)
model = tf.saved_model.load(directory)
answer = model.signatures["serving_default"](text=tf.constant([text]))
print(json.dumps([answer["label"].numpy()[0, 0].decode(), float(answer["probability"].numpy()[0, 0])]))
"""
IN_PIPELINE = """
import json, sys
from transformers import pipeline
answer, = pipeline("text-classification", model=sys.argv[1], device="cpu")(sys.argv[2], truncation=True)
print(json.dumps([answer["label"], answer["score"]]))
"""


@dataclass(frozen=True)
class Start:
    """One process: seconds from its start to its end, the most memory that it held in MB, and its best answer."""

    seconds: float
    peak_mb: float
    label: str
    probability: float


def commands(artifact: Path, bert: Path | None, text: str) -> dict[str, list[str]]:
    """What is started, by contender: arguments of Python. Without `bert`, no pipeline."""
    from apps.savedmodel import text_libraries, version_directory

    directory = version_directory(artifact)
    libraries = [str(path) for path in text_libraries(directory)]
    found = {
        APP: ["-m", "apps.sentiment", text, "--model", str(artifact), "--json"],
        PYTHON: ["-c", IN_PYTHON, str(directory), text, *libraries],
    }
    return found | ({PIPELINE: ["-c", IN_PIPELINE, str(bert), text]} if bert else {})


def started(arguments: Sequence[str], threads: int) -> Start:
    """Starts Python and waits for its answer. Raises WorkerError where it fails."""
    quiet = {"HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    limits = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environment = {**os.environ, **quiet, **dict.fromkeys(limits, str(threads)), "PYTHONPATH": path}
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, stdout=said, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        errors.seek(0)
        lines = said.read().decode().splitlines()
        if process.returncode or not lines:
            raise WorkerError((errors.read().decode(errors="replace").strip().splitlines() or ["no answer"])[-1])
    answer = json.loads(lines[-1])
    if isinstance(answer, dict):  # the app's
        answer = [answer["answers"][0]["label"], answer["answers"][0]["probability"]]
    # Kilobytes, but on macOS bytes.
    return Start(seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), *answer)


def starts(of: Mapping[str, Sequence[str]], count: int, threads: int) -> dict[str, list[Start]]:
    """`count` starts of each, in turn, after one that is not counted; every round begins with another one.

    Raises WorkerError where one fails, or where Python TensorFlow's answer is not the app's.
    """
    found: dict[str, list[Start]] = {name: [] for name in of}
    names = list(of)
    for number in range(-1, count):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = started(of[name], threads)
            found[name] += [start] if number >= 0 else []
    app, python = found[APP][0], found[PYTHON][0]
    if app.label != python.label or abs(app.probability - python.probability) > TOLERANCE:
        raise WorkerError(
            f"the app answers {app.label} {app.probability}, {PYTHON} {python.label} {python.probability}"
        )
    return found


def write_bert(folder: Path, parameters: int, vocabulary: int) -> int:
    """A BERT with random weights, of the published size nearest to so many parameters; gives how many it has."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(SEED)
    layers, width = BERTS[min(BERTS, key=lambda size: abs(size / parameters - 1))]
    words = [*SPECIAL, *made_words(max(0, vocabulary - len(SPECIAL)))]
    folder.mkdir()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    sizes: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64}
    network = BertForSequenceClassification(BertConfig(vocab_size=len(words), intermediate_size=4 * width, **sizes))
    network.save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    print(json.dumps(write_bert(Path(options["folder"]), options["parameters"], options["vocabulary"])))
