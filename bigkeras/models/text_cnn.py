"""Convolutions over words, and the maximum of each over time."""

import keras

from bigkeras.layers import MaskedMax, ZeroPadded
from bigkeras.models.blocks import classifier
from bigkeras.models.sequences import check_sequence, embedded, positive, token_input

L = keras.layers


def text_cnn(
    *,
    vocabulary_size: int,
    length: int,
    num_classes: int,
    embedding_width: int = 128,
    windows: tuple[int, ...] = (3, 4, 5),
    filters: int = 100,
    dropout: float = 0.5,
    shards: int = 1,
) -> keras.Model:
    """`filters` convolutions for each width of window, each reduced to its largest value in the text.

    Token ids `(batch, any length)`, 0 is padding. Windows also stand over the text's ends, as if zeros went on for
    ever, so that a text shorter than a window has an answer, and padding none of its own. `shards`: see
    `sequences.embedded`. The paper's limit on the norm of the last layer's weights is left out. Raises ValueError for
    sizes below 1. Source: Kim 2014 (arXiv 1408.5882), section 2.
    """
    check_sequence(num_classes=num_classes, dropout=dropout, vocabulary_size=vocabulary_size, length=length)
    if not windows or min(windows) < 1:
        raise ValueError(f"windows={windows}: one width, at least 1, for each group of filters")
    positive(embedding_width=embedding_width, filters=filters)
    inputs, mask = token_input()
    x = embedded(inputs, vocabulary_size=vocabulary_size, width=embedding_width, shards=shards)
    x = ZeroPadded(name="stem")(x, mask=mask)
    groups = []
    for stage, window in enumerate(windows, start=1):
        y = L.Conv1D(filters, window, padding="same", activation="relu", name=f"stage{stage}")(x)
        groups.append(MaskedMax(name=f"stage{stage}_max")(y, mask=mask))
    x = L.Concatenate(name="features")(groups) if len(groups) > 1 else L.Identity(name="features")(groups[0])
    return keras.Model(inputs, classifier(x, num_classes=num_classes, dropout=dropout), name="text_cnn")
