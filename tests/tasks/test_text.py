"""The text preprocessor: what becomes of a text, whatever is in it."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from bigkeras.data.source import ArraySource, DataError, Splits
from bigkeras.recipe import Choice, Recipe, RecipeError
from bigkeras.tasks import load_preprocessor
from bigkeras.tasks.text import TextPreprocessor, mixed, over_batches, word_dropout
from bigkeras.tasks.text_classification import check_augmentation, text_classification
from bigkeras.tasks.vocabulary import count_pieces

WORDS = TextPreprocessor(tokens="word", length=8, vocabulary=("[PAD]", "[UNK]", "good", "film", "don't", "好"))


def texts(*values):
    array = np.empty(len(values), object)
    array[:] = [v if isinstance(v, bytes) else v.encode() for v in values]
    return array


def splits_of(*values):
    train = ArraySource({"text": texts(*values)}, np.arange(len(values)) % 2, "train")
    return Splits(train, None, None, ("bad", "good"))


def ids(preprocessor, *values):
    tokenize, held = preprocessor.tokenizer()
    found = tokenize(tf.constant(list(texts(*values)))).to_list()
    del held
    return found


def test_small_letters_are_the_same_in_every_language_of_the_machine():
    code = (
        "import tensorflow as tf; from bigkeras.tasks.text import lower; print(lower(tf.constant(['İI ÀẞΣ'])).numpy())"
    )
    told = []
    for language in ("C.UTF-8", "tr_TR.UTF-8", "az_AZ.UTF-8"):
        environment = {**os.environ, "LC_ALL": language}
        told.append(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).stdout)
    assert set(told) == {f"{['i̇i àßς'.encode()]}\n".encode()}


def pieces(preprocessor, text):
    return [piece.decode() for piece in preprocessor.pieces(tf.constant(texts(text).tolist()))[0].numpy().tolist()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Good, GOOD film!", ["good", ",", "good", "film", "!"]),
        ("I don't know 'what' he’s at", ["i", "don't", "know", "'", "what", "'", "he's", "at"]),
        ("one<br /><BR>two", ["one", "two"]),
        ("很好 film", ["很", "好", "film"]),
        ("ﬁne ＡＢＣ", ["fine", "abc"]),
        ("cafe\u0301 = caf\u00e9", ["café", "=", "café"]),
        ("a\0b\tc\u3000d\u2028e", ["a", "b", "c", "d", "e"]),
        ("wonder\u00adful \ufeffzero\u200bwidth", ["wonderful", "zerowidth"]),
        ("😀👍🏽", ["😀", "👍", "🏽"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        (b"bro\xffken", ["bro", "\ufffd", "ken"]),
        ("  \n ", []),
    ],
)
def test_words(text, words):
    assert pieces(WORDS, text) == words


def test_characters_keep_single_spaces():
    characters = TextPreprocessor(tokens="character", length=8)
    assert pieces(characters, " Ab \t 很") == ["a", "b", " ", "很"]


def test_ids_are_places_in_the_vocabulary_and_1_is_unknown():
    assert ids(WORDS, "Don't miss: good film", "好") == [[4, 1, 1, 2, 3], [5]]


def test_an_empty_text_is_one_unknown_token():
    assert ids(WORDS, "", " \0 ") == [[1], [1]]


def test_a_long_text_keeps_its_head_or_head_and_tail():
    vocabulary = ("[PAD]", "[UNK]", *map(str, range(2, 30)))
    numbers = " ".join(map(str, range(2, 30)))
    head = TextPreprocessor(tokens="word", length=8, vocabulary=vocabulary)
    both = TextPreprocessor(tokens="word", length=8, vocabulary=vocabulary, truncation="head_tail")
    assert ids(head, numbers) == [list(range(2, 10))]
    assert ids(both, numbers, "2 3 4") == [[2, 3, 24, 25, 26, 27, 28, 29], [2, 3, 4]]


def test_a_megabyte_is_a_text():
    assert ids(WORDS, "good " * 200_000, "x" * 2**20) == [[2] * 8, [1]]


def test_ngrams_follow_the_tokens_and_depend_on_all_their_tokens():
    preprocessor = TextPreprocessor(tokens="word", length=4, ngrams=3, buckets=1000, vocabulary=WORDS.vocabulary)
    rows = preprocessor.with_ngrams(tf.ragged.constant([[2, 3, 4], [2, 3, 5], [2]], tf.int32)).to_list()
    assert [len(row) for row in rows] == [6, 6, 1]
    assert rows[0][:3] == [2, 3, 4]
    assert rows[0][3] == rows[1][3]  # the pair 2 3
    assert rows[0][4:] != rows[1][4:]
    assert all(6 <= number < preprocessor.vocabulary_size for number in rows[0][3:])


def test_letters_of_words_follow_and_an_unknown_word_shares_some():
    preprocessor = TextPreprocessor(
        tokens="word", length=4, ngrams=2, buckets=100_000, letters=4, vocabulary=(*WORDS.vocabulary[:2], "filmed", "a")
    )
    tokenize, held = preprocessor.tokenizer()
    known, other, short, nothing = tokenize(tf.constant(["filmed", "refilmed a", "a 好 ab", ""])).to_list()
    # <f fi il lm me ed d>, five of three letters, four of four: none of them is a word's id.
    assert known[0] == 2 and len(known) == 1 + 7 + 6 + 5 and min(known[1:]) >= preprocessor.letters_from == 100_004
    assert other[:2] == [1, 3] and len(set(known) & set(other)) >= 10
    assert short == [3, 1, 1] and nothing == [1]
    assert max(known + other) < preprocessor.vocabulary_size == 200_004
    pairs = preprocessor.with_ngrams(tf.ragged.constant([other], tf.int32)).to_list()[0]
    assert pairs[:2] == other[:2] and pairs[3:] == other[2:]  # the pair of both words between
    assert 4 <= pairs[2] < preprocessor.letters_from
    for texts in ([], ["a", "好"], ["x" * 500]):
        ids = tokenize(tf.constant(texts, tf.string))
        assert preprocessor.padded(ids).shape[0] == len(texts)
        assert all(len(row) <= 1 + 4 * 16 for row in ids.to_list())
    dropped = word_dropout(tf.ragged.constant([known], tf.int32), tf.zeros((1, 2)), preprocessor, rate=0.999)
    assert dropped.to_list()[0] == [1, *known[1:]]
    assert held


def test_padding_stands_at_the_end_and_widths_are_few():
    preprocessor = TextPreprocessor(tokens="word", length=200, vocabulary=WORDS.vocabulary)
    widths = set()
    for longest in range(1, 201):
        padded = preprocessor.padded(tf.ragged.constant([[2] * longest, [3]], tf.int32)).numpy()
        assert padded[1].tolist() == [3] + [0] * (padded.shape[1] - 1)
        widths.add(padded.shape[1])
    assert len(widths) <= 8
    assert max(widths) == 200


def test_dropped_words_are_a_function_of_the_random_numbers():
    ragged = tf.ragged.constant([[5] * 400, [5] * 300], tf.int32)
    randoms = np.random.default_rng(0).random((2, 8), np.float32)
    first, again = (word_dropout(ragged, randoms, WORDS, rate=0.2).flat_values.numpy() for _ in range(2))
    assert np.array_equal(first, again)
    assert 0.12 < (first == 1).mean() < 0.28
    other = word_dropout(ragged, randoms[::-1].copy(), WORDS, rate=0.2).flat_values.numpy()
    assert not np.array_equal(first, other)


def test_hashes_fill_their_buckets_evenly():
    numbers = tf.range(10_000, dtype=tf.int64)
    buckets = np.bincount(tf.math.floormod(mixed(numbers, numbers + 1), 10).numpy(), minlength=10)
    assert buckets.min() > 850


def test_a_vocabulary_is_learned_from_the_most_frequent_words():
    task = text_classification(splits_of("a a b", "b a c", "c d"), vocabulary_size=5, min_count=2)
    assert task.preprocessor.vocabulary == ("[PAD]", "[UNK]", "a", "b", "c")
    assert task.model_arguments == {
        "vocabulary_size": 5, "length": 8, "num_classes": 2, "words": 5, "ngrams": 1, "letters_from": None,
        "longest": 8,
    }  # fmt: skip
    assert count_pieces(task.preprocessor, texts("a b", "a"))[b"a"] == 2


def test_proper_names_are_unknown_words_where_that_is_asked_for():
    given = splits_of(
        "I saw Tom Hanks and I'm glad", "Glad to see tom, Hanks", "TOM Hanks and McCoy", "and to see mccoy"
    )
    options = {"vocabulary_size": 50, "min_count": 1}
    words = text_classification(given, **options).preprocessor.vocabulary
    left = text_classification(given, **options, proper_names=False).preprocessor.vocabulary
    # Tom stands there in small letters, too, in one place of three, and McCoy in one of two.
    assert set(words) - set(left) == {"hanks"} and {"i", "i'm", "tom", "glad"} < set(left)


TRAINING = [
    f"the {noun} was {word}, {word}!" for noun in ("film", "meal", "很好") for word in ("good", "bad", "fine")
] * 5


@pytest.mark.parametrize("tokens", ["word", "character", "sentencepiece", "wordpiece"])
def test_a_saved_preprocessor_gives_the_same_ids(tokens, tmp_path):
    options = {"vocabulary_size": 320}
    if tokens == "wordpiece":
        pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "was", "go", "##od", "!", ",")
        (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
        options = {"vocabulary": str(tmp_path / "vocab.txt")}
    task = text_classification(splits_of(*TRAINING), tokens=tokens, length=16, **options)
    for name, data in task.preprocessor.files().items():
        (tmp_path / name).write_bytes(data)
    loaded = load_preprocessor(tmp_path)
    assert loaded == task.preprocessor
    assert json.loads((tmp_path / "preprocessor.json").read_text())["kind"] == "text"
    told = ("the film was Good!", "很好", "")
    assert ids(loaded, *told) == ids(task.preprocessor, *told)


def test_wordpiece_stands_between_cls_and_sep_and_takes_accents_away(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ncafe\n##s\n!\n")
    path = str(tmp_path / "vocab.txt")
    task = text_classification(splits_of("a", "b"), tokens="wordpiece", vocabulary=path, length=5)
    assert ids(task.preprocessor, "Cafés!", "", "cafe cafe cafe cafe") == [[2, 4, 5, 6, 3], [2, 3], [2, 4, 4, 4, 3]]


@pytest.mark.parametrize("tokens", ["word", "character", "wordpiece", "sentencepiece"])
def test_a_vocabulary_knows_nothing_of_the_other_splits(tokens):
    train = splits_of(*TRAINING * 4)
    other = ArraySource({"text": texts(*["xylophone 汉字"] * 400)}, [0, 1] * 200, "other")
    options = {"vocabulary_size": 320, "length": 16, "tokens": tokens}
    if tokens != "sentencepiece":
        options["min_count"] = 1
    alone = text_classification(train, **options).preprocessor
    assert text_classification(replace(train, validation=other, test=other), **options).preprocessor == alone


def test_word_pieces_that_are_learned_here_are_of_normalised_texts_and_published_ones_of_plain_ones():
    learned = text_classification(splits_of(*TRAINING), tokens="wordpiece", vocabulary_size=320, length=16)
    assert ids(learned.preprocessor, "ｆｉｌｍ ﬁne") == ids(learned.preprocessor, "film fine")
    words = learned.preprocessor.vocabulary
    given = text_classification(splits_of(*TRAINING), tokens="wordpiece", vocabulary=words, length=16)
    assert given.preprocessor == replace(learned.preprocessor, nfkc=False, folded=False)


def test_published_word_pieces_are_looked_up_as_their_authors_do():
    """Small letters, then marks parted off and taken away; nothing is folded that their vocabularies have."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words = (*special, "wait", "…", ".", "straße", "strasse", "m²", "m2", "，", "λογος", "naive")
    task = text_classification(splits_of("a", "b"), tokens="wordpiece", vocabulary=words, length=16)
    told = "Wait… STRASSE Straße m² ， ΛΌΓΟΣ Naïve"
    expected = ["wait", "…", "strasse", "straße", "m²", "，", "λογος", "naive"]
    assert ids(task.preprocessor, told)[0][1:9] == [words.index(word) for word in expected]
    before = replace(task.preprocessor, folded=True)  # as runs of before say by saying nothing
    assert ids(before, told)[0][2:5] == [words.index(".")] * 3


def test_a_sentencepiece_model_without_padding_first_is_refused(tmp_path):
    import sentencepiece

    text = tmp_path / "text.txt"
    text.write_text("the film was good\n" * 20)
    prefix = tmp_path / "own"
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(prefix), vocab_size=30, hard_vocab_limit=False, minloglevel=2
    )
    with pytest.raises(DataError, match=r"own\.model: its first pieces are '<unk>' and '<s>', not '<pad>' and '<unk>'"):
        text_classification(splits_of("a", "b"), tokens="sentencepiece", vocabulary=f"{prefix}.model")


def test_a_run_whose_preprocessor_is_taken_over_has_to_have_what_is_asked_for(tmp_path):
    for name, data in WORDS.files().items():
        (tmp_path / name).write_bytes(data)
    run = {"vocabulary": str(tmp_path)}
    assert text_classification(splits_of("a", "b"), length=8, **run).preprocessor == WORDS
    for asked, told in (({"length": 9}, "task.length=9: .* has 8"), ({"ngrams": 2}, "task.ngrams=2: .* has 1")):
        with pytest.raises(DataError, match=told):
            text_classification(splits_of("a", "b"), **run, **asked)


def test_a_run_whose_vocabulary_is_taken_over_was_learned_as_is_asked_for(tmp_path):
    made = replace(WORDS, ngrams=2, buckets=64)
    for name, data in made.files().items():
        (tmp_path / name).write_bytes(data)
    run = {"vocabulary": str(tmp_path)}
    asked = {"ngrams": 2, "buckets": 64, "nfkc": True, "vocabulary_size": 50, "min_count": 1}
    # What the run does not say is not known to be another.
    assert text_classification(splits_of("a", "b"), **run, **asked).preprocessor == made
    recipe = Recipe(
        name="toy", data=Choice("text_table"), model=Choice("bag_of_ngrams"),
        task=Choice("text_classification", {"ngrams": 2, "buckets": 64, "vocabulary_size": 50, "min_count": 1}),
    )  # fmt: skip
    recipe.save(tmp_path / "recipe.json")
    assert text_classification(splits_of("a", "b"), **run, **asked).preprocessor == made
    assert text_classification(splits_of("a", "b"), **run).preprocessor == made
    for name, value, has in (
        ("buckets", 32, 64),
        ("nfkc", False, True),
        ("vocabulary_size", 9, 50),
        ("min_count", 3, 1),
        ("proper_names", False, True),
    ):
        with pytest.raises(
            DataError, match=f"task.{name}={value}: .* has {has}, and its vocabulary is taken over whole"
        ):
            text_classification(splits_of("a", "b"), **run, **{**asked, name: value})


@pytest.mark.parametrize("tokens", ["word", "wordpiece"])
def test_a_token_that_stands_twice_is_named_and_blank_lines_at_the_end_are_none(tmp_path, tokens):
    path, options = tmp_path / "words.txt", {"tokens": tokens, "length": 8, "vocabulary": str(tmp_path / "words.txt")}
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nfilm\ngood\n")
    with pytest.raises(DataError, match=r"words\.txt: 'good' stands on lines 5 and 7"):
        text_classification(splits_of("a", "b"), **options)
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nfilm\n\n\n\n")
    task = text_classification(splits_of("a", "b"), **options)
    assert 5 in ids(task.preprocessor, "film")[0]
    with pytest.raises(DataError, match="the words given: 'a' stands on lines 3 and 4"):
        text_classification(splits_of("a", "b"), vocabulary=("[PAD]", "[UNK]", "a", "a"))


def test_wordpiece_is_learned_from_the_training_texts():
    words = ["unhappy", "unhappily", "happily", "happy", "so", "Sö"] * 4
    first, again = (
        text_classification(splits_of(*words), tokens="wordpiece", vocabulary_size=60, length=12) for _ in range(2)
    )
    vocabulary = first.preprocessor.vocabulary
    assert vocabulary[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert vocabulary == again.preprocessor.vocabulary and len(set(vocabulary)) == len(vocabulary) <= 60
    assert {"happy", "so"} <= set(vocabulary) and "Sö" not in vocabulary
    known, spelt, unknown = ids(first.preprocessor, "Happy", "yah", "汉")
    assert known == [2, vocabulary.index("happy"), 3]
    assert [vocabulary[i] for i in spelt] == ["[CLS]", "y", "##a", "##h", "[SEP]"]
    assert unknown == [2, 1, 3]


def test_sentencepiece_knows_every_character():
    task = text_classification(splits_of(*TRAINING), tokens="sentencepiece", vocabulary_size=320, length=64)
    assert 1 not in ids(task.preprocessor, "ẞ 😀 ж")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "words"}, "task.tokens='words': one of word, character"),
        ({"truncation": "tail"}, "task.truncation='tail'"),
        ({"tokens": "sentencepiece", "ngrams": 2}, "task.ngrams=2"),
        ({"length": 2}, "task.length=2: at least 4"),
        ({"tokens": "sentencepiece", "min_count": 5}, "task.min_count=5: is of words and WordPieces"),
        ({"lower": False, "proper_names": False}, "task.proper_names=false: of words in small letters"),
        ({"tokens": "sentencepiece", "vocabulary": ("[PAD]", "[UNK]")}, "takes the file of a model"),
        ({"vocabulary": "nowhere.txt"}, "nowhere.txt: No such file"),
        ({"tokens": "wordpiece", "vocabulary": __file__}, r"\[PAD\] must have id 0"),
    ],
)
def test_what_makes_no_preprocessor_is_named(options, message):
    with pytest.raises(DataError, match=message):
        text_classification(splits_of("a", "b"), **options)


def test_images_are_no_texts():
    images = ArraySource({"image": np.zeros((4, 2, 2, 1), np.uint8)}, [0, 1, 0, 1])
    with pytest.raises(DataError, match="needs texts"):
        text_classification(Splits(images, None, None, ("a", "b")))


@pytest.mark.parametrize("sizes", [[], [3], [0] * 1100, [1] * 1100, [9, 1, 1, 60, 1, 30, 30, 5], [40, 1]])
def test_batches_of_texts_have_few_bytes_and_give_all_in_order(sizes):
    given = texts(*(str(place % 10) * size for place, size in enumerate(sizes)))
    parts = [part.tolist() for part in over_batches(tf.identity, given, most=50).as_numpy_iterator()]
    assert [text for part in parts for text in part] == given.tolist()
    assert all(sum(map(len, part)) <= 50 or len(part) == 1 for part in parts)
    for one, following in itertools.pairwise(parts):  # none smaller than it need be
        assert len(one) == 512 or sum(map(len, one)) + len(following[0]) > 50


def test_subwords_are_learned_from_the_whole_of_long_texts():
    long = "the beginning says this. " * 400 + "quiz and jazz " * 40
    found = text_classification(splits_of(*[long] * 4), tokens="sentencepiece", vocabulary_size=300).preprocessor
    assert any("z" in piece for piece in found.vocabulary), found.vocabulary


@pytest.mark.parametrize(
    ("choice", "told"), [({"rate": 15}, "rate=15: from 0, below 1"), ({"rate": -0.1}, "rate=-0.1: from 0, below 1")]
)
def test_a_share_of_dropped_words_is_a_share(choice, told):
    with pytest.raises(RecipeError, match=told):
        check_augmentation([Choice("word_dropout", choice)])


def test_marks_that_unicode_would_part_stay_with_their_words():
    whole = replace(WORDS, nfkc=True)
    assert pieces(whole, "don´t wait") == ["don't", "wait"] and pieces(whole, "❤\ufe0flove it")[:2] == ["❤", "love"]
    assert pieces(whole, "rock´n´roll") == ["rock'n'roll"]
    assert pieces(whole, "4½ stars") == ["4", *pieces(whole, "½"), "stars"]
