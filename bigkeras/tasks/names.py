"""Invented names in training pairs, so that a translator learns to copy what it has not seen.

A word that stands in both languages alike, and hardly ever without its capital, is a name. In its place comes the
beginning of one name with the end of another: "Boston" and "Maria" give "Bosria", on both sides of the pair.
"""

import re
from collections import Counter

import numpy as np

from bigkeras.data.source import DataError

WORD = re.compile(r"[^\W\d_]+")
SHORTEST = 3  # letters of a name
# A name stands so many times as often with its capital as without: some writers are careless.
SURE = 20

Pair = tuple[str, str]


def with_invented_names(
    sources: np.ndarray, targets: np.ndarray, room: np.ndarray, *, share: float, versions: int
) -> tuple[np.ndarray, np.ndarray]:
    """`versions` of each pair, bytes `(n, versions)` a side: the pair itself, then such with invented names.

    `share`: of the later versions of a pair that has names so many have invented ones. `room`: `(n,)`, how many
    subwords a side may get longer: a pair that has less stays as it is. The same pairs give the same. Raises DataError
    where no pair has a name.
    """
    pairs = [(source.decode(), target.decode()) for source, target in zip(sources, targets, strict=True)]
    pool = _names(pairs)
    if not pool:
        raise DataError(f"task.names={share}: no word with a capital stands on both sides of a training pair")
    names, draw = frozenset(pool), np.random.default_rng(0)
    sides = np.repeat(sources[:, None], versions, 1), np.repeat(targets[:, None], versions, 1)
    for row, pair in enumerate(pairs):
        own = sorted(names & _copied(pair))
        for version in range(1, versions) if own else ():
            if draw.random() >= share:
                continue
            drawn = draw.integers(len(pool), size=(len(own), 2))
            told = {name: _spliced(pool[a], pool[b]) for name, (a, b) in zip(own, drawn, strict=True)}
            # A subword has a byte at least, and a word a mark before it.
            if sum(len(told[word].encode()) + 1 for word in WORD.findall(pair[0]) if word in told) <= room[row]:
                for side, text in zip(sides, pair, strict=True):
                    side[row, version] = _renamed(text, told).encode()
    return sides


def _names(pairs: list[Pair]) -> list[str]:
    """The names of the pairs, sorted."""
    seen = Counter(word for pair in pairs for text in pair for word in WORD.findall(text))
    copied = set().union(*map(_copied, pairs))
    return sorted(word for word in copied if seen[word] >= SURE * seen[word.lower()])


def _copied(pair: Pair) -> set[str]:
    """The words with a capital that stand as often in the source as in the target."""
    source, target = (Counter(WORD.findall(text)) for text in pair)
    return {word for word, n in source.items() if target[word] == n and len(word) >= SHORTEST and word.istitle()}


def _renamed(text: str, told: dict[str, str]) -> str:
    return WORD.sub(lambda word: told.get(word[0], word[0]), text)


def _spliced(first: str, second: str) -> str:
    return first[: (len(first) + 1) // 2] + second[len(second) // 2 :]
