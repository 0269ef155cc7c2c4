"""Paragraphs are parted into sentences and put together again, and nothing is lost."""

import pytest

from apps.sentences import LONGEST, Sentence, capital_letters, columns, joined, sentences, usual_script


def texts_of(*args, **named):
    return [sentence.text for sentence in sentences(*args, **named)]


def test_a_short_text_is_parted_too():
    assert texts_of(" Go away! I mean it. ") == ["Go away!", "I mean it."]
    assert texts_of("Well") == ["Well"]


@pytest.mark.parametrize(
    "rest",
    [
        ["He came.", "“Why?”", "Nobody knew …", "It rained."],
        ["Dr. Smith and J. Doe pay 3.50 in May.", "They left, e.g. by train."],
        ["J.R.R. Tolkien wrote it on Jan. 5, 2024, not on the 3. May.", "She is 25.", "He is 30."],
        ["The train leaves at 5 p.m.", "We should hurry.", "To do: 1. Buy milk."],
        ["Хлеб, соль и т.д.", "Потом чай."],
        ["А.С. Пушкин родился в Москве.", "Он писал."],
        ["„Ich komme.“", "Dann ging er.", "»Gut.«", "Er blieb."],
        ["« Bonjour. »", "Il partit.", "«Non !»", "Elle resta."],
        ["Ärger gab es z. B. gestern.", "Das war alles."],
        [
            "Tom is 25.",
            "Mary is 30.",
            "It is I.",
            "Open the door.",
            "Henry I. Smith was born on 3. March.",
            "It was found by Leibniz and I. Newton.",
        ],
        ["So am I.", "The architect was I. M. Pei.", "He is taller than I.", "No."],
        ["ကျွန်တော် သွားမယ်။", "သူ လာတယ်။"],
        ["ខ្ញុំទៅ។", "គាត់មក។"],
        ["እሱ መጣ።", "እሷ ሄደች።"],
        ["Is he there?", "No.", "He left No. 7 in 1999.", "(No. 8, too.)", "She stayed."],
        ["Это стоит 100 руб. и 20 коп. в день.", "Дорого!"],
        ["Il est né en janv. à Paris.", "Élu en 1990."],
        ["यह एक किताब है।", "वह घर जाता है॥", "क्या?"],
        ["এটি একটি বই।", "সে বাড়ি যায়।"],
        ["یہ ایک کتاب ہے۔", "وہ گھر جاتا ہے۔"],
        ["هل أنت بخير؟", "نعم."],
        ["Սա գիրք է։", "Նա տուն է գնում։"],
        ["ეს არის წიგნი.", "ის მიდის სახლში."],
    ],
)
def test_a_paragraph_is_parted_at_the_ends_of_its_texts_of(rest):
    assert texts_of(" ".join(rest)) == rest


def test_a_day_is_no_end_and_the_number_of_a_list_is_none_in_english():
    assert texts_of("Am 3. Mai kam er. Siehe Art. 5 GG, Hauptstr. 7.", language="de") == [
        "Am 3. Mai kam er.", "Siehe Art. 5 GG, Hauptstr. 7.",
    ]  # fmt: skip
    assert texts_of("1. He came.", language="eng") == ["1. He came."]


def test_of_a_language_that_is_not_known_nothing_is_taken_for_english():
    assert texts_of("Der 2. Weltkrieg begann. Am 3. Mai kam er.", language="") == [
        "Der 2. Weltkrieg begann.", "Am 3. Mai kam er.",
    ]  # fmt: skip
    assert texts_of("VEDO I RAGAZZI", language="") == ["Vedo i ragazzi"]


def test_latin_marks_between_chinese_letters_end_a_sentence():
    parts = ["你好吗?", "我很好!", "“真的?”", "是｡", "好。"]
    assert texts_of("".join(parts), language="zh") == parts
    assert texts_of("好(真的?)吗", language="zh") == ["好(真的?)吗"]
    assert texts_of("《你好吗?》是一部电影。真的!？来吗?，他说", language="zh") == [
        "《你好吗?》", "是一部电影。", "真的!？", "来吗?，他说",
    ]  # fmt: skip
    assert texts_of("“来吗?”他说", language="zh") == ["“来吗?”", "他说"]
    assert joined(["“是的。”", "“不是。”"]) == "“是的。”“不是。”"
    assert joined(["“Yes.”", "“No.”"]) == "“Yes.” “No.”" and joined(["他说“好。”", "Good."]) == "他说“好。” Good."


def test_what_closes_in_chinese_stays_with_what_it_closes():
    assert texts_of("《你好，李焕英！》是一部电影。") == ["《你好，李焕英！》", "是一部电影。"]
    assert texts_of('他说:"你好。"然后走了。"好！"她说。') == ['他说:"你好。"', "然后走了。", '"好！"', "她说。"]


def test_names_with_letters_that_english_lacks_are_long():
    text = (
        "The delegation included Nguyễn Thị Phương Thảo, Trần Đình Long, Phạm Nhật Vượng, Hồ Hùng Anh, Nguyễn Đăng "
        "Quang, Trần Bá Dương, Đỗ Quang Hiển and Trịnh Văn Quyết, who all came."
    )
    assert len(texts_of(text)) > 1 and " ".join(texts_of(text)) == text
    assert texts_of(text, language="vi") == [text]


def test_turkish_has_an_i_with_a_dot_and_one_without():
    assert texts_of("IŞIKLAR SÖNDÜ. İYİ GECELER.", language="tr") == ["Işıklar söndü.", "İyi geceler."]
    assert capital_letters("iyi ışık", "tr-TR") == "İYİ IŞIK" and capital_letters("iyi", "en") == "IYI"


def test_chinese_sentences_end_without_spaces_and_are_joined_without():
    parts = [
        "今天天气很好，我们去公园散步，看到了很多花和树，还有很多人在那里唱歌跳舞。",
        "“你去吗？”",
        "我不去！",
        "为什么呢？",
    ]
    assert texts_of("".join(parts)) == parts
    assert joined(parts) == "".join(parts)


def test_joined_sentences_have_single_spaces_and_empty_ones_vanish():
    assert joined(["Eins.", "", "Zwei."]) == "Eins. Zwei."
    assert joined([]) == ""


def test_korean_and_emoji_are_joined_with_spaces_and_kana_without():
    assert joined(["안녕하세요.", "반갑습니다", "네!"]) == "안녕하세요. 반갑습니다 네!"
    assert joined(["So nice 😀", "😀 Thanks"]) == "So nice 😀 😀 Thanks"
    assert joined(["はい。", "いいえ", "ｶﾞ。", "（終）"]) == "はい。いいえｶﾞ。（終）"


@pytest.mark.parametrize(
    "text", ["字" * 15 + "，" + "字" * 15 + "；看", "x" * 45 + " y", "at 12:30 and 13:45 or so", "a  b " * 9]
)
def test_what_is_parted_for_its_length_gets_no_spaces_that_were_not_there(text):
    assert all(part in text for part in texts_of(text, 20))


@pytest.mark.parametrize(
    "text",
    [
        "word " * 500,
        "x" * 2000,
        "字" * 900,
        "." * 30_000,
        "A. " * 9000,
        "one, two; three " * 100,
        "😀" * 400,
        "I say “" + "Привет" * 80 + "” to all",
    ],
)
def test_what_never_ends_is_parted_and_nothing_is_lost(text):
    parts, script = texts_of(text), usual_script(text)
    assert all(columns(part, script) <= LONGEST for part in parts)
    assert all(columns(part, script) <= 50 for part in texts_of(text, 50))
    assert "".join("".join(parts).split()) == "".join(text.split())


@pytest.mark.parametrize("text", ["PLEASE DO NOT LEAVE IT", "4815162342 108", "字字字字字字字"])
def test_what_a_vocabulary_spells_counts_as_a_subword_a_sign(text):
    assert columns(text) >= 3 * sum(len(word) for word in text.split()) and columns("Please leave it") == 15


@pytest.mark.parametrize(
    "text",
    ["So funny " + "😂" * 30 + " he came", "Look at what stands on the old wall there: “Я не знаю, кто вы”", "x❤️" * 20],
)
def test_what_a_vocabulary_spells_in_bytes_counts_as_a_subword_a_byte(text):
    strange = sum(len(sign.encode()) for sign in text if not sign.isascii() and sign not in "“”")
    assert columns(text) >= 3 * strange
    assert columns("Я не знаю, кто вы.") == 18 and columns("Größe für 5 €") < 24


@pytest.mark.parametrize("text", ["।" * 20_000, "։ " * 10_000, "5 коп. в " * 3000])
def test_rows_of_marks_and_of_abbreviations_are_read_once_and_nothing_is_lost(text):
    assert "".join("".join(texts_of(text)).split()) == "".join(text.split())


def test_only_english_writes_i_as_a_capital():
    assert texts_of("TO I OWO", language="pl") == ["To i owo"]
    assert texts_of("THAT AND I") == texts_of("THAT AND I", language="en-GB") == ["That and I"]


def test_a_text_in_capitals_is_read_in_small_letters():
    assert texts_of("WHERE IS TOM? “HE LEFT.”") == ["Where is tom?", "“He left.”"]
    assert texts_of("DR. LEE LIVES IN ST. IVES. APPROX. ALL ARE.")[0] == "Dr. lee lives in st. ives."
    assert texts_of("I SAID NO. HE LEFT.") == ["I said no.", "He left."]
    assert texts_of("ÜBER ALLES!") == ["Über alles!"]
    assert texts_of("WHAT DID I SAY, I.E. WHEN?") == ["What did I say, i.e. when?"]
    for other in ("NATO", "I", "WHERE is Tom?", "我爱 NATO 和 USA", "זה NATO USA", "123 456", ""):
        assert sentences(other) == ([Sentence(other)] if other else [])


def test_a_sentence_in_capitals_among_others_is_read_in_small_letters():
    expected = [Sentence("Read this."), Sentence("Do not touch it!", capitals=True), Sentence("STOP!")]
    assert sentences("Read this. DO NOT TOUCH IT! STOP!") == expected


@pytest.mark.parametrize(
    "text",
    [
        '"Mr. Smith is here," she said.',
        "„Dr. Müller kommt“, sagte er.",
        "[Fig. B shows it.]",
        '"No. 7 is mine."',
        "It takes approx. 20 minutes.",
        "Gen. Lee saw Mt. Everest.",
        "Der Preis ist inkl. Mehrwertsteuer.",
    ],
)
def test_abbreviations_end_no_sentence_be_they_behind_a_quotation_mark(text):
    assert texts_of(text) == [text]


def test_what_ends_in_quotation_marks_still_ends():
    assert texts_of("I don't. You do.") == ["I don't.", "You do."]
    assert texts_of("He drove 100 km/h. Then he stopped.") == ["He drove 100 km/h.", "Then he stopped."]
    assert texts_of("The score was 3–2. Everyone cheered.") == ["The score was 3–2.", "Everyone cheered."]
    assert texts_of("We waited 5 min. 20 people left.") == ["We waited 5 min.", "20 people left."]
    assert texts_of('He got an "A." She did not.') == ['He got an "A."', "She did not."]
