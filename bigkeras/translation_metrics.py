"""Scores of translations by sacrebleu (Post 2018, arXiv 1804.08771), and how they were computed. No TensorFlow."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

# Sentences are told apart by the words of their first reference, characters in Chinese and Japanese.
LENGTHS = (5, 10, 15, 20, 30, 50)
UNSPACED = ("zh", "ja", "th", "lo", "my", "km")
TOKENISERS = {"zh": "zh", "ja": "char", "th": "char", "lo": "char", "my": "char", "km": "char", "ko": "char"}
TOKENISERS["kor"] = TOKENISERS["ko"]  # others of three letters are known by their script
# What is copied: a word with a capital, of some letters, or a number.
# Words of scripts without spaces are none, and end at a name that stands between them.
COPIED = re.compile(r"[^\W\d_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{3,}|\d+")
HAN, KANA = (re.compile(f"[{signs}]") for signs in ("\u3400-\u9fff", "\u3040-\u30ff"))
# Letters of these, for their vowels are marks, some of them.
ONE_LANGUAGE = {"th": re.compile("[\u0e00-\u0e7f]"), "lo": re.compile("[\u0e80-\u0eff]"),
                "my": re.compile("[\u1000-\u109f]"), "km": re.compile("[\u1780-\u17ff]")}  # fmt: skip
References = Sequence[Sequence[str]]  # all known translations of each sentence


def translation_metrics(translations: Sequence[str], references: References, language: str) -> dict[str, Any]:
    """BLEU and chrF of a corpus, from 0 to 100, as plain values that JSON can hold.

    `references`: all known translations of each sentence, at least one. `language`: the target's; of "" and of codes
    that say nothing here, as cmn, whether it is written without spaces is seen in the references. Gives `bleu`,
    `chrf`, each also of lower-cased text (`_lower`), `signatures`, `sentences`, `by_length` (the same scores of the
    sentences of each length) and `exact`, the share of sentences equal to a reference.
    """
    language = scored_language(language, references)
    scores = {
        "bleu": corpus_bleu(translations, references, language),
        "chrf": corpus_chrf(translations, references),
        "bleu_lower": corpus_bleu(translations, references, language, lower=True),
        "chrf_lower": corpus_chrf(translations, references, lower=True),
    }
    exact = [translation in known for translation, known in zip(translations, references, strict=True)]
    return {
        **{name: round(found.score, 4) for name, found in scores.items()},
        "exact": round(float(np.mean(exact)), 4),
        "signatures": {name: found.signature for name, found in scores.items()},
        "sentences": len(translations),
        "by_length": _by_length(translations, references, language),
    }


class Found:
    """A score and the signature that says how it was computed."""

    def __init__(self, score: float, signature: str):
        self.score, self.signature = score, signature


def corpus_bleu(translations: Sequence[str], references: References, language: str, lower: bool = False) -> Found:
    """BLEU (Papineni et al. 2002), with sacrebleu's tokeniser for Chinese where the target is Chinese.

    Where no translation has four words, as in a glossary, it is of as many as they have (the signature says eff:yes):
    else it would be 0 whatever they are. `language` as in `translation_metrics`.
    """
    from sacrebleu.metrics.bleu import BLEU

    how: dict[str, Any] = {"tokenize": tokeniser(scored_language(language, references)), "lowercase": lower}
    metric = BLEU(**how)
    found = metric.corpus_score(list(translations), _streams(references))
    if not found.totals[-1]:
        metric = BLEU(**how, effective_order=True)
        found = metric.corpus_score(list(translations), _streams(references))
    return Found(found.score, str(metric.get_signature()))


def corpus_chrf(translations: Sequence[str], references: References, lower: bool = False) -> Found:
    """chrF (Popović 2015): n-grams of up to six characters."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(lowercase=lower)
    return Found(metric.corpus_score(list(translations), _streams(references)).score, str(metric.get_signature()))


def sentence_scores(translations: Sequence[str], references: References) -> np.ndarray:
    """chrF of each sentence, float64 `(n,)`; BLEU says little of a single one."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    pairs = zip(translations, references, strict=True)
    return np.array([metric.sentence_score(translation, list(known)).score for translation, known in pairs])


def kept_names(sources: Sequence[str], references: References, translations: Sequence[str]) -> dict[str, int]:
    """`shared`: names and numbers that a source and one of its references have alike, once in each sentence; `kept`: of
    them, those that the translation has."""
    shared = kept = 0
    for source, known, translation in zip(sources, references, translations, strict=True):
        words = _copied(source) & set().union(*map(_copied, known))
        shared += len(words)
        kept += len(words & _copied(translation))
    return {"shared": shared, "kept": kept}


def _copied(text: str) -> set[str]:
    return {word for word in COPIED.findall(text) if word.isdecimal() or word.istitle()}


def unspaced_language(references: References) -> str:
    """The code of `UNSPACED` of whose script most letters of the references are; "" for all others."""
    text = "".join(known[0] for known in references)
    half = sum(map(str.isalpha, text)) / 2
    for language, signs in ONE_LANGUAGE.items():
        if len(signs.findall(text)) > half:
            return language
    han, kana = (len(signs.findall(text)) for signs in (HAN, KANA))
    return "" if han + kana <= half else "ja" if kana > han / 10 else "zh"


def scored_language(language: str, references: References) -> str:
    """The language; where its code has no tokeniser of its own, that of the references' script if it has no spaces."""
    return language if _base(language) in TOKENISERS else unspaced_language(references) or language


def tokeniser(language: str) -> str:
    """sacrebleu's name of the tokeniser for a language."""
    return TOKENISERS.get(_base(language), "13a")


def _base(language: str) -> str:
    """zh_CN → zh."""
    return language.lower().replace("_", "-").partition("-")[0]


def _streams(references: References) -> list[list[str]]:
    """References as sacrebleu takes them: the first of all sentences, the second of all …; None where there is none."""
    most = max(map(len, references), default=1)
    streams: list[Any] = [[known[i] if i < len(known) else None for known in references] for i in range(most)]
    return streams


def _by_length(translations: Sequence[str], references: References, language: str) -> list[dict[str, Any]]:
    base = _base(language)
    sizes = np.array([len(known[0]) if base in UNSPACED else len(known[0].split()) for known in references])
    groups = np.searchsorted(LENGTHS, sizes)
    rows = []
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group).tolist()
        some = [translations[i] for i in places], [references[i] for i in places]
        low, high = (0, *LENGTHS)[group] + 1, (*LENGTHS, 0)[group]
        rows.append(
            {
                "length": f"{low} to {high}" if high else f"{low} or more",
                "sentences": len(places),
                "bleu": round(corpus_bleu(*some, language).score, 4),
                "chrf": round(corpus_chrf(*some).score, 4),
            }
        )
    return rows
