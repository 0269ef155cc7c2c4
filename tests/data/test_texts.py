"""Sources of texts: published reviews, tables and folders of one's own."""

import csv
import json
import os
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from bigkeras.data import DATASETS, tfds
from bigkeras.data.columns import _is_code
from bigkeras.data.encoding import decoded, decoded_as
from bigkeras.data.rows import csv_rows
from bigkeras.data.source import DataError
from bigkeras.recipe import Choice, check, parse_setting
from bigkeras.recipe_data import load_splits
from bigkeras.recipes import RECIPES

text_table, text_folder = DATASETS["text_table"], DATASETS["text_folder"]
CHINESE = [
    "很快，好吃，味道足，量大",
    "送餐太慢，态度也不好，再也不来了",
    "菜味道很棒！送餐很及时！",
    "太难吃了，骑士迟到两个小时",
]
TRADITIONAL = ["很快，好吃，味道足，量大", "送餐太慢，態度也不好，再也不來了"]
FRENCH = [
    "Très bon café, à refaire !",
    "Déçu : le dîner était froid",
    "Excellent été passé ici",
    "Mauvaise qualité, évitez",
]


def everything(splits):
    """{text: class name} of all parts."""
    parts = [part for part in (splits.train, splits.validation, splits.test) if part]
    return {
        text.decode(): splits.class_names[label]
        for part in parts
        for text, label in zip(part.columns["text"], part.labels, strict=True)
    }


def table(path, text, **arguments):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return text_table(file=str(path), validation=0.2, test=0.2, **arguments)


def rows(texts, times=5, delimiter=","):
    return [f'"{text} {i}"{delimiter}{("good", "bad")[n % 2]}' for i in range(times) for n, text in enumerate(texts)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_header_and_columns_are_found(delimiter, tmp_path):
    lines = [delimiter.join(("id", "review", "stars"))]
    lines += [f'{i}{delimiter}"what a meal, number {i}; well"{delimiter}{i % 5 + 1}' for i in range(40)]
    splits = table(tmp_path / "reviews.csv", "\n".join(lines))
    assert splits.class_names == ("1", "2", "3", "4", "5")
    assert everything(splits)["what a meal, number 7; well"] == "3"
    told = f"reviews.csv: 40 texts in 'review', 5 labels in 'stars', parted by {delimiter!r}, read as utf-8"
    assert splits.found.endswith(told)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (24, 8, 8)


def test_a_table_without_a_header_has_its_columns_found(tmp_path):
    splits = table(tmp_path / "reviews.csv", "\n".join(rows(["a fine place to be", "never again, I say"])))
    assert len(everything(splits)) == 10
    assert everything(splits)["a fine place to be 0"] == "good"


def test_columns_of_unknown_names_are_found_by_what_is_in_them(tmp_path):
    lines = [
        "nr,was_gesagt_wurde,urteil",
        *(f"{i},so viel Text wie hier {i},{'ja' if i % 2 else 'nein'}" for i in range(20)),
    ]
    splits = table(tmp_path / "t.csv", "\n".join(lines))
    assert splits.class_names == ("ja", "nein")
    assert everything(splits)["so viel Text wie hier 3"] == "ja"


@pytest.mark.parametrize(
    "code", ["https://news.example.com/a-very-long-address/and-more-of-it/{}", "{}-9f8b-4c1e-aa07-5d1f_of_it"]
)
def test_links_and_identifiers_are_no_texts(code, tmp_path):
    lines = [f"{code.format(i)},storm hits town {i},{i % 2}" for i in range(20)]
    splits = table(tmp_path / "t.csv", "\n".join(["origin,headline,is_true", *lines]))
    assert everything(splits)["storm hits town 3"] == "1"
    # Where there is nothing else, they are.
    for one, other in (("spam", "ham"), ("a bad site", "a good site")):
        lines = [f"{code.format(i)},{(one, other)[i % 2]}" for i in range(20)]
        assert everything(table(tmp_path / "t.csv", "\n".join(["origin,kind", *lines])))[code.format(3)] == other


def test_many_numbers_are_no_classes_unless_they_are_said_to_be(tmp_path):
    lines = [f"so much was said {i},{i % 60}" for i in range(600)]
    content = "\n".join(["body,score", *lines])
    with pytest.raises(DataError, match=r"60 different labels in 600 rows of column 'score'.* or this one if it is$"):
        table(tmp_path / "t.csv", content)
    assert len(table(tmp_path / "t.csv", content, label="score").class_names) == 60


LONG = "so much was said here and not a word more"


@pytest.mark.parametrize(
    ("header", "row", "text", "label"),
    [
        # What pandas writes: its index has no name.
        (",kommentar,urteil", "{i},{word} {i},{kind}", "kommentar", "urteil"),
        # The SMS spam collection, as it lies around.
        ("v1,v2,,,", "{kind},{word} {i},,,", "v2", "v1"),
        ("review_id,star_rating,vine,review_body", "R{i},{kind},N,{word} {i}", "review_body", "star_rating"),
        ("verified_purchase,starRating,reviewBody", "{half},{kind},{word} {i}", "reviewBody", "starRating"),
        # Hardly any row has a gold label.
        ("airline_sentiment,sentiment_gold,text", "{kind},{gold},{word} {i}", "text", "airline_sentiment"),
        ("review_id,notes,kommentar,urteil", "R{i},,{word} {i},{kind}", "kommentar", "urteil"),
        ("是否匿名,评论内容,情感标签", "{half},{word} {i},{kind}", "评论内容", "情感标签"),
        ("是否匿名,评论时间,评价,评分", "{half},2019-01-01 12:{i}:00,很好 {i},{kind}", "评价", "评分"),
        ("Comment time,comments,verified,star", "2019年1月{i}日 晚上,so {word} {i},{half},{kind}", "comments", "star"),
        # Half of the rows have no label yet.
        ("id,comment_text,sentiment_label,lang", "{i},{word} {i},{some},l{half}", "comment_text", "sentiment_label"),
    ],
)
def test_columns_are_found_by_words_in_their_names_and_by_being_filled(header, row, text, label, tmp_path):
    # Two in `half`, three in `kind`: fewer different cells alone would be the wrong column.
    kinds = {i: f"k{i % 3}" for i in range(30)}
    cells = [
        row.format(i=i, word=LONG, kind=kind, half=i % 2, gold="k1" * (i == 3), some=kind * (i > 14))
        for i, kind in kinds.items()
    ]
    splits = table(tmp_path / "t.csv", "\n".join([header, *cells]))
    assert f" in {text!r}, 3 labels in {label!r}" in splits.found
    assert len(splits.bad) == (15 if "{some}" in row else 0)


def test_a_table_that_is_sorted_by_its_labels_has_them_found(tmp_path):
    cells = [f"so viel Text wie hier {i},{'dac'[i % 3]},{'gut' if i < 400 else 'schlecht'}" for i in range(800)]
    assert table(tmp_path / "t.csv", "\n".join(["kommentar,land,urteil", *cells])).class_names == ("gut", "schlecht")
    assert table(tmp_path / "t.csv", "\n".join(cells)).class_names == ("gut", "schlecht")


def test_the_questions_of_a_survey_are_its_header(tmp_path):
    lines = [f"{i}:00,It was {('fine', 'awful')[i % 2]} {i},{i % 5 + 1}" for i in range(20)]
    header = "Timestamp,What could we improve about our service?,How satisfied are you?"
    splits = table(tmp_path / "t.csv", "\n".join([header, *lines]))
    assert splits.class_names == ("1", "2", "3", "4", "5") and len(everything(splits)) == 20
    times = [f"2023/05/12 3:{i}:15 PM GMT+2,More parking {i},{('Yes', 'No')[i % 2]}" for i in range(20)]
    for lines in (times, [f"{i},{line.partition(',')[2]}" for i, line in enumerate(times)]):
        splits = table(tmp_path / "t.csv", "\n".join([header, *lines]))
        assert splits.class_names == ("No", "Yes") and everything(splits)["More parking 3"] == "No"


def test_qualtrics_three_headers_are_one(tmp_path):
    lines = [f"2023-05-12 03:{i}:15,True,{('More parking', 'Less noise')[i % 2]} {i},{i % 5 + 1}" for i in range(20)]
    imports = ",".join(f'"{{""ImportId"":""QID{i}""}}"' for i in range(4))
    header = ["StartDate,Finished,Q1,Q2", "Start Date,Finished,What could we improve?,How satisfied are you?", imports]
    splits = table(tmp_path / "t.csv", "\n".join([*header, *lines]))
    assert splits.class_names == ("1", "2", "3", "4", "5") and len(everything(splits)) == 20
    assert not splits.bad and [name.rpartition(":")[2] for name, _ in splits.ignored] == ["2", "3"]


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("2023/05/12 3:14:15 p. m. GMT-6", True),
        ("2023. 5. 12 오후 3:14:15", True),
        ("2019年1月1日 上午10点05分", True),
        ("Mon Apr 06 22:19:45 PDT 2009", True),
        ("12 de mayo de 2023 15:14", True),
        ("(555) 123-4567", True),
        ("DE89 3704 0044 0532 0130 00", True),
        ("1 111111111111111111111111111111x", True),
        ("1 00340434161094042557 zugestellt", False),
        ("monmonmonmonmonmonmonmonmonmon 1 2!", False),
        ("Karte 4711 881234567 EUR 23", False),
        ("12 monkeys, 5 stars", False),
    ],
)
def test_times_and_numbers_are_no_words(cell, code):
    assert _is_code(cell) is code


def test_a_column_that_only_may_hold_texts_or_labels_does_not_go_before_others(tmp_path):
    def found(header, row):
        lines = [row.format(i=i, kind=("good", "bad")[i % 2], half=i % 2, many=i % 5 + 1) for i in range(30)]
        return table(tmp_path / "t.csv", "\n".join([header, *lines])).found

    assert "texts in '评论内容', 2 labels in '情感标签'" in found(
        "评分,评论内容,情感标签", "{many},菜很好吃 {i},{kind}"
    )
    assert "texts in 'query', 2 labels in 'feedback'" in found("query,feedback", "my password {i},{kind} helpful")
    booked = "2023-01-02T18:22 Karte 4711 88123456{i}7 EUR 23"
    row = f"02.01.2023,REWE Markt {{i}},{booked},{{kind}}"
    assert "in 'Verwendungszweck', 2 labels in 'Art'" in found("Buchungstag,Wer,Verwendungszweck,Art", row)


def test_doubled_marks_behind_a_backslash_are_those_of_the_text(tmp_path):
    lines = [f'"He said \\""hi\\"" to me {i}";{("pos", "neg")[i % 2]}' for i in range(20)]
    assert 'He said \\"hi\\" to me 3' in everything(table(tmp_path / "t.csv", "\n".join(["text;label", *lines])))


def test_marks_behind_backslashes_are_told_where_no_row_breaks(tmp_path):
    for cell in (r'"He said \"hi\" to me {}"', r'"\"So,\" he said {}"'):
        lines = [f"{cell.format(i)};{('pos', 'neg')[i % 2]}" for i in range(20)]
        found = everything(table(tmp_path / "t.csv", "\n".join(["text;label", *lines])))
        assert cell[1:-1].replace("\\", "").format(3) in found


def test_the_split_column_holds_no_texts(tmp_path):
    lines = [f"字{i % 9},{'男女'[i % 2]},{('train', 'validation', 'test')[i % 3]}" for i in range(30)]
    splits = table(tmp_path / "t.csv", "\n".join(["名字,类别,split", *lines]))
    assert "字1" in everything(splits) and len(splits.validation) == 10


def test_a_table_of_labels_and_splits_has_no_texts(tmp_path):
    with pytest.raises(DataError, match="no column is left for the texts"):
        table(tmp_path / "t.csv", "label,split\na,train\nb,test\n")


def test_commas_of_sentences_part_no_table(tmp_path):
    lines = [f"{('Gut', 'Schlecht')[i % 2]}, wohl wahr {i};{('ja', 'nein')[i % 2]}" for i in range(10)]
    splits = table(tmp_path / "t.csv", "\n".join(["text;label", *lines]))
    assert "Gut, wohl wahr 0" in everything(splits)


def test_names_that_come_again_in_the_middle_of_a_table_are_still_its_header(tmp_path):
    again = "\n".join(["kommentar,urteil", *rows(["well well", "oh no"], 30), "kommentar,urteil", *rows(["so", "no"])])
    splits = table(tmp_path / "t.csv", again)
    assert "texts in 'kommentar'" in splits.found and splits.class_names == ("bad", "good")
    assert splits.bad == ((f"{tmp_path / 't.csv'}:62", "the names of the columns, once more"),)


@pytest.mark.parametrize("labels", [("y", "n"), ("class", "order")])
def test_a_label_that_is_called_like_a_column_is_no_header(labels, tmp_path):
    lines = [f"well now {i},{labels[i % 2]}" for i in range(20)]
    assert everything(table(tmp_path / "t.csv", "\n".join(lines)))["well now 0"] == labels[0]


def test_columns_that_cannot_be_told_are_asked_for(tmp_path):
    lines = ["kommentar,a,b", *(f"so viel Text wie hier {i},{'' if i % 2 else i},eins" for i in range(20))]
    with pytest.raises(DataError, match=r"which column holds the labels.*one of 'kommentar', 'a', 'b'"):
        table(tmp_path / "t.csv", "\n".join(lines), header=True)
    lines = ["text,Text,label", *(f"so {i},and so {i},{i % 2}" for i in range(20))]
    with pytest.raises(DataError, match=r"called 'text': --set data\.text=NAME takes one of 'text', 'Text'"):
        table(tmp_path / "t.csv", "\n".join(lines))
    assert everything(text_table(file=str(tmp_path / "t.csv"), text="Text"))["and so 3"] == "1"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030", "big5"])
def test_the_encoding_of_chinese_is_found(encoding, tmp_path):
    words = TRADITIONAL if encoding == "big5" else CHINESE
    splits = table(tmp_path / "t.csv", "\n".join(["review,label", *rows(words)]).encode(encoding))
    assert everything(splits)[f"{words[0]} 0"] == "good"


def test_a_column_may_be_named_by_its_number(tmp_path):
    lines = [f"{i % 2},{i % 4 // 3},so much was said {i},{('train', 'dev', 'test')[i % 3]}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    settings = dict(parse_setting(f"data.{name}={place}") for name, place in (("text", 3), ("label", 2), ("split", 4)))
    arguments = {"file": str(tmp_path / "t.csv"), **{key.removeprefix("data."): v for key, v in settings.items()}}
    check("data", Choice("text_table", arguments), DATASETS)
    splits = text_table(**arguments)
    assert everything(splits)["so much was said 7"] == "1" and len(splits.test) == 20
    arguments |= {"no_label": [0]}
    check("data", Choice("text_table", arguments), DATASETS)
    assert text_table(**arguments).class_names == ("1",)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_character_cut_in_two_spoils_its_text_alone(encoding):
    lines = [row.encode(encoding) for row in rows(CHINESE)]
    text, end, label = lines[3].partition(b'",')
    lines[3] = text[:-3] + end + label  # less " 0" and a part of the sign before
    data = b"\n".join([b"review,label", *lines])
    text, found = decoded(data, "t.csv")
    assert found == encoding and text.count("�") == 1 and text == data.decode(encoding, "replace")


def test_texts_cut_at_a_number_of_bytes_are_still_utf_8():
    cut = [("很好吃，送餐也快" * 4).encode()[: 50 + i % 3] for i in range(40)]
    assert decoded(b"\n".join(cut), "t.csv")[1] == "utf-8"


def test_the_encoding_of_french_is_found(tmp_path):
    splits = table(tmp_path / "t.csv", "\n".join(["review,label", *rows(FRENCH)]).encode("cp1252"))
    assert everything(splits)["Très bon café, à refaire ! 0"] == "good"


@pytest.mark.parametrize("encoding", ["cp1251", "utf-16-le", "utf-16-be"])
def test_the_encoding_of_russian_is_found(encoding):
    text = "Очень хороший фильм, рекомендую всем друзьям. Ужасное качество, не советую покупать.\n" * 5
    assert decoded(text.encode(encoding), "t")[0] == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1250", "Była bardzo miła obsługa, świeże jedzenie i niewygórowane ceny; polecam każdemu, kto lubi zupę"),
        (
            "cp1250",
            "Jídlo bylo dobře připravené, obsluha příjemná, ale čekali jsme příliš dlouho. Škoda",
        ),
        (
            "cp1250",
            "Nagyon finom volt az étel, kedves a kiszolgálás, de a hűtő zúgott. Jövő héten újra jövünk",
        ),
        (
            "cp1254",
            "Yemekler çok lezzetliydi, servis hızlı, fiyatlar ise biraz yüksek. Şaşırdım",
        ),
        ("cp1250", "Mâncarea a fost bună şi porţiile mari, dar aşteptarea a fost cam lungă. Vă mulţumim, ne întoarcem"),
        (
            "cp1257",
            "Maistas labai skanus, žiedai gražūs, tačiau šaltibarščių reikėjo laukti, kainų sąrašą rašė",
        ),
        (
            "cp1257",
            "Ēdiens bija ļoti garšīgs, bet gaidīšana pārāk ilga, un kāpēc tik maz vietu? Nākšu vēlreiz, ņemšu",
        ),
        ("cp1252", "Das Essen war köstlich, die Bedienung flink, nur die Plätze draußen zu eng. Für 30 m³ Saal, naja"),
        ("cp1252", "¿Qué tal la comida? Está muy rica; los niños volverán mañana. ¡Qué lástima que esté tan lejos!"),
        ("cp1252", "¿¿que tal el servicio?? hola¿que tal, ¡¿no volverán mañana?! Está muy rica"),
        ("cp1252", "A comida não é má, mas a espera foi longa demais; as porções são pequenas e não há opções"),
        ("cp1252", "Maturinn var góður og þjónustan fljót, en það var of dýrt. Við komum ekki aftur í bráð, því miður"),
        ("cp1252", "Maturin var góður, men vit bíðaðu leingi og føroyska ølið var ov dýrt"),
        ("cp1252", "Maden var fin, men vi måtte vente længe på øllet. Den tøse-bløde bøf fik vi først efter en time"),
    ],
)
def test_the_encodings_of_europe_are_told_apart(encoding, text):
    assert decoded(f"{text}\n".encode(encoding) * 5, "t.csv") == (f"{text}\n" * 5, encoding)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp874", "อาหารอร่อยมาก บริการดี ราคาไม่แพง แต่รอนานไปหน่อย จะกลับมาอีกแน่นอน"),
        ("cp1255", "האוכל היה טעים מאוד אבל חיכינו הרבה זמן"),
        ("cp1251", "Еда была вкусной, но пришлось долго ждать."),
        ("cp1251", "Храната беше вкусна, но чакахме дълго."),
        ("koi8_r", "Еда была вкусной, но пришлось долго ждать."),
        ("cp1253", "Το φαγητό ήταν πολύ νόστιμο αλλά περιμέναμε πολύ."),
        ("cp1253", "το φαγητο ηταν πολυ νοστιμο αλλα περιμεναμε πολυ"),
        ("cp1256", "كان الطعام لذيذا جدا ولكن انتظرنا طويلا"),
        ("cp949", "음식은 맛있었지만 오래 기다렸어요."),
        ("big5", "食物很好吃，但是等了很久。"),
    ],
)
def test_the_encodings_of_other_scripts_are_told_apart(encoding, text):
    assert decoded(f"{text}\n".encode(encoding) * 5, "t.csv") == (f"{text}\n" * 5, encoding)


def test_a_zero_byte_is_no_half_of_a_character_and_kana_are_japanese():
    assert decoded(b"one\0dog\n", "t") == ("one\0dog\n", "utf-8")
    text = "山田　太郎,good\r\n鈴木　花子,bad\r\n" * 9
    assert decoded(text.encode("utf-16-le"), "t") == (text, "utf-16-le")
    text = "バニラアイス,チョコレート\nおいしかったです。また来ます。\n" * 5
    assert decoded(text.encode("cp932"), "t") == (text, "cp932")


def test_broken_rows_among_those_of_utf_8_spoil_no_others():
    whole = "\n".join(f"Très bon café {i},good" for i in range(180))
    text, found = decoded(f"{whole}\n".encode() + "déçu,bad\n".encode("cp1252") * 20, "t.csv")
    assert found == "utf-8" and text.startswith(whole) and text.count("d��u") == 20
    marks = "what � is, good\n" * 9  # these are no broken bytes
    assert decoded(marks.encode() + b"caf\xe9,bad\n", "t.csv") == (f"{marks}caf�,bad\n", "utf-8")


def test_a_mark_inside_a_table_and_signs_that_nobody_sees_make_no_class(tmp_path):
    one = "\ufefftext,label\r\n" + "".join(f"so NAME {i},Cafe\u0301\r\nand NAME {i},bad\r\n" for i in range(10))
    both = one.replace("NAME", "a") + one.replace("NAME", "b") + "and c,bad\u200b\r\nso c,Café\r\nnone,\u200b\r\n"
    splits = table(tmp_path / "t.csv", both)
    assert splits.class_names == ("Café", "bad") and len(everything(splits)) == 42
    again = "the names of the columns, once more"
    assert sorted(splits.bad) == [(f"{tmp_path / 't.csv'}:{n}", why) for n, why in ((22, again), (45, "no label ('')"))]
    words = ("بی\u200cطرف", "بیطرف")  # which are two
    joined = [f"so {i},{words[i % 2]}" for i in range(20)]
    assert len(table(tmp_path / "t.csv", "\n".join(["text,label", *joined])).class_names) == 2


@pytest.mark.parametrize("quoted", ["alone", "late", "all but one"])
def test_quotes_of_a_tsv_are_told_from_the_whole_of_it(quoted, tmp_path):
    lines = [f"so much {i}\t{('pos', 'neg')[i % 2]}" for i in range(400)]
    if quoted == "alone":
        lines[5] = '"Yes"\tpos'
        lines[300:330] = [f'"Oh no {i}, he said\tneg' for i in range(30)]
        assert everything(table(tmp_path / "t.tsv", "\n".join(lines)))['"Oh no 7, he said'] == "neg"
    elif quoted == "all but one":
        lines = [f'"so much {i}"\t"{("pos", "neg")[i % 2]}"' for i in range(400)]
        lines[300] = '"It broke\t"neg"'
        splits = table(tmp_path / "t.tsv", "\n".join(lines))
        assert splits.class_names == ("neg", "pos") and len(splits.bad) == 1
    else:
        lines[300:310] = [f'"one {i}\nand two"\tneg' for i in range(10)]
        assert everything(table(tmp_path / "t.tsv", "\n".join(lines)))["one 7\nand two"] == "neg"


def test_cells_that_excel_leaves_out_at_the_ends_of_rows_are_empty(tmp_path):
    lines = [f"so {i},{('pos', 'neg')[i % 2]}" + (",a remark" if i % 3 == 0 else "") for i in range(40)]
    splits = table(tmp_path / "t.csv", "\n".join(["review,stars,remark", *lines, "lonely", "no, label"]))
    assert len(everything(splits)) == 40 and splits.class_names == ("neg", "pos")
    assert [why for _, why in splits.bad] == ["1 cells where there are 3 columns", "2 cells where there are 3 columns"]
    # Sorted by label, of which one has no remark at all.
    lines = [*(f"so {i},pos,a remark" for i in range(20)), *(f"no {i},neg" for i in range(20))]
    splits = table(tmp_path / "t.csv", "\n".join(["review,stars,remark", *lines]))
    assert splits.class_names == ("neg", "pos") and not splits.bad


def test_several_labels_of_a_row_are_no_class(tmp_path):
    rows = [{"text": f"so {i}", "label": [["good"], ["bad"]][i % 2]} for i in range(20)]
    rows += [{"text": "both", "label": ["good", "bad"]}, {"text": "none", "label": {"good": 1}}]
    splits = table(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    assert splits.class_names == ("bad", "good")
    assert [why.partition(":")[0] for _, why in splits.bad] == ["several labels, or none that is a word"] * 2


def test_labels_that_differ_in_capitals_alone_are_told(tmp_path):
    lines = [f"so {i},{('Positive', 'positive', 'negative')[i % 3]}" for i in range(30)]
    splits = table(tmp_path / "t.csv", "\n".join(["text,label", *lines]))
    assert "'Positive' and 'positive' are two classes: write them alike if they are one" in splits.found


def test_the_first_row_of_many_classes_without_names_names_no_columns(tmp_path):
    lines = [f"what about {i},class {i % 500}" for i in range(1500)]
    lines[0], lines[500], lines[1000] = "what is my balance,balance", "and this,balance", "then,class 0"
    splits = table(tmp_path / "t.csv", "\n".join(lines))
    assert len(everything(splits)) == 1500


@pytest.mark.parametrize("value", [{"text": ["a", "b"] * 9, "label": ["x", "y"] * 9}])
def test_an_object_of_columns_is_told_shortly(value, tmp_path):
    for name in ("t.json", "t.jsonl"):
        with pytest.raises(DataError, match="one JSON object; JSON lines are read") as told:
            table(tmp_path / name, json.dumps(value))
        assert len(str(told.value)) < 300


def test_an_array_of_json_is_no_plain_text_either(tmp_path):
    """That JSON lines are read of tables is no advice here: they would be refused, too."""
    (tmp_path / "t.json").write_text('[{"text": "a"}]')
    with pytest.raises(DataError, match=r"t\.json: a table, whose labels would be learned, too"):
        DATASETS["plain_text"](file=str(tmp_path / "t.json"))
    (tmp_path / "t.json").write_text(" ")
    with pytest.raises(DataError, match="no text in it"):
        DATASETS["plain_text"](file=str(tmp_path / "t.json"))


def test_a_pipe_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"t\.csv: a pipe, which can be read only once: save what it gives"):
        load_splits(RECIPES["text-csv"].override(**{"data.file": str(tmp_path / "t.csv")}))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.txt"])
def test_a_table_is_no_plain_text(name, tmp_path):
    text = '{"text": "so", "label": "good"}\n' * 3
    (tmp_path / name).write_text("text,label\nso,good\n" if name == "t.csv" else text)
    with pytest.raises(DataError, match="a table, whose labels would be learned, too"):
        DATASETS["plain_text"](file=str(tmp_path / name))


def test_labels_differ_in_nothing_that_is_not_seen(tmp_path):
    lines = [f"fine {i},good\0\0" for i in range(8)] + [f"so {i},bad\x1a" for i in range(8)]
    lines += [f"well {i},good" for i in range(4)] + [f"unlabelled {i},\0\0\0" for i in range(2)]
    splits = table(tmp_path / "t.csv", "\n".join(["text,label", *lines]))
    assert splits.class_names == ("bad", "good") and len(everything(splits)) == 20


def test_json_lines_however_deep_are_rows_or_bad_ones(tmp_path):
    deep = "[" * 900 + '"x"' + "]" * 900
    lines = [json.dumps({"text": f"so {i}", "label": [["good", "bad"][i % 2]]}) for i in range(20)]
    lines += [f'{{"text": "deep", "label": {deep}}}', '{"text": "none", "label": [[]]}']
    found = everything(table(tmp_path / "t.jsonl", "\n".join(lines)))
    assert set(found.values()) - {"x"} == {"good", "bad"} and "none" not in found


def test_a_first_row_with_a_number_for_a_label_names_no_columns(tmp_path):
    lines = [
        "good phone,7",
        "bad phone,2",
        "nice phone,2",
        "broken,3",
        "fine,3",
        *(f"so {i},{i % 3}" for i in range(9)),
    ]
    assert everything(table(tmp_path / "t.csv", "\n".join(lines)))["good phone"] == "7"


def test_an_encoding_that_is_said_is_taken_or_refused_with_the_line(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"review,label\nfine,1\nbro\xffken,0\n")
    with pytest.raises(DataError, match=r"t\.csv, line 3: not utf-8 text"):
        text_table(file=str(tmp_path / "t.csv"), encoding="utf-8")
    for encoding, message in (("klingon", "encoding='klingon': no such encoding"), ("a\0b", "embedded null")):
        with pytest.raises(DataError, match=message):
            text_table(file=str(tmp_path / "t.csv"), encoding=encoding)


def test_json_lines_are_rows(tmp_path):
    values = [{"review": f"text\n{i}", "stars": i % 2} for i in range(20)]
    lines = [*map(json.dumps, values), "{broken", "[1]", "", json.dumps({"review": "no label"})]
    splits = table(tmp_path / "t.jsonl", "\n".join(lines))
    assert everything(splits)["text\n3"] == "1"
    assert [why.partition(":")[0] for _, why in splits.bad] == ["not JSON", "not a JSON object", "no label ('')"]


def test_a_list_of_one_label_is_that_label_and_an_empty_one_is_none(tmp_path):
    values = [{"text": f"text {i}", "label": [["good"], ["bad"], [], {}][i % 4]} for i in range(40)]
    splits = table(tmp_path / "t.jsonl", "\n".join(map(json.dumps, values)))
    assert splits.class_names == ("bad", "good") and len(splits.bad) == 20


def test_one_object_of_json_is_told_with_what_is_read(tmp_path):
    columns = {"text": {str(i): f"text {i}" for i in range(9)}, "label": {str(i): i % 2 for i in range(9)}}
    for content in (
        json.dumps(columns),
        json.dumps(columns, indent=2),
        json.dumps({"text": "a", "label": 1}, indent=1),
    ):
        with pytest.raises(DataError, match=r"one JSON object; JSON lines are read.*lines=True"):
            table(tmp_path / "t.json", content)


def test_a_column_called_split_may_tell_something_else(tmp_path):
    lines = [f"text number {i},{('good', 'bad')[i % 2]},{i % 5}" for i in range(40)]
    content = "\n".join(["text,label,split", *lines])
    with pytest.raises(DataError, match=r"split '0' is not one of.*--set data.split=null"):
        table(tmp_path / "t.csv", content)
    assert len(everything(table(tmp_path / "t.csv", content, split=None))) == 40


def test_bad_rows_are_left_out_and_listed_with_their_lines(tmp_path):
    bad = ["too,many,cells", ",good", "   ,bad", "no label,", "not one,NaN", "lonely"]
    splits = table(tmp_path / "t.csv", "\n".join(["review,label", *bad, *rows(["well well", "oh no"])]))
    assert len(everything(splits)) == 10
    assert [(name.rpartition(":")[2], why) for name, why in splits.bad] == [
        ("2", "3 cells where there are 2 columns"),
        ("3", "an empty text"),
        ("4", "an empty text"),
        ("5", "no label ('')"),
        ("6", "no label ('NaN')"),
        ("7", "1 cells where there are 2 columns"),
    ]


def test_what_is_no_label_may_be_said(tmp_path):
    lines = [f"text {i},{('none', 'against')[i % 2]}" for i in range(20)]
    content = "\n".join(["review,label", *lines])
    assert table(tmp_path / "t.csv", content).bad[0][1] == "no label ('none'); if it is a class: --set data.no_label=[]"
    assert table(tmp_path / "t.csv", content, no_label=[]).class_names == ("against", "none")
    assert table(tmp_path / "t.csv", content + "\n?,?", no_label=["?"]).class_names == ("against", "none")


def test_a_column_of_splits_is_found_in_any_case_and_is_no_label(tmp_path):
    # More verdicts than splits: the splits, of fewer values, were taken for labels.
    parts = ["train"] * 12 + ["test"] * 4
    lines = [f"a text of some length {i},{('gut', 'mittel', 'schlecht', 'egal')[i % 4]}" for i in range(16)]
    content = "\n".join(["text,urteil,Split", *(f"{line},{part}" for line, part in zip(lines, parts, strict=True))])
    splits = table(tmp_path / "t.csv", content)
    assert splits.class_names == ("egal", "gut", "mittel", "schlecht")
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (12, 4)
    with pytest.raises(DataError, match=r"t.csv: no column 'fold' among 'text', 'urteil', 'Split': --set data.split="):
        table(tmp_path / "t.csv", content, split="fold")


def test_equal_numbers_are_one_class_however_they_are_written(tmp_path):
    labels = ["1", "1.0", "2", "1", "10"] * 4
    splits = table(tmp_path / "t.csv", "\n".join(["review,label", *(f"text {i},{n}" for i, n in enumerate(labels))]))
    assert splits.class_names == ("1", "2", "10")


def test_numbers_with_a_point_or_a_zero_before_them_are_classes_of_their_own(tmp_path):
    labels = ["1.1", "1.10", "007", "7"] * 4
    splits = table(tmp_path / "t.csv", "\n".join(["review,label", *(f"text {i},{n}" for i, n in enumerate(labels))]))
    assert sorted(splits.class_names) == ["007", "1.1", "1.10", "7"]


def test_equal_texts_stand_in_one_split(tmp_path):
    lines = [f"Very  good {i % 20}," + ("good", "bad")[i % 2] for i in range(60)]
    splits = table(tmp_path / "t.csv", "\n".join(["review,label", *lines, *(line.lower() for line in lines)]))
    folder = tmp_path / "folder"
    for i, line in enumerate(lines):
        (folder / line.split(",")[1]).mkdir(parents=True, exist_ok=True)
        (folder / line.split(",")[1] / f"{i}.txt").write_text(line.split(",")[0])
    for found in (splits, text_folder(directory=str(folder), validation=0.2, test=0.2)):
        parts = [{" ".join(text.decode().lower().split()) for text in part.columns["text"]} for part in parts_of(found)]
        assert all(parts) and not parts[0] & parts[1] and not parts[1] & parts[2] and not parts[0] & parts[2]
    assert sum(map(len, parts_of(splits))) == 120


def test_a_text_that_stands_in_a_part_that_is_said_is_not_learned_where_nothing_is_said_of_it(tmp_path):
    lines = [f"text {i},{('good', 'bad')[i % 2]},{'test' if i < 10 else ''}" for i in range(40)]
    again = ["Text  3,bad,", "text 4,good,train"]
    splits = table(tmp_path / "t.csv", "\n".join(["review,label,split", *lines, *again]))
    assert [(name.rpartition(":")[2], why) for name, why in splits.ignored] == [
        ("42", "the same stands in the test part")
    ]
    assert "; 1 left out that are no examples, the first " in splits.found
    learned = [text for part in parts_of(splits)[:2] for text in part.columns["text"] if part]
    assert b"Text  3" not in learned and b"text 4" in learned and len(splits.test) == 10


def test_a_class_of_equal_texts_stays_one_to_train_on(tmp_path):
    lines = [f"text {i},good" for i in range(40)] + ["as ever,bad"] * 6 + ["text 1,rare"] * 2
    for seed in range(4):
        splits = table(tmp_path / "t.csv", "\n".join(["review,label", *lines]), seed=seed)
        assert set(splits.train.labels) == {0, 1, 2}
        held_out = [text for part in (splits.validation, splits.test) for text in part.columns["text"]]
        assert not set(held_out) & set(splits.train.columns["text"])


def parts_of(splits):
    return splits.train, splits.validation, splits.test


def test_nan_may_be_a_class_among_numbers(tmp_path):
    lines = [f"text {i},{('1', 'nan', '0')[i % 3]}" for i in range(30)]
    assert table(tmp_path / "t.csv", "\n".join(["review,label", *lines]), no_label=[]).class_names == ("0", "1", "nan")


def test_a_quotation_mark_in_a_tsv_is_a_character(tmp_path):
    lines = ["text\tlabel", '"unclosed, he said\tgood', *(f'say "{i}"\t{("good", "bad")[i % 2]}' for i in range(10))]
    splits = table(tmp_path / "t.tsv", "\n".join(lines))
    assert everything(splits)['"unclosed, he said'] == "good"
    assert len(everything(splits)) == 11


@pytest.mark.parametrize("cell", ["two\nlines {i}", "a\ttab {i}", 'a\n""quoted""\n\nword {i}'])
@pytest.mark.parametrize("order", [("text", "label"), ("label", "text"), ("id", "text", "label")])
def test_a_tsv_whose_quoted_cells_have_several_lines_is_read_whole(order, cell, tmp_path):
    lines = ["\t".join(order)]
    for i in range(20):
        text = f'"{cell.format(i=i)}"' if i % 3 else f"plain {i}"
        lines.append("\t".join({"text": text, "label": ("good", "bad")[i % 2], "id": f"{i}"}[name] for name in order))
    splits = table(tmp_path / "t.tsv", "\n".join(lines) + "\n")
    wanted = cell.format(i=7).replace('""', '"')
    assert everything(splits)[wanted] == "bad" and len(everything(splits)) == 20 and not splits.bad


def test_a_tsv_that_lacks_cells_and_begins_some_with_words_in_quotes_has_none(tmp_path):
    lines = ["text\tlabel", "no label", *(f'"Great" number {i}\t{("good", "bad")[i % 2]}' for i in range(10))]
    assert everything(table(tmp_path / "t.tsv", "\n".join(lines)))['"Great" number 3'] == "bad"


def test_cells_with_line_breaks_nul_and_a_megabyte_are_texts(tmp_path):
    odd = ["two\nlines", "a\0zero", "x" * 2**20, "😀 e\u0301", "مرحبا"]
    lines = ["review,label", *(f'"{text}",{n % 2}' for n, text in enumerate(odd)), *rows(["fill", "more"])]
    lines = [line.replace(",good", ",1").replace(",bad", ",0") for line in lines]
    splits = table(tmp_path / "t.csv", "\n".join(lines))
    assert set(odd) <= set(everything(splits))
    assert not splits.bad


def test_a_quotation_mark_that_is_never_closed_costs_its_line_alone(tmp_path):
    lines = ["review,label", *rows(["well well", "oh no"]), '"open,good', *(f"so {i},good" for i in range(10))]
    splits = table(tmp_path / "t.csv", "\n".join(lines))
    assert len(everything(splits)) == 20
    assert [(name.rpartition(":")[2], why) for name, why in splits.bad] == [
        ("12", "a quotation mark that is never closed")
    ]


@pytest.mark.parametrize("between", [1, 30])
def test_two_marks_that_quote_nothing_cost_their_lines_and_no_row_between(between, tmp_path):
    lines = ["review,label", *rows(["well well", "oh no"]), '"Best film ever,good']
    lines += ["", *(f"so {i},bad" for i in range(between)), '"Worst film,bad', "fine,good"]
    splits = table(tmp_path / "t.csv", "\n".join(lines))
    assert len(everything(splits)) == 10 + between + 1 and len(splits.bad) == 2
    assert everything(splits)["so 0"] == "bad" and everything(splits)["fine"] == "good"


@pytest.mark.parametrize("following", ['"Nice, really",good', '"Nice, really, and ""long""",good'])
def test_a_mark_that_quotes_nothing_before_a_cell_with_delimiters_costs_its_line_alone(following, tmp_path):
    lines = ["review,label", *rows(["well well", "oh no"]), '"Best film,good', *(f"so {i},bad" for i in range(5))]
    splits = table(tmp_path / "t.csv", "\n".join([*lines, following, '"two\nlines, yes",bad', "fine,good"]))
    assert len(splits.bad) == 1 and len(everything(splits)) == 18
    assert everything(splits)["so 0"] == "bad" and everything(splits)["two\nlines, yes"] == "bad"
    assert everything(splits)[next(csv.reader([following]))[0]] == "good"


def test_quotation_marks_behind_a_space_quote_where_most_rows_have_them(tmp_path):
    lines = ['"review", "label"', *(f'"well, {i}", "{("good", "bad")[i % 2]}"' for i in range(20))]
    assert everything(table(tmp_path / "t.csv", "\n".join(lines)))["well, 3"] == "bad"
    lines = [*rows(["well well", "oh no"]), 'so, "good"', '"so, ""so"" it is",good']
    assert everything(table(tmp_path / "u.csv", "\n".join(["review,label", *lines])))['so, "so" it is'] == "good"


def test_marks_behind_a_backslash_are_characters_where_rows_are_whole_so(tmp_path):
    lines = [f'"Great \\"food\\", loved it {i}",{("pos", "neg")[i % 2]}' for i in range(9)]
    splits = table(tmp_path / "t.csv", "\n".join(["review,label", *lines, '"C:\\\\dir, new",neg', "plain,pos"]))
    assert everything(splits)['Great "food", loved it 3'] == "neg" and len(everything(splits)) == 11 and not splits.bad
    lines = [f'"a path, C:\\",{("pos", "neg")[i % 2]}' if i % 2 else f'"so ""{i}""",pos' for i in range(20)]
    assert everything(table(tmp_path / "u.csv", "\n".join(["review,label", *lines])))['so "4"'] == "pos"


def test_backslashes_that_escape_no_mark_stay(tmp_path):
    lines = [f'"Great \\"food\\", loved it {i}",{("pos", "neg")[i % 2]}' for i in range(9)]
    lines += ["shrug \\_(so)_/,neg", '"C:\\new, old",pos', "parted\\, so,neg", "and more,pos"]
    found = everything(table(tmp_path / "t.csv", "\n".join(["review,label", *lines])))
    assert {"shrug \\_(so)_/", "C:\\new, old", "parted, so", "and more"} < set(found)


def test_a_cell_of_a_tsv_with_marks_inside_is_not_quoted(tmp_path):
    lines = ["review\tlabel", '"Must see", they said, and I say "yes"\tgood', "dull\tbad", "fine\tgood", "sad\tbad"]
    assert '"Must see", they said, and I say "yes"' in everything(table(tmp_path / "t.tsv", "\n".join(lines)))


@pytest.mark.parametrize("end", ['Really good." ', 'he said "wow" and left"'])
def test_cells_of_several_lines_that_are_closed_carelessly_stay_whole(end, tmp_path):
    lines = [f'{("pos", "neg")[i % 2]},"Good, {i}.\n{end}' for i in range(30)]
    splits = table(tmp_path / "t.csv", "\n".join(["label,review", *lines]))
    assert len(everything(splits)) == 30 and not splits.bad


def test_a_table_of_marks_that_are_never_closed_is_refused_not_cut(tmp_path):
    lines = ["review,label", *rows(["well well", "oh no"]), *(f'{i}" long,"open' for i in range(21)), "fine,good"]
    with pytest.raises(
        DataError, match=r"t\.csv, line 32: 20 quotation marks before this one are never closed"
    ) as told:
        table(tmp_path / "t.csv", "\n".join(lines))
    assert "\n" not in str(told.value)
    splits = table(tmp_path / "t.csv", "\n".join([*lines[:-2], lines[-1]]))
    assert len(splits.bad) == 20 and everything(splits)["fine"] == "good"


@pytest.mark.parametrize("delimiter", [" ", "e", "\x1c"])
def test_a_table_ends_where_it_ends_whatever_parts_its_columns(delimiter, tmp_path):
    lines, cells, bad, _ = csv_rows(tmp_path / "t.csv", f"a{delimiter}b\nc{delimiter}d\n", delimiter)
    assert (lines, cells, bad) == ([1, 2], [["a", "b"], ["c", "d"]], [])


def test_half_a_character_of_an_encoding_that_is_said_is_replaced():
    text, _ = decoded("so \ud800 and 😀".encode("utf-7", "surrogatepass"), "t.tsv", "utf-7")
    assert text == "so � and 😀"


@pytest.mark.parametrize("encoding", ["UTF_8", "utf-8", "utf-16-le", "utf-16", "gb18030"])
def test_an_encoding_that_is_said_takes_the_mark_away(encoding):
    assert decoded("\ufeffreview".encode(encoding), "t.csv", encoding) == ("review", encoding)


@pytest.mark.parametrize("name", ["t.json", "t.txt"])
def test_json_lines_are_known_by_their_first_line_too(name, tmp_path):
    lines = [json.dumps({"text": f"a, {i}", "label": i % 2}) for i in range(20)]
    assert everything(table(tmp_path / name, "\n".join(lines)))["a, 3"] == "1"


def test_half_a_character_in_json_is_a_question_mark(tmp_path):
    lines = [f'{{"text": "\\ud83d {i}", "label": "\\ud83d{i % 2}"}}' for i in range(20)]
    splits = table(tmp_path / "t.jsonl", "\n".join(lines))
    assert splits.class_names == ("?0", "?1")
    assert everything(splits)["? 3"] == "?1"


def test_excels_first_line_and_a_delimiter_too_many_are_no_trouble(tmp_path):
    lines = ["sep=;", "review;label", *(f"so, {i};{i % 2};" for i in range(10))]
    splits = table(tmp_path / "t.csv", "\r\n".join(lines))
    assert everything(splits)["so, 3"] == "1"
    assert (splits.train.name(0).rpartition(":")[2], splits.bad) == ("3", ())


def test_a_label_of_two_lines_is_one_line(tmp_path):
    splits = table(tmp_path / "a.csv", "text,label\n" + 'good,"very\n good"\nbad,poor\n' * 10)
    assert splits.class_names == ("poor", "very good")


def test_broken_bytes_in_utf_8_cost_nothing(tmp_path):
    text = "\n".join(
        ["review,label", *rows(["schön war es überall", "größer hätte es nicht sein dürfen"], 40)]
    ).encode()
    splits = table(tmp_path / "t.csv", text.replace(b"sch", b"sch\xff", 1))
    assert "sch\ufffdön war es überall 0" in everything(splits)
    assert "schön war es überall 1" in everything(splits)


def test_a_split_column_is_heeded(tmp_path):
    lines = ["text,label,split"]
    lines += [f"some text {i},{i % 2},{('train', 'train', 'dev', 'test')[i // 2 % 4]}" for i in range(40)]
    splits = table(tmp_path / "t.csv", "\n".join(lines))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 10, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("review,label\n", r"no rows below the first line, 'review', 'label'"),
        ("review,review\na,1\nb,0", "line 1: two columns are called 'review'"),
        ("review,label\na,nan\nb,", r"no row that can be used.*2 rows were left out, the first .*t\.csv:2: no label"),
        ("review\na\nb", "one column"),
        ("My reviews\na,x\nb,x\nc,y\nd,y", "line 1 has one cell, 'My reviews', and 4 rows below 2"),
        (b"PK\x03\x04" + bytes(9), "a zip archive, such as an Excel sheet, no text"),
        ("review,label\nreview,label\n", r"no rows below the first line, 'review', 'label'"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_clear_line(text, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        table(tmp_path / "t.csv", text)
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    (tmp_path / "t.csv").write_text("review,label\na,1\nb,0")
    with pytest.raises(DataError, match="no column 'body' among 'review', 'label'"):
        text_table(file=str(tmp_path / "t.csv"), text="body")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        text_table(file=str(tmp_path / "gone.csv"))


@pytest.mark.parametrize("asked", [{"delimiter": ";"}, {"header": False}])
def test_what_json_lines_do_not_have_is_refused(asked, tmp_path):
    with pytest.raises(DataError, match=f"JSON lines have no delimiter.*data.{next(iter(asked))}=null"):
        table(tmp_path / "t.jsonl", json.dumps({"text": "a", "label": 1}), **asked)


def test_objects_of_which_each_has_names_of_its_own_are_no_table(tmp_path):
    lines = [json.dumps({"text": "a", "label": "b", f"id_{i}": 1}) for i in range(2000)]
    with pytest.raises(DataError, match=r"more than 1,000 different names, such as 'id_\d+' in line"):
        table(tmp_path / "t.jsonl", "\n".join(lines))


def test_an_array_of_json_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"one JSON array; JSON lines are read.*jq -c"):
        table(tmp_path / "t.json", json.dumps([{"text": "a", "label": 1}]))


def test_packed_files_are_no_plain_texts(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\x1f\x8b\x08 no text")
    for name in ("b.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    with pytest.raises(DataError, match=r"a\.txt: is compressed by gzip, no text: a text file, a text in every line"):
        DATASETS["plain_text"](file=str(tmp_path / "a.txt"))
    splits = DATASETS["plain_text"](file=str(tmp_path), validation=0.0)
    assert len(splits.train) == 2 and splits.bad[0][1].startswith("is compressed by gzip, no text")


def test_texts_as_labels_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("\n".join(f"text {i},other {i}" for i in range(50)))
    with pytest.raises(DataError, match="50 different labels in 50 rows"):
        text_table(file=str(tmp_path / "t.csv"), header=False, text="1")
    said = {"data.file": str(tmp_path / "t.csv"), "data.header": False, "data.text": "1", "data.label": "2"}
    with pytest.raises(DataError, match="every example has a class of its own"):
        load_splits(RECIPES["text-csv"].override(**said))
    # A model of so many classes may be scored on one example each.
    splits = text_table(file=said["data.file"], like=("1", "2"), header=False)
    assert len(splits.class_names) == 50


def test_titles_above_the_names_of_columns_are_left_out(tmp_path):
    table_rows = rows(("what a meal", "never again"))
    for title in ("Customer reviews 2023,,\n", "Customer reviews 2023\n\n", "Reviews,,\n,,June 2023\n"):
        text = (
            title + "review,label,date\n" + "\n".join(f"{row},2023-01-0{i % 9 + 1}" for i, row in enumerate(table_rows))
        )
        splits = table(tmp_path / "t.csv", text)
        assert splits.class_names == ("bad", "good") and splits.columns == ("review", "label")
        assert "a title above the names" in splits.ignored[0][1]
    # One cell of a table without names is an example without a label, and no title.
    splits = table(tmp_path / "t.csv", "\n".join([",", *table_rows]))
    assert not splits.ignored and splits.class_names == ("bad", "good")


def test_names_of_columns_are_no_titles(tmp_path):
    body = "\n".join(rows(("what a meal", "never again")))
    (tmp_path / "t.csv").write_text(f"review,\n{body}")
    splits = text_table(file=str(tmp_path / "t.csv"), text="review")
    assert splits.class_names == ("bad", "good") and not splits.ignored
    # Of a small table without names the first label may never come again.
    splits = table(tmp_path / "t.csv", f"not labelled,\nso so,fine\n{body}")
    assert not splits.ignored


def test_a_class_with_one_example_is_told(tmp_path):
    text = "\n".join(["text,label", "Open-Ended Response,Response", *rows(("what a meal", "never again"), times=12)])
    assert f"class 'Response' has a single example, {tmp_path / 't.csv'}:2" in table(tmp_path / "t.csv", text).found


def test_a_text_that_is_most_of_a_table_is_learned_and_parts_no_split(tmp_path):
    lines = [f"answer {i},{('yes', 'no')[i % 2]}" for i in range(100)] + ["nothing,no"] * 100
    for seed in range(8):
        splits = table(tmp_path / "t.csv", "\n".join(["text,label", *lines]), seed=seed)
        assert sum(text == b"nothing" for text in splits.train.columns["text"]) == 100
        assert len(splits.test) > 10


@pytest.mark.parametrize(
    ("one", "other"),
    [("رائع", "رائع\u200f"), ("I ❤ it", "I ❤\ufe0f it"), ("a<br />b", "a b"), ("１２", "12"), ("a\x07b", "a b")],
)
def test_texts_that_a_model_cannot_tell_apart_stand_in_one_part(one, other, tmp_path):
    for seed in range(6):
        lines = [f'{{"text": "other {i}", "label": {i % 2}}}' for i in range(20)]
        lines += [json.dumps({"text": text, "label": 1}) for text in (one, other)]
        splits = table(tmp_path / "t.jsonl", "\n".join(lines), seed=seed)
        parts = (splits.train, splits.validation, splits.test)
        assert sorted(sum("other" not in t.decode() for t in part.columns["text"]) for part in parts) == [0, 0, 2]


def test_what_excel_and_mysql_write_for_nothing_is_no_label(tmp_path):
    lines = rows(("what a meal", "never again"))
    for nothing in ("#N/A", "#VALUE!", r"\N"):
        splits = table(tmp_path / "t.csv", "\n".join(["text,label", *lines, f"so so,{nothing}"]))
        assert splits.class_names == ("bad", "good") and len(splits.bad) == 1


def test_every_text_may_be_frequent(tmp_path):
    lines = [f"answer {i % 30},{('yes', 'no')[i % 2]}" for i in range(2000)]
    splits = table(tmp_path / "t.csv", "\n".join(["text,label", *lines]))
    assert len(splits.validation) > 200 and len(splits.test) > 200


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("review,stars\nnice place,5,2020\nbad one,1,2021\n", "no row has the 2 cells"),
        ("text,label\nGreat food, loved it,pos\nBad food, hated it,neg\n", "no row has the 2 cells"),
    ],
)
def test_cells_without_a_name_are_no_numbers_of_rows(content, told, tmp_path):
    with pytest.raises(DataError, match=told):
        table(tmp_path / "t.csv", content)


def test_a_delimiter_at_the_end_of_rows_is_no_column_beside_numbers(tmp_path):
    body = "\n".join(f"{i},{row}," for i, row in enumerate(rows(("what a meal", "never again"))))
    splits = table(tmp_path / "t.csv", f"id,text,label\n{body}")
    assert splits.columns == ("text", "label") and splits.class_names == ("bad", "good")


def test_remarks_behind_the_last_name_keep_their_rows(tmp_path):
    body = "\n".join(
        row + (",a remark" if i == 3 else "") for i, row in enumerate(rows(("what a meal", "never again")))
    )
    splits = table(tmp_path / "t.csv", f"text,label,\n{body}")
    assert not splits.bad and splits.class_names == ("bad", "good")


def test_numbers_of_rows_without_a_name_are_a_column(tmp_path):
    body = "\n".join(
        f'"{i}"\t"{text}"\t"{label}"' for i, (text, label) in enumerate([("what a meal", "pos"), ("no", "neg")] * 6)
    )
    splits = table(tmp_path / "t.tsv", f'"text"\t"label"\n{body}')
    assert splits.class_names == ("neg", "pos") and splits.columns == ("text", "label")
    body = "\n".join(rows(("what a meal", "never again")))
    assert table(tmp_path / "t.csv", f"text,label,\n{body}").class_names == ("bad", "good")


def test_quotation_marks_are_found_where_lines_end_as_on_old_macs(tmp_path):
    lines = [f'"So, {text} {i}"\t{label}' for i, (text, label) in enumerate([("fine", "pos"), ("bad", "neg")] * 6)]
    splits = table(tmp_path / "t.tsv", "\r".join(["text\tlabel", *lines]))
    assert not any(b'"' in text for text in splits.train.columns["text"])


def test_a_folder_has_a_text_in_every_file(tmp_path):
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.txt").write_text(f"{name} text {i}")
    (tmp_path / "good" / "empty.txt").write_text(" \n")
    (tmp_path / "good" / "photo.jpg").touch()
    (tmp_path / "bad" / "gb.txt").write_bytes("很好吃，送餐也快".encode("gb18030"))
    (tmp_path / "bad" / "long.txt").write_bytes("\n".join(CHINESE).encode("gb18030"))
    splits = text_folder(directory=str(tmp_path))
    assert len(everything(splits)) == 22
    assert everything(splits)["很好吃，送餐也快"] == "bad"
    assert [why for _, why in splits.bad] == ["an empty text"]
    assert [why for _, why in splits.ignored] == ["not a text, by its name"]


def test_a_broken_byte_costs_no_file_of_a_folder(tmp_path):
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / f"{i}.txt").write_text("\n".join(CHINESE) * 5 + str(i))
        (tmp_path / name / "cut.txt").write_bytes(("".join(CHINESE) * 20).encode()[:-1])
    assert not text_folder(directory=str(tmp_path)).bad
    with pytest.raises(DataError, match=r"noise\.txt: neither UTF-8 nor utf-8, as"):
        decoded_as(bytes(range(128, 256)), "noise.txt", "utf-8")


def test_sst2_has_its_published_split(has_data):
    splits = DATASETS["sst2"](directory=str(has_data("sst2")))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (6917, 872, 1821)


def test_sst2_is_read_from_its_trees(tmp_path):
    trees = {
        "train": "(3 (2 (2 A) (3 fine)) (2 (2 crème) (2 -LRB-brûlée-RRB-)))\n(2 (2 So) (2 so))\n(0 (1 Bad) (2 \\/))\n",
        "dev": "(4 (2 Very) (3 good))\n(1 (2 Not) (3 good))\n",
        "test": "(1 (1 Dull) (2 .))\n(3 (3 Fun) (2 .))\n",
    }
    with zipfile.ZipFile(tmp_path / "trainDevTestTrees_PTB.zip", "w") as archive:
        for name, text in trees.items():
            archive.writestr(f"trees/{name}.txt", text)
    splits = DATASETS["sst2"](directory=str(tmp_path))
    assert everything(splits) == {
        "A fine crème (brûlée)": "positive", "Bad /": "negative", "Very good": "positive", "Not good": "negative",
        "Dull .": "negative", "Fun .": "positive",
    }  # fmt: skip
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [2, 2, 2]
    (tmp_path / "trainDevTestTrees_PTB.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"trainDevTestTrees_PTB\.zip: not the published trees"):
        DATASETS["sst2"](directory=str(tmp_path))
    with pytest.raises(DataError, match=r"/sst2 trainDevTestTrees_PTB\.zip of https://nlp\.stanford\.edu"):
        DATASETS["sst2"](directory=str(tmp_path / "none"))


def test_waimai_is_split_by_its_seed(has_data):
    folder = str(has_data("waimai", "waimai-10k"))
    first, again, other = (DATASETS["waimai"](directory=folder, seed=seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.validation), len(first.test)) == (9589, 1199, 1199)
    assert first.train.name(5) == again.train.name(5)
    assert np.bincount(first.test.labels).tolist() == [799, 400]
    assert not np.array_equal(first.test.columns["text"], other.test.columns["text"])


def test_imdb_is_read_by_tensorflow_datasets_where_it_lies_nowhere_else(tmp_path, monkeypatch):
    def part(split, batch_size):
        texts = [f"{split} film {i}" for i in range(20)] + ["a film of both"]
        return {"text": tf.constant(texts), "label": tf.constant([i % 2 for i in range(21)], tf.int64)}

    toy = SimpleNamespace(as_dataset=part)
    monkeypatch.setattr(tfds, "prepared", lambda name, root: toy if name == "imdb_reviews" else None)
    splits = DATASETS["imdb_reviews"](directory=str(tmp_path))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 2, 21)
    assert everything(splits)["train film 3"] == everything(splits)["test film 5"] == "positive"
    assert b"a film of both" not in splits.train.columns["text"].tolist() + splits.validation.columns["text"].tolist()
    assert splits.test.name(20) == "test[20]"


@pytest.mark.slow
def test_no_training_review_of_imdb_stands_in_its_test_part(has_data):
    splits = DATASETS["imdb_reviews"](directory=str(has_data("imdb")))
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (24_877, 25_000)
    tested = set(splits.test.columns["text"].tolist())
    assert not tested & set(splits.train.columns["text"].tolist())
