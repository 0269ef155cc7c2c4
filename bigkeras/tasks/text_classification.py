"""Text classification: what a raw text and its answer are, in training, evaluation and the artifact."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.files import expanded
from bigkeras.data.pipeline import Batch, batches
from bigkeras.data.source import ArraySource, DataError, Source, Splits
from bigkeras.data.tokens import TokenSource
from bigkeras.recipe import Choice, RecipeError, check, load
from bigkeras.tasks.text import TOKENS, TRUNCATIONS, TextPreprocessor, over_batches, word_dropout
from bigkeras.tasks.vocabulary import given_fields, learned_sentencepiece, learned_wordpiece, learned_words

EXAMPLES = 16  # texts that the parity gate compares
# Tokens of a text, where a recipe does not say how many.
LONGEST = {"word": 512, "character": 2048, "wordpiece": 256, "sentencepiece": 512}
MIN_COUNT = 2  # of a word in the training texts, by default
SHARE_WHOLE = 0.98  # of the training texts, that are not truncated then
AUGMENTATIONS: dict[str, Callable] = {"word_dropout": word_dropout}


@dataclass(frozen=True)
class TextClassification:
    """A fitted task: the preprocessor, the classes and the augmentation of one run."""

    preprocessor: TextPreprocessor
    class_names: tuple[str, ...]
    augmentation: tuple[Choice, ...]

    kind = "text"

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model, and hints: ids from `words` on are of n-grams, of up to `ngrams` tokens.

        From `letters_from` on they are of letters, where there are such. No text has more than `longest` tokens.
        """
        (length,) = self.preprocessor.shape
        sizes = {"vocabulary_size": self.preprocessor.vocabulary_size, "length": length}
        hints = {
            "words": len(self.preprocessor.vocabulary),
            "ngrams": self.preprocessor.ngrams,
            "letters_from": self.preprocessor.letters_from if self.preprocessor.letters else None,
            "longest": self.preprocessor.length,
        }
        return {**sizes, "num_classes": len(self.class_names), **hints}

    def ready(self, splits: Splits) -> Splits:
        """The texts of training and validation, tokenised once."""
        validation = splits.validation and self.opened(splits.validation)
        return replace(splits, train=self.opened(splits.train), validation=validation)

    def opened(self, source: Source) -> TokenSource:
        """The token ids of a source of texts."""
        if isinstance(source, TokenSource):
            return source
        values, lengths = encoded(self.preprocessor, texts_of(source))
        return TokenSource(values, lengths, source)

    def lengths(self, source: Source) -> np.ndarray:
        """How many tokens each text has."""
        return self.opened(source).lengths

    def dataset(
        self, source: Source, rows: tf.data.Dataset, batch_size: int, training: bool, on_bad: Callable[[int], None]
    ) -> tf.data.Dataset:
        """Batches of int32 ids `(batch, one of a few lengths)`, int32 labels and weights."""
        functions = [
            partial(AUGMENTATIONS[c.name], preprocessor=self.preprocessor, **c.args) for c in self.augmentation
        ]

        def many(columns: Batch, randoms: tf.Tensor) -> tf.Tensor:
            ids = columns["tokens"]
            for function in functions if training else ():
                ids = function(ids, randoms)
            return self.preprocessor.padded(ids)

        return batches(self.opened(source), rows, batch_size, one=lambda c, _: c, many=many, on_bad=on_bad)

    def prepare(self, columns: Batch) -> Batch:
        """The columns themselves: any text can be read."""
        return columns

    def normalise(self, tokens: tf.Tensor) -> tf.Tensor:
        """The ids themselves."""
        return tokens

    def step_layers(self, seed: int) -> list[keras.layers.Layer]:
        """None: all augmentation is done on the host."""
        return []

    def sample(self, source: Source, most: int) -> tf.Tensor:
        """The ids of the first `most` texts."""
        return self.preprocessor.padded(self.opened(source).fetch(np.arange(min(most, len(source))))["tokens"])

    def shown(self, source: Source, index: int) -> str:
        """The raw text."""
        return texts_of(source)[index].decode("utf-8", "replace")

    def files(self, splits: Splits) -> dict[str, bytes]:
        """The preprocessor and its vocabulary, and some texts."""
        source = splits.validation or splits.train
        chosen = np.unique(np.linspace(0, len(source) - 1, min(EXAMPLES, len(source))).astype(np.int64))
        texts = texts_of(source)[chosen]
        return {**self.preprocessor.files(), **{f"examples/{i:02d}.txt": text for i, text in enumerate(texts)}}


def text_classification(
    splits: Splits,
    augmentation: tuple[Choice, ...] = (),
    *,
    tokens: str = "word",
    ngrams: int = 1,
    buckets: int = 2**17,
    letters: int = 0,
    length: int | None = None,
    truncation: str = "head",
    vocabulary: str | tuple[str, ...] | None = None,
    vocabulary_size: int = 20_000,
    min_count: int = MIN_COUNT,
    lower: bool = True,
    nfkc: bool | None = None,
    proper_names: bool = True,
) -> TextClassification:
    """The task fitted on the training split: its vocabulary and, where `length` is not given, a length.

    `tokens`: "word" (words and single signs; each character where a script has no spaces), "character", "wordpiece" or
    "sentencepiece". `length`: so many tokens of a text are read, at most; null: what holds nearly all training texts.
    `truncation`: of a longer text its beginning ("head"), or a quarter from there and the rest from its end
    ("head_tail"). `ngrams`: neighbouring tokens up to so many are read together, too, hashed into `buckets` numbers.
    `letters`: of words, so are their characters, up to so many (2 to 6; 0: none). `vocabulary_size`: so many tokens are
    known, at most, of those that stand in the training texts `min_count` times (SentencePiece has no such count).
    `lower`: in small letters.

    `vocabulary`: a vocabulary file, the directory of a run whose preprocessor is taken over as it is, or the words by
    id. `nfkc`: Unicode's compatibility forms made one; null: of words and characters, and of WordPieces that are
    learned here; published ones expect what their authors did, and SentencePiece has a normaliser of its own.
    `proper_names`: false leaves words that begin with a capital letter nearly everywhere out of a vocabulary of words,
    so that they are unknown ones: who plays in the films that are reviewed, say, tells little of others.
    """
    if not proper_names and (tokens != "word" or not lower):
        raise DataError("task.proper_names=false: of words in small letters: task.tokens=word, task.lower=true")
    _check(tokens=tokens, truncation=truncation, ngrams=ngrams, length=length, size=vocabulary_size, buckets=buckets)
    if letters and (tokens != "word" or not 2 <= letters <= 6):
        raise DataError(f"task.letters={letters}: from 2 to 6, of words (task.tokens=word); 0 for none")
    if letters and not proper_names:
        raise DataError(f"task.letters={letters}: spells the names that task.proper_names=false leaves out")
    asked = {
        "tokens": tokens, "ngrams": ngrams, "length": length, "truncation": truncation, "lower": lower, "nfkc": nfkc,
        "buckets": buckets, "letters": letters, "vocabulary_size": vocabulary_size, "min_count": min_count,
        "proper_names": proper_names,
    }  # fmt: skip
    found = kept_preprocessor(vocabulary, text_classification, asked)
    if found is not None:
        return TextClassification(found, splits.class_names, augmentation)
    if nfkc is None:
        nfkc = tokens in ("word", "character") or (tokens == "wordpiece" and not vocabulary)
    if ngrams == 1 and not letters:
        buckets = 0
    values = TextPreprocessor(
        tokens=tokens, length=length or LONGEST[tokens], ngrams=ngrams, buckets=buckets, letters=letters, lower=lower,
        nfkc=nfkc, folded=tokens != "wordpiece" or not vocabulary, truncation=truncation,
    )  # fmt: skip
    texts = texts_of(splits.train)
    if vocabulary:
        content = given_fields(tokens, expanded(vocabulary) if isinstance(vocabulary, str) else vocabulary)
    elif tokens == "sentencepiece":
        if min_count != MIN_COUNT:
            raise DataError(f"task.min_count={min_count}: is of words and WordPieces; SentencePiece has none")
        content = learned_sentencepiece(values, texts, vocabulary_size, seed=0)
    elif tokens == "wordpiece":
        content = {"vocabulary": learned_wordpiece(values, texts, vocabulary_size, min_count)}
    else:
        content = {"vocabulary": learned_words(values, texts, vocabulary_size, min_count, proper_names)}
    values = replace(values, **content)
    if length is None:
        _, lengths = encoded(replace(values, letters=0), texts)
        values = replace(values, length=max(8, int(np.ceil(np.quantile(lengths, SHARE_WHOLE) / 8) * 8)))
    return TextClassification(values, splits.class_names, augmentation)


def kept_preprocessor(origin: Any, task: Callable, asked: Mapping[str, Any]) -> TextPreprocessor | None:
    """The preprocessor of the run whose directory `task.vocabulary` is; None where it is something else.

    Raises DataError for a value `asked` that is not the task's usual one, where the run has another.
    """
    if not isinstance(origin, str) or not origin or not expanded(origin).is_dir():
        return None
    origin = str(expanded(origin))
    from bigkeras.tasks import load_preprocessor

    found = load_preprocessor(origin)
    if not isinstance(found, TextPreprocessor):
        raise DataError(f"task.vocabulary={origin}: a run with another kind of data")
    usual, theirs = inspect.signature(task).parameters, _made_with(found, origin)
    for name, value in asked.items():
        if value != usual[name].default and value != theirs.get(name, value):
            raise DataError(f"task.{name}={value}: {origin} has {theirs[name]}, and its vocabulary is taken over whole")
    return found


def _made_with(found: TextPreprocessor, origin: str) -> dict[str, Any]:
    """The task's arguments that gave a run its preprocessor, as far as they are known."""
    from bigkeras.tasks import TASKS

    values = {field.name: getattr(found, field.name) for field in fields(found)}
    if found.ngrams == 1 and not found.letters:
        del values["buckets"]  # of which a run without n-grams has none, whatever it asked for
    try:
        recipe = load(origin)
    except RecipeError:
        return values
    if recipe.start_from or recipe.task.args.get("vocabulary"):
        return values  # the vocabulary was not learned there
    usual = inspect.signature(TASKS[recipe.task.name]).parameters
    learned = ("vocabulary_size", "min_count", "proper_names")
    made = {name: recipe.task.args.get(name, usual[name].default) for name in learned if name in usual}
    # A language model's has them always.
    return {**values, "proper_names": True, **made}


def check_augmentation(choices: Sequence[Choice]) -> None:
    """Raises RecipeError for a name or argument that is not there, or a share that is none."""
    for choice in choices:
        check("augmentation", choice, AUGMENTATIONS, given=("ids", "randoms", "preprocessor"))
        rate = choice.args.get("rate", 0)
        if not 0 <= rate < 1:
            raise RecipeError(f"augmentation word_dropout: rate={rate}: from 0, below 1")


def texts_of(source: Source) -> np.ndarray:
    """The raw texts of a source, an object array of bytes. Raises DataError for a source of something else."""
    if isinstance(source, TokenSource):
        source = source.texts
    if not isinstance(source, ArraySource) or "text" not in source.columns:
        raise DataError("text_classification needs texts: data such as imdb_reviews, text_table or text_folder")
    return source.columns["text"]


def encoded(preprocessor: TextPreprocessor, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All ids of the texts, one after the other, int32, and how many each text has."""
    tokenize, held = preprocessor.tokenizer()
    values, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for part in over_batches(tokenize, texts):
        values.append(part.flat_values.numpy())
        lengths.append(part.row_lengths().numpy())
    del held  # the tables had to live until here
    return np.concatenate(values), np.concatenate(lengths)


def _check(*, tokens: str, truncation: str, ngrams: int, length: int | None, size: int, buckets: int) -> None:
    if tokens not in TOKENS:
        raise DataError(f"task.tokens={tokens!r}: one of {', '.join(TOKENS)}")
    if truncation not in TRUNCATIONS:
        raise DataError(f"task.truncation={truncation!r}: one of {', '.join(TRUNCATIONS)}")
    if not 1 <= ngrams <= 5 or (ngrams > 1 and tokens not in ("word", "character")):
        raise DataError(f"task.ngrams={ngrams}: from 1 to 5, above 1 of words and characters only")
    for name, value, least in (
        ("length", 4 if length is None else length, 4),
        ("vocabulary_size", size, 3),
        ("buckets", buckets, 1),
    ):
        if value < least:
            raise DataError(f"task.{name}={value}: at least {least}")
