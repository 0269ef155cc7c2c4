"""The text preprocessor: from raw strings to token ids. Used in training and chained into the artifact.

All of it are graph functions. Core TensorFlow has no Unicode normalisation and no subwords: these come from
TensorFlow Text, which is imported only where a preprocessor needs them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bigkeras.remarks import unheard

TOKENS = ("word", "character", "wordpiece", "sentencepiece")
TRUNCATIONS = ("head", "head_tail")
PADDING, UNKNOWN = 0, 1
PAD_WORD, UNKNOWN_WORD = "[PAD]", "[UNK]"
LONGEST_WORD = 400  # bytes: at least BERT's 100 characters; a longer word is unknown
WIDTHS = 8  # how many lengths a batch may have
SHORTEST, LONGEST_CUT = 3, 30  # letters of a word that has n-grams of letters, and so many of which are looked at
MOST_OF_LETTERS = 16  # n-grams of letters, for each token that a text may have
WORD_BEGIN, WORD_END = "<", ">"
OF_LETTERS = 2**40  # so that a letter is no word's id
VOCABULARY_FILE, SENTENCEPIECE_FILE = "vocabulary.txt", "sentencepiece.model"
# Written without spaces between words: each character is a word.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"

Tokenizer = Callable[[tf.Tensor], tf.RaggedTensor]


@dataclass(frozen=True, kw_only=True)
class TextPreprocessor:
    """How a text becomes token ids, int32; 0 is padding, at the end, and 1 an unknown token.

    `tokens`: "word" (words and single signs; each character where a script has no spaces), "character", "wordpiece"
    (as BERT, between [CLS] and [SEP]) or "sentencepiece". At most `length` tokens of a text are kept: its beginning
    ("head"), or a quarter from its beginning and the rest from its end ("head_tail": Sun et al. 2019, "How to
    Fine-Tune BERT", section 5.3.1). With `ngrams` above 1, the n-grams of 2 … `ngrams` neighbouring tokens follow the
    tokens, hashed into `buckets` ids after the vocabulary's (Joulin et al. 2016, "Bag of Tricks", section 2.2). With
    `letters` above 1, of words only, so do the n-grams of 2 … `letters` characters of each word of at least three, its
    ends marked, in `buckets` ids of their own (Bojanowski et al. 2017, arXiv 1607.04606, section 3.2): a word that is
    not known has some that are.
    `folded`: small letters of WordPieces are Unicode's folded ones, which are compatibility forms, too (… is three
    dots, ß is ss); False: small letters without accents alone, as of published vocabularies (Devlin et al. 2018).
    `vocabulary`: the tokens by id; of SentencePiece, `sentencepiece` is the model file's bytes.
    """

    tokens: str
    length: int
    ngrams: int = 1
    buckets: int = 0
    letters: int = 0
    lower: bool = True
    nfkc: bool = True
    folded: bool = True
    truncation: str = "head"
    vocabulary: tuple[str, ...] = ()
    sentencepiece: bytes = b""

    @property
    def shape(self) -> tuple[int]:
        """`(most ids of a text,)`."""
        return (self.length * (self.ngrams + (MOST_OF_LETTERS if self.letters else 0)),)

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are, padding included."""
        return self.letters_from + (self.buckets if self.letters else 0)

    @property
    def letters_from(self) -> int:
        """The first id of n-grams of letters, after those of tokens and their n-grams."""
        return len(self.vocabulary) + (self.buckets if self.ngrams > 1 else 0)

    def clean(self, texts: tf.Tensor) -> tf.Tensor:
        """Strings `(…)` of valid UTF-8: normalised, one space for breaks and control characters, lower case if asked.

        A broken byte becomes U+FFFD; marks without width (byte order marks, soft hyphens, joiners) go.
        """
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        if self.nfkc:
            import tensorflow_text

            # NFKC would make a space and an accent of an apostrophe's mark (don´t), and one number of 4½.
            for _ in range(2):  # of one letter between two marks the first match takes both ends
                texts = tf.strings.regex_replace(texts, r"(\p{L})[´`](\p{L})", r"\1'\2")
            texts = tf.strings.regex_replace(texts, r"(\p{N})([¼½¾])", r"\1 \2")
            texts = tensorflow_text.normalize_utf8(texts, "NFKC")
        texts = tf.strings.regex_replace(texts, r"(?i)<br\s*/?>", " ")
        texts = tf.strings.regex_replace(texts, r"[\p{Cf}\x{FE00}-\x{FE0F}]+", "")
        texts = tf.strings.strip(tf.strings.regex_replace(texts, r"[\p{Cc}\p{Z}]+", " "))
        if not self.lower or (self.tokens == "wordpiece" and self.folded):  # WordPiece's own normaliser, below, does it
            return texts
        if self.tokens != "wordpiece":
            return lower(texts)
        import tensorflow_text

        return tf.strings.regex_replace(tensorflow_text.normalize_utf8(lower(texts), "NFD"), r"\p{Mn}+", "")

    def pieces(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Words or characters of strings `(batch,)`, as ragged strings; the kinds without subwords only."""
        texts = self.clean(texts)
        if self.tokens == "character":
            return tf.strings.unicode_split(texts, "UTF-8")
        texts = tf.strings.regex_replace(texts, "’", "'")
        texts = tf.strings.regex_replace(texts, rf"([^\p{{L}}\p{{M}}\p{{N}}\s']|[{UNSPACED}])", r" \1 ")
        # An apostrophe between letters belongs to the word.
        texts = tf.strings.regex_replace(texts, r"(^|[^\p{L}\p{M}\p{N}])'+", r"\1 ' ")
        texts = tf.strings.regex_replace(texts, r"'+([^\p{L}\p{M}\p{N}]|$)", r" ' \1")
        return tf.strings.split(texts)

    def tokenizer(self, vocabulary_file: str | None = None) -> tuple[Tokenizer, list[Any]]:
        """A graph function from strings `(batch,)` to ragged ids, int32, of at most `length` tokens; and what it holds.

        Those of n-grams of letters, where there are such, come after them.
        The tables and models that it holds must be tracked by whoever saves the function. With `vocabulary_file` the
        table of words is read from that file, which becomes an asset; else it is a constant.
        """
        whole, held = self._whole(vocabulary_file)

        def tokenize(texts: tf.Tensor) -> tf.RaggedTensor:
            ids = self._truncated(whole(texts))
            if self.frame:
                first, last = (tf.fill([ids.nrows(), 1], number) for number in self.frame)
                return tf.concat([first, ids, last], 1)
            return self._filled(ids)

        def with_letters(texts: tf.Tensor) -> tf.RaggedTensor:
            words = self._truncated(self.pieces(texts))
            ids = tf.cast(tf.ragged.map_flat_values(held[0].lookup, words), tf.int32)
            return tf.concat([self._filled(ids), self.of_letters(words)], 1)

        return (with_letters if self.letters else tokenize), held

    def _filled(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """At least one token, so that no model sees nothing but padding."""
        empty = tf.cast(tf.equal(ids.row_lengths(), 0), tf.int64)
        filler = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(empty)], self.unknown), empty)
        return tf.concat([ids, filler], 1)

    @property
    def frame(self) -> tuple[int, ...]:
        """The ids of [CLS] and [SEP], between which a text of WordPiece stands; none of the other kinds."""
        return tuple(map(self.vocabulary.index, ("[CLS]", "[SEP]"))) if self.tokens == "wordpiece" else ()

    @property
    def unknown(self) -> int:
        """The id of a token that is not in the vocabulary."""
        return self.vocabulary.index(UNKNOWN_WORD) if self.tokens == "wordpiece" else UNKNOWN

    def of_letters(self, words: tf.RaggedTensor) -> tf.RaggedTensor:
        """The ids of the n-grams of letters of ragged words, int32 `(batch, any)`."""
        long = tf.strings.length(words.flat_values, unit="UTF8_CHAR") >= SHORTEST
        words = tf.ragged.boolean_mask(words, words.with_flat_values(long))
        marked = tf.strings.join(
            [WORD_BEGIN, tf.strings.substr(words.flat_values, 0, LONGEST_CUT, "UTF8_CHAR"), WORD_END]
        )
        codes = tf.cast(tf.strings.unicode_decode(marked, "UTF-8"), tf.int64) + OF_LETTERS
        parts, hashed = [], codes
        for number in range(1, self.letters):
            hashed = tf.ragged.map_flat_values(mixed, hashed[:, :-1], codes[:, number:])
            parts.append(tf.math.floormod(hashed, self.buckets) + self.letters_from)
        found = tf.concat(parts, 1)
        splits = tf.gather(found.row_splits, words.row_splits)
        whole = tf.RaggedTensor.from_row_splits(tf.cast(found.flat_values, tf.int32), splits)
        return whole[:, : self.length * MOST_OF_LETTERS]

    def with_ngrams(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Ragged ids of tokens, followed by those of their n-grams; those of letters, which are there, come last."""
        parts, rest = [ids], []
        if self.letters:
            known = ids < len(self.vocabulary)
            rest = [tf.ragged.boolean_mask(ids, tf.logical_not(known))]
            ids = tf.ragged.boolean_mask(ids, known)
            parts = [ids]
        hashed = tf.cast(ids, tf.int64)
        for number in range(1, self.ngrams):
            hashed = tf.ragged.map_flat_values(mixed, hashed[:, :-1], tf.cast(ids[:, number:], tf.int64))
            inside = tf.math.floormod(hashed, self.buckets) + len(self.vocabulary)
            parts.append(tf.cast(inside, tf.int32))
        return tf.concat([*parts, *rest], 1)

    def padded(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Ragged ids with their n-grams, padded: int32 `(batch, one of a few lengths)`."""
        ids = self.with_ngrams(ids)
        width = self.width(tf.reduce_max(tf.concat([[1], ids.row_lengths()], 0)))
        return tf.ensure_shape(ids.to_tensor(PADDING, shape=tf.stack([-1, width])), (None, None))

    def width(self, longest: tf.Tensor) -> tf.Tensor:
        """To how many ids texts are padded of which the longest has so many; int32."""
        (most,) = self.shape
        step = -(-most // (8 * WIDTHS)) * 8
        return tf.minimum(-(-tf.cast(longest, tf.int32) // step) * step, most)

    def to_json(self) -> str:
        """JSON text; `from_json` gives an equal preprocessor with the files of `files` beside it."""
        values = dataclasses.asdict(self)
        del values["vocabulary"], values["sentencepiece"]
        return json.dumps({"kind": "text", **values}, indent=2) + "\n"

    def files(self) -> dict[str, bytes]:
        """preprocessor.json and the vocabulary, by file name."""
        if self.tokens == "sentencepiece":
            part = {SENTENCEPIECE_FILE: self.sentencepiece}
        else:
            part = {VOCABULARY_FILE: "".join(f"{word}\n" for word in self.vocabulary).encode()}
        return {"preprocessor.json": self.to_json().encode(), **part}

    @staticmethod
    def from_json(values: dict[str, Any], directory: Path) -> "TextPreprocessor":
        """The preprocessor of a parsed preprocessor.json, without its "kind", and the vocabulary in its directory."""
        if values["tokens"] == "sentencepiece":
            return TextPreprocessor(**values, **sentencepiece_fields((directory / SENTENCEPIECE_FILE).read_bytes()))
        return TextPreprocessor(**values, vocabulary=read_vocabulary(directory / VOCABULARY_FILE))

    def _whole(self, vocabulary_file: str | None) -> tuple[Tokenizer, list[Any]]:
        if self.tokens == "wordpiece":
            import tensorflow_text

            fast = tensorflow_text.FastBertTokenizer(
                list(self.vocabulary),
                max_bytes_per_word=LONGEST_WORD,
                token_out_type=tf.int32,
                lower_case_nfd_strip_accents=self.lower and self.folded,
            )
            return lambda texts: fast.tokenize(self.clean(texts)), [fast]
        if self.tokens == "sentencepiece":
            model = sentencepiece_tokenizer(self.sentencepiece)
            return lambda texts: model.tokenize(self.clean(texts)), [model]
        if vocabulary_file is None:
            numbers = tf.range(len(self.vocabulary), dtype=tf.int64)
            content: Any = tf.lookup.KeyValueTensorInitializer(tf.constant(self.vocabulary), numbers)
        else:
            line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
            content = _Words(vocabulary_file, tf.string, line, tf.int64, number)
        table = tf.lookup.StaticHashTable(content, UNKNOWN)
        return lambda texts: tf.cast(tf.ragged.map_flat_values(table.lookup, self.pieces(texts)), tf.int32), [table]

    def _truncated(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        most = self.length - len(self.frame)
        if self.truncation == "head":
            return ids[:, :most]
        head = most // 4
        return tf.concat([ids[:, :head], ids[:, head:][:, head - most :]], 1)


class _Words(tf.lookup.TextFileInitializer):
    """A table's words, of whose file the artifact keeps no path: a folder of this machine is nobody's concern."""

    _shared_name = ""  # TensorFlow's own name of it is that path; for none it draws one


def mixed(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """int64 numbers that look random, a function of two int64 numbers (the mixing of splitmix64)."""
    value = first * 6364136223846793005 + second * 1442695040888963407 + 1
    value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(29, tf.int64)))
    value *= -4658895280553007687
    return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(32, tf.int64)))


def word_dropout(
    ids: tf.RaggedTensor, randoms: tf.Tensor, preprocessor: TextPreprocessor, rate: float = 0.1
) -> tf.RaggedTensor:
    """Ids of which a share `rate` is made unknown; a function of the ids and the example's random numbers."""
    # One random number a text, hashed with the position: the plan need not hold one for each token.
    seed = tf.cast(randoms[:, 1] * 2**24, tf.int64)
    seeds = tf.repeat(seed, ids.row_lengths())
    positions = tf.ragged.range(ids.row_lengths()).flat_values
    chance = tf.cast(tf.math.floormod(mixed(seeds, tf.cast(positions, tf.int64)), 2**24), tf.float32) / 2**24
    dropped = chance < rate
    if preprocessor.letters:  # whose n-grams stay
        dropped &= ids.flat_values < len(preprocessor.vocabulary)
    for number in preprocessor.frame:
        dropped &= ids.flat_values != number
    return ids.with_flat_values(tf.where(dropped, preprocessor.unknown, ids.flat_values))


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """The tokens of a vocabulary file, a line each."""
    return tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))


def sentencepiece_tokenizer(model: bytes) -> Any:
    """TensorFlow Text's tokenizer of a SentencePiece model, giving int32 ids.

    A loaded graph finds its models by name among all of the process, and they all have the same one unless told (seen
    with TensorFlow Text 2.21): a second vocabulary would be the first. So the name is the content's.
    """
    import tensorflow_text

    name = f"sentencepiece_{hashlib.sha256(model).hexdigest()[:16]}"
    with unheard():  # of a model without a map of characters, as those that are learned here, it says that it has none
        return tensorflow_text.SentencepieceTokenizer(model=model, out_type=tf.int32, name=name)


def lower(texts: tf.Tensor) -> tf.Tensor:
    """UTF-8 strings in small letters, the same ones wherever the graph runs.

    TensorFlow asks the environment for a language: in Turkish and Azeri it makes "ı" of "I".
    """
    for capital, small in (("I", "i"), ("İ", "i\u0307")):
        texts = tf.strings.regex_replace(texts, capital, small)
    return tf.strings.lower(texts, "utf-8")


def sentencepiece_fields(model: bytes) -> dict[str, Any]:
    """What a TextPreprocessor holds of a SentencePiece model: its bytes and its pieces."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = tuple(processor.id_to_piece(list(range(processor.get_piece_size()))))
    return {"sentencepiece": model, "vocabulary": pieces}


def over_batches(function: Callable, texts: np.ndarray, batch: int = 512, most: int = 2**24) -> tf.data.Dataset:
    """What a graph function of strings `(batch,)` gives for all texts, in order.

    A batch has `most` bytes at most, but for a text that has more: preparing one takes several times its size.
    """
    ends: list[int] = []
    size = 0
    for place, text in enumerate(texts):
        if place and (place - (ends[-1] if ends else 0) == batch or size + len(text) > most):
            ends.append(place)
            size = 0
        size += len(text)
    ends += [len(texts)] if len(texts) else []
    with tf.device("cpu"):
        held = tf.constant(texts, tf.string, (len(texts),))
    bounds = tf.data.Dataset.from_tensor_slices(
        (np.array([0, *ends[:-1]][: len(ends)], np.int64), np.array(ends, np.int64))
    )
    return bounds.map(lambda begin, end: function(held[begin:end]), num_parallel_calls=2)
