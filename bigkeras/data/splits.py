"""Stratified splits: pure NumPy functions of the labels and a seed."""

from collections.abc import Sequence

import numpy as np

from bigkeras.data.source import DataError


def stratified_split(labels: Sequence[int] | np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Sorted index arrays, one a fraction, with every class in about those proportions.

    `fractions` add up to 1. What rounding leaves over is carried from class to class, so the sizes of the parts are
    right as a whole, too. The first part gets at least one example of every class: a class with a single example
    stands in the first part only.
    """
    labels = np.asarray(labels)
    if not np.isclose(sum(fractions), 1) or min(fractions) < 0:
        raise ValueError(f"fractions={list(fractions)}: none below 0, and 1 together")
    random = np.random.default_rng(seed)
    # Shuffled within each class: a stable sort by label of shuffled positions.
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels[order][:1] - 1))
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    carry = np.zeros(len(fractions))
    for members in np.split(order, starts[1:]) if len(labels) else ():
        used = 0
        for part in range(1, len(fractions)):
            wanted = fractions[part] * len(members) + carry[part]
            count = int(np.clip(np.floor(wanted + 0.5), 0, len(members) - 1 - used))
            # Bounded, so that many tiny classes do not take their share from a large one.
            carry[part] = np.clip(wanted - count, -0.5, 0.5)
            parts[part].append(members[used : used + count])
            used += count
        parts[0].append(members[used:])
    return [np.sort(np.concatenate(part)) if part else np.zeros(0, np.int64) for part in parts]


def stratified_sample(labels: Sequence[int] | np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """Sorted indices of `count` examples, but at least one of every class; all of them where `count` is None."""
    if count is None or count >= len(labels):
        return np.arange(len(labels))
    if count < 1:
        raise ValueError(f"{count} examples: at least 1, or null for all")
    share = count / len(labels)
    sample = stratified_split(labels, (share, 1 - share), seed)[0]
    sizes = np.bincount(np.asarray(labels)[sample])
    # The examples that rare classes got beyond their share are taken from the largest ones.
    while len(sample) > count and sizes.max() > 1:
        largest = sizes.argmax()
        sample = np.delete(sample, np.flatnonzero(np.asarray(labels)[sample] == largest)[-1])
        sizes[largest] -= 1
    return sample


def check_fractions(**fractions: float) -> None:
    """Raises DataError unless each is at least 0 and together they leave something to train on."""
    for name, value in fractions.items():
        if not 0 <= value < 1:
            raise DataError(f"{name}={value}: a fraction from 0 to below 1")
    if sum(fractions.values()) >= 1:
        given = ", ".join(f"{name}={value}" for name, value in fractions.items())
        raise DataError(f"{given}: below 1 together, so that something is left to train on")
