"""Which sentence pairs are no translations: empty, equal, over-long, of wild length, in the wrong script."""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bigkeras.data.source import DataError

LONGEST = 1500  # characters of a sentence
WILD = 4.0  # times longer or shorter than the pairs of this data usually are
SAMPLE = 2000  # pairs that tell how long and in which scripts they usually are
SMALL_SHARE = 0.1  # of the letters: a script with less is not one of a language's
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# Marks without width, as the soft hyphen, stand inside words; those of direction before and behind them.
MARKS = re.compile("[\ufeff\u061c\u200b\xad\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069]+")

# Unicode's blocks of the scripts whose languages are known here.
SCRIPTS = {
    "Latin": "A-Za-zªºÀ-ÖØ-öø-ʯḀ-ỿⱠ-ⱿꜢ-ꟿﬀ-ﬆＡ-Ｚａ-ｚ",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f\ua640-\ua69f",
    "Armenian": "\u0530-\u058f",
    "Hebrew": "\u0590-\u05ff\ufb1d-\ufb4f",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Tamil": "\u0b80-\u0bff",
    "Thai": "\u0e00-\u0e7f",
    "Georgian": "\u10a0-\u10ff",
    "Hangul": "\u1100-\u11ff\u3131-\u318e\uac00-\ud7af",
    "Kana": "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "Han": "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",
}
LETTERS = {script: re.compile(f"[{ranges}]") for script, ranges in SCRIPTS.items()}
KNOWN = re.compile(f"[{''.join(SCRIPTS.values())}]+")
LANGUAGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "fi", "pl", "cs", "sk"), ("Latin",)),
    **dict.fromkeys(("hu", "ro", "hr", "sl", "et", "lv", "lt", "tr", "vi", "id", "ms", "sw", "ca", "eo"), ("Latin",)),
    **dict.fromkeys(("ru", "uk", "bg", "be", "mk"), ("Cyrillic",)),
    **{"el": ("Greek",), "hy": ("Armenian",), "he": ("Hebrew",), "th": ("Thai",), "ka": ("Georgian",)},
    **dict.fromkeys(("ar", "fa", "ur", "ckb"), ("Arabic",)),
    **dict.fromkeys(("hi", "mr", "ne"), ("Devanagari",)),
    **{
        "bn": ("Bengali",),
        "ta": ("Tamil",),
        "zh": ("Han",),
        "yue": ("Han",),
        "ja": ("Han", "Kana"),
        "ko": ("Hangul", "Han"),
    },
    **dict.fromkeys(
        ("af", "cy", "eu", "ga", "gl", "is", "la", "lb", "mt", "sq", "tl", "yo", "zu", "bs", "fil", "jv"), ("Latin",)
    ),
    # Of several scripts, or of one that is not counted here: those of the texts.
    **dict.fromkeys(("sr", "az", "kk", "ky", "mn", "tg", "tt", "uz", "ku", "ps", "yi", "te", "ml", "kn", "gu"), ()),
    **dict.fromkeys(("pa", "si", "km", "lo", "my", "am"), ()),
}
# By codes of scripts (ISO 15924).
SUBTAGS: dict[str, tuple[str, ...]] = {
    "latn": ("Latin",), "cyrl": ("Cyrillic",), "arab": ("Arabic",), "deva": ("Devanagari",), "hans": ("Han",),
    "hant": ("Han",), "jpan": ("Han", "Kana"), "kore": ("Hangul", "Han"),
}  # fmt: skip
# The same languages by three letters (ISO 639-2 and 639-3), as files of OPUS and Tatoeba are named; Norwegian by
# the forms it is written in, too.
THREE_LETTERS_OF = """
en eng, de deu/ger, fr fra/fre, es spa, it ita, pt por, nl nld/dut, sv swe, da dan, no nor/nob/nno/nb/nn, fi fin,
pl pol, cs ces/cze, sk slk/slo, hu hun, ro ron/rum, hr hrv, sl slv, et est, lv lav, lt lit, tr tur, vi vie, id ind,
ms msa/may, sw swa, ca cat, eo epo, ru rus, uk ukr, bg bul, be bel, mk mkd/mac, el ell/gre, hy hye/arm,
he heb, th tha, ka kat/geo, ar ara, fa fas/per, ur urd, hi hin, mr mar, ne nep, bn ben, ta tam,
zh zho/chi/cmn, ja jpn, ko kor, af afr, cy cym/wel, eu eus/baq, ga gle, gl glg, is isl/ice, la lat, lb ltz, mt mlt,
sq sqi/alb, tl tgl, yo yor, zu zul, bs bos, sr srp, az aze, kk kaz, ky kir, mn mon, tg tgk, tt tat, uz uzb, ku kur,
ps pus, yi yid, te tel, ml mal, kn kan, gu guj, pa pan, si sin, km khm, lo lao, my mya/bur, am amh
"""
THREE_LETTERS = {
    three: two for two, threes in map(str.split, THREE_LETTERS_OF.split(",")) for three in threes.split("/")
}
# Frequent words tell languages of one script apart, as far as it takes to see that columns are swapped.
FREQUENT = {
    "en": "the of and to is that you with",
    "de": "der die das und ist nicht ein ich",
    "fr": "le les des et est une que je",
    "es": "el los las es una por del muy",
    "it": "il di che è non gli della sono",
    "nl": "het een van niet dat zijn ik en",
    "pt": "o os uma não do da com você",
}


class Pair(NamedTuple):
    """A sentence and its translation; `name` is the place it comes from, `part` the split it was given, or ""."""

    name: str
    source: str
    target: str
    part: str = ""


def tidy(text: str) -> str:
    """A sentence in one line: control characters and runs of spaces are one space, marks without width none."""
    return " ".join(CONTROL.sub(" ", MARKS.sub("", text)).split())


def cleaned(pairs: Sequence[Pair], languages: tuple[str, str]) -> tuple[list[Pair], list[tuple[str, str]]]:
    """The pairs that may be translations, in their order, and (name, reason) of the others.

    A script is wrong where less than a fifth of a sentence's letters are of the language's scripts; of a language that
    is not known, its scripts are those of a tenth of its letters or more.
    """
    sample = pairs[:: max(1, len(pairs) // SAMPLE)]
    # Without those that lack a side, which most of a half-finished translation do.
    whole = [pair for pair in pairs if pair.source and pair.target]
    ratios = [_ratio(pair) for pair in whole[:: max(1, len(whole) // SAMPLE)]]
    ratio = float(np.median(ratios)) if ratios else 1.0
    sides = ([pair.source for pair in sample], [pair.target for pair in sample])
    scripts = [usual_scripts(name) or found_scripts(texts) for name, texts in zip(languages, sides, strict=True)]
    kept, left_out, seen = [], [], set()
    for pair in pairs:
        reason = _reason(pair, ratio, scripts)
        if not reason and (pair.source, pair.target, pair.part) in seen:
            reason = "the same pair stands there before"
        if reason:
            left_out.append((pair.name, reason))
            continue
        seen.add((pair.source, pair.target, pair.part))
        kept.append(pair)
    return kept, left_out


def check_order(pairs: Sequence[Pair], languages: tuple[str, str], origin: str, advice: str) -> None:
    """Raises DataError where the sides are in each other's languages, as far as scripts or frequent words tell.

    One language that is known is enough: it stands on the other side then, and not on its own.
    """
    sample = pairs[:: max(1, len(pairs) // SAMPLE)]
    sides = [pair.source for pair in sample], [pair.target for pair in sample]
    first, second = map(base, languages)
    scripts = list(map(usual_scripts, languages))
    swapped = _swapped_scripts(scripts, found_scripts(sides[0]), found_scripts(sides[1]))
    if first != second and (scripts[0] == scripts[1] or not all(scripts)):
        swapped |= _swapped_words(first, second, *sides)
    if swapped:
        names = [language or "another language" for language in languages]
        raise DataError(f"{origin}: {names[0]} stands where {names[1]} should, and the other way: {advice}")


def can_tell(first: str, second: str) -> bool:
    """Whether `check_order` sees that sentences of two languages are exchanged: by their script, or by their words."""
    scripts = list(map(usual_scripts, (first, second)))
    apart = all(scripts) and set(scripts[0]).isdisjoint(scripts[1])
    return apart or base(first) in FREQUENT or base(second) in FREQUENT


def spoken(texts: Sequence[str], supposed: str) -> str:
    """Another language whose frequent words say that texts are in it and not in the supposed one; "" without."""
    own = _frequent(supposed, texts).total() if supposed in FREQUENT else 0
    counts = {language: _frequent(language, texts) for language in FREQUENT if language != supposed}
    # Several words: one may be frequent in both.
    told = {language: words.total() for language, words in counts.items() if len(words) > 2}
    best = max(told, key=lambda language: told[language], default="")
    return best if best and supposed in FREQUENT and told[best] > max(3 * (own + 1), len(texts) // 10) else ""


def _swapped_scripts(wanted: Sequence[tuple[str, ...]], sources: tuple[str, ...], targets: tuple[str, ...]) -> bool:
    first, second = map(set, wanted)
    if not sources or not targets or first == second:
        return False
    if not first:
        return second.issuperset(sources) and second.isdisjoint(targets)
    return first.isdisjoint(sources) and first.issuperset(targets) and (not second or second.issuperset(sources))


def _swapped_words(first: str, second: str, sources: Sequence[str], targets: Sequence[str]) -> bool:
    # Where one of them tells alone: a word or two may be frequent in the other, too, as "en" is in Dutch and Swedish.
    fewest = 1 if {first, second} <= set(FREQUENT) else 3

    def on_the_other_side(language: str, own: Sequence[str], other: Sequence[str]) -> bool:
        there = _frequent(language, other)
        return len(there) >= fewest and there.total() + 1 > max(
            3 * (_frequent(language, own).total() + 1), len(other) // 10
        )

    sides = ((first, sources, targets), (second, targets, sources))
    told = [on_the_other_side(*side) for side in sides if side[0] in FREQUENT]
    return bool(told) and all(told)


def found_scripts(texts: Sequence[str]) -> tuple[str, ...]:
    """The scripts that hold a tenth or more of the letters."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(letters(text))
    total = sum(counts.values())
    return tuple(script for script, number in counts.items() if number >= SMALL_SHARE * total)


def letters(text: str) -> dict[str, int]:
    """How many letters of each script a text has."""
    likely = ("Latin",) if text.isascii() else LETTERS
    found = {script: number for script in likely if (number := len(LETTERS[script].findall(text)))}
    if not text.isascii():
        for sign in KNOWN.sub("", text):
            if sign.isalpha():
                found[_script(sign)] = found.get(_script(sign), 0) + 1
    return found


@functools.cache
def _script(letter: str) -> str:
    """The script of a letter that `SCRIPTS` does not have: Unicode's names begin with it."""
    return unicodedata.name(letter, "unknown").split()[0].title()


def reasons(given: Sequence[str]) -> Counter[str]:
    """How many of some reasons are of each kind: those that differ in their numbers are one, which shows none."""
    return Counter(re.sub(r"\d+", "…", reason) for reason in given)


def usual_scripts(language: str) -> tuple[str, ...]:
    """The scripts that a language is written in, or that its code names (hi-Latn); none where they are not known."""
    named = [part for part in code(language).split("-")[1:] if len(part) == 4 and part.isalpha()]
    return SUBTAGS.get(named[0], ()) if named else LANGUAGES.get(base(language), ())


def base(language: str) -> str:
    """zh-CN → zh, deu → de."""
    first = code(language).partition("-")[0]
    return THREE_LETTERS.get(first, first)


def other_languages(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two pairs of languages, from and to, differ, as far as both are known."""
    return any(a and b and base(a) != base(b) for a, b in zip(one, other, strict=True))


def code(language: str) -> str:
    """zh_CN → zh-cn: small and capital letters are the same in codes."""
    return language.lower().replace("_", "-")


def _reason(pair: Pair, ratio: float, scripts: Sequence[tuple[str, ...]]) -> str:
    for side, text in (("source", pair.source), ("target", pair.target)):
        if not text:
            return f"an empty {side}"
        if len(text) > LONGEST:
            return f"{len(text)} characters in the {side}: more than {LONGEST}"
        if "\ufffd" in text:
            return f"broken characters in the {side}"
    if pair.source == pair.target:
        return "source and target are equal"
    if not 1 / WILD <= _ratio(pair) / ratio <= WILD:
        return f"{len(pair.source)} characters against {len(pair.target)}: too different"
    for side, text, wanted in (("source", pair.source, scripts[0]), ("target", pair.target, scripts[1])):
        # Told with one look, as most sentences are.
        if not wanted or ("Latin" in wanted and text.isascii()):
            continue
        found = letters(text)
        if found and sum(found.get(script, 0) for script in wanted) < sum(found.values()) / 5:
            return f"the {side} is in {max(found, key=found.__getitem__)} script, not in {' or '.join(wanted)}"
    return ""


def _ratio(pair: Pair) -> float:
    """How much longer the target is; short ones may differ more."""
    return (len(pair.target) + 10) / (len(pair.source) + 10)


def _frequent(language: str, texts: Sequence[str]) -> Counter[str]:
    words = set(FREQUENT[language].split())
    return Counter(word for text in texts for word in text.lower().split() if word in words)
