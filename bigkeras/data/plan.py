"""The plan of an epoch: which example stands in which row of which step. Pure NumPy, no state."""

from dataclasses import dataclass

import numpy as np

POOL = 50  # batches whose examples are sorted by length together
# What pairs of sequences are padded to: few lengths, so that little is compiled.
WIDTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
ROWS = 8  # a batch counted in tokens has a multiple of so many pairs: they divide over replicas and micro-batches
RANDOMS = 8  # uniform numbers an example gets for its augmentation; number 0 is the flip's


@dataclass(frozen=True)
class Plan:
    """An epoch, a row of each array for every step.

    indices: int64 `(steps, batch)`, places in the source. weights: float32 `(steps, batch)`, 1 for an example and 0
    for one that only fills the last batch. randoms: float32 `(steps, batch, RANDOMS)`, uniform in [0, 1).
    Steps of fewer examples than others, as those of a token plan, have -1 and weight 0 in the places that they lack.
    """

    indices: np.ndarray
    weights: np.ndarray
    randoms: np.ndarray


def epoch_plan(
    labels: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    balance: str = "none",
    lengths: np.ndarray | None = None,
) -> Plan:
    """The plan of epoch `epoch`, a function of the arguments alone.

    `balance`: "oversample" shows every class as often as the most frequent one, "undersample" as often as the rarest
    one (of the others another part every epoch, by chance); the number of steps is the same in every epoch. With
    `lengths`, int `(n,)`, the examples of a batch are of about one length, so that little of it is padding; the batches
    stand in random order. With `lengths` `(n, 2)`, of pairs, `batch_size` counts tokens: see `token_plan`.
    """
    if lengths is not None and lengths.ndim == 2:
        return token_plan(lengths, batch_size, seed=seed, epoch=epoch, shuffle=shuffle)
    generator = np.random.default_rng([seed, epoch])
    order = _resampled(np.asarray(labels), balance, generator)
    if shuffle:
        order = generator.permutation(order)
    if lengths is not None:
        order = _by_length(order, np.asarray(lengths), batch_size, generator if shuffle else None)
    steps = -(-len(order) // batch_size)
    rows = steps * batch_size
    randoms = generator.random((rows, RANDOMS), np.float32)
    # An image is seen flipped in every second epoch instead of by a coin: it learns both sides sooner
    # (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.6).
    flips = np.random.default_rng([seed]).random(len(labels))
    indices = np.resize(order, rows).astype(np.int64)
    randoms[:, 0] = (flips[indices] + epoch / 2) % 1
    weights = (np.arange(rows) < len(order)).astype(np.float32)
    return Plan(
        indices.reshape(steps, batch_size),
        weights.reshape(steps, batch_size),
        randoms.reshape(steps, batch_size, RANDOMS),
    )


def token_plan(lengths: np.ndarray, tokens: int, *, seed: int, epoch: int, shuffle: bool = True) -> Plan:
    """The plan of pairs of sequences whose `lengths` are `(n, 2)`, in batches of at most `tokens` places a side.

    Both sides of a batch are padded to the one of `WIDTHS` that holds the longer one, and it has as many pairs as make
    `tokens` places of it, a multiple of `ROWS` and at least so many. Pairs that fill no batch of their width go to the
    next wider one, so that only the last batch of all is filled with pairs of weight 0. Random number 0 says which
    segmentation is taken; number 1, whether the pair is turned: half of them, in the next epoch the other half.
    """
    generator = np.random.default_rng([seed, epoch])
    longest = lengths.max(1)
    order = generator.permutation(len(lengths)) if shuffle else np.argsort(longest, kind="stable")
    batches: list[tuple[np.ndarray, int]] = []
    left = np.zeros(0, np.int64)
    widths = _widths(longest)
    for width in np.unique(widths):
        rows = batch_rows(tokens, width)
        left = np.concatenate([left, order[widths[order] == width]])
        full = len(left) // rows * rows
        batches += [(batch, rows) for batch in left[:full].reshape(-1, rows)]
        left = left[full:]
    if len(left):
        batches.append((np.resize(left, rows), len(left)))
    if shuffle:
        batches = [batches[place] for place in generator.permutation(len(batches))]
    shape = (len(batches), max((len(batch) for batch, _ in batches), default=0))
    indices, weights = np.full(shape, -1, np.int64), np.zeros(shape, np.float32)
    for step, (batch, valid) in enumerate(batches):
        indices[step, : len(batch)], weights[step, :valid] = batch, 1
    randoms = generator.random((*shape, RANDOMS), np.float32)
    randoms[:, :, 1] = (np.random.default_rng([seed]).random(len(lengths))[indices] + epoch / 2) % 1
    return Plan(indices, weights, randoms)


def batch_rows(tokens: int, width: int) -> int:
    """How many pairs of a width are in a batch of so many tokens."""
    return max(ROWS, tokens // int(width) // ROWS * ROWS)


def _widths(longest: np.ndarray) -> np.ndarray:
    places = np.minimum(np.searchsorted(WIDTHS, longest), len(WIDTHS) - 1)
    return np.asarray(WIDTHS)[places]


def steps_per_epoch(
    labels: np.ndarray, batch_size: int, balance: str = "none", lengths: np.ndarray | None = None
) -> int:
    """The number of steps that `epoch_plan` gives."""
    if lengths is not None and lengths.ndim == 2:
        return len(token_plan(lengths, batch_size, seed=0, epoch=0).indices)
    return -(-len(_resampled(np.asarray(labels), balance, np.random.default_rng(0))) // batch_size)


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 `(num_classes,)`: inverse frequencies, so that they average to 1 over the examples."""
    counts = np.bincount(labels, minlength=num_classes)
    present = counts > 0
    weights = np.zeros(num_classes, np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


def _by_length(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, generator: np.random.Generator | None
) -> np.ndarray:
    """The same indices, batches of about one length: sorted as a whole, or in pools where there is a generator."""
    if generator is None:
        return order[np.argsort(lengths[order], kind="stable")]
    # The last batch, which may not be full, stays what it is.
    full = order[: len(order) // batch_size * batch_size]
    pools = np.split(full, range(POOL * batch_size, len(full), POOL * batch_size))
    ordered = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    batches = generator.permutation(ordered.reshape(-1, batch_size))
    return np.concatenate([batches.ravel(), order[len(full) :]])


def _resampled(labels: np.ndarray, balance: str, generator: np.random.Generator) -> np.ndarray:
    """Indices of an epoch, in the source's order where nothing is resampled."""
    if balance not in ("oversample", "undersample"):
        return np.arange(len(labels))
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    sizes = [len(m) for m in members]
    target = max(sizes) if balance == "oversample" else min(sizes)
    parts = []
    for group in members:
        whole, rest = divmod(target, len(group))
        parts += [group] * whole + [generator.choice(group, rest, replace=False)]
    return np.concatenate(parts)
