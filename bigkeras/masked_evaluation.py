"""What a masked language model makes of a split's hidden words, its scores and its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bigkeras import pictures
from bigkeras.data.pipeline import ordered_plan, plan_rows
from bigkeras.data.source import DataError, Source
from bigkeras.markdown import plain, table
from bigkeras.predictions import loaded_model
from bigkeras.recipe import Recipe
from bigkeras.report import picture_section, write_sections
from bigkeras.run import RunError
from bigkeras.tasks.cross_entropy import token_nats
from bigkeras.tasks.masked_language_model import mask_id
from bigkeras.tasks.task import Task
from bigkeras.tasks.text import TextPreprocessor

BATCH = 32
SHOWN, GUESSES, AROUND = 20, 3, 10  # hidden places in the report, guesses of each, tokens on both sides
SPLITS = ("test", "validation", "train")


@dataclass(frozen=True)
class Guess:
    """A hidden place: the text around it, what stood there, and the likeliest tokens with their probabilities."""

    context: str
    truth: str
    guesses: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class MaskedScores:
    """The scores of a split, and some places of it drawn at random."""

    metrics: dict[str, Any]
    guesses: tuple[Guess, ...]


def score_hidden(path: Path, source: Source, task: Task) -> MaskedScores:
    """Loss in nats, perplexity and accuracy of a saved Keras model over the hidden tokens of a source's texts.

    The same words are hidden whenever the same source is scored.
    """
    network = loaded_model(path)

    @tf.function(reduce_retracing=True)
    def judge(inputs: Any, labels: Any, weights: Any) -> tuple[Any, ...]:
        logits = network(task.normalise(inputs), training=False)
        nats = token_nats(labels, logits)
        right = tf.cast(tf.argmax(logits, -1, labels.dtype) == labels, tf.float32)
        best = tf.math.top_k(tf.nn.softmax(logits), GUESSES)
        return tf.reduce_sum(nats * weights), tf.reduce_sum(right * weights), best.values, best.indices

    opened = task.opened(source)
    batch_size = min(BATCH, len(opened))
    plan = ordered_plan(opened, batch_size, task.lengths(opened))
    dataset = task.dataset(opened, plan_rows(lambda _: plan, range(1)), batch_size, False, lambda _: None)
    sums, guesses = np.zeros(3), []
    generator = np.random.default_rng(0)
    for inputs, labels, weights in dataset:
        nats, right, chances, tokens = judge(inputs, labels, weights)
        sums += float(nats), float(right), float(tf.reduce_sum(weights))
        rows, places = np.nonzero(weights.numpy())
        for one in generator.permutation(len(rows))[: max(1, SHOWN // len(plan.indices))]:
            guesses.append(_guess(task.preprocessor, inputs, labels, chances, tokens, rows[one], places[one]))
    nats, right, count = sums
    if not count:
        raise DataError("there is no word of the vocabulary in these texts: nothing to hide")
    loss = float(nats / count)
    if not np.isfinite(loss):
        raise RunError(f"{path}: its answers are no numbers (NaN or infinite)")
    metrics = {
        "loss": loss,
        "perplexity": float(np.exp(loss)),
        "accuracy": float(right / count),
        "hidden_tokens": int(count),
        "examples": len(opened),
    }
    kept = generator.permutation(len(guesses))[:SHOWN]
    return MaskedScores(metrics, tuple(guesses[i] for i in sorted(kept)))


def write_masked_report(
    directory: Path,
    *,
    recipe: Recipe,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    predictions: MaskedScores | None,
) -> Path:
    """Writes report.md and pictures/curves.png into a run directory; gives the report's path."""
    scored = {split: metrics[split] for split in (*SPLITS, "all") if split in metrics}
    if history:
        pictures.save(pictures.curves(history), directory / "pictures" / "curves.png")
    sections = [_head(recipe, scored), *([_some(predictions)] if predictions else [])]
    return write_sections(directory, [*sections, picture_section(directory, None)], recipe, history)


def _head(recipe: Recipe, scored: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"# {plain(recipe.name)}", ""]
    if not scored:
        lines.append("Trained on all texts: nothing was held back to score it on.")
    for split, values in scored.items():
        lines += [
            f"**Of {values['hidden_tokens']:,} hidden tokens in {values['examples']:,} {split} texts or parts of long "
            f"ones, {values['accuracy']:.2%} are named right; perplexity {values['perplexity']:.2f}** "
            f"({values['loss']:.4f} nats a token).",
            "",
        ]
    lines.append("A classifier starts from this run with `--set start_from=THIS_DIRECTORY`.")
    if recipe.claim:
        lines += ["", f"The recipe's claim: {plain(recipe.claim)}"]
    return "\n".join(lines)


def _some(scores: MaskedScores) -> str:
    rows = [
        [guess.context, guess.truth, ", ".join(f"{word} {chance:.0%}" for word, chance in guess.guesses)]
        for guess in scores.guesses
    ]
    told = table(["text", "stood there", "guessed"], rows)
    return f"## Some hidden words\n\n____ is the place that is asked for, ▢ another one that is hidden.\n\n{told}"


def _guess(
    preprocessor: TextPreprocessor, inputs: Any, labels: Any, chances: Any, tokens: Any, row: int, place: int
) -> Guess:
    ids, at = inputs[0].numpy()[row], int(inputs[1].numpy()[row, place])
    before, after = ids[max(0, at - AROUND) : at], ids[at + 1 : at + 1 + AROUND]
    context = f"{spelt(preprocessor, before)} ____ {spelt(preprocessor, after)}"
    best = zip(tokens.numpy()[row, place], chances.numpy()[row, place], strict=True)
    named = tuple((spelt(preprocessor, [token]), float(chance)) for token, chance in best)
    return Guess(context.strip(), spelt(preprocessor, [labels.numpy()[row, place]]), named)


def spelt(preprocessor: TextPreprocessor, ids: Sequence[int] | np.ndarray) -> str:
    """The tokens as a person reads them, without padding; ▢ is a hidden or an unknown one."""
    hidden = (preprocessor.unknown, mask_id(preprocessor))
    pieces = ["▢" if i in hidden else preprocessor.vocabulary[i] for i in ids if i]
    if preprocessor.tokens == "sentencepiece":
        return "".join(pieces).replace("▁", " ").strip()
    if preprocessor.tokens == "character":
        return "".join(pieces)
    return " ".join(pieces).replace(" ##", "")
