"""The preprocessor of sentence pairs: from raw strings to subword ids and back. Used in training and in the artifact.

All of it are graph functions, by TensorFlow Text's SentencePiece, which is imported only where it is needed.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from bigkeras.data.plan import WIDTHS
from bigkeras.tasks.text import sentencepiece_tokenizer

PADDING, UNKNOWN, BEGIN, END = 0, 1, 2, 3
SOURCE_FILE, TARGET_FILE = "source.model", "target.model"
# Signs that are no text. Marks without width, as the soft hyphen, stand inside words, and nothing takes their place;
# joiners (U+200C, U+200D) belong to words and emoji.
MARKS = r"[\x{FEFF}\x{061C}\x{200B}\x{00AD}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2060}\x{2066}-\x{2069}]+"
CONTROLS = r"[\p{Cc}\x{2028}\x{2029}]+"


@dataclass(frozen=True, kw_only=True)
class PairPreprocessor:
    """How sentences become ids, int32, and ids sentences. 0 is padding, 1 unknown, 2 the beginning, 3 the end.

    At most `length` ids of a sentence are kept, its end's with them: `length` - 1 pieces of its text. `source_model`
    and `target_model`: SentencePiece models as bytes; equal ones are a joint vocabulary. What is in no piece is spelt
    in bytes. `languages`: "" is not known. `beam`, `length_penalty`, `coverage_penalty`: how translations are looked
    for (`decoding.beam_search`).
    """

    languages: tuple[str, str]
    length: int
    beam: int
    length_penalty: float
    source_model: bytes
    target_model: bytes
    coverage_penalty: float = 0.0

    @property
    def models(self) -> tuple[bytes, bytes]:
        """The vocabularies of source and target."""
        return self.source_model, self.target_model

    @property
    def covers(self) -> bool:
        """Whether its search has a coverage penalty: one beam alone has nothing to choose by."""
        return self.coverage_penalty > 0 and self.beam > 1

    @property
    def joint(self) -> bool:
        """Whether both languages have one vocabulary."""
        return self.source_model == self.target_model

    def vocabulary_sizes(self) -> tuple[int, int]:
        """How many ids source and target have."""
        source = vocabulary_size(self.source_model)
        return source, source if self.joint else vocabulary_size(self.target_model)

    def tokenizers(self) -> "Tokenizers":
        """The graph functions; whoever saves them tracks the models that they hold."""
        source = sentencepiece_tokenizer(self.source_model)
        target = source if self.joint else sentencepiece_tokenizer(self.target_model)
        return Tokenizers(self, source, target)

    def to_json(self) -> str:
        """JSON text; `from_json` gives an equal preprocessor with the files of `files` beside it."""
        values = dataclasses.asdict(self)
        del values["source_model"], values["target_model"]
        return json.dumps({"kind": "pairs", **values, "joint": self.joint}, indent=2) + "\n"

    def files(self) -> dict[str, bytes]:
        """preprocessor.json and the vocabularies, by file name; one of them where it is joint."""
        models = {SOURCE_FILE: self.source_model} | ({} if self.joint else {TARGET_FILE: self.target_model})
        return {"preprocessor.json": self.to_json().encode(), **models}

    @staticmethod
    def from_json(values: dict[str, Any], directory: Path) -> "PairPreprocessor":
        """The preprocessor of a parsed preprocessor.json, without its "kind", and the vocabularies beside it."""
        joint = values.pop("joint")
        source = (directory / SOURCE_FILE).read_bytes()
        target = source if joint else (directory / TARGET_FILE).read_bytes()
        languages = tuple(values.pop("languages"))
        return PairPreprocessor(**values, languages=languages, source_model=source, target_model=target)


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of a PairPreprocessor. `source` and `target`: what a saved graph must track."""

    preprocessor: PairPreprocessor
    source: Any
    target: Any

    def source_ids(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Strings `(batch,)` to ragged int32 ids of at most `length`, the end's last."""
        return self._ended(self.source, texts)

    def target_ids(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """The same of the target's language."""
        return self._ended(self.target, texts)

    def sentences(self, ids: tf.Tensor) -> tf.Tensor:
        """Target ids `(batch, any)`, up to the first end or padding, to strings `(batch,)`."""
        return self.target.detokenize(up_to_end(ids))

    def _ended(self, tokenizer: Any, texts: tf.Tensor) -> tf.RaggedTensor:
        ids = tokenizer.tokenize(clean(texts))[:, : self.preprocessor.length - 1]
        return tf.concat([ids, tf.fill([ids.nrows(), 1], END)], 1)


def clean(texts: tf.Tensor) -> tf.Tensor:
    """Strings `(…)` as valid UTF-8 in Unicode's composed form (NFC), with single spaces.

    Not NFKC, which would turn the wide punctuation of Chinese into the narrow one, also in translations.
    """
    import tensorflow_text

    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    texts = tensorflow_text.normalize_utf8(tf.strings.regex_replace(texts, MARKS, ""), "NFC")
    texts = tf.strings.regex_replace(texts, CONTROLS, " ")
    return tf.strings.strip(tf.strings.regex_replace(texts, r"[\s\p{Z}]+", " "))


def padded(*sides: tf.RaggedTensor) -> list[tf.Tensor]:
    """Ragged ids as int32 `(batch, width)`, all of them of one of `WIDTHS`."""
    longest = tf.reduce_max(tf.concat([[1], *(side.row_lengths() for side in sides)], 0))
    widths = tf.constant(WIDTHS, tf.int64)
    width = widths[tf.minimum(tf.searchsorted(widths, [longest])[0], len(WIDTHS) - 1)]
    return [tf.ensure_shape(side.to_tensor(PADDING, shape=tf.stack([-1, width])), (None, None)) for side in sides]


def up_to_end(ids: tf.Tensor) -> tf.RaggedTensor:
    """The ids `(batch, any)` before the first end or padding, ragged, without any beginning."""
    over = tf.cumsum(tf.cast((ids == END) | (ids == PADDING), tf.int32), axis=1) > 0
    return tf.ragged.boolean_mask(ids, ~over & (ids != BEGIN))


def vocabulary_size(model: bytes) -> int:
    """The number of pieces of a SentencePiece model."""
    return len(pieces(model))


def pieces(model: bytes) -> tuple[str, ...]:
    """The pieces of a SentencePiece model by id."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return tuple(processor.id_to_piece(list(range(processor.get_piece_size()))))
