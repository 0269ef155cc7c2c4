"""Masked language modelling: texts without labels, of which some words are hidden; the model says what stood there.

A run of it is where a classifier starts: `start_from` takes its layers and its vocabulary.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.pipeline import Batch, batches, options
from bigkeras.data.source import DataError, Source, Splits
from bigkeras.data.tokens import TokenSource
from bigkeras.recipe import Choice, RecipeError
from bigkeras.tasks.text import PADDING, UNSPACED, TextPreprocessor, mixed
from bigkeras.tasks.text_classification import (
    MIN_COUNT,
    TextClassification,
    encoded,
    kept_preprocessor,
    text_classification,
    texts_of,
)

CAPACITY = 4 / 3  # times the expected number of hidden tokens are looked at; what chance hides beyond stays as it is
MASKED, RANDOM = 0.8, 0.1  # of the hidden tokens; the rest are left as they are
MASK_WORD = "[MASK]"
WHOLE = 2**30  # tokens: no text is longer
GRAIN = 2**24  # random numbers are whole ones below it, which float32 holds exactly

Hidden = tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor, tf.Tensor]


@dataclass(frozen=True)
class MaskedLanguageModel:
    """A fitted task: the preprocessor of one run and the share of the tokens that are hidden."""

    preprocessor: TextPreprocessor
    class_names: tuple[str, ...] = ()
    augmentation: tuple[Choice, ...] = ()
    rate: float = 0.15

    kind = "masked_text"

    @property
    def texts(self) -> TextClassification:
        """The same texts as a classifier reads them."""
        return TextClassification(self.preprocessor, (), ())

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model: `vocabulary_size` and `length`."""
        return {"vocabulary_size": self.preprocessor.vocabulary_size, "length": self.preprocessor.length}

    def ready(self, splits: Splits) -> Splits:
        """The texts of training and validation, tokenised once."""
        validation = splits.validation and self.opened(splits.validation)
        return replace(splits, train=self.opened(splits.train), validation=validation)

    def opened(self, source: Source) -> TokenSource:
        """The token ids of a source of texts; what is longer than `length` becomes several examples, none cut off."""
        if isinstance(source, TokenSource):
            return source
        values, lengths, rows = windows(self.preprocessor, texts_of(source))
        return TokenSource(values, lengths, source if len(rows) == len(source) else source.take(rows))  # type: ignore[attr-defined]

    def lengths(self, source: Source) -> np.ndarray:
        """How many tokens each text, or part of one, has."""
        return self.opened(source).lengths

    def dataset(
        self, source: Source, rows: tf.data.Dataset, batch_size: int, training: bool, on_bad: Callable[[int], None]
    ) -> tf.data.Dataset:
        """Batches `((ids, places), labels, weights)`: ids `(batch, length)` with some hidden, the rest `(batch, n)`.

        What is hidden of a text differs from epoch to epoch, and is always the same in evaluation.
        """
        hide = hider(self.preprocessor, self.rate)

        def many(columns: Batch, randoms: tf.Tensor) -> Hidden:
            seeds = tf.cast(randoms[:, 1] * GRAIN, tf.int64)
            return hide(self.preprocessor.padded(columns["tokens"]), seeds)

        def finish(hidden: Hidden, _: tf.Tensor, weight: tf.Tensor) -> Hidden:
            inputs, labels, weights = hidden
            return inputs, labels, weights * weight[:, None]

        made = batches(self.opened(source), rows, batch_size, one=lambda c, _: c, many=many, on_bad=on_bad)
        return made.map(finish).with_options(options())

    def prepare(self, columns: Batch) -> Batch:
        """The columns themselves: any text can be read."""
        return columns

    def normalise(self, inputs: Any) -> list[tf.Tensor]:
        """Ids and places, as the model takes them."""
        return list(inputs)

    def step_layers(self, seed: int) -> list[keras.layers.Layer]:
        """None."""
        return []

    def sample(self, source: Source, most: int) -> list[tf.Tensor]:
        """The ids of the first `most` texts, with places."""
        ids = self.texts.sample(self.opened(source), most)
        return list(hider(self.preprocessor, self.rate)(ids, tf.range(tf.shape(ids)[0], dtype=tf.int64))[0])

    def shown(self, source: Source, index: int) -> str:
        """The raw text."""
        return self.texts.shown(source, index)

    def files(self, splits: Splits) -> dict[str, bytes]:
        """The preprocessor and its vocabulary."""
        files = self.preprocessor.files()
        values = {**json.loads(files["preprocessor.json"]), "kind": self.kind, "rate": self.rate}
        return {**files, "preprocessor.json": (json.dumps(values, indent=2) + "\n").encode()}


def masked_language_model(
    splits: Splits,
    augmentation: tuple[Choice, ...] = (),
    *,
    tokens: str = "sentencepiece",
    length: int = 256,
    truncation: str = "head",
    vocabulary: str | tuple[str, ...] | None = None,
    vocabulary_size: int = 8000,
    min_count: int = MIN_COUNT,
    lower: bool = True,
    nfkc: bool | None = None,
    rate: float = 0.15,
) -> MaskedLanguageModel:
    """The task fitted on the training split: its vocabulary. A share `rate` of the words, below 0.5, is hidden.

    A text of more than `length` tokens is learned in parts; `truncation` ("head" or "head_tail") is for the classifier
    that starts from it. `tokens`: "word", "character", "wordpiece" or "sentencepiece", of which `vocabulary_size` are
    known, at most, that stand in the training texts `min_count` times (SentencePiece has no such count). `vocabulary`:
    a vocabulary file, the directory of a run whose tokens are taken over, or the words by id. `lower`: in small
    letters. `nfkc`: Unicode's compatibility forms made one; null: but of published WordPieces and of SentencePiece.

    Source: Devlin et al. 2018 (arXiv 1810.04805), section 3.1; whole words: the authors' later models of 2019.
    """
    if not 0 < rate < 0.5:
        raise DataError(f"task.rate={rate}: above 0, below 0.5")
    if length < 4:
        raise DataError(f"task.length={length}: at least 4")
    # A run's vocabulary is taken over whole; a length, which no weights but the positions' hang on, may be another.
    asked = {
        "tokens": tokens, "truncation": truncation, "lower": lower, "nfkc": nfkc, "vocabulary_size": vocabulary_size,
        "min_count": min_count,
    }  # fmt: skip
    preprocessor = kept_preprocessor(vocabulary, masked_language_model, asked)
    if preprocessor is None:
        preprocessor = text_classification(
            splits, tokens=tokens, length=length, truncation=truncation, vocabulary=vocabulary,
            vocabulary_size=vocabulary_size, min_count=min_count, lower=lower, nfkc=nfkc,
        ).preprocessor  # fmt: skip
    if preprocessor.ngrams > 1 or preprocessor.letters:
        raise DataError(f"task.vocabulary={vocabulary}: a run with n-grams, whose words cannot be hidden")
    return MaskedLanguageModel(replace(preprocessor, length=length), rate=rate)


def check_augmentation(choices: Sequence[Choice]) -> None:
    """Raises RecipeError for any augmentation: hiding words is all there is."""
    if choices:
        raise RecipeError(f"augmentation {choices[0].name!r}: masked_language_model has none")


def windows(preprocessor: TextPreprocessor, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All ids of the texts, each in as few parts of at most `length` tokens as hold it, about equally long.

    Gives the ids one part after the other, int32, how many each part has, and which text it is of. Of WordPiece, every
    part stands between [CLS] and [SEP].
    """
    frame = preprocessor.frame
    values, lengths = encoded(replace(preprocessor, length=WHOLE, truncation="head"), texts)
    most, begin = preprocessor.length - len(frame), 0
    parts: list[np.ndarray] = []
    rows: list[int] = []
    for row, length in enumerate(lengths.tolist()):
        ids = values[begin : begin + length][slice(1, -1) if frame else slice(None)]
        begin += length
        for part in np.array_split(ids, max(1, -(-len(ids) // most))):
            parts.append(np.concatenate([frame[:1], part, frame[1:]]) if frame else part)
            rows.append(row)
    return np.concatenate([np.zeros(0, np.int32), *parts]), np.array([len(p) for p in parts]), np.array(rows)


def hider(preprocessor: TextPreprocessor, rate: float) -> Callable[[tf.Tensor, tf.Tensor], Hidden]:
    """A graph function from ids `(batch, length)` and int64 seeds `(batch,)` to `((ids, places), labels, weights)`.

    A share `rate` of the words is chosen, each whole: of its tokens 80 % become [MASK] (the unknown token where the
    vocabulary has none), 10 % a token drawn at random, 10 % stay. Of every text a word is chosen, if that of
    least chance fits into n. `places`, `labels` and `weights` are `(batch, n)`, n following from the length alone;
    weight 0 fills what fewer words leave. The same seed hides the same. Raises DataError for a vocabulary
    without words.
    """
    begins, special = word_beginnings(preprocessor), special_ids(preprocessor)
    drawable = np.setdiff1d(np.arange(preprocessor.vocabulary_size), special)  # no special token is drawn
    mask = mask_id(preprocessor)
    if not len(drawable):
        raise DataError("the vocabulary has no words: more text, or a lower task.min_count, gives some")

    def hide(ids: tf.Tensor, seeds: tf.Tensor) -> Hidden:
        width = tf.shape(ids)[1]
        real = tf.reduce_all(ids[..., None] != tf.constant(special, tf.int32), -1)
        word = tf.cumsum(tf.cast(tf.gather(tf.constant(begins), ids) & real, tf.int64), axis=1)
        chance = tf.where(real, _chance(seeds[:, None], word), 1.0)
        chosen = chance < tf.maximum(rate, tf.math.nextafter(tf.reduce_min(chance, axis=1, keepdims=True), 1.0))
        chosen &= real

        def room(widths: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.math.ceil(tf.cast(widths, tf.float32) * (rate * CAPACITY)), tf.int32)

        # Of a text where chance takes more than that, the words from the first one on that would be cut are left: as
        # many as if it stood alone, whatever it stands beside, here or on another replica.
        count, own = room(width), preprocessor.width(tf.reduce_sum(tf.cast(ids != PADDING, tf.int32), 1))
        most = tf.minimum(room(own), count)[:, None]
        beyond = chosen & (tf.cumsum(tf.cast(chosen, tf.int32), axis=1) > most)
        chosen &= word < tf.reduce_min(tf.where(beyond, word, tf.int64.max), axis=1, keepdims=True)
        # Of equal ones, the first are taken.
        taken, places = tf.math.top_k(tf.cast(chosen, tf.int32), count)
        labels = tf.gather(ids, places, batch_dims=1)
        what = _chance(seeds[:, None] + GRAIN, tf.cast(places, tf.int64))
        number = _number(seeds[:, None] + 2 * GRAIN, tf.cast(places, tf.int64)) % len(drawable)
        drawn = tf.gather(tf.constant(drawable, tf.int32), number)
        instead = tf.where(what < MASKED, mask, tf.where(what < MASKED + RANDOM, drawn, labels))
        rows = tf.broadcast_to(tf.range(tf.shape(ids)[0])[:, None], tf.shape(places))
        where = tf.stack([rows, places], -1)
        hidden = tf.tensor_scatter_nd_update(ids, where, tf.where(taken > 0, instead, labels))
        return (hidden, places), labels, tf.cast(taken, tf.float32)

    return hide


def mask_id(preprocessor: TextPreprocessor) -> int:
    """The id that stands for a hidden token: that of [MASK], or of the unknown token where the vocabulary has none."""
    words = preprocessor.vocabulary
    return words.index(MASK_WORD) if MASK_WORD in words else preprocessor.unknown


def special_ids(preprocessor: TextPreprocessor) -> tuple[int, ...]:
    """The ids that are never hidden: padding, the unknown token, [CLS], [SEP], [MASK]; SentencePiece's four."""
    if preprocessor.tokens == "sentencepiece":
        return (0, 1, 2, 3)
    return tuple(sorted({PADDING, preprocessor.unknown, *preprocessor.frame, mask_id(preprocessor)}))


def word_beginnings(preprocessor: TextPreprocessor) -> np.ndarray:
    """Which tokens begin a word, bool `(vocabulary,)`: of subwords those that continue none.

    Where a script has no spaces, every piece is a word: else a whole sentence would be one.
    """
    pieces = preprocessor.vocabulary
    if preprocessor.tokens not in ("wordpiece", "sentencepiece"):
        return np.ones(len(pieces), bool)
    unspaced = tf.strings.regex_full_match(tf.constant(pieces), rf"(?s).*[{UNSPACED}].*").numpy()
    begins = [not p.startswith("##") if preprocessor.tokens == "wordpiece" else p.startswith("▁") for p in pieces]
    return np.array(begins) | unspaced


def _number(seed: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """int64 numbers from 0 to below GRAIN that look random."""
    return tf.math.floormod(mixed(mixed(seed, place), place), GRAIN)


def _chance(seed: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The same as float32 in [0, 1)."""
    return tf.cast(_number(seed, place), tf.float32) / GRAIN
