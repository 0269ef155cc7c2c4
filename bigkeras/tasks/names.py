"""Invented names and numbers in training pairs, so that a translator learns to copy what it has not seen.

A word that stands in both languages alike, and hardly ever without its capital, is a name. In its place comes the
beginning of one name with the end of another: "Boston" and "Maria" give "Bosria", on both sides of the pair. A number
of several digits that stands in both gets others.
"""

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

# Signs of scripts without spaces, between which a name may stand, are no words: Thai, Lao, Burmese, Khmer, Kana, Han.
WORD = re.compile(r"[^\W\d_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+|[0-9]+")
SHORTEST = {"name": 3, "number": 2}  # letters, digits
# A name stands so many times as often with its capital as without: some writers are careless.
SURE = 20

Pair = tuple[str, str]


def with_invented_names(
    sources: np.ndarray,
    targets: np.ndarray,
    room: np.ndarray,
    *,
    share: float,
    most: int,
    is_held_out: Callable[[str], bool] = lambda source: False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both sides of the versions of all pairs, bytes, one after the other, and how many each pair has, `(n,)`.

    A pair that has names or numbers has `most` versions: itself, then such of which `share` have invented ones. Any
    other is there once. `room`: `(n,)`, how many subwords a side may get longer: a version that needs more is the pair
    itself; so is one whose source `is_held_out`: "I am 20" stands in another part. The same pairs give the same.
    """
    pairs = [(source.decode(), target.decode()) for source, target in zip(sources, targets, strict=True)]
    pool = _names(pairs)
    names, draw = frozenset(pool), np.random.default_rng(0)
    found: list[tuple[bytes, bytes]] = []
    counts = np.ones(len(pairs), np.int64)
    for row, pair in enumerate(pairs):
        itself = sources[row], targets[row]
        found.append(itself)
        own = sorted(word for word in _copied(pair) if word in names or word.isdecimal())
        if not own:
            continue
        counts[row] = most
        for _ in range(1, most):
            invented = _invented(pair, own, pool, int(room[row]), draw) if draw.random() < share else None
            found.append(itself if invented is None or is_held_out(invented[0].decode()) else invented)
    both = np.empty((len(found), 2), object)
    both[:] = found
    return both[:, 0], both[:, 1], counts


def _invented(
    pair: Pair, own: list[str], pool: list[str], room: int, draw: np.random.Generator
) -> tuple[bytes, bytes] | None:
    """The pair with others in the place of its own names and numbers; None where they may be too long for `room`."""
    told = {word: _number(len(word), draw) if word.isdecimal() else _name(pool, draw) for word in own}
    # A subword has a byte at least, and a word a mark before it.
    if sum(len(told[word].encode()) + 1 for word in WORD.findall(pair[0]) if word in told) > room:
        return None
    source, target = (_renamed(text, told).encode() for text in pair)
    return source, target


def _names(pairs: list[Pair]) -> list[str]:
    """The names of the pairs, sorted."""
    seen = Counter(word for pair in pairs for text in pair for word in WORD.findall(text))
    copied = {word for pair in pairs for word in _copied(pair) if not word.isdecimal()}
    return sorted(word for word in copied if seen[word] >= SURE * seen[word.lower()])


def _copied(pair: Pair) -> set[str]:
    """The words with a capital and the numbers that stand as often in the source as in the target."""
    source, target = (Counter(WORD.findall(text)) for text in pair)
    return {
        word
        for word, n in source.items()
        if target[word] == n
        and (len(word) >= SHORTEST["number"] if word.isdecimal() else len(word) >= SHORTEST["name"] and word.istitle())
    }


def _renamed(text: str, told: dict[str, str]) -> str:
    return WORD.sub(lambda word: told.get(word[0], word[0]), text)


def _name(pool: list[str], draw: np.random.Generator) -> str:
    first, second = (pool[place] for place in draw.integers(len(pool), size=2))
    return first[: (len(first) + 1) // 2] + second[len(second) // 2 :]


def _number(digits: int, draw: np.random.Generator) -> str:
    return str(draw.integers(1, 10)) + "".join(map(str, draw.integers(0, 10, digits - 1)))
