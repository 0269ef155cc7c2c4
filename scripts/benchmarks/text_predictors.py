"""The predictors that predict-text compares, one process each: from token ids, or texts, to answers.

`python -m benchmarks.text_predictors '{"contender": "ours", "kind": "one", "folder": …}'` is started by predict_text.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleave import peak_memory, until_quiet
from benchmarks.text_artifact import ARTIFACT, IDS, ONNX, TEXTS, batches

OURS, FROM_TEXTS, PYTHON, ONNX_RUNTIME = "ours", "ours, from texts", "Python TensorFlow", "ONNX Runtime"
Predict = Callable[[Any], np.ndarray]


def from_ids(options: Mapping[str, Any]) -> Predict:
    """The artifact as the app runs it, by TensorFlow's C API: ids to logits."""
    return _logits(options, "c")


def python_from_ids(options: Mapping[str, Any]) -> Predict:
    """The same by Python TensorFlow."""
    return _logits(options, "python")


def _logits(options: Mapping[str, Any], runtime: str) -> Predict:
    from apps import savedmodel

    model = savedmodel.load(Path(options["folder"]) / ARTIFACT, runtime, threads=options["threads"])
    return lambda ids: model.run("logits", {"tokens": ids})["logits"]


def from_texts(options: Mapping[str, Any]) -> Predict:
    """The artifact by the C API, strings to labels and probabilities; given in the order of labels.txt."""
    from apps import savedmodel

    folder = Path(options["folder"]) / ARTIFACT
    model = savedmodel.load(folder, "c", threads=options["threads"])
    labels = (folder / "labels.txt").read_bytes().removesuffix(b"\n").split(b"\n")
    numbers = {label: number for number, label in enumerate(labels)}

    def predict(texts: list[bytes]) -> np.ndarray:
        answers = model.run("serving_default", {"text": texts})
        places = np.vectorize(numbers.get, otypes=[int])(answers["label"])
        probabilities = np.empty_like(answers["probability"])
        np.put_along_axis(probabilities, places, answers["probability"], 1)
        return probabilities

    return predict


def onnx_runtime(options: Mapping[str, Any]) -> Predict:
    """ONNX Runtime, all its optimisations, ids to logits."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options["threads"]
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(Path(options["folder"]) / ONNX), settings, providers=["CPUExecutionProvider"]
    )
    return lambda ids: session.run(None, {"tokens": ids})[0]


CONTENDERS: dict[str, Callable[[Mapping[str, Any]], Predict]] = {
    OURS: from_ids,
    FROM_TEXTS: from_texts,
    PYTHON: python_from_ids,
    ONNX_RUNTIME: onnx_runtime,
}


def items(options: Mapping[str, Any]) -> list[Any]:
    """What is predicted, call by call: single texts or batches, as ids or as bytes. `kind` is "one" or "many"."""
    folder, kind = Path(options["folder"]), options["kind"]
    if options["contender"] != FROM_TEXTS:
        with np.load(folder / IDS) as ids:
            return [ids[f"{kind}{i}"] for i in range(sum(name.startswith(kind) for name in ids.files))]
    texts = [text.encode() for text in json.loads((folder / TEXTS).read_text(encoding="utf-8"))]
    return [[text] for text in texts] if kind == "one" else batches(texts, options["batch"])


def probabilities(options: Mapping[str, Any], outputs: np.ndarray) -> np.ndarray:
    """Of what a contender gives, logits or probabilities, the probabilities in the order of labels.txt."""
    if options["contender"] == FROM_TEXTS:
        return outputs
    powers = np.exp(outputs - outputs.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def serve(options: Mapping[str, Any]) -> None:
    """First the answers to the first calls, which warm up; then each line asks for so many calls more, each timed."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    predict, calls = CONTENDERS[options["contender"]](options), items(options)
    first = [probabilities(options, predict(calls[i % len(calls)])).tolist() for i in range(options["warm"])]
    until_quiet()
    print(json.dumps({"probabilities": first, "peak_mb": peak_memory()}), file=answers)
    at = 0
    for line in sys.stdin:
        seconds, used = [], time.process_time()
        for _ in range(int(line)):
            began = time.perf_counter()
            predict(calls[at % len(calls)])
            seconds.append(time.perf_counter() - began)
            at += 1
        used = time.process_time() - used
        until_quiet()  # ONNX Runtime's threads go on waiting for work
        values = {"seconds": seconds, "cpu_seconds": used, "peak_mb": peak_memory()}
        print(json.dumps(values), file=answers)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
