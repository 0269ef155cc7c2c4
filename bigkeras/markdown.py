"""Texts of others in Markdown: a review or a class name may hold what a viewer takes for markup."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Emphasis, code, links and pictures, cells, formulas, lines struck out; a _ within a word is none of them.
MARKUP = re.compile(r"[\\`*\[\]|$~]|(?<![^\W_])_|_(?![^\W_])")
ENTITY = re.compile(r"&(?=#?\w+;)")


def plain(text: str) -> str:
    """Text in one line that a viewer of Markdown shows as it is: no markup, no cell of a table, no HTML."""
    text = MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
    return ENTITY.sub("&amp;", text).replace("<", "&lt;")


def table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table of cells that are shown as they are; numbers stand to the right."""
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    lines = [header, [("---:" if n else "---") for n in numeric], *rows]
    return "\n".join("| " + " | ".join(plain(str(cell)) for cell in line) + " |" for line in lines)


def signatures(used: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Lines that say what sacrebleu computed, of each split by score; once where all splits have the same."""
    first, *others = used.values()
    named = {"": first} if all(one == first for one in others) else {f"{split}, ": one for split, one in used.items()}
    told = [f"- {split}{score}: `{text}`" for split, one in named.items() for score, text in one.items()]
    return ["By sacrebleu:", "", *told]


def _is_number(cell: Any) -> bool:
    return str(cell).replace(",", "").replace(".", "").replace("-", "").replace("e", "").isdigit()
