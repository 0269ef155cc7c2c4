"""Translation: what a sentence pair is in training, evaluation and the artifact."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.cleaning import SAMPLE, Pair, base, check_order, found_scripts, spoken, usual_scripts
from bigkeras.data.files import expanded
from bigkeras.data.pair_splits import source_key
from bigkeras.data.pipeline import Batch, options
from bigkeras.data.plan import WIDTHS
from bigkeras.data.source import ArraySource, DataError, Source, Splits
from bigkeras.data.token_pairs import TokenPairSource
from bigkeras.recipe import Choice, RecipeError
from bigkeras.tasks.names import with_invented_names
from bigkeras.tasks.pairs import BEGIN, PADDING, PairPreprocessor, padded
from bigkeras.tasks.subwords import ALGORITHMS, VERSIONS, encoded, given_model, learned_models, sampled

EXAMPLES = 100  # sentences that the parity gate translates
LONGEST = 128  # ids of a sentence


@dataclass(frozen=True)
class Translation:
    """A fitted task: the preprocessor of one run. It has no classes and no augmentation."""

    preprocessor: PairPreprocessor
    class_names: tuple[str, ...] = ()
    augmentation: tuple[Choice, ...] = ()
    sampling: float | None = None
    names: float = 0.0
    both_directions: int = 0

    kind = "pairs"

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model: its vocabularies and `length`, the widest batch."""
        source, target = self.preprocessor.vocabulary_sizes()
        widest = next(width for width in WIDTHS if width >= self.preprocessor.length)
        sizes = {"vocabulary_size": source, "length": widest}
        return sizes if self.preprocessor.joint else {**sizes, "target_vocabulary_size": target}

    def ready(self, splits: Splits) -> Splits:
        """Training and validation pairs as ids, made once; training pairs that would be cut are left out."""
        most = self.preprocessor.length
        # With one id more, which tells a pair that would be cut from one that just fits.
        longer = replace(self, preprocessor=replace(self.preprocessor, length=most + 1))
        train = longer.opened(splits.train)
        longest = train.lengths.max(1)
        whole, cut = np.flatnonzero(longest <= most), np.flatnonzero(longest > most)
        told = tuple((train.name(int(i)), f"{most} subwords or more: length is {most}, the end with them") for i in cut)
        if len(cut):
            if not len(whole):
                raise DataError(f"task.length={most}: all training sentences are longer; set a larger one")
            train = self.opened(raw_pairs(splits.train).take(whole))
        if self.sampling is not None or self.names:
            held_out = [
                raw_pairs(part).columns["source"] for part in (splits.validation, splits.test) if part is not None
            ]
            train = self._varied(train, {source_key(text.decode()) for texts in held_out for text in texts})
        validation = splits.validation and self.opened(splits.validation)
        return replace(splits, train=train, validation=validation, ignored=(*splits.ignored, *told))

    def opened(self, source: Source) -> TokenPairSource:
        """The token ids of a source of sentence pairs."""
        if isinstance(source, TokenPairSource):
            return source
        texts = raw_pairs(source)
        tokenizers = self.preprocessor.tokenizers()
        source_ids = encoded(tokenizers.source_ids, texts.columns["source"])
        target_ids = encoded(tokenizers.target_ids, texts.columns["target"])
        return TokenPairSource(source_ids, target_ids, texts)

    def _varied(self, source: TokenPairSource, held_out: set[str]) -> TokenPairSource:
        """Each pair, and up to `VERSIONS` of it with other subwords, invented names or both.

        None is of a sentence whose key is `held_out`.
        """
        texts, length = raw_pairs(source), self.preprocessor.length
        sides = [texts.columns["source"], texts.columns["target"]]
        versions = np.ones(len(texts), np.int64)
        if self.names:
            room = length - source.lengths.max(1)
            *sides, versions = with_invented_names(
                sides[0],
                sides[1],
                room,
                share=self.names,
                most=VERSIONS,
                is_held_out=lambda text: source_key(text) in held_out,
            )
        if self.sampling is None:
            tokenizers = self.preprocessor.tokenizers()
            ways = tokenizers.source_ids, tokenizers.target_ids
            flat = [encoded(tokenize, side) for tokenize, side in zip(ways, sides, strict=True)]
        else:
            # A pair that is there once is cut into subwords in as many ways.
            ways_of_each = np.repeat(np.where(versions == 1, VERSIONS, 1), versions)
            sides, versions = [side.repeat(ways_of_each) for side in sides], np.full(len(texts), VERSIONS)
            flat = [
                sampled(model, side.reshape(-1, VERSIONS), alpha=self.sampling, length=length)
                for model, side in zip(self.preprocessor.models, sides, strict=True)
            ]
        return TokenPairSource(flat[0], flat[1], texts, versions)

    def lengths(self, source: Source) -> np.ndarray:
        """How many ids the source and the target of each pair have, `(n, 2)`: batches are counted in tokens."""
        return self.opened(source).lengths

    def dataset(
        self, source: Source, rows: tf.data.Dataset, batch_size: int, training: bool, on_bad: Callable[[int], None]
    ) -> tf.data.Dataset:
        """Batches `((source, decoder input), labels, weights)`, all `(pairs, width)`; padding has weight 0."""
        opened = self.opened(source)

        def batch(row: Batch) -> tuple[Any, tf.Tensor, tf.Tensor]:
            index = tf.boolean_mask(row["index"], row["index"] >= 0)
            weight = row["weight"][: tf.size(index)]
            drawn = row["random"][: tf.size(index), 0]
            turned = _turned(row, self.both_directions)[: tf.size(index)] if training and self.both_directions else None
            tokens = opened.fetch(index, drawn, turned)
            source_ids, labels = padded(tokens["source"], tokens["target"])
            begin = tf.fill([tf.shape(labels)[0], 1], BEGIN)
            weights = weight[:, None] * tf.cast(labels != PADDING, tf.float32)
            return (source_ids, tf.concat([begin, labels[:, :-1]], 1)), labels, weights

        return rows.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2).with_options(options())

    def prepare(self, columns: Batch) -> Batch:
        """The columns themselves: any text can be read."""
        return columns

    def normalise(self, ids: Any) -> list[tf.Tensor]:
        """Source and decoder input, as the model takes them."""
        return list(ids)

    def step_layers(self, seed: int) -> list[keras.layers.Layer]:
        """None."""
        return []

    def sample(self, source: Source, most: int) -> list[tf.Tensor]:
        """The ids of the first `most` pairs."""
        tokens = self.opened(source).fetch(np.arange(min(most, len(source))))
        return padded(tokens["source"], tokens["target"])

    def shown(self, source: Source, index: int) -> str:
        """The raw source sentence."""
        return raw_pairs(source).columns["source"][index].decode("utf-8", "replace")

    def files(self, splits: Splits) -> dict[str, bytes]:
        """The preprocessor and its vocabularies, and `EXAMPLES` source sentences, a line each.

        Where there are fewer to validate with, others that were learned stand beside them.
        """
        sentences: list[bytes] = []
        for source in (splits.validation, splits.train):
            texts: Any = raw_pairs(source).columns["source"] if source else []
            most = min(EXAMPLES - len(sentences), len(texts))
            sentences += [texts[i] for i in np.unique(np.linspace(0, len(texts) - 1, most).astype(np.int64))]
        return {**self.preprocessor.files(), "examples/sentences.txt": b"".join(text + b"\n" for text in sentences)}


def translation(
    splits: Splits,
    augmentation: tuple[Choice, ...] = (),
    *,
    vocabulary_size: int = 8000,
    algorithm: str = "unigram",
    joint: bool = True,
    vocabulary: str | None = None,
    length: int = LONGEST,
    beam: int = 4,
    length_penalty: float = 1.0,
    coverage_penalty: float = 0.0,
    sampling: float | None = None,
    names: float = 0.0,
    both_directions: int = 0,
) -> Translation:
    """The task fitted on the training split: its subword vocabularies.

    `joint`: one vocabulary for both languages; languages of different scripts are better off with two.
    `vocabulary`: the directory of a run whose vocabularies are taken over, or a SentencePiece model for both languages;
    null: learned, also where it is said of a translator that starts from another; not said at all, those of the one
    that `start_from` names are taken over, where its languages are not known to be others. Languages that
    the data does not say are those of the run whose vocabularies are taken over. `beam`,
    `length_penalty` and `coverage_penalty` (both nothing to one beam) are those of validation and of the artifact.
    `sampling`: training sentences are cut into subwords at random, so bold (`subwords.sampled` says what the number
    means): a regularisation that suits few pairs. `names`: a share; of the seven other versions of a training pair
    that has names or numbers so many have invented ones in their place (`names.py`), so that what was never seen is
    copied. `both_directions`: for
    so many epochs every second pair, in the next epoch the others, is learned the other way round, by a model that is
    not told which way it translates; then the direction asked for alone. It suits few pairs (Ding et al. 2021, arXiv
    2109.07780) and needs `joint`.
    """
    _check(vocabulary_size, algorithm, length, beam)
    _check_penalties(length_penalty, coverage_penalty)
    if sampling is not None and not 0 < sampling <= 1:
        raise DataError(f"task.sampling={sampling}: above 0, to 1, or null")
    if not 0 <= names <= 1:
        raise DataError(f"task.names={names}: a share, from 0 to 1")
    if both_directions < 0:
        raise DataError(f"task.both_directions={both_directions}: so many epochs, or 0")
    if both_directions and not joint and not vocabulary:
        raise DataError(
            f"task.both_directions={both_directions} needs task.joint=true: one vocabulary for both languages"
        )
    texts, languages = raw_pairs(splits.train).columns, splits.languages
    if vocabulary:
        models, theirs = _given(expanded(vocabulary))
        languages = _filled(splits, theirs)
    else:
        models = learned_models(
            texts["source"], texts["target"], size=vocabulary_size, algorithm=algorithm, joint=joint
        )
    preprocessor = PairPreprocessor(
        languages=languages, length=length, beam=beam, length_penalty=length_penalty,
        coverage_penalty=coverage_penalty, source_model=models[0], target_model=models[1],
    )  # fmt: skip
    if both_directions and not preprocessor.joint:
        raise DataError(
            f"task.both_directions={both_directions}: {vocabulary} has a vocabulary for each language, and needs one"
        )
    return Translation(preprocessor, sampling=sampling, names=names, both_directions=both_directions)


def check_augmentation(choices: Sequence[Choice]) -> None:
    """Raises RecipeError for any augmentation: there is none for sentence pairs."""
    if choices:
        raise RecipeError(f"augmentation {choices[0].name!r}: translation has none")


def _filled(splits: Splits, theirs: tuple[str, str]) -> tuple[str, str]:
    """The data's languages, in the place of unknown ones an earlier run's.

    Raises DataError where they are swapped, and where what is written in another script is not theirs.
    """
    source, target = (own or their for own, their in zip(splits.languages, theirs, strict=True))
    if (source, target) != splits.languages:
        sides = ("source", "target")
        columns = [[text.decode() for text in raw_pairs(splits.train).columns[side][:SAMPLE]] for side in sides]
        for side, own, language, some in zip(sides, splits.languages, (source, target), columns, strict=True):
            usual, found = usual_scripts(language), found_scripts(some)
            if not own and usual and found and set(usual).isdisjoint(found):
                raise DataError(
                    f"the {side} is written in {' and '.join(found)}, not in {language}, a language of task.vocabulary "
                    f"or start_from: say data.{side}_language"
                )
        pairs = [Pair("", *row) for row in zip(*columns, strict=True)]
        advice = "say data.source_language and data.target_language"
        check_order(pairs, (source, target), "the languages of task.vocabulary or start_from", advice)
        for side, own, language, some in zip(sides, splits.languages, (source, target), columns, strict=True):
            if not own and (other := spoken(some, base(language))):
                raise DataError(
                    f"the {side} seems to be {other}, not {language}, a language of task.vocabulary or start_from: say "
                    f"data.{side}_language"
                )
    return source, target


def _given(path: Path) -> tuple[tuple[bytes, bytes], tuple[str, str]]:
    """The vocabularies, and the languages of the run that has them, "" for unknown ones."""
    if not path.is_dir():
        model = given_model(path)
        return (model, model), ("", "")
    from bigkeras.tasks import load_preprocessor

    try:
        found = load_preprocessor(path)
        if not isinstance(found, PairPreprocessor):
            raise DataError("a run with another kind of data")
        found.vocabulary_sizes()  # reads them
    except OSError as error:
        raise DataError(f"task.vocabulary={path}: {error.filename}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise DataError(f"task.vocabulary={path}: damaged, or no translator's: {error}") from None
    return found.models, found.languages


def _turned(row: Batch, epochs: int) -> tf.Tensor:
    """Which pairs of a plan's row are learned the other way round."""
    return (row["epoch"] < epochs) & (row["random"][:, 1] < 0.5)


def raw_pairs(source: Source) -> ArraySource:
    """The raw sentence pairs of a source. Raises DataError for a source of something else."""
    if isinstance(source, TokenPairSource):
        source = source.texts
    if not isinstance(source, ArraySource) or not {"source", "target"} <= set(source.columns):
        raise DataError("translation needs sentence pairs: data such as multi30k, translation_pairs or tmx")
    return source


def _check(vocabulary_size: int, algorithm: str, length: int, beam: int) -> None:
    if algorithm not in ALGORITHMS:
        raise DataError(f"task.algorithm={algorithm!r}: one of {', '.join(ALGORITHMS)}")
    # The bytes and the four special pieces are in every vocabulary.
    if vocabulary_size < 300:
        raise DataError(f"task.vocabulary_size={vocabulary_size}: at least 300, of which 260 are bytes and marks")
    if not 4 <= length <= WIDTHS[-1]:
        raise DataError(f"task.length={length}: from 4 to {WIDTHS[-1]}")
    if not 1 <= beam <= 32:
        raise DataError(f"task.beam={beam}: from 1 to 32")


def _check_penalties(length_penalty: float, coverage_penalty: float) -> None:
    if not 0 <= length_penalty <= 5:
        raise DataError(f"task.length_penalty={length_penalty}: from 0 to 5")
    if not 0 <= coverage_penalty <= 5:
        raise DataError(f"task.coverage_penalty={coverage_penalty}: from 0 to 5")
