"""Paragraphs to sentences, and their translations to a paragraph again. A translator reads one sentence at a time."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

ENGLISH = ("en", "eng")
DOTTED = ("tr", "az", "tur", "aze")  # languages whose capital of i is İ, and whose small letter of I is ı
LONGEST = 320  # columns of a sentence; of longer ones a model would not read the end
# Capitals, numbers, addresses: a vocabulary of subwords spells them sign by sign, and three letters are a subword.
SPELT = re.compile(r"[\dA-ZÀ-ÖØ-ÞΑ-ΩА-ЯЁ_@/#%&=+*~^|\\<>-]{2,}|\d")

# Nothing here goes back over what it has read, however long a row of dots may be.
# The marks of Hindi and Bengali, Urdu, Arabic, Armenian, Burmese, Khmer and Amharic follow the Latin ones.
STOPS = ".!?…।॥۔؟։။។።"
# Quotation marks of German, which closes by what English opens with, and of French, which has a space before its.
END = rf"(?<![{STOPS}])[{STOPS}]++[\"'‘’“”«»‹›)\]]*+(?:\s[»›](?=\s|$))?+"
WIDE_END = r"[。！？｡]++[」』》〉】〕”’）)]*+"
# After a full stop that ends an abbreviation, an initial, a day or a century the sentence goes on; not after a year.
OPENS = r"\s(\[{\"“„«»‹›‘"  # what may stand before a word's first letter
GOES_ON = re.compile(
    rf"(?<![^{OPENS}])"
    r"(?:(?:[A-ZÀ-ÖØ-ÞΑ-ΩА-ЯЁ]\.)*[^\W\d_]|\d{1,3}|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|cf|Fig|bzw|usw|ca|vgl"
    r"|Mt|Gen|Capt|Lt|Col|Sgt|Sen|Gov|Rev|approx|Nr|Hr|Fr|inkl|ggf|evtl|z\.\s?B|d\.\s?h|u\.\s?a)\.$"
)
GOES_ON_IN_CAPITALS = re.compile(GOES_ON.pattern, re.IGNORECASE)
# Of English, a number that ends a sentence, not that of a list nor of a day; and "It is I.", but found by I. Newton.
ENDS_IN_ENGLISH = re.compile(
    r"[^\s:;]\s+\(?\d{1,3}\.$"
    r"|\b(?:[Ii]t\s(?:is|was)|(?:[Ss]o|[Nn]either|[Nn]or)\s[a-z]+|than)\sI\.$"
)
MONTH = re.compile(
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\b"
)
# Before a digit; else some are words.
NUMBER = re.compile(
    rf"(?:^|[{OPENS}])"
    r"(?:No|Art|Abs|Abb|Kap|Bd|pp|vol|ch|eq|tel|approx|max|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Okt|Nov|Dec|Dez"
    r"|\w*str)\.$",
    re.I,
)
ABBREVIATION = 40  # letters of one, or of a number, at most
# Han, Kana and their punctuation. Wide signs with spaces, Hangul and emoji, are not among them; nor is Thai, whose
# sentences are parted by spaces.
WITHOUT_SPACES = "[\u2e80-\u312f\u3190-\u9fff\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff9f\uffe0-\uffe6\U00020000-\U000323af]"
UNSPACED = re.compile(WITHOUT_SPACES)
# Between letters of Chinese and Japanese the Latin marks end a sentence, too.
HAN_OR_KANA = "[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
NARROW_END = rf"(?<={HAN_OR_KANA})[!?]++[」』》〉】〕”’）]*+(?=[“‘「『《〈（【〔]?{HAN_OR_KANA})"
BREAKS = re.compile(rf"{WIDE_END}\s*+|{NARROW_END}|{END}\s++(?=[^\W_]|[\"'‘’“”„«»(\[¿¡])")
QUOTES = "\"'‘’“”"
FIRST_LETTER = re.compile(r"[^\W\d_]")
WORDS = re.compile(r"[^\W\d_]{2,}")
CLAUSES = re.compile(r"[;:；：؛]\s*|[,،]\s+|，\s*|、|\s[–—-]\s")


@dataclass(frozen=True)
class Sentence:
    """What a translator reads at once. `capitals`: it stood in capitals, and so shall its translation."""

    text: str
    capitals: bool = False


def sentences(text: str, longest: int = LONGEST, language: str = "en") -> list[Sentence]:
    """The sentences of a text, without spaces around them; none of more than `longest` columns.

    Short texts are parted, too, since models learn from single sentences: two of Tatoeba's validation sentences in one
    text are translated by `translate-en-de` with a BLEU of 43.8 when parted and 30.2 when not; the few pairs that hold
    several sentences themselves lose nothing (39.1 both ways). What stands in capitals, a text or one of its sentences,
    is given in small letters, since models have hardly seen any. `language`: the text's.
    """
    capitals = _in_capitals(text)
    goes_on, english = GOES_ON_IN_CAPITALS if capitals else GOES_ON, _is(language, *ENGLISH)
    parts = [part.strip() for part in _parted(text, BREAKS, goes_on, ENDS_IN_ENGLISH if english else None)]
    read = [
        Sentence(_small(part, language), True) if capitals or _in_capitals(part) else Sentence(part) for part in parts
    ]
    return [Sentence(piece, one.capitals) for one in read for piece in _shortened(one.text, longest, english)]


def capital_letters(text: str, language: str) -> str:
    """The text in capitals, as its language has them."""
    return (text.replace("i", "İ") if _is(language, *DOTTED) else text).upper()


def _small(part: str, language: str) -> str:
    dotted = _is(language, *DOTTED)
    small = (part.replace("I", "ı").replace("İ", "i") if dotted else part).lower()
    small = FIRST_LETTER.sub(lambda letter: capital_letters(letter[0], language), small, count=1)
    # English writes it so in the midst of a sentence.
    return re.sub(r"\bi\b(?!\.)", "I", small) if _is(language, *ENGLISH) else small


def _is(language: str, *codes: str) -> bool:
    return re.split("[-_]", language.lower())[0] in codes


def _in_capitals(text: str) -> bool:
    """Whether all letters of a text of several words are capitals; NATO alone is a name."""
    return all(sign.isupper() for sign in text if sign.isalpha()) and len(WORDS.findall(text)) > 1


def joined(parts: list[str]) -> str:
    """Sentences as one text: a space between them where their script has spaces."""
    text = ""
    for part in filter(None, parts):
        ends = [text[-1:], part[0]]
        within = [text.rstrip(QUOTES)[-1:], part.lstrip(QUOTES)[:1]]  # which script has these quotation marks
        spaced = text and not any(map(UNSPACED.match, ends)) and not all(map(UNSPACED.match, within))
        text += (" " if spaced else "") + part
    return text


def columns(text: str, script: str | None = None) -> int:
    """How long a text is, three columns a subword at most: signs that are subwords by themselves count three times.

    These are those of Chinese and the like, and of capitals, numbers and addresses. Each byte counts so of what a
    vocabulary may not have: pictograms, and letters of another script than `script`, by default the text's usual one;
    of "ASCII" all but the letters that English has.
    """
    spelt = SPELT.findall(text)
    # Before what is spelt there may be a subword of the space alone.
    plain = len(text) + 2 * (sum(map(_is_wide, text)) + sum(map(len, spelt))) + 3 * len(spelt)
    if text.isascii():
        return plain
    script = usual_script(text) if script is None else script
    return plain + sum(3 * len(sign.encode("utf-8", "replace")) for sign in text if _is_strange(sign, script))


def usual_script(text: str) -> str:
    """LATIN, CYRILLIC …: that of most letters, as their names in Unicode begin; "" where there are none."""
    return max(Counter(filter(None, map(_script, text))).items(), key=lambda found: found[1], default=("", 0))[0]


def _script(sign: str) -> str:
    return unicodedata.name(sign, "").partition(" ")[0] if sign.isalpha() and not UNSPACED.match(sign) else ""


def _is_strange(sign: str, script: str) -> bool:
    if sign.isascii() or UNSPACED.match(sign):
        return False
    if sign.isalpha():
        return _script(sign) != script
    # Pictograms, what joins and colours them, and letters of which Unicode tells nothing yet.
    return unicodedata.category(sign) in ("So", "Sk", "Cf", "Co", "Cn", "Cs") or "\ufe00" <= sign <= "\ufe0f"


def _parted(
    text: str,
    breaks: re.Pattern[str],
    goes_on: re.Pattern[str] | None = None,
    ends: re.Pattern[str] | None = None,
) -> list[str]:
    """The parts between breaks, but where `goes_on` ends and not `ends`; a break's spaces end the part before it."""
    parts, start = [], 0
    for found in breaks.finditer(text):
        end = found.start() + len(found[0].rstrip())
        near = max(start, end - ABBREVIATION)
        is_end = ends and ends.search(text, near, end) and not MONTH.match(text, found.end())
        if goes_on and ((goes_on.search(text, near, end) and not is_end) or _continues(text, found)):
            continue
        after = found.end()
        # A mark that opens and closes alike closes where there is one before it.
        if found[0][0] in "。！？｡" and text[after : after + 1] == '"' and text.count('"', start, after) % 2:
            after += 1
        parts.append(text[start:after])
        start = after
    return [part for part in (*parts, text[start:]) if part.strip()]


def _continues(text: str, found: re.Match[str]) -> bool:
    """Whether a small letter follows the mark and its spaces: 20 коп. в день. One of Georgian begins a sentence.

    Or a digit, after "No.", "Jan." and the like.
    """
    following, mark = text[found.end() : found.end() + 1], found.start()
    if following.isdecimal():
        return NUMBER.search(text[max(0, mark - ABBREVIATION) : mark + 1]) is not None
    return found[0][0] in STOPS and following.islower() and following.title() != following


def _shortened(sentence: str, longest: int, english: bool) -> list[str]:
    """A sentence of more than `longest` columns at its clauses, else at its spaces, else anywhere."""
    script = usual_script(sentence)
    # A vocabulary of English may have no other Latin letters, such as those of names.
    script = "ASCII" if english and script == "LATIN" else script
    if columns(sentence, script) <= longest:
        return [sentence]
    # Clauses and parts of words come together as they stood, with the spaces that were there and no others.
    pieces = [""]
    for clause in _parted(sentence, CLAUSES):
        for word in [clause] if columns(clause, script) <= longest else _words(clause, longest, script):
            if columns((pieces[-1] + word).strip(), script) <= longest:
                pieces[-1] += word
            else:
                pieces.append(word)
    return [piece for piece in map(str.strip, pieces) if piece]


def _words(clause: str, longest: int, script: str) -> Iterator[str]:
    """Words with the spaces after them; of those that are too long themselves, parts."""
    most = longest // 3 - 1
    for word in re.findall(r"\s*\S+\s*", clause):
        for start in range(0, len(word), most):
            yield from _halved(word[start : start + most], longest, script)


def _halved(part: str, longest: int, script: str) -> Iterator[str]:
    if columns(part, script) <= longest or len(part) == 1:
        yield part
    else:
        yield from _halved(part[: len(part) // 2], longest, script)
        yield from _halved(part[len(part) // 2 :], longest, script)


def _is_wide(sign: str) -> bool:
    return unicodedata.east_asian_width(sign) in "WF"
