"""How a translation model is asked for a translation: greedily, by beam search, by drawing lots. Graph functions.

Each takes a stepper (`models.stepper`) and source ids int32 `(batch, length)`, 0 being padding, and gives ids int32
`(batch, n, width)`, each row ending with END and filled with 0, and scores float32 `(batch, n)`. The width is what no
sentence of that length can exceed, at most `most`. A sentence gets at most
`RATIO` times as many tokens as its source has, and `EXTRA` more, and never more than `most` or than the model's
positions allow; in the last place only END may stand. So decoding always ends, and every row is a whole sentence whose
score is what the model says of it. PADDING, UNKNOWN and BEGIN are never written; the model's distribution, by which
scores are counted, has them. All of it runs eagerly and in a graph; compiled by XLA, with a stepper made for
that, as shapes are static there.
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from bigkeras.decoding_loop import steps_at_first, until_over

PADDING, UNKNOWN, BEGIN, END = 0, 1, 2, 3
RATIO, EXTRA = 2, 10

# The log-probability of what cannot be: finite, so that sums and differences of such stay numbers.
NEVER = -1e9

# What was looked at less counts as this much: the logarithm stays finite.
LEAST_COVERED = 1e-6


def greedy(stepper: Any, source: tf.Tensor, *, most: int = 256) -> tuple[tf.Tensor, tf.Tensor]:
    """The likeliest token at each step: ids `(batch, 1, width)`, and the sum of their log-probabilities."""

    def likeliest(logits, index, rows):
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    return _walk(stepper, source, likeliest, count=1, most=most)


def sample(
    stepper: Any,
    source: tf.Tensor,
    *,
    seed: int | tf.Tensor,
    count: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    most: int = 256,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`count` sentences drawn for each source; the same seed draws the same. Scores are as those of `greedy`.

    Logits are divided by `temperature` (near 0: `greedy`; above 1: bolder); then the `top_k` likeliest tokens are
    kept, and of these the fewest that hold `top_p` of the probability. Raises ValueError for values out of range.
    Source: top-p: Holtzman et al. 2019 (arXiv 1904.09751), section 3.1.
    """
    if count < 1 or temperature <= 0 or (top_k is not None and top_k < 1) or not 0 < top_p <= 1:
        raise ValueError(
            f"count={count}, temperature={temperature}, top_k={top_k}, top_p={top_p}: "
            "count and top_k are at least 1, temperature is above 0, top_p from above 0 to 1"
        )

    batch = tf.shape(source)[0]

    def draw(logits, index, rows):
        def lots(logits):
            return _lots(logits, seed, index, rows, batch)

        if top_k is None and top_p == 1:
            return lots(logits / temperature)
        size = logits.shape[-1]
        best, tokens = tf.math.top_k(logits / temperature, min(top_k or size, size))
        shares = tf.nn.softmax(best)
        before = tf.cumsum(shares, axis=-1, exclusive=True)
        places = lots(tf.where(before < top_p, best, best.dtype.min))  # a low temperature passes NEVER
        return tf.gather(tokens, places, batch_dims=2)

    return _walk(stepper, source, draw, count=count, most=most)


def beam_search(
    stepper: Any,
    source: tf.Tensor,
    *,
    beams: int = 4,
    count: int = 1,
    length_penalty: float | tf.Tensor = 0.6,
    coverage_penalty: float = 0.0,
    most: int = 256,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The `count` best sentences that a search with `beams` hypotheses finds: ids `(batch, count, width)`, best first.

    A score is the sum of log-probabilities, END's with them, divided by ((5 + tokens) / 6) ** length_penalty: 0 is the
    plain sum, which favours short sentences. A hypothesis ends where END is among the `beams` best continuations. The
    search of a sentence is over when `count` have ended and none that goes on can overtake them, even if it reached the
    last place without losing anything more. Where fewer were found, a row of 0 has the score -1e9.

    `coverage_penalty`: a sentence that has ended loses so many times the logarithm of how much it looked at each piece
    of its source, where that is less than 1 in all; it needs a stepper that `covers`. Raises ValueError for values out
    of range. Source: Wu et al. 2016 (arXiv 1609.08144), section 7.
    """
    # A tensor's value is not known yet.
    if not 1 <= count <= beams or (isinstance(length_penalty, int | float) and length_penalty < 0):
        raise ValueError(
            f"beams={beams}, count={count}, length_penalty={length_penalty}: 1 ≤ count ≤ beams, length_penalty ≥ 0"
        )
    if coverage_penalty < 0 or (coverage_penalty and not stepper.covers):
        raise ValueError(f"coverage_penalty={coverage_penalty}: 0 or, by a stepper that covers, above 0")
    stepper = stepper.ready()
    ends, width = _bounds(stepper, source, most)
    batch = tf.shape(source)[0]
    memory, state = stepper.start(source, beams=beams, steps=steps_at_first(stepper, width))
    live = {
        "last": tf.fill((batch, beams), BEGIN),
        "ids": tf.zeros((batch, beams, width), tf.int32),
        # At first all beams are the same sentence: one of them counts.
        "scores": tf.tile([[0.0] + [NEVER] * (beams - 1)], (batch, 1)),
    }
    ended = {"ids": tf.zeros((batch, count, width), tf.int32), "scores": tf.fill((batch, count), NEVER)}
    top_k = _top_k_of_parts if stepper.compiled else tf.math.top_k

    def penalty(tokens):
        return ((5.0 + tf.cast(tokens, tf.float32)) / 6.0) ** length_penalty

    def step(index, now):
        live, ended, over, ends = (now[name] for name in ("live", "found", "over", "ends"))
        logits, state = stepper.step(live["last"], index, now["memory"], now["state"])
        following, ending, parents = _continue(live, logits, index, top_k)
        last = index + 1 >= ends
        counts = _among_the_best(ending["scores"], following["scores"]) | last[:, None]
        counts &= (live["scores"] > NEVER / 2) & ~over[:, None]
        scores = ending["scores"] / penalty(index + 1)
        if coverage_penalty:
            covered = tf.clip_by_value(state["coverage"], LEAST_COVERED, 1.0)
            scores += coverage_penalty * tf.reduce_sum(tf.math.log(covered), axis=-1)
        ending["scores"] = tf.where(counts, scores, NEVER)
        ended = _best_of(ended, ending)
        attainable = following["scores"][:, 0] / penalty(ends)
        over |= last | (ended["scores"][:, -1] >= attainable)
        return {**now, "live": following, "found": ended, "over": over, "state": stepper.select(state, parents)}

    now = {"live": live, "found": ended, "over": tf.zeros(batch, tf.bool), "ends": ends}
    return until_over(step, {**now, "memory": memory, "state": state}, stepper, width)


def _continue(live: dict, logits, index, top_k: Callable) -> tuple[dict, dict, tf.Tensor]:
    """The best hypotheses one word longer, best first; all of them ended here; and which of them each continues."""
    batch, beams = tf.shape(logits)[0], logits.shape[1]
    log_sum = tf.reduce_logsumexp(logits, axis=-1)
    ending = {
        "ids": _write(live["ids"], index, tf.fill((batch, beams), END)),
        "scores": live["scores"] + logits[:, :, END] - log_sum,
    }
    few = min(beams, logits.shape[-1] - END - 1)
    best, words = top_k(logits[:, :, END + 1 :], few)
    totals = (live["scores"] - log_sum)[:, :, None] + best
    scores, places = tf.math.top_k(tf.reshape(totals, (batch, beams * few)), beams)
    parents = places // few
    words = tf.gather(tf.reshape(words, (batch, beams * few)), places, batch_dims=1) + END + 1
    ids = _write(tf.gather(live["ids"], parents, batch_dims=1), index, words)
    return {"last": words, "ids": ids, "scores": scores}, ending, parents


def _top_k_of_parts(values, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """As `tf.math.top_k` of `(batch, beams, any)`: the best of the parts that have the largest values.

    XLA's own sorts every row, on one core: it takes twice as long.
    """
    batch, (beams, size) = tf.shape(values)[0], values.shape[1:]
    parts = max(count, math.isqrt(size))
    length = -(-size // parts)
    values = tf.pad(values, [[0, 0], [0, 0], [0, parts * length - size]], constant_values=values.dtype.min)
    values = tf.reshape(values, (batch, beams, parts, length))
    _, chosen = tf.math.top_k(tf.reduce_max(values, axis=-1), count)
    candidates = tf.reshape(tf.gather(values, chosen, batch_dims=2), (batch, beams, count * length))
    best, places = tf.math.top_k(candidates, count)
    return best, tf.gather(chosen, places // length, batch_dims=2) * length + places % length


def _among_the_best(ending, following):
    """Whether fewer than `beams` others are better: bool `(batch, beams)`, of the scores of both."""
    others = tf.concat([following, ending], axis=1)
    better = tf.cast(others[:, None, :] > ending[:, :, None], tf.int32)
    return tf.reduce_sum(better, axis=-1) < ending.shape[1]


def _best_of(ended: dict, ending: dict) -> dict:
    """The best of both, as many as `ended` holds, best first."""
    count = ended["scores"].shape[1]
    scores, places = tf.math.top_k(tf.concat([ended["scores"], ending["scores"]], axis=1), count)
    ids = tf.gather(tf.concat([ended["ids"], ending["ids"]], axis=1), places, batch_dims=1)
    return {"ids": ids, "scores": scores}


def _walk(stepper: Any, source, choose: Callable, *, count: int, most: int) -> tuple[tf.Tensor, tf.Tensor]:
    """`count` sentences for each source, each on its own: `choose` gives a place in the logits of END and words."""
    stepper = stepper.ready()
    ends, width = _bounds(stepper, source, most)
    batch = tf.shape(source)[0]
    memory, state = stepper.start(source, beams=count, steps=steps_at_first(stepper, width))
    found = {"ids": tf.zeros((batch, count, width), tf.int32), "scores": tf.zeros((batch, count))}

    def step(index, now):
        ids, scores, over = now["found"]["ids"], now["found"]["scores"], now["over"]
        logits, state = stepper.step(now["last"], index, now["memory"], now["state"])
        tokens = choose(logits[:, :, END:], index, now["row"]) + END
        tokens = tf.where((index + 1 >= now["ends"])[:, None], END, tokens)
        gained = tf.gather(logits, tokens, batch_dims=2) - tf.reduce_logsumexp(logits, axis=-1)
        tokens = tf.where(over, PADDING, tokens)
        found = {"ids": _write(ids, index, tokens), "scores": scores + tf.where(over, 0.0, gained)}
        return {**now, "last": tokens, "found": found, "over": over | (tokens == END), "state": state}

    now = {"last": tf.fill((batch, count), BEGIN), "found": found, "over": tf.zeros((batch, count), tf.bool)}
    return until_over(step, {**now, "ends": ends, "memory": memory, "state": state}, stepper, width)


def _lots(logits, seed, index, rows, batch):
    """Draws a place from each row of logits: the largest after noise (Gumbel); XLA's noise is another.

    `rows`: where each stands in a whole batch of `batch`.
    """
    seed = tf.stack([tf.cast(seed, tf.int32), tf.cast(index, tf.int32)])
    smallest = 1e-20
    shape = tf.concat([batch[None], tf.shape(logits)[1:]], 0)
    uniform = tf.random.stateless_uniform(shape, seed, minval=smallest, alg="philox")
    noise = -tf.math.log(-tf.math.log(tf.gather(uniform, rows)))
    return tf.argmax(logits + noise, axis=-1, output_type=tf.int32)


def _bounds(stepper: Any, source, most: int) -> tuple[tf.Tensor, Any]:
    """The most tokens that each sentence may get, int32 `(batch,)`, and what no sentence of this shape can exceed."""
    if most < 1:
        raise ValueError(f"most={most}: at least 1")
    most = min(most, stepper.longest or most)
    length = source.shape[1]
    longest = tf.shape(source)[1] if length is None else length
    width = tf.minimum(most, RATIO * longest + EXTRA) if length is None else min(most, RATIO * longest + EXTRA)
    lengths = tf.reduce_sum(tf.cast(source != PADDING, tf.int32), axis=1)
    return tf.minimum(RATIO * lengths + EXTRA, width), width


def _write(ids, index, tokens):
    """`ids` `(batch, n, most)` with `tokens` `(batch, n)` at one place."""
    return tf.where(tf.range(tf.shape(ids)[-1]) == index, tokens[:, :, None], ids)
