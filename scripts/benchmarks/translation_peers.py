"""Our translator's weights in CTranslate2 and in Hugging Face's models of the same architecture.

That is Marian for norms after each block, Pegasus for norms before.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

POSITIONS = 512  # of the tables; more than any sentence here has
EPSILON = 1e-6  # of the layer normalisations
Pair = tuple[np.ndarray, np.ndarray]  # kernel as (outputs, inputs), or gamma; bias, or beta


class Weights:
    """The weights of a `transformer_translator` by what they do. Raises ValueError for another model."""

    def __init__(self, model: Any):
        from bigkeras.layers import CrossAttention, SinusoidalPositions

        self.model = model
        cross = [layer for layer in model.layers if isinstance(layer, CrossAttention)]
        names = {layer.name for layer in model.layers}
        if not cross or not any(isinstance(layer, SinusoidalPositions) for layer in model.layers):
            raise ValueError("the peers take a transformer_translator with positions=sinusoidal")
        if model.get_layer("encoder_stage1_feed_forward_1").activation.__name__ != "relu":
            raise ValueError("the peers take model.activation=relu, and this has another")
        self.pre_norm = "decoder_stage1_norm" in names
        self.depth, self.heads = len(cross), cross[0].num_heads
        joint = "embedding" in names
        self.source, self.target = (
            np.asarray(model.get_layer("embedding" if joint else name).embeddings)
            for name in ("source_embedding", "target_embedding")
        )
        self.width = self.source.shape[1]
        self.feed_forward = model.get_layer("encoder_stage1_feed_forward_1").units

    def dense(self, name: str) -> Pair:
        layer = self.model.get_layer(name)
        return np.ascontiguousarray(np.asarray(layer.kernel).T), np.asarray(layer.bias)

    def norm(self, name: str) -> Pair:
        layer = self.model.get_layer(name)
        return np.asarray(layer.gamma), np.asarray(layer.beta)

    def norms(self, name: str) -> list[Pair]:
        """Those of a block: of attention to itself, of a decoder's to the source, of feed-forward."""
        if name.startswith("encoder"):
            return [
                self.norm(f"{name}_attention_norm"),
                self.norm(f"{name}_feed_forward_norm" if self.pre_norm else name),
            ]
        return [self.norm(part + "_norm" * self.pre_norm) for part in (f"{name}_written", f"{name}_read", name)]

    def last_norms(self) -> list[Pair]:
        """The encoder's and the decoder's, after all blocks; none where each block ends with one."""
        return [self.norm("encoder_features"), self.norm("features")] if self.pre_norm else []

    def parts(self, name: str, count: int) -> Iterator[Pair]:
        """The dense layers that a fused one is made of."""
        kernel, bias = self.dense(name)
        return zip(np.split(kernel, count), np.split(bias, count), strict=True)

    def positions(self) -> np.ndarray:
        """The sinusoids, float32 `(POSITIONS, width)`."""
        rates = 10_000.0 ** (-2.0 * np.arange(self.width // 2) / self.width)
        angles = np.arange(POSITIONS)[:, None] * rates
        return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def write_ctranslate2(model: Any, folder: Path) -> None:
    """Writes a model in CTranslate2's format, float32; its tokens are the ids in decimals."""
    from ctranslate2.specs import common_spec, transformer_spec

    weights = Weights(model)
    spec = transformer_spec.TransformerSpec.from_config(
        weights.depth, weights.heads, pre_norm=weights.pre_norm, activation=common_spec.Activation.RELU
    )

    def dense(place: Any, pair: Pair) -> None:
        place.weight, place.bias = pair

    def norms(places: list[Any], pairs: list[Pair]) -> None:
        for place, pair in zip(places, pairs, strict=True):
            place.gamma, place.beta = pair

    spec.encoder.embeddings[0].weight, spec.decoder.embeddings.weight = weights.source, weights.target
    spec.encoder.position_encodings.encodings = spec.decoder.position_encodings.encodings = weights.positions()
    spec.decoder.projection.weight = weights.target
    for number, layer in enumerate(spec.encoder.layer, 1):
        name = f"encoder_stage{number}"
        dense(layer.self_attention.linear[0], weights.dense(f"{name}_attention_query_key_value"))
        dense(layer.self_attention.linear[1], weights.dense(f"{name}_attention_output"))
        norms([layer.self_attention.layer_norm, layer.ffn.layer_norm], weights.norms(name))
        dense(layer.ffn.linear_0, weights.dense(f"{name}_feed_forward_1"))
        dense(layer.ffn.linear_1, weights.dense(f"{name}_feed_forward_2"))
    for number, layer in enumerate(spec.decoder.layer, 1):
        name = f"decoder_stage{number}"
        dense(layer.self_attention.linear[0], weights.dense(f"{name}_self_attention_query_key_value"))
        dense(layer.self_attention.linear[1], weights.dense(f"{name}_self_attention_output"))
        places = [layer.self_attention.layer_norm, layer.attention.layer_norm, layer.ffn.layer_norm]
        norms(places, weights.norms(name))
        dense(layer.attention.linear[0], weights.dense(f"{name}_cross_attention_query"))
        dense(layer.attention.linear[1], weights.dense(f"{name}_cross_attention_key_value"))
        dense(layer.attention.linear[2], weights.dense(f"{name}_cross_attention_output"))
        dense(layer.ffn.linear_0, weights.dense(f"{name}_feed_forward_1"))
        dense(layer.ffn.linear_1, weights.dense(f"{name}_feed_forward_2"))
    if weights.pre_norm:
        norms([spec.encoder.layer_norm, spec.decoder.layer_norm], weights.last_norms())
    spec.config.layer_norm_epsilon = EPSILON
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = "1", "2", "3"
    spec.config.decoder_start_token = "2"
    spec.register_source_vocabulary([str(i) for i in range(len(weights.source))])
    spec.register_target_vocabulary([str(i) for i in range(len(weights.target))])
    spec.validate()
    spec.optimize()
    folder.mkdir(parents=True)
    spec.save(str(folder))


def write_hugging_face(model: Any, folder: Path) -> None:
    """Writes a model that transformers' `AutoModelForSeq2SeqLM.from_pretrained` loads.

    Raises ValueError for norms before each block and a vocabulary for each language, which no model there has.
    """
    import torch
    from transformers import MarianConfig, MarianMTModel, PegasusConfig, PegasusForConditionalGeneration

    weights = Weights(model)
    sides = ("encoder", "decoder")
    sizes: dict[str, Any] = {f"{side}_layers": weights.depth for side in sides}
    sizes |= {f"{side}_attention_heads": weights.heads for side in sides}
    sizes |= {f"{side}_ffn_dim": weights.feed_forward for side in sides}
    joint = weights.source is weights.target or np.array_equal(weights.source, weights.target)
    told: dict[str, Any] = {
        "vocab_size": len(weights.source), "d_model": weights.width, **sizes, "activation_function": "relu",
        "scale_embedding": True, "tie_word_embeddings": True, "max_position_embeddings": POSITIONS, "pad_token_id": 0,
        "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2, "forced_eos_token_id": None,
    }  # fmt: skip
    theirs: Any
    if not weights.pre_norm:
        sizes_of_both = {"decoder_vocab_size": len(weights.target), "share_encoder_decoder_embeddings": joint}
        theirs = MarianMTModel(MarianConfig(**told, **sizes_of_both))
    elif joint:
        theirs = PegasusForConditionalGeneration(PegasusConfig(**told))
    else:
        raise ValueError("Hugging Face's models with norms before each block have one vocabulary for both languages")
    values = dict(_values(weights))
    own = theirs.state_dict()
    tied = {"model.shared.weight"} if joint else set()
    for name in own:
        if name not in values and name not in tied | {"final_logits_bias"} and "embed_positions" not in name:
            raise ValueError(f"transformers has a weight that we do not know: {name}")
    given = {name: torch.from_numpy(np.array(value)) for name, value in values.items() if name in own}
    if joint:
        given["model.shared.weight"] = torch.from_numpy(np.array(weights.source))
    theirs.load_state_dict(given, strict=False)
    theirs.save_pretrained(folder)


def _values(weights: Weights) -> Iterator[tuple[str, np.ndarray]]:
    yield "model.encoder.embed_tokens.weight", weights.source
    yield "model.decoder.embed_tokens.weight", weights.target
    yield "lm_head.weight", weights.target
    for side, last in zip(("encoder", "decoder"), weights.last_norms(), strict=False):
        for part, value in zip(("weight", "bias"), last, strict=True):
            yield f"model.{side}.layer_norm.{part}", value
    for side in ("encoder", "decoder"):
        for number in range(weights.depth):
            for name, pair in _layer(weights, side, f"{side}_stage{number + 1}"):
                for part, value in zip(("weight", "bias"), pair, strict=True):
                    yield f"model.{side}.layers.{number}.{name}.{part}", value


def _layer(weights: Weights, side: str, name: str) -> Iterator[tuple[str, Pair]]:
    projections = ("q_proj", "k_proj", "v_proj")
    encoder = side == "encoder"
    own = f"{name}_attention" if encoder else f"{name}_self_attention"
    for part, pair in zip(projections, weights.parts(f"{own}_query_key_value", 3), strict=True):
        yield f"self_attn.{part}", pair
    yield "self_attn.out_proj", weights.dense(f"{own}_output")
    norms = ("self_attn_layer_norm", *(() if encoder else ("encoder_attn_layer_norm",)), "final_layer_norm")
    yield from zip(norms, weights.norms(name), strict=True)
    if not encoder:
        cross = f"{name}_cross_attention"
        yield "encoder_attn.q_proj", weights.dense(f"{cross}_query")
        for part, pair in zip(projections[1:], weights.parts(f"{cross}_key_value", 2), strict=True):
            yield f"encoder_attn.{part}", pair
        yield "encoder_attn.out_proj", weights.dense(f"{cross}_output")
    yield "fc1", weights.dense(f"{name}_feed_forward_1")
    yield "fc2", weights.dense(f"{name}_feed_forward_2")
