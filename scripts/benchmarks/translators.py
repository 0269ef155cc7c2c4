"""The translators that translate compares, one process each: from sentences, or their ids, to sentences.

`python -m benchmarks.translators '{"contender": "ours", "search": "greedy", …}'` is started by translate.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleave import peak_memory, until_quiet
from benchmarks.translation_artifacts import CTRANSLATE2, HUGGING_FACE_MODEL, SENTENCES, TARGET, batches

OURS, COMPILED = "ours", "ours compiled"
FLOAT32, INT8, HUGGING_FACE, KERAS_HUB = "CTranslate2 float32", "CTranslate2 int8", "Hugging Face", "KerasHub"
PADDING, BEGIN, END = 0, 2, 3
Rows = Sequence[Mapping[str, Any]]  # {"text": …, "ids": …}
Answers = list[Any]  # strings, or lists of ids
Translate = Callable[[Rows], Answers]


def saved(options: Mapping[str, Any]) -> Translate:
    """The artifact as the app runs it, by TensorFlow's C API: strings to strings, of a batch a part for each thread."""
    from apps import savedmodel
    from apps.streams import side_by_side

    signature = "compiled" if options["contender"] == COMPILED else "serving_default"
    callers = options["threads"] if options["batch"] > 1 else 1
    # With one, operations run in the thread that calls; but what XLA has compiled runs in those of the session.
    threads = callers if signature == "compiled" else 1
    model = savedmodel.load(Path(options["folder"]) / options["search"], "c", threads=threads)
    pool = ThreadPoolExecutor(callers)

    def part(rows: Rows) -> Answers:
        texts = [row["text"].encode() for row in rows]
        return [text.decode() for text in model.run(signature, {"text": texts})["translation"]]

    return lambda rows: side_by_side(part, list(rows), options["batch"], callers, pool)


def ctranslate2(options: Mapping[str, Any]) -> Translate:
    """CTranslate2, the batch as it is given, ids to ids; int8 weights are made of the float32 ones as it loads."""
    import ctranslate2 as library

    kind = options["contender"].split()[-1]
    folder = str(Path(options["folder"]) / CTRANSLATE2)
    # As its documentation says: of a batch each thread takes a part, of a sentence all of them take parts of a product.
    side_by_side = options["threads"] if options["batch"] > 1 else 1
    threads = {"inter_threads": side_by_side, "intra_threads": options["threads"] // side_by_side}
    translator = library.Translator(folder, compute_type=kind, **threads)
    beams, part = options["beams"], -(-options["batch"] // side_by_side)

    def translate(rows: Rows) -> Answers:
        tokens = [[str(i) for i in row["ids"]] for row in rows]
        results = translator.translate_batch(
            tokens, beam_size=beams, length_penalty=0.0, max_decoding_length=most(rows), max_batch_size=part
        )
        return [[int(token) for token in result.hypotheses[0]] for result in results]

    return translate


def hugging_face(options: Mapping[str, Any]) -> Translate:
    """`generate` of transformers' own model by PyTorch, padded ids to ids."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    torch.set_num_threads(options["threads"])
    model = AutoModelForSeq2SeqLM.from_pretrained(Path(options["folder"]) / HUGGING_FACE_MODEL).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    beams = options["beams"]
    search = {"num_beams": beams, "length_penalty": 0.0, "early_stopping": False} if beams > 1 else {}

    def translate(rows: Rows) -> Answers:
        source = torch.from_numpy(padded(rows))
        with torch.inference_mode():
            found = model.generate(
                source, attention_mask=(source != PADDING).long(), do_sample=False, max_new_tokens=most(rows), **search
            )
        return [up_to_end(row[1:]) for row in found.tolist()]

    return translate


def keras_hub(options: Mapping[str, Any]) -> Translate:
    """KerasHub's BART of our sizes with weights as they start: it is told how many tokens to write, those of ours.

    On a CPU Keras compiles nothing by XLA unless told to; every new shape is traced.
    """
    import keras
    import keras_hub as library
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options["threads"])
    keras.utils.set_random_seed(0)
    backbone = library.models.BartBackbone(max_sequence_length=512, dropout=0.0, **options["sizes"])
    model = library.models.BartSeq2SeqLM(backbone, preprocessor=None)
    beams = options["beams"]
    model.compile(sampler="greedy" if beams == 1 else library.samplers.BeamSampler(num_beams=beams))

    def translate(rows: Rows) -> Answers:
        # Every new shape is traced: few of them.
        source = padded(rows, eighths(max(len(row["ids"]) for row in rows)))
        target = np.zeros((len(rows), eighths(max(row["written"] for row in rows)) + 1), np.int32)
        target[:, 0] = BEGIN
        inputs = {
            "encoder_token_ids": source, "encoder_padding_mask": source != PADDING,
            "decoder_token_ids": target, "decoder_padding_mask": np.arange(target.shape[1]) < np.ones((len(rows), 1)),
        }  # fmt: skip
        found = model.generate(inputs, stop_token_ids=None)["decoder_token_ids"]
        return [list(map(int, row[1:])) for row in np.asarray(found)]

    return translate


CONTENDERS: dict[str, Callable[[Mapping[str, Any]], Translate]] = {
    OURS: saved,
    COMPILED: saved,
    FLOAT32: ctranslate2,
    INT8: ctranslate2,
    HUGGING_FACE: hugging_face,
    KERAS_HUB: keras_hub,
}


def most(rows: Rows) -> int:
    """The most tokens that a sentence of a batch may get, as `bigkeras.decoding` says it."""
    return 2 * max(len(row["ids"]) for row in rows) + 10


def eighths(count: int) -> int:
    """The next multiple of eight."""
    return -(-count // 8) * 8


def padded(rows: Rows, width: int | None = None) -> np.ndarray:
    """Source ids int64 `(batch, width)`, by default as wide as the longest."""
    ids = np.zeros((len(rows), width or max(len(row["ids"]) for row in rows)), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row["ids"])] = row["ids"]
    return ids


def shape(rows: Rows) -> tuple[int, int, int]:
    """What decides which graphs a batch needs."""
    return len(rows), max(len(row["ids"]) for row in rows), eighths(max(row["written"] for row in rows))


def up_to_end(ids: Sequence[int]) -> list[int]:
    """The ids before the first end or padding."""
    places = [place for place, i in enumerate(ids) if i in (END, PADDING)]
    return list(ids[: places[0]] if places else ids)


def serve(options: Mapping[str, Any]) -> None:
    """First a batch of every shape, which warms up; then each line asks for so many batches more, each timed.

    An answer has `seconds` of each batch, `rows` and `tokens` (the target's, ends included) of all, and the sentences.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    import sentencepiece

    folder = Path(options["folder"])
    target = sentencepiece.SentencePieceProcessor(model_proto=(folder / TARGET).read_bytes())
    rows = json.loads((folder / SENTENCES).read_text(encoding="utf-8"))[:: options["step"]]
    parts = batches(rows, options["batch"], options["turns"])
    translate = CONTENDERS[options["contender"]](options)
    warming = {shape(part): part for part in parts}.values()
    # The halves of a batch may have shapes of their own, and XLA compiles each.
    for part in parts if options["contender"] == COMPILED else warming:
        translate(part)
    until_quiet()
    print(json.dumps({"peak_mb": peak_memory()}), file=answers)
    at = 0
    for line in sys.stdin:
        seconds, written, used = [], [], time.process_time()
        for part in parts[at : at + int(line)]:
            began = time.perf_counter()
            found = translate(part)
            seconds.append(time.perf_counter() - began)
            written += found
        used = time.process_time() - used
        asked = [row for part in parts[at : at + int(line)] for row in part]
        at += int(line)
        texts = [answer if isinstance(answer, str) else target.decode(answer) for answer in written]
        tokens = sum(len(target.encode(a) if isinstance(a, str) else a) + 1 for a in written)
        if options["contender"] == KERAS_HUB:  # what it writes besides fills its batch
            tokens = sum(row["written"] for row in asked)
        values = {"seconds": seconds, "cpu_seconds": used, "tokens": tokens, "texts": texts, "peak_mb": peak_memory()}
        until_quiet()  # PyTorch's threads go on waiting for work
        print(json.dumps(values), file=answers)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
