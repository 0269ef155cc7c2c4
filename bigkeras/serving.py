"""How raw examples enter an artifact, and the explanation of an answer to a text: graph functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from bigkeras.tasks.text import UNSPACED, VOCABULARY_FILE, TextPreprocessor

# Parts of a text that are hidden one by one. Longer texts are hidden some words at a time: each part costs the model
# one more answer.
MOST_PARTS = 100
MOST_BYTES = 2**22  # of the texts without a part that are answered at a time; each takes several times its size
BREAK = "\x1f"

Answer = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Inputs:
    """What an artifact takes.

    raw: the name of serving_default's input, strings `(batch,)`. prepared: the name of what the preprocessor makes of
    them, and `spec` its type. prepare: a graph function from the one to the other; normalise: from that to the
    model's input. held: the tables and assets that these use.
    """

    raw: str
    prepared: str
    spec: tf.TensorSpec
    prepare: Callable[[tf.Tensor], tf.Tensor]
    normalise: Callable[[tf.Tensor], tf.Tensor]
    held: Sequence[Any] = field(default_factory=tuple)


def image_inputs(preprocessor: Any, shape: Sequence[int]) -> Inputs:
    """Encoded images, and pixels of the model's size, uint8 `(batch, *shape)`."""

    def prepare(image: tf.Tensor) -> tf.Tensor:
        spec = tf.TensorSpec(shape, tf.uint8)
        return tf.map_fn(preprocessor.decode, image, fn_output_signature=spec, parallel_iterations=8)

    spec = tf.TensorSpec([None, *shape], tf.uint8, name="pixels")
    return Inputs("image", "pixels", spec, prepare, preprocessor.normalise)


def text_inputs(preprocessor: TextPreprocessor, directory: Path | None = None) -> Inputs:
    """Texts, and token ids, int32 `(batch, any length)`. `directory`: where vocabulary.txt lies, to become an asset."""
    file = directory / VOCABULARY_FILE if directory and preprocessor.tokens != "sentencepiece" else None
    words = preprocessor.tokens in ("word", "character")
    tokenize, held = preprocessor.tokenizer(str(file) if file and words else None)
    if file and not words:
        held = [*held, tf.saved_model.Asset(str(file))]  # WordPiece has its own form of it in the graph
    spec = tf.TensorSpec([None, None], tf.int32, name="tokens")
    return Inputs("text", "tokens", spec, lambda text: preprocessor.padded(tokenize(text)), tf.identity, held)


def explanation(answer: Callable[[tf.Tensor], tf.Tensor], labels: Sequence[str]) -> Callable:
    """The signature `explain`: which words carried the best answer, by occlusion.

    `answer` gives probabilities `(batch, classes)` of strings `(batch,)`. The weight of a word is how much less
    probable the best answer is without it (Li, Monroe and Jurafsky 2016, "Understanding Neural Networks through
    Representation Erasure"). That holds for every model and vocabulary; gradients on the embeddings of n-grams or
    subwords would have to be shared out among words.
    """

    def weigh(arguments: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        text, best, probability = arguments
        words = display_words(text)
        count = tf.size(words)
        together = tf.maximum(1, -(-count // MOST_PARTS))
        part = tf.range(count) // together
        number = -(-count // together)
        joined = tf.strings.unsorted_segment_join(words, part, number)
        # So many at a time that their texts fit into memory.
        some = tf.maximum(1, MOST_BYTES // tf.maximum(1, tf.strings.length(text)))

        def left(first: tf.Tensor) -> tf.Tensor:
            """How probable the answer is without one part, of those from `first` on."""
            hidden = tf.range(first, tf.minimum(first + some, number))
            kept = tf.where(tf.range(number) == hidden[:, tf.newaxis], "", joined[tf.newaxis, :])
            return tf.gather(answer(tf.strings.reduce_join(kept, 1)), best, axis=1)

        spec = tf.RaggedTensorSpec([None], tf.float32, 0)
        found = tf.map_fn(left, tf.range(0, number, some), fn_output_signature=spec, parallel_iterations=1)
        return words, tf.gather(probability - found.flat_values, part)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def explain(text: tf.Tensor) -> Answer:
        probabilities = answer(text)
        best = tf.argmax(probabilities, 1, output_type=tf.int32)
        probability = tf.reduce_max(probabilities, 1)
        specs = (tf.RaggedTensorSpec([None], tf.string, 0), tf.RaggedTensorSpec([None], tf.float32, 0))
        words, weights = tf.map_fn(weigh, (text, best, probability), fn_output_signature=specs, parallel_iterations=1)
        return {
            "word": words.to_tensor(""),
            "weight": weights.to_tensor(0.0),
            "label": tf.gather(tf.constant(list(labels)), best),
            "probability": probability,
        }

    return explain


def display_words(text: tf.Tensor) -> tf.Tensor:
    """The words of one text as a person sees them, each with the space after it: joined, they are the text again.

    Broken bytes are U+FFFD and control characters spaces. Where a script has no spaces, each character is a word.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    text = tf.strings.regex_replace(text, r"\p{Cc}", " ")
    text = tf.strings.regex_replace(text, rf"([\s\p{{Z}}]+|[{UNSPACED}])", rf"\1{BREAK}")
    text = tf.strings.regex_replace(text, rf"([^{UNSPACED}\s\p{{Z}}{BREAK}])([{UNSPACED}])", rf"\1{BREAK}\2")
    words = tf.strings.split(text, BREAK)
    return tf.boolean_mask(words, tf.not_equal(words, ""))
