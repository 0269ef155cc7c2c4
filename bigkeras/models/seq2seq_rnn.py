"""The recurrent translator: an LSTM or GRU reads the source both ways, another writes and looks back at it."""

from typing import Any

import keras

from bigkeras.layers import LSTM, CrossAttention, SplitHeads
from bigkeras.models.blocks import check, known
from bigkeras.models.sequences import positive, token_embeddings, translation_inputs

L = keras.layers

CELLS = {"gru": L.GRU, "lstm": LSTM}


def seq2seq_rnn(
    *,
    vocabulary_size: int,
    length: int,
    target_vocabulary_size: int | None = None,
    cell: str = "lstm",
    attention: str = "multiplicative",
    units: int = 256,
    depth: int = 1,
    embedding_width: int = 256,
    dropout: float = 0.3,
) -> keras.Model:
    """An LSTM or GRU encoder-decoder with attention: inputs and outputs are those of `transformer_translator`.

    `depth` layers on each side: the encoder's read in both directions, half of `units` each; the decoder's start from
    what the encoder's last one ended with. At each step the decoder's state asks the encoder's outputs: "additive",
    vᵀ tanh(W s + U h), or "multiplicative", sᵀ W h / √units. State and answer together give the next word, in both
    cases after the recurrence, as Luong has it: so training is not bound to go step by step through the attention. The
    output's kernel is the target's embedding. The layer `cross_attention` gives its weights to `attention_maps`.
    Raises ValueError for sizes that do not fit together. Sources: Bahdanau et al. 2015 (arXiv 1409.0473), section 3 and
    appendix A.1; Luong et al. 2015 (arXiv 1508.04025), section 3.1.
    """
    known("cell", cell, CELLS)
    known("attention", attention, ATTENTIONS)
    positive(units=units, depth=depth, embedding_width=embedding_width)
    if units % 2:
        raise ValueError(f"units={units}: an even number, half for each direction")
    check(input_shape=(1, 1, 1), num_classes=1, dropout=dropout)
    source, target, mask = translation_inputs(vocabulary_size, target_vocabulary_size, length)
    from_source, from_target = token_embeddings(vocabulary_size, target_vocabulary_size, embedding_width)
    memory, final = from_source(source), []
    for stage in range(1, depth + 1):
        memory = _dropped(memory, dropout, name=f"encoder_stage{stage}_dropout")
        layer = CELLS[cell](units // 2, return_sequences=True, return_state=True, name=f"encoder_stage{stage}_cells")
        memory, *final = L.Bidirectional(layer, name=f"encoder_stage{stage}")(memory, mask=mask)
    memory = L.Identity(name="encoder_features")(memory)
    ending = L.Concatenate(name="encoder_states")(final)
    x = from_target(target)
    for stage in range(1, depth + 1):
        x = _dropped(x, dropout, name=f"decoder_stage{stage}_dropout")
        parts = ("hidden", "memory") if cell == "lstm" else ("hidden",)
        start = [L.Dense(units, activation="tanh", name=f"decoder_stage{stage}_{part}")(ending) for part in parts]
        x = CELLS[cell](units, return_sequences=True, name=f"decoder_stage{stage}")(x, initial_state=start)
    x = L.Concatenate(name="read")([x, ATTENTIONS[attention](x, memory, mask)])
    x = _dropped(x, dropout, name="read_dropout")
    x = L.Dense(embedding_width, activation="tanh", name="features")(x)
    logits = L.Identity(dtype="float32", name="logits")(from_target(x, reverse=True))
    return keras.Model([source, target], logits, name="seq2seq_rnn")


def additive(x, memory, mask):
    """`x` `(batch, length, width)` asks `memory` `(batch, keys, width)`; gives `(batch, length, width)`."""
    query = L.Dense(x.shape[-1], name="cross_attention_query")(x)
    key = L.Dense(x.shape[-1], use_bias=False, name="cross_attention_key")(memory)
    return L.AdditiveAttention(name="cross_attention")([query, memory, key], mask=[None, mask])


def multiplicative(x, memory, mask):
    """As `additive`, by products: attention of one head, whose keys and values are the memory itself."""
    query = L.Dense(x.shape[-1], use_bias=False, name="cross_attention_query")(x)
    (memory,) = SplitHeads(1, parts=1, name="cross_attention_heads")(memory)
    return CrossAttention(1, name="cross_attention")(query, memory, memory, mask=mask)


ATTENTIONS: dict[str, Any] = {"additive": additive, "multiplicative": multiplicative}


def _dropped(x, dropout: float, *, name: str):
    return L.Dropout(dropout, name=name)(x) if dropout else x
