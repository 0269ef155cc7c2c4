"""Invented names in training pairs."""

import re

import numpy as np
import pytest
import tensorflow as tf

from bigkeras.data import DATASETS
from bigkeras.data.pair_splits import source_key
from bigkeras.tasks import TASKS
from bigkeras.tasks.names import with_invented_names
from bigkeras.tasks.subwords import VERSIONS

PAIRS = [
    ("Tom went to Boston with Anna.", "Tom ging mit Anna nach Boston."),
    ("Anna's hand is cold.", "Annas Hand ist kalt."),
    ("Hand it to Lenora!", "Gib Lenora die Hand!"),
    ("Tom met Tom in Peru.", "Tom hat Tom in Peru getroffen."),
    ("The hand of NASA", "Die Hand der NASA"),
    ("In 1973 there were 3 at 17:48.", "Im Jahre 1973 gab es 3 um 17:48."),
]
NAMES = {"Tom", "Boston", "Anna", "Lenora", "Peru"}
NUMBERS = {"1973", "17", "48"}


def sides(pairs):
    return [np.array([pair[side].encode() for pair in pairs], object) for side in (0, 1)]


def varied(pairs, room=100, **options):
    """The versions of each pair."""
    *both, versions = with_invented_names(
        *sides(pairs), np.full(len(pairs), room), **{"share": 1.0, "most": 5, **options}
    )
    found = iter(zip(*both, strict=True))
    rows = [[tuple(side.decode() for side in next(found)) for _ in range(n)] for n in versions]
    assert next(found, None) is None
    return rows


def test_names_change_alike_on_both_sides_and_nothing_else_does():
    for pair, (itself, *others) in zip(PAIRS, varied(PAIRS), strict=True):
        assert itself == pair
        for source, target in others:
            changed = {}
            for old, new in zip(pair, (source, target), strict=True):
                for a, b in zip(re.findall(r"\w+|\W+", old), re.findall(r"\w+|\W+", new), strict=True):
                    alike = b.istitle() if a in NAMES else a in NUMBERS and len(a) == len(b) and b[0] != "0"
                    assert a == b or (alike and changed.setdefault(a, b) == b)
    assert varied(PAIRS) == varied(PAIRS)


def test_a_sentence_of_another_part_is_not_invented():
    pairs = [(f"I'm {n} years old.", f"Ich bin {n} Jahre alt.") for n in (18, 30)]
    rows = varied(pairs, most=300, is_held_out=lambda text: "20" in text)
    found = {source for row in rows for source, _ in row}
    assert len(found) > 60 and "I'm 20 years old." not in found


def test_words_that_also_stand_without_a_capital_and_names_that_bend_stay():
    rows = varied(PAIRS)
    assert all(pair == PAIRS[1] for pair in rows[1])  # Anna's, but Annas
    assert all(pair == PAIRS[4] for pair in rows[4])
    assert all("Hand it" in source and "die Hand" in target for source, target in rows[2])


def test_names_between_signs_without_spaces_are_found():
    for before, behind in (("我认识", "先生"), ("ຂ້ອຍຮູ້ຈັກ", "ແລ້ວ"), ("ကျွန်တော်", "ကို")):
        pairs = [(f"I know {name}.", f"{before}{name}{behind}。") for name in ("Tom", "Anna")]
        (_, *others) = varied(pairs)[0]
        assert len(set(others)) > 1
        assert all(f"{before}{source[7:-1]}{behind}。" == target for source, target in others)


def test_a_share_of_them_changes_and_none_where_there_is_no_room():
    many = [(f"Tom sees {i} of Boston.", f"Tom sieht {i} von Boston.") for i in range(400)]
    pool = [*many, *PAIRS]
    rows = varied(pool, share=0.3)[:400]
    assert {len(row) for row in rows} == {5}
    changed = np.mean([pair != row[0] for row in rows for pair in row[1:]])
    assert 0.25 < changed < 0.35
    assert all(pair == row[0] for row in varied(pool, room=0) for pair in row)


def test_numbers_change_where_no_pair_has_a_name_and_else_nothing():
    first, second = varied([("24 hands", "24 Hände"), ("the hand", "die hand")])
    assert len(set(first)) == 5 and all(source[:2] == target[:2] for source, target in first)
    assert second == [("the hand", "die hand")]


@pytest.mark.parametrize("sampling", [None, 0.3])
def test_what_is_learned_has_the_invented_names_within_the_length(tmp_path, sampling):
    file = tmp_path / "pairs.tsv"
    lines = (f"{source} {i}\t{target} {i}\n" for i in range(60) for source, target in PAIRS)
    file.write_text("".join(lines), encoding="utf-8")
    splits = DATASETS["translation_pairs"](file=str(file))
    options = {"vocabulary_size": 400, "length": 40}
    task = TASKS["translation"](splits, **options, names=1.0, sampling=sampling)
    train, plain = task.ready(splits).train, TASKS["translation"](splits, **options).ready(splits).train
    index = np.arange(len(train))
    assert train.fetch(index)["target"].to_list() == plain.fetch(index)["target"].to_list()
    assert set(train.versions.tolist()) == ({1, VERSIONS} if sampling is None else {VERSIONS})
    assert len(train.source[1]) == len(train.target[1]) == train.versions.sum()
    shown = task.preprocessor.tokenizers().sentences(train.fetch(index, 3 / 8)["target"].to_tensor()).numpy()
    assert sum(any(name in text.decode() for name in ("Tom", "Lenora")) for text in shown) < len(shown) / 3
    assert train.lengths.max() <= 40
    # Numbers from 0 to 59 stand behind each sentence: some invented ones would make that of another part.
    ids = tf.RaggedTensor.from_row_lengths(*train.source).to_tensor()
    learned = {source_key(text.decode()) for text in task.preprocessor.tokenizers().sentences(ids).numpy()}
    held_out = [text for part in (splits.validation, splits.test) for text in part.columns["source"]]
    assert len(learned) > 500 and learned.isdisjoint({source_key(text.decode()) for text in held_out})
