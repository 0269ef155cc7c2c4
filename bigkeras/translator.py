"""Sentences in, sentences out: a translation model under its cached decoding, and its scores while it is trained."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.source import Source
from bigkeras.data.token_pairs import TokenPairSource
from bigkeras.decoding import beam_search, greedy
from bigkeras.markdown import table
from bigkeras.models.stepper import Stepper, stepper
from bigkeras.models.transformer import attention_maps
from bigkeras.tasks.pairs import BEGIN, PADDING, PairPreprocessor, clean, padded, pieces
from bigkeras.translation_metrics import corpus_bleu

BATCH = 64
IDS = BATCH * 128  # of a batch, at most: the search's memory grows with each sentence and with its length
VALIDATED = 500  # sentences that are translated to watch a training
SAMPLES = 20  # of them, shown in TensorBoard
ALIGNED = 3  # of them, drawn there with what each piece looked at


class Translator:
    """Calling it translates sentences by a Keras model, several of about one length at a time."""

    def __init__(self, network: keras.Model, preprocessor: PairPreprocessor, batch: int = BATCH, ids: int = IDS):
        """`network`: its weights may change between two calls. `ids`: of a batch, padding with them, at most."""
        self.network, self.preprocessor, self.batch, self.most = network, preprocessor, batch, ids
        self.stepper = stepper(network, covers=preprocessor.covers)
        self.tokenizers = preprocessor.tokenizers()
        self.answer = tf.function(self._answer, input_signature=[tf.TensorSpec([None, None], tf.int32)])

    def __call__(self, texts: Sequence[bytes], between: Callable[[], None] = lambda: None) -> list[str]:
        """The translation of each text; that of an empty one is empty. `between` is called before each batch."""
        sentences = clean(tf.constant(list(texts), tf.string, [len(texts)]))
        ids = self.tokenizers.source_ids(sentences)
        # Those of about one length share a batch.
        lengths = ids.row_lengths().numpy()
        order = np.argsort(lengths, kind="stable")
        answers: list[str] = [""] * len(order)
        while len(order):
            rows = order[: self.batch]
            rows = rows[: int(max(1, min(len(rows), self.most // max(lengths[rows[-1]], 1))))]
            order = order[len(rows) :]
            between()
            (source,) = padded(tf.gather(ids, rows))
            for row, answer in zip(rows, self.answer(source).numpy(), strict=True):
                answers[row] = answer.decode("utf-8", "replace") if sentences[row] != b"" else ""
        return answers

    def alignments(self, texts: Sequence[bytes]) -> list[tuple[list[str], list[str], np.ndarray]]:
        """Of each text its pieces, those of its translation, and how much each of these looked at each of those.

        The weights are `(pieces of the translation, pieces of the text)`. Of a model without attention
        to the source nothing.
        """
        try:
            maps = attention_maps(self.network, across=True)
        except ValueError:
            return []
        names = [pieces(model) for model in self.preprocessor.models]
        found = []
        for text in texts:
            (source,) = padded(self.tokenizers.source_ids(clean(tf.constant([text]))))
            target = best(self.stepper, self.preprocessor, source, self.preprocessor.beam)[0][:, 0]
            weight = alignment(maps, source, target).numpy()[0]
            sides = [ids.numpy()[0][ids.numpy()[0] != PADDING] for ids in (source, target)]
            shown = [[names[side][id] for id in ids] for side, ids in enumerate(sides)]
            found.append((shown[0], shown[1], weight[: len(sides[1]), : len(sides[0])]))
        return found

    def _answer(self, source: tf.Tensor) -> tf.Tensor:
        found, _ = best(self.stepper, self.preprocessor, source, self.preprocessor.beam)
        return self.tokenizers.sentences(found[:, 0])


def best(
    steps: Stepper,
    preprocessor: PairPreprocessor,
    source: tf.Tensor,
    beams: int,
    count: int = 1,
    length_penalty: Any = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best translations of source ids `(batch, length)`: ids `(batch, count, any)` and scores `(batch, count)`.

    One beam is greedy. `length_penalty`: a number or a scalar; None is the preprocessor's.
    """
    most = 2 * preprocessor.length
    if beams == 1:
        return greedy(steps, source, most=most)
    penalty = preprocessor.length_penalty if length_penalty is None else length_penalty
    return beam_search(
        steps, source, beams=beams, count=count, length_penalty=penalty, most=most,
        coverage_penalty=preprocessor.coverage_penalty,
    )  # fmt: skip


def alignment(maps: keras.Model, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """How much each id of the target `(batch, n)` looked at each of the source `(batch, m)`: `(batch, n, m)`.

    The mean over the heads and layers of `attention_maps` across; of padding 0.
    """
    before = tf.concat([tf.fill([tf.shape(target)[0], 1], BEGIN), target[:, :-1]], 1)
    layers = maps([source, before], training=False)
    looked = [tf.cast(value, tf.float32) for value in layers.values()]
    weight = tf.add_n([tf.reduce_mean(value, 1) for value in looked]) / len(looked)
    return weight * tf.cast(target != PADDING, tf.float32)[:, :, None]


def references_of(source: Source) -> list[list[str]]:
    """All known translations of each sentence of a source of pairs, in Unicode's NFC, as models write theirs."""
    columns = texts_of(source).columns
    told = columns["references"] if "references" in columns else columns["target"]
    return [unicodedata.normalize("NFC", text.decode("utf-8", "replace")).split("\n") for text in told]


def texts_of(source: Any) -> Any:
    """The raw sentences of a source of pairs, whether it was tokenised or not."""
    return source.texts if isinstance(source, TokenPairSource) else source


def validation_scores(
    translator: Translator, source: Source, between: Callable[[], None] = lambda: None
) -> tuple[dict[str, float], str]:
    """{"val_bleu": …} of at most `VALIDATED` sentences spread over a source, and some translations as Markdown.

    `between`: called before each batch, as to leave.
    """
    texts, references = texts_of(source).columns["source"], references_of(source)
    chosen = np.unique(np.linspace(0, len(texts) - 1, min(VALIDATED, len(texts))).astype(np.int64))
    translations = translator(texts[chosen], between)
    known = [references[place] for place in chosen]
    score = corpus_bleu(translations, known, translator.preprocessor.languages[1]).score
    rows = zip(texts[chosen], known, translations, strict=True)
    cells = [(text.decode("utf-8", "replace"), some[0], translation) for text, some, translation in rows]
    shown = cells[:: max(1, len(chosen) // SAMPLES)][:SAMPLES]
    return {"val_bleu": score}, table(["source", "reference", "translation"], shown)
