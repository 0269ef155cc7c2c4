"""What predict-text measures: an artifact, the same weights in ONNX, and texts with their token ids.

`python -m benchmarks.text_artifact '{"model": "lstm", "folder": …}'` is started by predict_text, once a model: making
them takes TensorFlow, which the process that measures shall not hold.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
LABELS = ("negative", "positive")
SPECIAL = ("[PAD]", "[UNK]")
ENCODER = {"depth": 4, "width": 256, "num_heads": 4, "feed_forward": 1024}
ARTIFACT, ONNX, TEXTS, IDS = "artifact", "model.onnx", "texts.json", "ids.npz"


@dataclass(frozen=True)
class Sizes:
    """A model with weights as they start, its vocabulary, its longest text in tokens, and the texts' median length."""

    model: str
    args: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: int = 30_000
    length: int = 400
    words: int = 175  # IMDb's median


MODELS = {
    "lstm": Sizes("lstm", {"units": 128, "bidirectional": True, "pooling": "max"}),  # those of the recipe imdb-lstm
    "encoder": Sizes("transformer", ENCODER),
    # For the tests.
    "tiny": Sizes("transformer", {**ENCODER, "depth": 1, "width": 8, "num_heads": 2, "feed_forward": 16}, 50, 16, 8),
}


def make(model: str, folder: Path, *, count: int, batch: int, onnx: bool, run: str | None = None) -> dict[str, Any]:
    """Writes artifact/, texts.json, ids.npz and, if asked, model.onnx to `folder`; gives how many parameters and words.

    Of `run`, a run directory of texts, or of the sizes of MODELS with weights as they start. ids.npz holds what the
    artifact's own preprocessing makes of each text (`one0` …) and of each batch (`many0` …).
    """
    import keras
    import tensorflow as tf

    from bigkeras.classifier_artifact import export_classifier
    from bigkeras.float32 import in_float32
    from bigkeras.serving import text_inputs

    keras.utils.set_random_seed(SEED)
    network, preprocessor, labels, words = trained(Path(run)) if run else started(MODELS[model])
    texts = made_texts(preprocessor.vocabulary, count, words)
    encoded = [text.encode() for text in texts]
    # The function behind `bigkeras export`, with its comparison of both loaders with Keras.
    export_classifier(network, preprocessor, labels, folder / ARTIFACT, examples=encoded[:16])
    prepare = text_inputs(preprocessor).prepare
    ids = {f"one{i}": prepare(tf.constant([text])).numpy() for i, text in enumerate(encoded)}
    ids |= {f"many{i}": prepare(tf.constant(part)).numpy() for i, part in enumerate(batches(encoded, batch))}
    np.savez(folder / IDS, **ids)
    (folder / TEXTS).write_text(json.dumps(texts), encoding="utf-8")
    if onnx:
        write_onnx(in_float32(network), folder / ONNX)
    return {"parameters": network.count_params(), "vocabulary": len(preprocessor.vocabulary)}


def started(sizes: Sizes) -> tuple[Any, Any, Sequence[str], int]:
    """The model with its first weights, its preprocessor, labels, and the median length of its texts."""
    from bigkeras.models import MODELS as FUNCTIONS
    from bigkeras.tasks.text import TextPreprocessor

    vocabulary = SPECIAL + made_words(sizes.vocabulary - len(SPECIAL))
    network = FUNCTIONS[sizes.model](
        vocabulary_size=len(vocabulary), length=sizes.length, num_classes=len(LABELS), **sizes.args
    )
    preprocessor = TextPreprocessor(tokens="word", length=sizes.length, truncation="head_tail", vocabulary=vocabulary)
    return network, preprocessor, LABELS, sizes.words


def trained(run: Path) -> tuple[Any, Any, Sequence[str], int]:
    """The same of a run directory."""
    import bigkeras.models  # noqa: F401  registers the layers of the run's .keras file
    from bigkeras.artifact import trained_model
    from bigkeras.tasks import load_preprocessor

    labels = (run / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return trained_model(run), load_preprocessor(run), labels, MODELS["lstm"].words


def made_words(count: int) -> tuple[str, ...]:
    """So many different words, the same every time: syllables."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el", "or")]
    size = len(syllables)
    words = (syllables[i % size] + syllables[i // size % size] + syllables[i // size**2] for i in range(count))
    return tuple(words)


def made_texts(vocabulary: Sequence[str], count: int, median: int) -> list[str]:
    """Texts as reviews are: lengths spread about their median as a log-normal, frequencies of words by Zipf's law.

    Sentences, with signs, and one word in fifty that no vocabulary has.
    """
    random = np.random.default_rng(SEED)
    words = [word.lstrip("▁#") or "a" for word in vocabulary if not word.startswith(("[", "<"))]
    chances = 1 / np.arange(1, len(words) + 1)
    lengths = np.clip(np.exp(random.normal(np.log(median), 0.7, count)), 1, 12 * median).astype(int)
    texts = []
    for length in lengths:
        chosen = [words[i] for i in random.choice(len(words), length, p=chances / chances.sum())]
        signs = random.random(length)
        chosen = [f"{word}quux" if sign > 0.98 else word for word, sign in zip(chosen, signs, strict=True)]
        chosen = [f"{word}." if sign < 0.06 else f"{word}," if sign < 0.12 else word
                  for word, sign in zip(chosen, signs, strict=True)]  # fmt: skip
        texts.append(" ".join(chosen).capitalize() + ".")
    return texts


def batches(texts: Sequence[Any], batch: int) -> list[Sequence[Any]]:
    """The texts in whole batches, in order; at least one batch, from the beginning again where there are too few."""
    whole = [*texts, *list(texts) * -(-batch // len(texts))] if len(texts) < batch else texts
    return [whole[i : i + batch] for i in range(0, len(whole) - batch + 1, batch)]


def write_onnx(network: Any, file: Path) -> None:
    """The model in ONNX: `tokens`, int32 `(batch, length)`, to logits."""
    import tensorflow as tf
    import tf2onnx
    from tf2onnx import optimizer

    # In tf2onnx 1.17.0, this pass joins the reshapes between a dense layer and the attention, and drops the length:
    # ONNX Runtime then refuses the model. It optimises the graph itself as it loads it.
    optimizer._optimizers.pop("remove_back_to_back", None)
    spec = [tf.TensorSpec([None, None], tf.int32, name="tokens")]
    function = tf.function(lambda tokens: network(tokens, training=False), input_signature=spec)
    tf2onnx.convert.from_function(function, input_signature=spec, output_path=str(file))


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    print(json.dumps(make(folder=Path(options.pop("folder")), **options)))
