"""How a translation model is asked for a translation: greedily, by beam search, by drawing lots. Graph functions.

Each takes a stepper (`models.stepper`) and source ids int32 `(batch, length)`, 0 being padding, and gives ids int32
`(batch, n, most)`, each row ending with END and filled with 0, and scores float32 `(batch, n)`. A sentence gets at most
`RATIO` times as many tokens as its source has, and `EXTRA` more, and never more than `most` or than the model's
positions allow; in the last place only END may stand. So decoding always ends, and every row is a whole sentence whose
score is what the model says of it. Sentences that have ended leave the batch when half of it has. All of it runs
eagerly and in a graph; compiled by XLA, with a stepper made for that, as shapes are static there.
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

PADDING, UNKNOWN, BEGIN, END = 0, 1, 2, 3
RATIO, EXTRA = 2, 10

# How often a compiled graph halves its batch: each time costs the compilation of the loop once more.
HALVINGS = 2

# A plain graph's caches have room for so many steps at first, and for twice as many whenever they are full; those of a
# compiled one for half of all at first.
STEPS_AT_FIRST = 16

# The log-probability of what cannot be: finite, so that sums and differences of such stay numbers.
NEVER = -1e9

# What was looked at less counts as this much: the logarithm stays finite.
LEAST_COVERED = 1e-6


def greedy(stepper: Any, source: tf.Tensor, *, most: int = 256) -> tuple[tf.Tensor, tf.Tensor]:
    """The likeliest token at each step: ids `(batch, 1, most)`, and the sum of their log-probabilities."""

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
        places = lots(tf.where(before < top_p, best, NEVER))
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
    """The `count` best sentences that a search with `beams` hypotheses finds: ids `(batch, count, most)`, best first.

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
    ends, width = _bounds(stepper, source, most)
    batch = tf.shape(source)[0]
    memory, state = stepper.start(source, beams=beams, steps=_at_first(stepper, width))
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
    return _until_over(step, {**now, "memory": memory, "state": state}, stepper, width)


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
    ends, width = _bounds(stepper, source, most)
    batch = tf.shape(source)[0]
    memory, state = stepper.start(source, beams=count, steps=_at_first(stepper, width))
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
    return _until_over(step, {**now, "ends": ends, "memory": memory, "state": state}, stepper, width)


def _at_first(stepper: Any, width):
    """How many steps the caches have room for at first, of `width`."""
    return (width + 1) // 2 if stepper.compiled else tf.minimum(STEPS_AT_FIRST, width)


def _until_over(step: Callable, now: dict, stepper: Any, width) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes at most `width` steps until every sentence is over: ids and scores found for each, in the first order.

    `now`: tensors whose first axis is the sentences, among them `over` and `found`; `row`, which is added, tells a
    sentence's place in the first order. `step`: (index, now) → now.
    """
    now, found = {**now, "row": tf.range(tf.shape(now["over"])[0])}, now["found"]
    if stepper.compiled:
        return _until_over_compiled(step, now, found, stepper, width)
    index = tf.constant(0)

    def one(index, now, found):
        room = stepper.room(now["state"])
        if room is not None:
            state = tf.cond(
                index < room,
                lambda: now["state"],
                lambda: stepper.grown(now["state"], tf.minimum(2 * room, width)),
            )
            now = {**now, "state": state}
        now = step(index, now)
        few = 2 * _unfinished(now) <= tf.size(now["row"])
        now, found = tf.cond(
            few, lambda: (_rows(now, tf.where(~_over(now))[:, 0]), _placed(found, now)), lambda: (now, found)
        )
        return index + 1, now, found

    shapes = tf.nest.map_structure(lambda x: tf.TensorShape([None, *x.shape[1:]]), now)
    if stepper.room(now["state"]) is not None:
        for name in stepper.growing:
            shapes["state"][name] = tf.nest.map_structure(
                lambda x: tf.TensorShape([None, x.shape[1], None, *x.shape[3:]]), now["state"][name]
            )
    same = tf.nest.map_structure(lambda x: x.shape, found)
    start = (index, now, found)
    found = tf.while_loop(
        lambda index, now, found: _unfinished(now) > 0, one, start, shape_invariants=(index.shape, shapes, same)
    )[2]
    return found["ids"], found["scores"]


def _until_over_compiled(step: Callable, now: dict, found: dict, stepper: Any, width) -> tuple[tf.Tensor, tf.Tensor]:
    """The same in static shapes: with half the room, until half of the sentences are over or it is full; then with all.

    The batch is halved a few times, when half of what is left is over.
    """
    index = tf.constant(0)
    for halving in range(-1, HALVINGS + 1):
        last = width if halving >= 0 else _at_first(stepper, width)
        # Never no row at all: some kernels cannot have that.
        left = 0 if halving == HALVINGS else tf.maximum(tf.shape(now["row"])[0] // 2, 1)
        index, now = tf.while_loop(
            lambda index, now, left=left, last=last: (_unfinished(now) > left) & (index < last),
            lambda index, now: (index + 1, step(index, now)),
            (index, now),
        )
        found = _placed(found, now)
        if halving < 0:
            now = {**now, "state": stepper.grown(now["state"], width)}
        elif halving < HALVINGS:
            # As many rows as are left at most, those that are not over first.
            now = _rows(now, tf.argsort(tf.cast(_over(now), tf.int32), stable=True)[:left])
    return found["ids"], found["scores"]


def _over(now: dict) -> tf.Tensor:
    """Whether each sentence is over, all that is looked for of it: bool `(rows,)`."""
    over = now["over"]
    return over if over.shape.rank == 1 else tf.reduce_all(over, axis=1)


def _unfinished(now: dict) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(~_over(now), tf.int32))


def _rows(now: dict, rows: tf.Tensor) -> dict:
    return tf.nest.map_structure(lambda x: tf.gather(x, rows), now)


def _placed(found: dict, now: dict) -> dict:
    """`found` with what stands in `now`, each in the row where it was at first."""
    places = now["row"][:, None]
    return {name: tf.tensor_scatter_nd_update(all_, places, now["found"][name]) for name, all_ in found.items()}


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
