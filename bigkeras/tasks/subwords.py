"""Subword vocabularies of sentence pairs, learned from the training split by SentencePiece."""

import io
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from bigkeras.data.source import DataError
from bigkeras.tasks.pairs import BEGIN, END, PADDING, UNKNOWN, clean
from bigkeras.tasks.text import over_batches
from bigkeras.tasks.vocabulary import LONGEST_SENTENCE, SENTENCES, not_learned

ALGORITHMS = ("unigram", "bpe")
# Nearly all characters of the text get a piece of their own; rarer ones are spelt in bytes. For scripts of thousands of
# signs, SentencePiece's documentation advises less than 1.
COVERAGE = 0.9995
# How many versions of a training sentence are drawn, of which every epoch shows one by chance.
VERSIONS = 8


def learned(texts: Iterable[bytes], size: int, algorithm: str) -> bytes:
    """A SentencePiece model with byte fallback of at most `size` pieces: of data that gives fewer, fewer.

    The same texts give the same model. `unigram`: Kudo 2018 (arXiv 1804.10959); `bpe`: Sennrich et al. 2016 (arXiv
    1508.07909). Text is taken as it is: the preprocessor has normalised it. Raises DataError.
    """
    import sentencepiece

    sentencepiece.set_random_generator_seed(0)
    sentences = (text[:LONGEST_SENTENCE].decode("utf-8", "ignore") for text in texts if text)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            vocab_size=size,
            model_type=algorithm,
            character_coverage=COVERAGE,
            normalization_rule_name="identity",
            byte_fallback=True,
            hard_vocab_limit=False,
            pad_id=PADDING,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            input_sentence_size=SENTENCES,
            shuffle_input_sentence=True,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise not_learned(size, error) from None
    return model.getvalue()


def learned_models(
    sources: np.ndarray, targets: np.ndarray, *, size: int, algorithm: str, joint: bool
) -> tuple[bytes, bytes]:
    """The models of source and target, bytes `(n,)` each: one for both where `joint`."""
    sides = [[text for part in over_batches(clean, side) for text in part.numpy()] for side in (sources, targets)]
    if joint:
        model = learned([*sides[0], *sides[1]], size, algorithm)
        return model, model
    return learned(sides[0], size, algorithm), learned(sides[1], size, algorithm)


def given_model(path: Path) -> bytes:
    """The bytes of a SentencePiece model file of one's own: with our ids, and with bytes. Raises DataError."""
    import sentencepiece

    try:
        data = path.read_bytes()
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    except (OSError, RuntimeError) as error:
        told = getattr(error, "strerror", None) or "not a SentencePiece model"
        raise DataError(f"task.vocabulary={path}: {told}") from None
    found = (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
    if found != (PADDING, UNKNOWN, BEGIN, END):
        raise DataError(f"task.vocabulary={path}: padding, unknown, beginning and end have the ids {found}, not 0 to 3")
    if not any(processor.is_byte(id) for id in range(processor.get_piece_size())):
        raise DataError(f"task.vocabulary={path}: has no bytes for rare signs: train it with --byte_fallback=true")
    return data


def sampled(model: bytes, texts: np.ndarray, *, alpha: float, length: int) -> tuple[np.ndarray, np.ndarray]:
    """As `encoded`, of texts `(n, versions)` row by row: the first of a row the likeliest way, the others at random.

    `alpha`: as SentencePiece has it. Of a unigram model the probabilities to this power are drawn from: less is bolder
    (Kudo 2018, arXiv 1804.10959: 0.1 to 0.5), and longer: of captions in 4,000 subwords 0.3 makes a seventh more ids,
    0.2 a third, 0.1 nearly twice as many. Of BPE the chance that a merge is skipped: more is bolder (Provilkov et al.
    2020, arXiv 1910.13267: 0.1). In the place of one of more than `length` ids the likeliest stands, cut to them.
    The same texts give the same.
    """
    import sentencepiece

    sentencepiece.set_random_generator_seed(0)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    found, lengths = array("i"), array("q")  # a list would take nine times as much memory
    sentences = (text.decode() for part in over_batches(clean, texts.reshape(-1)) for text in part.numpy())
    for place, sentence in enumerate(sentences):
        first = place % texts.shape[1] == 0
        ids = processor.encode(sentence, enable_sampling=not first, alpha=alpha, nbest_size=-1)
        if not first and len(ids) >= length:
            ids = processor.encode(sentence)
        kept = ids[: length - 1]
        found.extend(kept)
        found.append(END)
        lengths.append(len(kept) + 1)
    return np.array(found, np.int32), np.array(lengths, np.int64)


def encoded(tokenize: object, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All ids of the texts, one after the other, int32, and how many each text has, int64 `(n,)`."""
    values, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for part in over_batches(tf.function(tokenize), texts):
        values.append(part.flat_values.numpy())
        lengths.append(part.row_lengths().numpy())
    return np.concatenate(values), np.concatenate(lengths)
