"""Pictures of a run and its scores. Each function gives a matplotlib Figure; `save` writes one, `pixels` renders one.

Figures are made by themselves, without pyplot: no window, no global state, nothing to close.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bigkeras.metrics import occurring

TRAIN, VALIDATION, QUIET = "#4c78a8", "#e4572e", "#8a8f98"
NOT_CURVES = ("epoch", "step", "steps", "seconds", "examples_per_second", "tokens_per_second", "best_unsaved")
MOST_NAMES = 100
MOST_COUNTS = 20
MOST_BARS = 40
MOST_CURVES = 10
# Its glyphs are boxes that name a script: worse than a number.
BOXES = ("Last Resort High-Efficiency",)
LONGEST_NAME = 40  # characters: longer ones leave no room for what they name


@dataclass(frozen=True)
class Mistake:
    """One wrong answer: pixels uint8 (height, width, 1 or 3), the true and the given class, its probability 0 … 1."""

    image: np.ndarray
    true: int
    predicted: int
    probability: float


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a PNG beside `path` and renames it, so a reader never sees half a picture."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    figure.savefig(beside, format="png", dpi=110)
    os.replace(beside, path)
    return path


def pixels(figure: Figure, dpi: int = 80) -> np.ndarray:
    """The picture as uint8 (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, metrics and learning rate over the epochs, one panel each; training beside validation.

    `rows` are those of log.csv: a mapping of column to number (or text of one) with `epoch`; the line goes on past an
    empty value.
    """
    names = list(dict.fromkeys(key for row in rows for key in row if key not in NOT_CURVES))
    panels = [n for n in names if not n.startswith("val_") and any(np.isfinite(_column(rows, n)))]
    panels += [n for n in names if n.startswith("val_") and n.removeprefix("val_") not in names]
    across = min(3, max(1, len(panels)))
    down = max(1, -(-len(panels) // across))
    figure = Figure((4.6 * across, 3.3 * down), layout="constrained")
    epochs = _column(rows, "epoch")
    for name, axes in zip(panels, figure.subplots(down, across, squeeze=False).flat, strict=False):
        _curve(axes, name, epochs, rows)
    for axes in figure.axes[len(panels) :]:
        axes.set_visible(False)
    return figure


def confusion_matrix(matrix: Any, class_names: Sequence[str]) -> Figure:
    """Rows are the true classes, columns the answers; colour is the share of a row, figures are counts.

    `matrix` (classes, classes) counts. Up to 20 classes show counts, up to 100 every name, more every nth name.
    """
    matrix = np.asarray(matrix, float)
    count = len(class_names)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = min(15.0, max(4.5, 2.6 + 0.42 * count if count <= MOST_COUNTS else 2.6 + 0.13 * count))
    figure = Figure((size + 1, size), layout="constrained")
    axes = figure.subplots()
    # The square root lets rare confusions be seen beside a diagonal of nearly 1.
    shown = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    every = -(-count // MOST_NAMES)
    names, font = _readable(class_names)
    font.set_size(float(np.clip(600 * size / 15 / max(count, 1), 5.5, 10)))
    places = range(0, count, every)
    axes.set_xticks(places, [names[i] for i in places], rotation=90 if count > 10 else 45, fontproperties=font)
    axes.set_yticks(places, [names[i] for i in places], fontproperties=font)
    if count <= 10:
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.set(xlabel="predicted", ylabel="true")
    if count <= MOST_COUNTS:
        for row, column in np.argwhere(matrix > 0):
            color = "white" if shares[row, column] > 0.3 else "#333333"
            text = f"{matrix[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8 if len(text) < 4 else 7)
    axes.tick_params(length=0 if count <= MOST_COUNTS else 2)
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, format=PercentFormatter(1, 0), label="share of the true class")
    bar.outline.set_visible(False)
    _frameless(axes)
    return figure


def alignment(source: Sequence[str], target: Sequence[str], weight: np.ndarray) -> Figure:
    """What each piece of a translation looked at: rows are its pieces, columns the source's, dark is much.

    `weight` (target pieces, source pieces), from 0 to 1.
    """
    figure = Figure((min(20, 1.6 + 0.34 * len(source)), min(20, 1.2 + 0.3 * len(target))), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weight, cmap="Greys", vmin=0, aspect="auto", interpolation="nearest")
    names, font = _readable([piece.replace("\u2581", " ") for piece in (*source, *target)])
    axes.set_xticks(range(len(source)), names[: len(source)], rotation=90, fontproperties=font)
    axes.set_yticks(range(len(target)), names[len(source) :], fontproperties=font)
    axes.xaxis.tick_top()
    _frameless(axes)
    return figure


def reliability(rows: Sequence[Mapping[str, Any]], error: float | None = None) -> Figure:
    """How often answers of each confidence are right, above how many there are; on the diagonal is well calibrated.

    `rows` and `error` are `reliability` and `calibration_error` of bigkeras.metrics.
    """
    figure = Figure((4.8, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    low = np.array([row["low"] for row in rows])
    width = np.array([row["high"] for row in rows]) - low
    accuracy = np.array([np.nan if row["accuracy"] is None else row["accuracy"] for row in rows], float)
    confidence = np.array([np.nan if row["confidence"] is None else row["confidence"] for row in rows], float)
    above.plot([0, 1], [0, 1], color=QUIET, linestyle="--", linewidth=1, label="well calibrated")
    above.bar(low, accuracy, width * 0.94, align="edge", color=TRAIN, label="right answers")
    above.plot(confidence, accuracy, "o", color=VALIDATION, markersize=4, label="mean confidence")
    above.set(ylim=(0, 1), xlim=(0, 1), ylabel="accuracy")
    above.yaxis.set_major_formatter(PercentFormatter(1, 0))
    above.legend(frameon=False, fontsize=8, loc="upper left")
    if error is not None:
        above.set_title(f"expected calibration error {error:.2%}", fontsize=10, loc="left")
    below.bar(low, [row["examples"] for row in rows], width * 0.94, align="edge", color=QUIET)
    below.set(xlabel="confidence", ylabel="examples")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.xaxis.set_major_formatter(PercentFormatter(1, 0))
    for axes in (above, below):
        _plain(axes)
    return figure


def ranking(labels: Any, probabilities: Any, class_names: Sequence[str]) -> Figure:
    """ROC and precision-recall curves: of the second of two classes, or of each against all others.

    Of more than 10 classes, those of the least average precision; a class that never or always occurs has none.
    `labels` (n,), `probabilities` (n, classes).
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    figure = Figure((8.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names, font = _readable(class_names)
    places = [1] if len(class_names) == 2 else range(len(class_names))
    able = [i for i in places if 0 < np.count_nonzero(labels == i) < len(labels)]
    precisions = {i: average_precision_score(labels == i, probabilities[:, i]) for i in able}
    shown = sorted(sorted(able, key=precisions.__getitem__)[:MOST_CURVES])
    for number, i in enumerate(shown):
        own, scores = labels == i, probabilities[:, i]
        false_rate, true_rate, _ = roc_curve(own, scores)
        precision, recall, _ = precision_recall_curve(own, scores)
        colour = TRAIN if len(shown) == 1 else f"C{number}"
        left.plot(false_rate, true_rate, color=colour, label=f"{roc_auc_score(own, scores):.4f} {names[i]}")
        right.plot(recall, precision, color=colour, label=f"{precisions[i]:.4f} {names[i]}")
    left.plot([0, 1], [0, 1], color=QUIET, linestyle="--", linewidth=1)
    if len(shown) == 1:
        right.axhline(float(np.mean(labels == shown[0])), color=QUIET, linestyle="--", linewidth=1)
    left.set(xlabel="false alarms", ylabel="found", xlim=(0, 1), ylim=(0, 1.02))
    right.set(xlabel="found", ylabel="right among the answers", xlim=(0, 1), ylim=(0, 1.02))
    font.set_size(8)
    for axes, title in ((left, "ROC, area"), (right, "precision and recall, average precision")):
        axes.set_title(title, fontsize=10, loc="left")
        _plain(axes, grid="both")
        if shown:
            axes.legend(prop=font, frameon=False, loc="lower right" if axes is left else "lower left")
    return figure


def f1_bars(per_class: Sequence[Mapping[str, Any]]) -> Figure:
    """F1 of each class, the best on top; of more than 40 classes the 40 lowest of those that occur.

    `per_class` of bigkeras.metrics.
    """
    total = len(per_class)
    per_class = occurring(per_class) if total > MOST_BARS else per_class
    values = [row["f1"] for row in per_class]
    shown = np.argsort(values, kind="stable")[:MOST_BARS]
    names, font = _readable([row["name"] for row in per_class])
    font.set_size(9 if len(shown) <= 20 else 7)
    figure = Figure((6, 1.0 + (0.3 if len(shown) <= 20 else 0.2) * len(shown)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(shown)), [values[i] for i in shown], height=0.72, color=TRAIN)
    texts = [f"{values[i]:.3f}" for i in shown]
    axes.bar_label(bars, texts, padding=4, fontsize=font.get_size(), color="#555555")
    axes.set_yticks(range(len(shown)), [names[i] for i in shown], fontproperties=font)
    axes.set(xlim=(0, 1.1), ylim=(-0.6, len(shown) - 0.4), xticks=np.linspace(0, 1, 6))
    title = "F1 of each class" if len(shown) == total else f"F1 of the {len(shown)} weakest classes"
    axes.set_title(title, fontsize=10, loc="left")
    _plain(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    return figure


def mistakes(items: Sequence[Mistake], class_names: Sequence[str], across: int = 6) -> Figure:
    """The images of wrong answers in a grid, each with its true label, the answer and the answer's probability."""
    titles = [("true: {}\n{}  " + f"{item.probability:.0%}", (item.true, item.predicted)) for item in items]
    return _grid([item.image for item in items], titles, class_names, ["#333333"] * len(items), across)


def answers(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], across: int = 8
) -> Figure:
    """What a model says of some images: the answer and its probability, in red with the true label where it is wrong.

    `images` uint8 (n, height, width, channels), `labels` (n,), `probabilities` (n, classes).
    """
    titles, colors = [], []
    for label, row in zip(labels, probabilities, strict=True):
        given, right = int(row.argmax()), row.argmax() == label
        titles.append(("{}  " + f"{row.max():.0%}" + ("\n" if right else "\ntrue: {}"), (given, int(label))))
        colors.append("#333333" if right else "#c0392b")
    return _grid(list(images), titles, class_names, colors, across)


def _grid(
    images: Sequence[np.ndarray],
    titles: Sequence[tuple[str, tuple[int, int]]],
    class_names: Sequence[str],
    colors: Sequence[str],
    across: int,
) -> Figure:
    """Images in rows of `across`; a title is a format string and the two classes that it takes."""
    across = min(across, max(1, len(images)))
    down = max(1, -(-len(images) // across))
    names, font = _readable(class_names)
    font.set_size(8)
    # One axes for all: as many axes as images take seconds. In inches; each cell has two lines above its image.
    width, height, side = 1.7, 2.1, 1.6
    figure = Figure((max(3.4, width * across), height * down))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for number, (image, (title, classes), color) in enumerate(zip(images, titles, colors, strict=True)):
        image = np.squeeze(image, -1) if image.shape[-1] == 1 else image
        left, top = width * (number % across) + 0.05, height * (number // across) + 0.42
        scale = side / max(image.shape[:2])
        box = (left, left + image.shape[1] * scale, top + image.shape[0] * scale, top)
        smooth = "nearest" if len(image) < 64 else "antialiased"
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=box, interpolation=smooth)
        text = title.format(*(_short(names[number]) for number in classes))
        axes.text(left, top - 0.05, text, fontproperties=font, color=color, va="bottom", linespacing=1.25)
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(figure.get_figheight(), 0), aspect="equal")
    return figure


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """A column of the log as float64; what is empty or no number becomes NaN."""
    values = np.full(len(rows), np.nan)
    for number, row in enumerate(rows):
        try:
            values[number] = float(row.get(name, ""))
        except (TypeError, ValueError):
            continue
    return values


def _drawn(axes: Axes, epochs: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """A line through the values that are there: what is measured in some epochs only has gaps in between."""
    there = np.isfinite(values)
    axes.plot(epochs[there], values[there], **style)


def _curve(axes: Axes, name: str, epochs: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> None:
    marker = "o" if len(rows) < 30 else ""
    style: dict[str, Any] = {"marker": marker, "markersize": 3, "linewidth": 1.6}
    if name.startswith("val_"):
        _drawn(axes, epochs, _column(rows, name), color=VALIDATION, label="validation", **style)
    else:
        _drawn(axes, epochs, _column(rows, name), color=TRAIN, label="training", **style)
        validation = _column(rows, f"val_{name}")
        if np.isfinite(validation).any():
            _drawn(axes, epochs, validation, color=VALIDATION, label="validation", **style)
            axes.legend(frameon=False, fontsize=8)
    axes.set_title(name.removeprefix("val_").replace("_", " "), fontsize=10, loc="left")
    axes.set_xlabel("epoch", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)


def _plain(axes: Axes, grid: str = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e4e6ea", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _frameless(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _readable(names: Sequence[Any]) -> tuple[list[str], FontProperties]:
    """The names and fonts that hold their characters; a name that no font can show becomes its number, as #17."""
    families = ["DejaVu Sans"]
    # matplotlib reads $…$ as a formula.
    texts = [_short(str(name), LONGEST_NAME).replace("$", r"\$") for name in names]
    missing = {ord(c) for text in texts for c in text if c.isprintable()} - _characters(FontProperties(family=families))
    if missing:
        # Faces of normal weight; Noto Sans CJK, PingFang, Microsoft YaHei … whatever this machine has.
        for entry in fontManager.ttflist:
            if entry.style != "normal" or entry.weight != 400 or entry.name in (*families, *BOXES):
                continue
            held = missing & _characters(FontProperties(family=[entry.name]))
            if held:
                families.append(entry.name)
                missing -= held
            if not missing:
                break
    shown = [f"#{n}" if any(ord(c) in missing for c in text) else text for n, text in enumerate(texts)]
    return shown, FontProperties(family=families)


def _characters(font: FontProperties) -> set[int]:
    return set(FT2Font(fontManager.findfont(font)).get_charmap())
