"""From a trained translator to the artifact: strings in, translated strings out, by a search inside the graph.

docs/artifact.md is the contract of what is written here.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.plan import WIDTHS
from bigkeras.float32 import in_float32
from bigkeras.models.stepper import stepper
from bigkeras.models.transformer import attention_maps
from bigkeras.parity import ExportError, python_loader, quiet, session_loader, sizes, unoptimised_calls
from bigkeras.placing import new_place, placed
from bigkeras.tasks.pairs import PADDING, PairPreprocessor, clean, padded, pieces
from bigkeras.translator import Translator, alignment, best
from bigkeras.warmup import SENTENCE, write_requests

COMPILED_SHARE = 0.99  # of the sentences, that XLA's rounding must leave as they are
# The signatures that a server warms up. Not `attention`, which is for people, and `compiled` only where it is asked
# for: each shape takes seconds. Nor `n_best`: a server that merges requests (--enable_batching) refuses the number that
# it takes beside the texts, and would refuse the model.
WARMED = ("serving_default", "greedy")
TEXT = tf.TensorSpec([None], tf.string, name="text")

Answer = dict[str, tf.Tensor]


def export_translator(
    model: keras.Model,
    preprocessor: PairPreprocessor,
    directory: str | Path,
    *,
    examples: Sequence[bytes],
    files: Mapping[str, str] | None = None,
    warm_compiled: Sequence[int] = (),
) -> dict[str, Any]:
    """Writes `directory/1/`, the preprocessor's files and `files` (name → text); gives sizes and what was compared.

    Before the directory gets its name, both of TensorFlow's loaders must translate `examples` exactly as the Keras
    model does, in a batch, the first of them alone, and an empty batch, and the compiled signature at least
    `COMPILED_SHARE` of them. preprocessor.json lies in `1/assets.extra/`, too, for who copies the version alone.
    Whatever the model's precision, the artifact computes in float32. `warm_compiled`: for batches of so many sentences
    a server compiles the signature `compiled` while it loads. Raises ExportError, and leaves nothing behind.
    """
    directory = Path(directory)
    new_place(directory)  # said before the work
    if not examples:
        raise ExportError("no examples: the artifact is compared with the model on at least one sentence")
    plain = in_float32(model)
    # A path in the card may be no UTF-8.
    written = {name: text.encode("utf-8", "backslashreplace") for name, text in (files or {}).items()}
    contents = {**preprocessor.files(), **written}
    with tf.device("/CPU:0"):
        # In one batch, as the artifact gets them: another width rounds otherwise.
        translator = Translator(plain, preprocessor, batch=len(examples), ids=sys.maxsize)
        expected, alone = translator(examples), translator(examples[:1])[0]
    with placed(directory, contents) as beside:
        save(plain, preprocessor, beside / "1")
        write_requests(beside / "1", TEXT.name, SENTENCE, WARMED, more=compiled_requests(preprocessor, warm_compiled))
        (beside / "1" / "assets.extra" / "preprocessor.json").write_text(preprocessor.to_json(), encoding="utf-8")
        report = {"examples": len(examples), "directory": str(directory)}
        report["agreement"] = gate(beside / "1", examples, expected, alone)
        report |= sizes(beside / "1", plain)
    return report


def compiled_requests(preprocessor: PairPreprocessor, batches: Sequence[int]) -> list[tuple[str, bytes, int]]:
    """Requests for `write_requests` to `compiled`: of each length that the graph knows, so many sentences each."""
    if not batches:
        return []
    # A letter alone is at most four ids, and no two widths are nearer than that: none is missed.
    texts = [b"a " * count for count in range(1, preprocessor.length + 1)]
    lengths = preprocessor.tokenizers().source_ids(tf.constant(texts)).row_lengths().numpy()
    by_width = dict(zip(np.searchsorted(WIDTHS, lengths).tolist(), texts, strict=True))
    return [("compiled", by_width[width], size) for width in sorted(by_width) for size in batches]


def save(model: keras.Model, preprocessor: PairPreprocessor, directory: Path) -> None:
    """Writes the SavedModel of docs/artifact.md to `directory`, unchecked."""
    tokenizers = preprocessor.tokenizers()
    module = tf.Module()
    # The tf.Variables, not the Keras model: see bigkeras.classifier_artifact.save.
    module.weights = [weight.value for weight in model.weights]
    module.held = [tokenizers.source, tokenizers.target]
    with quiet(), unoptimised_calls():
        tf.saved_model.save(module, str(directory), signatures=signatures(model, preprocessor, tokenizers))


def signatures(model: keras.Model, preprocessor: PairPreprocessor, tokenizers: Any) -> dict[str, Callable]:
    """The signatures' graph functions by name."""
    beam = preprocessor.beam
    plain, compiled_steps = stepper(model), stepper(model, compiled=True, covers=preprocessor.covers)
    several = stepper(model, covers=True) if preprocessor.coverage_penalty else plain
    steps = several if beam > 1 else plain

    def read(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Cleaned sentences, and their ids in at least one row."""
        sentences = clean(text)
        (ids,) = padded(tokenizers.source_ids(sentences))
        return sentences, tf.pad(ids, [[0, tf.maximum(0, 1 - tf.shape(ids)[0])], [0, 0]])

    def written(sentences: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """Sentences of ids `(at least the batch, any)`; that of an empty one is empty."""
        return tf.where(sentences == "", "", tokenizers.sentences(ids[: tf.size(sentences)]))

    def translating(search: Callable[[tf.Tensor], tf.Tensor]) -> Callable:
        @tf.function(input_signature=[TEXT])
        def translate(text: tf.Tensor) -> Answer:
            sentences, ids = read(text)
            return {"translation": written(sentences, search(ids))}

        return translate

    @tf.function(jit_compile=True)
    def compiled(ids: tf.Tensor) -> tf.Tensor:
        return best(compiled_steps, preprocessor, ids, beam)[0][:, 0]

    def in_few_shapes(ids: tf.Tensor) -> tf.Tensor:
        # Every new shape is compiled: the number of sentences becomes a power of two.
        rows = tf.shape(ids)[0]
        wanted = 2 ** tf.cast(tf.math.ceil(tf.math.log(tf.cast(rows, tf.float64)) / np.log(2) - 1e-9), tf.int32)
        return compiled(tf.pad(ids, [[0, wanted - rows], [0, 0]]))[:rows]

    @tf.function(input_signature=[TEXT, tf.TensorSpec([], tf.float32, name="length_penalty")])
    def n_best(text: tf.Tensor, length_penalty: tf.Tensor) -> Answer:
        sentences, ids = read(text)
        count = max(beam, 2)
        found, scores = best(several, preprocessor, ids, count, count, tf.clip_by_value(length_penalty, 0.0, 10.0))
        rows = [written(sentences, found[:, place]) for place in range(count)]
        return {"translation": tf.stack(rows, 1), "score": scores[: tf.size(sentences)]}

    found: dict[str, Callable] = {
        "serving_default": translating(lambda ids: best(steps, preprocessor, ids, beam)[0][:, 0]),
        "greedy": translating(lambda ids: best(plain, preprocessor, ids, 1)[0][:, 0]),
        "compiled": translating(in_few_shapes),
        "n_best": n_best,
    }
    try:
        maps = attention_maps(model, across=True)
    except ValueError:
        return found  # a model without attention to the source
    return {**found, "attention": _attention(maps, preprocessor, read, written, steps)}


def _attention(maps: keras.Model, preprocessor: PairPreprocessor, read: Any, written: Any, steps: Any) -> Callable:
    """The signature that says what each piece of the translation looked at."""
    names = [tf.constant(pieces(model)) for model in (preprocessor.source_model, preprocessor.target_model)]

    @tf.function(input_signature=[TEXT])
    def attention(text: tf.Tensor) -> Answer:
        sentences, source = read(text)
        target = best(steps, preprocessor, source, preprocessor.beam)[0][:, 0]
        # Of an empty sentence a search translates the end; of an empty batch there is a row all the same.
        said = tf.pad(sentences != "", [[0, tf.shape(source)[0] - tf.size(sentences)]])
        target = tf.where(said[:, tf.newaxis], target, PADDING)
        target = target[:, : tf.maximum(1, _longest(target))]
        # The model takes the source in one of a few widths; its padding is nobody's concern.
        most = _longest(source)
        weight = alignment(maps, source, target)[:, :, :most]
        shown = [
            tf.where(ids == PADDING, "", tf.gather(table, ids))
            for ids, table in zip((source[:, :most], target), names, strict=True)
        ]
        count = tf.size(sentences)
        return {
            "translation": written(sentences, target),
            "source_piece": shown[0][:count],
            "target_piece": shown[1][:count],
            "weight": weight[:count],
        }

    return attention


def _longest(ids: tf.Tensor) -> tf.Tensor:
    """How many ids the longest row of `(batch, any)` has before its padding."""
    return tf.reduce_max(tf.reduce_sum(tf.cast(ids != PADDING, tf.int32), 1))


def gate(directory: Path, examples: Sequence[bytes], expected: Sequence[str], alone: str) -> dict[str, float]:
    """The share of the examples that each loader and signature translates as expected; ExportError for too few.

    `alone`: the translation of the first by itself, which a rounding may make another than that in the batch.
    """
    texts = np.array(list(examples), dtype=object)
    wanted = [text.encode() for text in expected]
    shares: dict[str, float] = {}
    for loader, opened in (("python", python_loader), ("session", session_loader)):
        with opened(directory) as run:
            for signature, least in (("serving_default", 1.0), ("compiled", COMPILED_SHARE)):
                found = run(signature, "text", texts)["translation"].tolist()
                same = np.mean([a == b for a, b in zip(found, wanted, strict=True)])
                shares[f"{loader} {signature}"] = round(float(same), 4)
                # Of fewer than a hundred, too, one may differ by rounding where one of a hundred may.
                if same < least and (least == 1 or round((1 - same) * len(wanted)) > 1):
                    place = next(i for i, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1])
                    raise ExportError(
                        f"{loader} loader, signature {signature}: {same:.0%} of {len(wanted)} sentences are translated "
                        f"as by the Keras model; the first other one is {_shown(texts[place])}"
                    )
            if run("serving_default", "text", texts[:1])["translation"].tolist() != [alone.encode()]:
                raise ExportError(
                    f"{loader} loader: {_shown(texts[0])}, alone, is not translated as by the Keras model"
                )
            if run("serving_default", "text", texts[:0])["translation"].shape != (0,):
                raise ExportError(f"{loader} loader: an empty batch has an answer")
    return shares


def _shown(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))
