"""Sentence pairs: own files, published ones, cleaning, splits by source sentence."""

import gzip
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
import tensorflow_datasets

from bigkeras.data import DATASETS, corpora
from bigkeras.data.cleaning import Pair, base, cleaned
from bigkeras.data.pair_splits import pair_splits
from bigkeras.data.source import DataError, all_learned

GOOD = [(f"The cat number {i} sits on the mat.", f"Die Katze Nummer {i} sitzt auf der Matte.") for i in range(40)]


def table(path, rows, head=""):
    path.write_bytes((head + "".join("\t".join(row) + "\n" for row in rows)).encode())
    return str(path)


def texts(source, column="source"):
    return [text.decode() for text in source.columns[column]]


def every(splits):
    return [text for part in (splits.train, splits.validation, splits.test) for text in texts(part)]


def test_a_line_with_a_tab_in_a_sentence_is_left_out_and_told(tmp_path):
    rows = [("Hello", "there.", "Hallo."), ("Bye.", "Tschüss.", " ")]
    rows += [(f"House {i}", f"Haus {i}") for i in range(300)]
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows))
    assert splits.ignored == ((f"{tmp_path}/p.tsv:1", "3 columns where others have 2: a tab in a sentence?"),)
    assert "1 of 302" in splits.found and "Bye." in every(splits)
    # Where remarks stand behind some pairs, they are remarks.
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows[:1] * 9 + rows[2:]))
    assert "Hello" in every(splits) and not any("columns" in why for _, why in splits.ignored)


def test_a_quotation_mark_in_a_tsv_is_a_character(tmp_path):
    rows = [('He said: "no.', 'Er sagte: "nein.'), ('"Go!', '"Geh!'), *GOOD]
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows))
    assert sorted(every(splits)) == sorted(source for source, _ in rows)


def test_no_source_sentence_stands_in_two_splits_and_its_translations_stay_together(tmp_path):
    rows = GOOD + [(source.upper(), target + " Ja!") for source, target in GOOD]
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows), validation=0.2, test=0.2)
    keys = [{text.lower() for text in texts(part)} for part in (splits.train, splits.validation, splits.test)]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert len(splits.train) == 2 * len(keys[0]) and len(splits.test) == len(keys[2]) == 8
    assert all(len(lines.split("\n")) == 2 for lines in texts(splits.test, "references"))


def test_sources_that_are_composed_otherwise_are_one_sentence(tmp_path):
    rows = [(f"caf\u00e9 {i}", f"Kaffee {i}") for i in range(20)] + [
        (f"CAFE\u0301 {i}", f"Cafe {i}") for i in range(20)
    ]
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows), validation=0.2, test=0.2)
    assert len(splits.train) == 24 and len(splits.test) == 4
    assert all(len(lines.split("\n")) == 2 for lines in texts(splits.test, "references"))


def test_the_seed_decides_the_split(tmp_path):
    file = table(tmp_path / "p.tsv", GOOD)
    first, again, other = (texts(DATASETS["translation_pairs"](file=file, seed=s).test) for s in (1, 1, 2))
    assert first == again != other


def test_parts_that_take_all_pairs_leave_none_to_train_on(tmp_path):
    file = table(tmp_path / "p.tsv", GOOD[:4])
    with pytest.raises(DataError, match="4 sentence pairs leave none to train on"):
        DATASETS["translation_pairs"](file=file, validation=0.9, test=0.05)


@pytest.mark.parametrize(
    "source, target, reason",
    [
        ("", "Nichts.", "an empty source"),
        ("Nothing.", "", "an empty target"),
        ("Stop.", "Stop.", "equal"),
        ("word " * 5000, "Wort " * 5000, "more than 1500"),
        ("Yes.", "Ja, das ist so, und noch viel mehr als das, was da nun einmal alles steht. " * 3, "too different"),
        ("A plain sentence.", "Простое предложение.", "Cyrillic script, not in Latin"),
        ("A plain sentence.", "ቀላል ዓረፍተ ነገር", "Ethiopic script, not in Latin"),
        ("A plain sentence.", "సాధారణ వాక్యం", "Telugu script, not in Latin"),
        ("A broken \ufffd sign.", "Ein kaputtes Zeichen.", "broken characters"),
    ],
)
def test_what_is_no_translation_is_left_out_and_named(source, target, reason):
    pairs = [Pair(str(i), *pair) for i, pair in enumerate(GOOD)]
    kept, left_out = cleaned([*pairs, Pair("odd", source.strip(), target.strip())], ("en", "de"))
    assert kept == pairs
    assert [name for name, _ in left_out] == ["odd"] and reason in left_out[0][1]


def test_the_script_of_an_unknown_language_is_that_of_its_letters():
    pairs = [Pair(str(i), f"sentence {i}, a plain one", f"第{i}句话很简单。") for i in range(30)]
    _, left_out = cleaned([*pairs, Pair("odd", "another one", "ещё одна")], ("", ""))
    assert [name for name, _ in left_out] == ["odd"]


def test_a_sentence_with_a_foreign_name_in_it_stays():
    pairs = [Pair(str(i), f"A plain sentence, number {i}.", f"第{i}句话很简单。") for i in range(30)]
    mixed = Pair("mixed", "NASA has opened a new office.", "NASA开设了新办事处。")
    foreign = Pair("foreign", "He said it in the old way.", "He说 it in the old way.")
    kept, left_out = cleaned([*pairs, mixed, foreign], ("en", "zh"))
    assert mixed in kept and [name for name, _ in left_out] == ["foreign"]


def test_emoji_numbers_and_zero_bytes_are_no_damage(tmp_path):
    rows = [*GOOD, ("I ❤ it 😀", "Ich ❤ es 😀"), ("42", "42 !"), ("A zero\0byte here.", "Ein Null\0byte hier.")]
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows))
    assert not splits.bad and not splits.ignored and "A zero byte here." in every(splits)


def test_cleaning_is_listed_but_does_not_count_as_damage(tmp_path):
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", [*GOOD, ("Same.", "Same."), ("alone",)]))
    assert [why for _, why in splits.ignored] == ["source and target are equal"]
    assert splits.found == "1 of 41 pairs are left out (1: source and target are equal)"
    assert [name.rpartition(":")[2] for name, _ in splits.bad] == ["42"]


def test_a_set_of_tensorflow_datasets_keeps_its_own_test_part(monkeypatch):
    parts = {"train": [*GOOD, ("Same.", "Same.")], "test": [("Yes.", "Yes."), ("No.", "Nein, " * 50)]}
    rows = {name: [{"en": a.encode(), "de": b.encode()} for a, b in part] for name, part in parts.items()}
    dataset = SimpleNamespace(
        info=SimpleNamespace(features=("en", "de"), splits=tuple(parts)),
        as_dataset=lambda split: SimpleNamespace(as_numpy_iterator=lambda: iter(rows[split])),
    )
    monkeypatch.setattr(corpora, "prepared", lambda name, root: dataset if name == "toy/de-en" else None)
    asked = {"source_language": "en", "target_language": "de", "validation": 0.1}
    splits = DATASETS["tfds_translation"](dataset="toy/de-en", **asked)
    assert splits.languages == ("en", "de") and len(splits.test) == 2
    assert len(splits.train) + len(splits.validation) == len(GOOD)
    assert splits.ignored == (("train[40]", "source and target are equal"),)
    for name, changed, told in (("wmt", {}, "tfds build wmt"), ("toy/de-en", {"target_language": "fr"}, "not 'fr'")):
        with pytest.raises(DataError, match=told):
            DATASETS["tfds_translation"](dataset=name, **{**asked, **changed})
    dataset.info.splits = ("validation", "test")
    with pytest.raises(DataError, match="toy/de-en has validation, test, and no train part"):
        DATASETS["tfds_translation"](dataset="toy/de-en", **asked)


def test_sets_that_tensorflow_datasets_itself_has_written_are_found_by_name(tmp_path):
    features = tensorflow_datasets.features.Translation(languages=["de", "en"])

    def write(version, pairs, config="de-en"):
        columns = {"en": [en for en, _ in pairs], "de": [de for _, de in pairs]}
        tensorflow_datasets.dataset_builders.store_as_tfds_dataset(
            name="toy", config=config, version=version, features=features, data_dir=tmp_path,
            split_datasets={"train": tf.data.Dataset.from_tensor_slices(columns)}, disable_shuffling=True,
        )  # fmt: skip

    write("9.0.0", GOOD[:3])
    write("10.0.0", GOOD)
    asked = {"source_language": "en", "target_language": "de", "directory": str(tmp_path)}
    for name in ("toy/de-en", "toy"):
        splits = DATASETS["tfds_translation"](dataset=name, **asked)
        assert sorted(every(splits)) == sorted(source for source, _ in GOOD)
    write("1.0.0", GOOD, config="other")
    with pytest.raises(DataError, match=r"toy: there are toy/de-en, toy/other in .*: name one of them"):
        DATASETS["tfds_translation"](dataset="toy", **asked)


def test_published_pairs_that_are_no_utf8_are_told_with_their_line(tmp_path):
    (tmp_path / "multi30k").mkdir()
    for name in ("train", "val", "test_2016_flickr"):
        for side, language in enumerate(("en", "de")):
            text = "".join(pair[side] + "\n" for pair in GOOD).encode()
            broken = text + b"Stra\xdfe\n" if (name, language) == ("train", "de") else text
            (tmp_path / "multi30k" / f"{name}.{language}").write_bytes(broken)
    with pytest.raises(DataError, match=rf"train\.de: line {len(GOOD) + 1} is no UTF-8 text"):
        DATASETS["multi30k"](directory=str(tmp_path))


def test_a_first_line_of_language_codes_in_capitals_names_the_columns(tmp_path):
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "a.tsv", GOOD, "EN\tDE\n"))
    assert splits.languages == ("EN", "DE") and "EN" not in every(splits)


def test_a_unit_of_a_memory_for_testing_keeps_all_its_translations():
    tested = [Pair("unit 9", "Yes.", target, "test") for target in ("Ja.", "Jawohl.")]
    tested.append(Pair("unit 10", "Yes.", "Doch.", "test"))
    pairs = [Pair(str(i), *pair) for i, pair in enumerate(GOOD)]
    splits = pair_splits([*pairs, *tested], ("en", "de"), origin="m", validation=0, test=0, seed=0, limit_train=None)
    assert texts(splits.test, "references") == ["Ja.\nJawohl.", "Doch."]


def test_a_validation_sentence_with_several_translations_is_learned_with_all_of_them():
    pairs = [Pair(str(i), f"Sentence {i // 2}.", f"Satz {i}.") for i in range(40)]
    splits = pair_splits(pairs, ("en", "de"), origin="toy", validation=0.5, test=0, seed=0, limit_train=None)
    learned = all_learned(splits)
    assert len(splits.validation) == 10 and splits.validation.columns["references"][0].count(b"\n") == 1
    assert sorted(learned.train.columns["target"]) == sorted(pair.target.encode() for pair in pairs)
    assert learned.validation is None and "references" not in learned.train.columns


def test_columns_have_numbers_or_names_and_languages(tmp_path):
    rows = [(str(i), target, source) for i, (source, target) in enumerate(GOOD)]
    named = DATASETS["translation_pairs"](
        file=table(tmp_path / "a.tsv", rows, "id\tde\ten\n"), source="en", target="de"
    )
    numbered = DATASETS["translation_pairs"](file=table(tmp_path / "b.tsv", rows), source=3, target="2")
    assert named.languages == ("en", "de") and texts(named.train) == texts(numbered.train)


@pytest.mark.parametrize("head", ["", "id\ten\tid\tde\n", "id\tsentence\tid\ttranslated\n"])
def test_a_column_of_numbers_holds_no_sentences(tmp_path, head):
    rows = [(str(1276 + i), source, str(77 + i), target) for i, (source, target) in enumerate(GOOD)]
    file = table(tmp_path / "p.tsv", rows, head)
    for source, target, wrong in ((1, 2, "column 1 .*'1276'"), (2, 3, "column 3 .*'77'")):
        with pytest.raises(DataError, match=rf"p\.tsv: {wrong}: --set data.source=… --set data.target=… name others"):
            DATASETS["translation_pairs"](file=file, source=source, target=target)
    splits = DATASETS["translation_pairs"](file=file, source=2, target=4)
    assert sorted(every(splits)) == sorted(source for source, _ in GOOD)


@pytest.mark.parametrize("wanted", [0, -1, "²", "9" * 5000])
def test_a_column_that_cannot_be_is_told(tmp_path, wanted):
    with pytest.raises(DataError, match=r"no column .* among .*data.source is a column's number from 1, or its name"):
        DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", GOOD), source=wanted)


@pytest.mark.parametrize("change", [lambda t: t.replace("\n", "\r").encode(), lambda t: t.encode("utf-16-le")])
def test_old_ends_of_lines_and_wide_characters_are_read(tmp_path, change):
    path = tmp_path / "p.tsv"
    path.write_bytes(change("".join(f"{s}\t{t}\n" for s, t in GOOD)))
    assert sorted(every(DATASETS["translation_pairs"](file=str(path)))) == sorted(source for source, _ in GOOD)


def test_columns_in_each_others_language_are_told(tmp_path):
    file = table(tmp_path / "p.tsv", [(t, s) for s, t in GOOD])
    with pytest.raises(DataError, match=r"en stands where de should, and the other way: --set data.source=2"):
        DATASETS["translation_pairs"](file=file, source_language="en", target_language="de")
    file = table(tmp_path / "p.tsv", [("x", s, t) for s, t in GOOD])
    said = {"file": file, "source_language": "en", "target_language": "de"}
    with pytest.raises(DataError, match=r"the other way: --set data.source=2 --set data.target=3$"):
        DATASETS["translation_pairs"](**said, source=3, target=2)
    DATASETS["translation_pairs"](**said, source=2, target=3)


@pytest.mark.parametrize("named", ["file", "test_file"])
def test_a_file_without_languages_is_held_against_those_of_the_other(tmp_path, named):
    """Either may say them; nobody says them of the one whose sides are exchanged."""
    heads = {"file": "", "test_file": "", named: "en\tde\n"}
    rows = {"file": GOOD, "test_file": GOOD[:10]}
    other = "test_file" if named == "file" else "file"
    for turned in (False, True):
        if turned:
            rows[other] = [(t, s) for s, t in rows[other]]
        files = {name: table(tmp_path / f"{name}.tsv", rows[name], head=heads[name]) for name in rows}
        if not turned:
            DATASETS["translation_pairs"](**files)
            continue
        with pytest.raises(DataError, match=f"{other}.tsv: en stands where de should, and the other way: exchange its"):
            DATASETS["translation_pairs"](**files)


def test_names_of_languages_in_each_others_place_are_told_with_what_mends_it(tmp_path):
    advice = "--set data.source_language=en --set data.target_language=de$"
    said = {"source_language": "en", "target_language": "de"}
    file = table(tmp_path / "p.tsv", GOOD, head="de\ten\n")
    with pytest.raises(DataError, match=f"if line 1 names them so by mistake, {advice}"):
        DATASETS["translation_pairs"](file=file)
    assert len(every(DATASETS["translation_pairs"](file=file, **said))) == 40
    files = {"file": str(tmp_path / "x.de"), "target_file": str(tmp_path / "x.en")}
    for path, side in zip(files.values(), zip(*GOOD, strict=True), strict=True):
        (tmp_path / path).write_text("".join(f"{text}\n" for text in side))
    with pytest.raises(DataError, match=f"if the files' names are exchanged, {advice}"):
        DATASETS["aligned_files"](**files)
    assert len(every(DATASETS["aligned_files"](**files, **said))) == 40


def test_a_word_that_is_frequent_in_both_languages_tells_nothing(tmp_path):
    rows = [(f"hond{i}", f"en hund{i}") for i in range(40)]
    assert len(every(DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows, head="nl\tsv\n")))) == 40
    rows = [("Ik zie het niet en hij is van hier.", "Jag ser det inte.")] * 40
    with pytest.raises(DataError, match="the other way"):
        DATASETS["translation_pairs"](file=table(tmp_path / "q.tsv", rows, head="sv\tnl\n"))


def test_marks_of_direction_make_no_other_sentence(tmp_path):
    rows = [(f"شكرا {i}", f"Thanks {i}.") for i in range(20)] + [(f"\u200fشكرا {i}", f"Thanks {i}.") for i in range(20)]
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows, head="ar\ten\n"))
    assert sorted(every(splits)) == sorted(source for source, _ in rows[:20])
    assert base("nb") == base("nno") == base("no") and DATASETS["translation_pairs"](
        file=table(tmp_path / "q.tsv", [(t, s) for s, t in GOOD], head="en\tnb\n")
    ).languages == ("en", "nb")


def test_languages_that_no_sentence_tells_apart_are_not_read_the_other_way(tmp_path):
    said = {"source_language": "fi", "target_language": "sv"}
    rows = [(f"Hunden springer över ängen {i}.", f"Koira juoksee niityn yli {i}.") for i in range(40)]
    file = table(tmp_path / "p.tsv", rows, head="sv\tfi\n")
    told = (
        "line 1: name sv and fi, said are fi and sv: --set data.source=2 --set data.target=1 reads them the other way"
    )
    with pytest.raises(DataError, match=told):
        DATASETS["translation_pairs"](file=file, **said)
    assert DATASETS["translation_pairs"](file=file, **said, source=2, target=1).languages == ("fi", "sv")
    files = {"file": str(tmp_path / "x.sv"), "target_file": str(tmp_path / "x.fi")}
    for path, side in zip(files.values(), zip(*rows, strict=True), strict=True):
        Path(path).write_text("".join(f"{text}\n" for text in side))
    with pytest.raises(DataError, match=r"the files' names: name sv and fi, .*: exchange file and target_file"):
        DATASETS["aligned_files"](**files, **said)


def test_the_quotation_marks_of_excel_are_taken_away_and_no_others(tmp_path):
    rows = [(f'"Hello, world {i}."', f'"Er sagte ""ja"" {i}."') for i in range(40)]
    rows += [("Plain.", "Einfach."), ('"Two,\nlines"', "Zwei Zeilen")]
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows))
    found = every(splits)
    assert {"Hello, world 3.", "Plain.", "Two, lines"} <= set(found) and len(found) == 42 and not splits.bad
    assert 'Er sagte "ja" 3.' in texts(splits.train, "target") + texts(splits.test, "target") + texts(
        splits.validation, "target"
    )
    rows[3:3] = [('"Open line', "Zeile"), ("foo\rbar", "baz")]
    found = every(DATASETS["translation_pairs"](file=table(tmp_path / "r.tsv", rows)))
    assert {"Hello, world 3.", '"Open line', "foo bar"} <= set(found) and len(found) == 44
    with pytest.raises(DataError, match="no sentence pair in it"):
        DATASETS["translation_pairs"](file=table(tmp_path / "s.tsv", [('""', '""')] * 9))
    # pandas quotes what holds a mark, and no commas.
    rows = [(f"Hello, world {i}.", f'"Er sagte ""ja"", {i}."' if i % 2 else f"Ja, {i}.") for i in range(40)]
    found = DATASETS["translation_pairs"](file=table(tmp_path / "t.tsv", rows))
    assert 'Er sagte "ja", 3.' in texts(found.train, "target") + texts(found.test, "target") + texts(
        found.validation, "target"
    )
    spoken = [(f'"Hello, you {i}!"', f"„Hallo, du {i}!“") for i in range(20)]
    assert '"Hello, you 3!"' in every(DATASETS["translation_pairs"](file=table(tmp_path / "q.tsv", spoken)))


def test_a_sheet_or_an_archive_is_no_file_of_pairs(tmp_path):
    (tmp_path / "p.xlsx").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 9)
    with pytest.raises(DataError, match="is a zip archive, such as an Excel sheet, no text"):
        DATASETS["translation_pairs"](file=str(tmp_path / "p.xlsx"))


@pytest.mark.parametrize("said", [("zh", "ja"), ("ko", "ja")])
def test_languages_of_shared_scripts_are_not_read_the_other_way(said, tmp_path):
    rows = [(f"学生读第{i}本书", f"学生が本を読む{i}") for i in range(40)]
    file = table(tmp_path / "p.tsv", rows, head=f"{said[1]}\t{said[0]}\n")
    with pytest.raises(DataError, match=r"said are|should, and the other way"):
        DATASETS["translation_pairs"](file=file, source_language=said[0], target_language=said[1])


@pytest.mark.parametrize("head", ["en\tsr", "\n  \nen\tde", "\nsource\ttarget", "srp\tis"])
def test_a_first_line_of_any_languages_names_the_columns_behind_blank_ones_too(tmp_path, head):
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", GOOD, head=f"{head}\n"))
    assert sorted(every(splits)) == sorted(source for source, _ in GOOD) and not splits.bad


@pytest.mark.parametrize("head", ["target\tsource", "Translation\tsrc", "译文\t原文"])
def test_a_first_line_that_names_the_target_first_is_heeded(tmp_path, head):
    file = table(tmp_path / "p.tsv", [(t, s) for s, t in GOOD], head=f"{head}\n")
    assert sorted(every(DATASETS["translation_pairs"](file=file))) == sorted(source for source, _ in GOOD)


def test_the_finished_half_of_a_translation_is_learned(tmp_path):
    rows = [*GOOD, *((f"Not yet translated is sentence number {i}, of some length.", "") for i in range(90))]
    splits = DATASETS["translation_pairs"](file=table(tmp_path / "p.tsv", rows))
    assert sorted(every(splits)) == sorted(source for source, _ in GOOD)
    assert {why for _, why in splits.ignored} == {"an empty target"}


SENTENCES = {
    "en": "This is the cat that sits on the mat.", "de": "Das ist die Katze, und der Hund ist nicht da.",
    "hu": "Ez a macska ül a szőnyegen.", "ru": "Кошка сидит на коврике.", "te": "పిల్లి చాప మీద కూర్చుంది.",
}  # fmt: skip


@pytest.mark.parametrize("said, there", [("en-de", "de-en"), ("en-hu", "hu-en"), ("hu-en", "en-hu"), ("en-ru", "ru-en"),
                                         ("en-te", "te-en"), ("te-ru", "ru-te"), ("-ru", "ru-te")])  # fmt: skip
def test_aligned_files_in_each_others_language_are_told(tmp_path, said, there):
    names = there.split("-")
    for name in names:
        (tmp_path / f"{name}.txt").write_text("".join(f"{i} {SENTENCES[name]}\n" for i in range(30)), encoding="utf-8")
    file, target_file = (str(tmp_path / f"{name}.txt") for name in names)
    languages = dict(zip(("source_language", "target_language"), said.split("-"), strict=True))
    with pytest.raises(DataError, match="and the other way: exchange file and target_file"):
        DATASETS["aligned_files"](file=file, target_file=target_file, **languages)
    splits = DATASETS["aligned_files"](file=target_file, target_file=file, **languages)
    assert len(every(splits)) == 30 and not splits.ignored


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"one column\nand no more\n", "1 column where columns 1 and 2 are read"),
        (b"Same.\tSame.\n", "no sentence pair that can be used"),
    ],
)
def test_a_pair_file_that_is_none_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "p.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as told:
        DATASETS["translation_pairs"](file=str(path))
    assert "p.tsv" in str(told.value) and "\n" not in str(told.value)


def test_pairs_with_broken_bytes_are_left_out_and_the_others_are_read(tmp_path):
    rows = [(f"Number {i}, please, as ever.", f"Nummer {i}, schöne Grüße, bitte, wie immer.") for i in range(60)]
    data = "".join("\t".join(row) + "\n" for row in rows).encode()
    (tmp_path / "p.tsv").write_bytes(data.replace("ü".encode(), b"\xc3", 2))
    splits = DATASETS["translation_pairs"](file=str(tmp_path / "p.tsv"))
    assert [(name.rpartition(":")[2], why) for name, why in splits.ignored] == [
        ("1", "broken characters in the target"), ("2", "broken characters in the target"),
    ]  # fmt: skip
    assert sorted(every(splits)) == sorted(source for source, _ in rows[2:])


def test_broken_bytes_all_over_a_large_file_of_few_accents_are_no_other_encoding(tmp_path):
    said = ("gut", "schön")
    rows = [
        (f"Number {i}, please, as ever.", f"Nummer {i}, bitte, {said[i % 20 == 0]} wie immer.") for i in range(4000)
    ]
    data = "".join("\t".join(row) + "\n" for row in rows).encode()
    broken = data.replace(b"Nummer 7", b"Nummer\xff7", 12)  # the first 20,000 bytes have some 20 accents
    (tmp_path / "p.tsv").write_bytes(broken)
    splits = DATASETS["translation_pairs"](file=str(tmp_path / "p.tsv"))
    assert any("schön wie immer" in target for target in texts(splits.train, "target"))
    assert sum("broken characters" in why for _, why in splits.ignored) == 12


def test_other_encodings_are_found(tmp_path):
    rows = [(f"Number {i}, please.", f"Nummer {i}, schöne Grüße, bitte.") for i in range(40)]
    path = tmp_path / "p.tsv"
    path.write_bytes("".join("\t".join(row) + "\n" for row in rows).encode("cp1252"))
    splits = DATASETS["translation_pairs"](file=str(path))
    assert all(" schöne Grüße, bitte." in target for target in texts(splits.train, "target"))


def test_a_tab_in_an_aligned_file_is_a_space_and_endings_say_the_languages(tmp_path):
    (tmp_path / "x.en").write_text("A\ttab.\n" + "".join(s + "\n" for s, _ in GOOD), encoding="utf-8")
    with gzip.open(tmp_path / "x.de.gz", "wt", encoding="utf-8") as file:
        file.write("Ein Tab.\n" + "".join(t + "\n" for _, t in GOOD))
    splits = DATASETS["aligned_files"](file=str(tmp_path / "x.en"), target_file=str(tmp_path / "x.de.gz"))
    assert splits.languages == ("en", "de") and "A tab." in every(splits)


def test_the_ending_of_an_aligned_file_is_no_language_in_any_case(tmp_path):
    for name, side in (("x.EN", 0), ("x.TXT", 1)):
        (tmp_path / name).write_text("".join(pair[side] + "\n" for pair in GOOD))
    splits = DATASETS["aligned_files"](file=str(tmp_path / "x.EN"), target_file=str(tmp_path / "x.TXT"))
    assert splits.languages == ("EN", "")


@pytest.mark.parametrize("names", [("a.dat", "b.dat"), ("x.v1", "x.v2"), ("x.in", "x.out"), ("x.old", "x.new")])
def test_an_ending_that_both_files_have_or_with_a_digit_is_no_language(tmp_path, names):
    for side, name in enumerate(names):
        (tmp_path / name).write_text("".join(pair[side] + "\n" for pair in GOOD))
    file, target_file = (str(tmp_path / name) for name in names)
    assert DATASETS["aligned_files"](file=file, target_file=target_file).languages == ("", "")


def test_three_letters_are_the_same_language_as_two(tmp_path):
    assert [base(name) for name in ("eng", "DEU", "ger-AT", "cmn_Hans", "zh-CN", "ceb")] == [
        "en", "de", "de", "zh", "zh", "ceb",
    ]  # fmt: skip
    for name, side in (("x.eng", 1), ("x.deu", 0)):
        (tmp_path / name).write_text("".join(f"{i} {SENTENCES[('en', 'de')[side]]}\n" for i in range(30)))
    with pytest.raises(DataError, match="deu stands where eng should"):
        DATASETS["aligned_files"](file=str(tmp_path / "x.deu"), target_file=str(tmp_path / "x.eng"))


def test_aligned_files_of_different_lengths_are_refused(tmp_path):
    (tmp_path / "x.en").write_text("One.\nTwo.\n")
    (tmp_path / "x.de").write_text("Eins.\n")
    with pytest.raises(DataError, match=r"x\.en 2 and .*x\.de 1"):
        DATASETS["aligned_files"](file=str(tmp_path / "x.en"), target_file=str(tmp_path / "x.de"))
    (tmp_path / "x.de").write_text("")
    with pytest.raises(DataError, match=r"x\.de: the file is empty"):
        DATASETS["aligned_files"](file=str(tmp_path / "x.en"), target_file=str(tmp_path / "x.de"))


def test_files_of_ones_own_hold_what_is_for_validation_and_testing(tmp_path):
    known, held = GOOD[:30], [*GOOD[28:32], ("Yes.", "Yes.")]  # two of them stand among those to train on
    train, test = table(tmp_path / "t.tsv", known, "en\tde\n"), table(tmp_path / "h.tsv", held)
    splits = DATASETS["translation_pairs"](file=train, test_file=test, validation=0.1)
    assert texts(splits.test) == [source for source, _ in held]  # a published test set is not cleaned
    assert len(splits.validation) == 3 and len(splits.train) == 25 and splits.languages == ("en", "de")
    # Each line of it is a sentence, as for those who published scores, whatever others are spelt alike.
    both = table(tmp_path / "b.tsv", [("Yes.", "Ja."), ("YES.", "Jawohl."), ("Yes.", "Doch.")])
    tested = DATASETS["translation_pairs"](file=train, test_file=both).test
    assert texts(tested) == ["Yes.", "YES.", "Yes."] and texts(tested, "references") == ["Ja.", "Jawohl.", "Doch."]
    assert [why for _, why in splits.ignored] == ["its source sentence stands in another split"] * 2
    splits = DATASETS["translation_pairs"](file=train, validation_file=test, test=0)
    assert len(splits.validation) == 5 and len(splits.train) == 28 and splits.test is None
    splits = DATASETS["translation_pairs"](file=train, validation_file=test, test_file=test, test=0.5)
    assert splits.validation is None and len(splits.test) == 5  # of one file for both the test has all
    assert splits.found.endswith("data.test=0.5: not heeded, since the data has such a part of its own")


def test_aligned_files_of_ones_own_hold_what_is_for_testing(tmp_path):
    for name, rows in (("t", GOOD[:30]), ("h", GOOD[30:])):
        for code, side in (("en", 0), ("de", 1), ("fr", 1)):
            (tmp_path / f"{name}.{code}").write_text("".join(f"{row[side]}\n" for row in rows))
    t, h = (tmp_path / f"{name}.en" for name in "th")
    there = {"file": str(t), "target_file": str(t.with_suffix(".de")), "test_file": str(h)}
    splits = DATASETS["aligned_files"](**there, test_target_file=str(h.with_suffix(".de")))
    assert texts(splits.test) == [source for source, _ in GOOD[30:]] and len(splits.train) == 29
    with pytest.raises(DataError, match=r"data\.test_file=.*h\.en: .*--set data\.test_target_file=FILE is the other"):
        DATASETS["aligned_files"](**there)
    with pytest.raises(DataError, match=r"h\.en: translates from en to fr, .*t\.en from en to de"):
        DATASETS["aligned_files"](**there, test_target_file=str(h.with_suffix(".fr")))


TMX = """<?xml version="1.0" encoding="UTF-8"?>
{doctype}<tmx version="1.4"><header srclang="en-US"/><body>
{units}</body></tmx>
"""
DTD = '<!DOCTYPE tmx SYSTEM "tmx14.dtd">'
UNIT = '<tu><tuv xml:lang="de"><seg>{de}</seg></tuv><tuv xml:lang="en-GB"><seg>{en}</seg></tuv></tu>\n'


def test_a_translation_memory_is_read_without_the_codes_of_its_markup(tmp_path):
    path = tmp_path / "m.tmx"
    units = [UNIT.format(en=s, de=t) for s, t in GOOD]
    marked = UNIT.format(en='A <bpt i="1">&lt;b&gt;</bpt>bold<ept i="1">&lt;/b&gt;</ept> <hi>word</hi>.', de="Fett.")
    path.write_text(TMX.format(doctype='<!DOCTYPE tmx SYSTEM "tmx14.dtd">', units="".join([marked, *units])))
    splits = DATASETS["tmx"](file=str(path))
    assert splits.languages == ("en-GB", "de") and "A bold word." in every(splits)


def test_a_line_break_that_a_code_names_and_a_script_that_a_language_names(tmp_path):
    path = tmp_path / "m.tmx"
    units = [UNIT.format(en=s, de=t) for s, t in GOOD]
    marked = UNIT.format(en='First line.<ph x="1" type="lb"/>Second line.', de="Zwei Zeilen.")
    path.write_text(TMX.format(doctype="", units="".join([marked, *units])))
    assert "First line. Second line." in every(DATASETS["tmx"](file=str(path)))
    # Hindi in Latin letters, which its own code says.
    text = TMX.format(doctype="", units="".join(units)).replace('xml:lang="de"', 'xml:lang="hi-Latn"')
    path.write_text(text)
    splits = DATASETS["tmx"](file=str(path))
    assert splits.languages == ("en-GB", "hi-Latn") and not splits.bad
    path.write_text(text.replace("hi-Latn", "zh-Hans"))
    with pytest.raises(DataError, match="in Latin script, not in Han"):
        DATASETS["tmx"](file=str(path))
    with pytest.raises(DataError, match=r"an XML file; a translation memory .*`bigkeras train translation-memory`"):
        DATASETS["translation_pairs"](file=str(path))


def test_a_break_among_the_codes_of_markup_parts_words_and_the_headers_own_country_is_read(tmp_path):
    path = tmp_path / "m.tmx"
    units = [UNIT.format(en=s, de=t) for s, t in GOOD]
    broken = UNIT.format(en='Up<ph x="1">&lt;br/&gt;</ph>down <it pos="begin">&lt;i></it>here.', de="Auf und ab.")
    broken = broken.replace("<tu>", '<tu><tuv xml:lang="en-AU"><seg>Not this.</seg></tuv>')
    text = TMX.format(doctype="", units="".join([broken, *units])).replace('srclang="en-US"', 'srclang="EN_gb"')
    path.write_text(text)
    splits = DATASETS["tmx"](file=str(path))
    assert splits.languages == ("en-GB", "de") and "Up down here." in every(splits)


def test_of_a_language_the_country_that_is_asked_for_is_read_however_its_code_is_written(tmp_path):
    path = tmp_path / "m.tmx"
    said = {"EN-US": "Hello", "ZH-TW": "臺灣", "zh_CN": "中国"}
    unit = "".join(f'<tuv xml:lang="{name}"><seg>{{}} {text}</seg></tuv>' for name, text in said.items())
    units = "".join(f"<tu>{unit.format(i, i, i)}</tu>\n" for i in range(40))
    path.write_text(TMX.format(doctype="", units=units), encoding="utf-8")
    splits = DATASETS["tmx"](file=str(path), source_language="en-us", target_language="zh-cn")
    assert {text.split()[-1] for text in texts(splits.train, "target")} == {"中国"}


def test_attributes_that_a_declaration_adds_to_every_element_are_none(tmp_path):
    path = tmp_path / "m.tmx"
    declared = '<!DOCTYPE tmx [<!ATTLIST tuv lang CDATA "xx" creationid CDATA "many">]>'
    units = "".join(UNIT.format(en=s, de=t) for s, t in GOOD) + "<tu><tuv><seg>Alone</seg></tuv></tu>"
    path.write_text(TMX.format(doctype=declared, units=units))
    assert DATASETS["tmx"](file=str(path)).languages == ("en-GB", "de")


def test_which_of_several_languages_is_the_source_is_not_guessed(tmp_path):
    path = tmp_path / "m.tmx"
    unit = "".join(f'<tuv xml:lang="{name}"><seg>{{}} {name}</seg></tuv>' for name in ("fr", "en", "de"))
    units = "".join(f"<tu>{unit.format(i, i, i)}</tu>\n" for i in range(40))
    path.write_text(TMX.format(doctype="", units=units).replace("en-US", "*all*"))
    with pytest.raises(DataError, match="which of fr, en, de"):
        DATASETS["tmx"](file=str(path), target_language="de")
    assert DATASETS["tmx"](file=str(path), source_language="en", target_language="de").languages == ("en", "de")
    path.write_text(TMX.format(doctype="", units=units))
    assert DATASETS["tmx"](file=str(path), target_language="de").languages == ("en", "de")


def test_units_on_one_line_have_names_of_their_own(tmp_path):
    path = tmp_path / "m.tmx"
    units = [UNIT.format(en=s, de=t) for s, t in GOOD]
    alone = '<tu><tuv xml:lang="en-GB"><seg>Alone.</seg></tuv></tu>'
    same = UNIT.format(en="Same.", de="Same.").strip()
    path.write_text(TMX.format(doctype="", units="".join([alone, same, same, "\n", *units])))
    splits = DATASETS["tmx"](file=str(path))
    left_out = [":3, unit 1", ":3, unit 2", ":3, unit 3"]
    assert [name.removeprefix(str(path)) for name, _ in splits.ignored] == left_out
    assert splits.ignored[0][1] == "no de in it" and splits.read == len(units) + 3 and "3 of" in splits.found
    assert f"{path}:5" in [splits.train.name(i) for i in range(len(splits.train))]


def test_a_unit_with_several_translations_is_a_pair_with_each(tmp_path):
    path = tmp_path / "m.tmx"
    units = [UNIT.format(en=f"Tree {i}", de=f"Baum {i}") for i in range(40)]
    more = '<tuv xml:lang="de"><seg>Gehölz {0}</seg></tuv><tuv xml:lang="de"><seg> </seg></tuv></tu>'
    units = [unit.replace("</tu>", more.format(i)) for i, unit in enumerate(units)]
    path.write_text(TMX.format(doctype="", units="".join(units)), encoding="utf-8")
    splits = DATASETS["tmx"](file=str(path))
    assert not splits.ignored and splits.read == 80
    source, *_ = texts(splits.train)
    pairs = zip(texts(splits.train), texts(splits.train, "target"), strict=True)
    found = [target for other, target in pairs if other == source]
    assert found == [source.replace("Tree", "Baum"), source.replace("Tree", "Gehölz")]


def test_a_translation_memory_may_use_the_names_of_html(tmp_path):
    path = tmp_path / "m.tmx"
    units = [UNIT.format(en=f"Coffee {i}", de=f"K{i} f&uuml;r Ren&eacute;e") for i in range(40)]
    path.write_text(TMX.format(doctype=DTD, units="".join(units)))
    splits = DATASETS["tmx"](file=str(path), target_language="en")
    assert splits.languages == ("de", "en") and "K7 für Renée" in every(splits)


@pytest.mark.parametrize(
    "content, message",
    [
        (TMX.format(doctype='<!DOCTYPE tmx [<!ENTITY a "aaaa">]>', units=UNIT.format(en="&a;", de="b")), "entity a"),
        (TMX.format(doctype="", units="<tu><tuv>"), "line 3: not whole XML: mismatched tag"),
        ("", "line 1: not whole XML: no element found"),
        (TMX.format(doctype="", units=""), r"holds no unit of a translation memory \(tu\)"),
        (TMX.format(doctype=DTD, units=UNIT.format(en="&mine;", de="b")), "needs the entity mine of its own"),
        (TMX.format(doctype=DTD, units=UNIT.format(en="&section;", de="b")), "needs the entity section of its own"),
        (TMX.format(doctype="", units="").replace("UTF-8", "gb18030"), "save it as UTF-8"),
        (TMX.format(doctype="", units=UNIT.format(en="a\0b", de="b")), "line 3: not whole XML"),
        (TMX.format(doctype="", units=UNIT.format(en="a&#x1F;b", de="b")), "line 3: not whole XML"),
        (TMX.format(doctype="", units=UNIT.format(en="a", de="b")).encode().replace(b">a<", b">\xff<"), "line 3: not"),
    ],
)
def test_a_translation_memory_that_is_none_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "m.tmx"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        DATASETS["tmx"](file=str(path))


def test_multi30k_has_its_published_test_part(has_data):
    has_data("multi30k")
    splits = DATASETS["multi30k"]()
    assert len(splits.test) == 1000 and len(splits.validation) > 1000 and len(splits.train) > 28_000
    assert texts(splits.test)[0] == "A man in an orange hat starring at something."


@pytest.mark.parametrize("language", ["de", "zh"])
def test_tatoeba_holds_out_sentences_with_all_their_translations(has_data, language):
    has_data({"de": "tatoeba-deu-eng", "zh": "tatoeba-cmn-eng"}[language])
    splits = DATASETS["tatoeba"](target_language=language)
    held = set(texts(splits.test)) | set(texts(splits.validation))
    assert not held & set(texts(splits.train))
    assert max(len(lines.split("\n")) for lines in texts(splits.test, "references")) > 1
