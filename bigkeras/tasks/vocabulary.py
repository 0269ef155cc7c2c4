"""Vocabularies, made from the texts of the training split."""

import io
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bigkeras.data.source import DataError
from bigkeras.tasks.text import (
    PAD_WORD,
    UNKNOWN_WORD,
    TextPreprocessor,
    over_batches,
    read_vocabulary,
    sentencepiece_fields,
)

SENTENCES = 500_000  # that SentencePiece learns from; more bring nothing but time
SPECIAL = (PAD_WORD, UNKNOWN_WORD, "[CLS]", "[SEP]", "[MASK]")  # of WordPiece
NAME = 0.8  # of the places of a proper name, at least, have it with a capital letter
LONGEST_SENTENCE = 4000  # bytes; SentencePiece leaves longer ones out, so they are cut


def count_pieces(preprocessor: TextPreprocessor, texts: np.ndarray) -> Counter[bytes]:
    """How often each word or character stands in the texts."""
    counts: Counter[bytes] = Counter()

    def unique(part: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.unique_with_counts(preprocessor.pieces(part).flat_values)
        return found.y, found.count

    for words, numbers in over_batches(unique, texts).as_numpy_iterator():
        for word, number in zip(words.tolist(), numbers.tolist(), strict=True):
            counts[word] += number
    return counts


def learned_words(
    preprocessor: TextPreprocessor, texts: np.ndarray, size: int, min_count: int, proper_names: bool = True
) -> tuple[str, ...]:
    """[PAD], [UNK] and the most frequent words or characters, `size` in all; equal ones in the order of their bytes.

    Without `proper_names` those that `names_among` gives are left out.
    """
    counts = count_pieces(preprocessor, texts)
    names = frozenset() if proper_names else names_among(preprocessor, texts)
    ranked = sorted((-number, word) for word, number in counts.items() if number >= min_count)
    words = (word.decode() for _, word in ranked if word not in names)
    # A text may say [PAD]; not as one word, since brackets are signs of their own, but nobody should depend on that.
    kept = [word for word in words if word not in (PAD_WORD, UNKNOWN_WORD)]
    return (PAD_WORD, UNKNOWN_WORD, *kept[: size - 2])


def names_among(preprocessor: TextPreprocessor, texts: np.ndarray) -> frozenset[bytes]:
    """The words, in small letters, that begin with a capital one in more than `NAME` of their places.

    Not those of a single letter, or with one before an apostrophe: I, I'm.
    """
    total: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    for word, number in count_pieces(replace(preprocessor, lower=False), texts).items():
        written = word.decode()
        total[written.lower()] += number
        capital[written.lower()] += number * written[0].isupper()
    names = (word for word, number in total.items() if capital[word] > NAME * number and len(word.split("'")[0]) > 1)
    return frozenset(name.encode() for name in names)


def learned_sentencepiece(preprocessor: TextPreprocessor, texts: np.ndarray, size: int, seed: int) -> dict[str, Any]:
    """The fields of a TextPreprocessor with a unigram model (Kudo 2018) trained on the texts.

    What is in no piece is spelt in bytes, so that nothing is unknown. Of data that does not give `size` pieces, fewer.
    """
    import sentencepiece

    cleaned = (text for part in over_batches(preprocessor.clean, texts) for text in part.numpy())
    parts = (text[i : i + LONGEST_SENTENCE] for text in cleaned for i in range(0, len(text), LONGEST_SENTENCE))
    sentences = (part.decode("utf-8", "ignore") for part in parts)
    sentencepiece.set_random_generator_seed(seed)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            vocab_size=size,
            model_type="unigram",
            byte_fallback=True,
            hard_vocab_limit=False,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            input_sentence_size=SENTENCES,
            shuffle_input_sentence=True,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise not_learned(size, error) from None
    return sentencepiece_fields(model.getvalue())


def not_learned(size: int, error: RuntimeError) -> DataError:
    """What SentencePiece says of a vocabulary, in the words of a recipe."""
    told = str(error).splitlines()[0].strip()
    needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", told)
    if needed:
        return DataError(f"task.vocabulary_size={size}: the characters of these texts alone need {needed[1]} pieces")
    return DataError(f"task.vocabulary_size={size}: SentencePiece cannot learn it: {told}")


def learned_wordpiece(preprocessor: TextPreprocessor, texts: np.ndarray, size: int, min_count: int) -> tuple[str, ...]:
    """[PAD], [UNK], [CLS], [SEP], [MASK], characters and pieces of words that stand `min_count` times or more.

    About `size` in all, fewer of little data; characters are at most half of them, the most frequent ones. By
    TensorFlow Text's learner, from the words that BERT's tokenizer finds.
    """
    from tensorflow_text.tools.wordpiece_vocab.bert_vocab_from_dataset import bert_vocab_from_dataset

    # Each character is two pieces: at the beginning of a word, and within.
    options = {"lower_thresh": min_count, "max_unique_chars": max(1, size // 4)}
    cleaned = over_batches(preprocessor.clean, texts)
    return tuple(bert_vocab_from_dataset(cleaned, size, list(SPECIAL), {"lower_case": preprocessor.lower}, options))


def given_fields(tokens: str, given: Path | tuple[str, ...]) -> dict[str, Any]:
    """A vocabulary of one's own, a file or the words by id, as fields of a TextPreprocessor. Raises DataError."""
    origin = str(given) if isinstance(given, Path) else "the words given"
    try:
        if tokens == "sentencepiece":
            if not isinstance(given, Path):
                raise DataError("task.vocabulary: SentencePiece takes the file of a model")
            fields = sentencepiece_fields(given.read_bytes())
            if fields["vocabulary"][:2] != ("<pad>", "<unk>"):
                found = " and ".join(map(repr, fields["vocabulary"][:2]))
                raise DataError(
                    f"task.vocabulary={origin}: its first pieces are {found}, not '<pad>' and '<unk>': learn it with "
                    "--pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3"
                )
            return fields
        words = read_vocabulary(given) if isinstance(given, Path) else tuple(given)
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        wanted = "a UTF-8 text, a token a line, or a SentencePiece model"
        told = getattr(error, "strerror", None) or f"not a vocabulary: {wanted}"
        raise DataError(f"task.vocabulary={origin}: {told}") from None
    if words[0] != PAD_WORD:
        raise DataError(f"task.vocabulary={origin}: its first line is {words[0]!r}; {PAD_WORD} must have id 0")
    missing = [word for word in (("[UNK]", "[CLS]", "[SEP]") if tokens == "wordpiece" else ()) if word not in words]
    if missing:
        raise DataError(f"task.vocabulary={origin}: lacks {missing[0]}, which WordPiece needs")
    if tokens != "wordpiece" and words[1:2] != (UNKNOWN_WORD,):
        raise DataError(f"task.vocabulary={origin}: its second line is not {UNKNOWN_WORD}")
    while words[-2:] == ("", ""):  # one blank line at the end may have its row in published weights
        words = words[:-1]
    first: dict[str, int] = {}
    for line, word in enumerate(words, 1):
        if word in first:
            told = f"{word!r} stands on lines {first[word]} and {line}: each token has one line, its id"
            raise DataError(f"task.vocabulary={origin}: {told}")
        first[word] = line
    return {"vocabulary": words}
