"""Recurrent networks: the plain cell, LSTM and GRU, over texts or over images row by row."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from bigkeras.layers import LSTM
from bigkeras.models.blocks import classifier, known
from bigkeras.models.sequences import check_no_shards, check_sequence, embedded, pool, positive, row_input, token_input

L = keras.layers

POOLINGS = ("last", "max", "mean")
Sizes = dict[str, Any]


def rnn(
    *,
    num_classes: int,
    input_shape: tuple[int, int, int] | None = None,
    vocabulary_size: int | None = None,
    length: int | None = None,
    units: int = 128,
    depth: int = 1,
    embedding_width: int = 128,
    bidirectional: bool = False,
    pooling: str = "last",
    activation: str = "tanh",
    dropout: float = 0.0,
    shards: int = 1,
) -> keras.Model:
    """`depth` layers of the plain recurrent cell h_t = f(W x_t + U h_{t-1} + b), `units` wide in each direction.

    `activation`: f, a name that Keras knows, such as "relu" (Le et al. 2015, arXiv 1504.00941).

    Either `vocabulary_size` and `length`: token ids `(batch, length or less)`, 0 is padding; or `input_shape`: the
    image's rows are the steps. `pooling` takes the "last" state after the last real token (in both directions), or
    the "mean" or "max" of the states over the real tokens. `shards`: see `sequences.embedded`. Raises ValueError
    for other values.
    Source: Elman 1990, "Finding Structure in Time".
    """
    sizes = locals()
    cell = functools.partial(L.SimpleRNN, activation=keras.activations.get(sizes.pop("activation")))
    return _network(cell, "rnn", **sizes)


def lstm(
    *,
    num_classes: int,
    input_shape: tuple[int, int, int] | None = None,
    vocabulary_size: int | None = None,
    length: int | None = None,
    units: int = 128,
    depth: int = 1,
    embedding_width: int = 128,
    bidirectional: bool = False,
    pooling: str = "last",
    dropout: float = 0.0,
    shards: int = 1,
) -> keras.Model:
    """As `rnn`, with the long short-term memory's cell: input, forget and output gates around a memory.

    Source: Hochreiter & Schmidhuber 1997; the forget gate: Gers et al. 2000, its bias starts at 1.
    """
    return _network(LSTM, "lstm", **locals())


def gru(
    *,
    num_classes: int,
    input_shape: tuple[int, int, int] | None = None,
    vocabulary_size: int | None = None,
    length: int | None = None,
    units: int = 128,
    depth: int = 1,
    embedding_width: int = 128,
    bidirectional: bool = False,
    pooling: str = "last",
    dropout: float = 0.0,
    shards: int = 1,
) -> keras.Model:
    """As `rnn`, with the gated recurrent unit: an update and a reset gate.

    Source: Cho et al. 2014 (arXiv 1406.1078), section 2.3; the reset gate as cuDNN has it, after the product.
    """
    return _network(L.GRU, "gru", **locals())


def _network(
    cell: Callable[..., keras.layers.RNN],
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int] | None,
    vocabulary_size: int | None,
    length: int | None,
    embedding_width: int,
    units: int,
    depth: int,
    bidirectional: bool,
    pooling: str,
    dropout: float,
    shards: int,
) -> keras.Model:
    """The whole classifier; `cell` makes a layer of units, return_sequences and name."""
    texts: Sizes = {"vocabulary_size": vocabulary_size, "length": length}
    check_sequence(num_classes=num_classes, dropout=dropout, input_shape=input_shape, **texts)
    positive(units=units, depth=depth, embedding_width=embedding_width)
    known("pooling", pooling, POOLINGS)
    if input_shape is not None:
        check_no_shards(shards)
        (inputs, x), mask = row_input(input_shape), None
    else:
        inputs, mask = token_input()
        x = embedded(inputs, vocabulary_size=vocabulary_size or 0, width=embedding_width, shards=shards)
    for stage in range(1, depth + 1):
        last = stage == depth and pooling == "last"
        if dropout:
            x = L.Dropout(dropout, name=f"stage{stage}_dropout")(x)
        layer = cell(units, return_sequences=not last, name=f"stage{stage}")
        x = (L.Bidirectional(layer, name=f"stage{stage}") if bidirectional else layer)(x, mask=mask)
    x = L.Identity(name="features")(x) if pooling == "last" else pool(x, mask, pooling=pooling)
    return keras.Model(inputs, classifier(x, num_classes=num_classes, dropout=dropout), name=name)
