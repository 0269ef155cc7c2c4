"""The picture of an alignment: which pieces of the source each piece of a translation looked at."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from apps.console import complain
from apps.outputs import replaced

# The first that is there draws what the others lack.
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Droid Sans Fallback")
SPACE = "\u2581"  # SentencePiece's sign of a space before a piece


def save_attention(outputs: Mapping[str, np.ndarray], path: str) -> None:
    """Draws what the signature `attention` gave of one text as a PNG, written beside and renamed. Raises ReviewError.

    Rows are the pieces of the translation, columns those of the source; the darker, the more it was looked at.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    source, target = (_shown(outputs[key][0]) for key in ("source_piece", "target_piece"))
    weight = outputs["weight"][0][: len(target), : len(source)]
    figure = Figure((min(40, 1.6 + 0.34 * len(source)), min(40, 1.2 + 0.3 * len(target))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(weight, cmap="Greys", vmin=0, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(source)), source, rotation=90, family=_fonts())
    axes.set_yticks(range(len(target)), target, family=_fonts())
    axes.xaxis.tick_top()
    with replaced(path) as place, warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        figure.savefig(place, format="png", dpi=120)
    if any("missing from" in str(warning.message) for warning in found):
        complain(f"{path}: no font of this machine has all signs; Noto Sans CJK has them")


def _shown(pieces: Sequence[bytes]) -> list[str]:
    """Pieces without those that only fill; a dollar sign would begin a formula."""
    texts = [piece.decode("utf-8", "replace") for piece in pieces if piece]
    return [text.replace(SPACE, " ").replace("$", r"\$") for text in texts]


def _fonts() -> list[str]:
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in FONTS if name in there]
