"""Our translator's weights in CTranslate2 and in Hugging Face's Marian, which has the same architecture."""

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
        plain = any(isinstance(layer, SinusoidalPositions) for layer in model.layers)
        if not cross or not plain or "decoder_stage1_norm" in names:
            raise ValueError("the peers take a transformer_translator with norm=post and positions=sinusoidal")
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
        weights.depth, weights.heads, pre_norm=False, activation=common_spec.Activation.RELU
    )

    def dense(place: Any, pair: Pair) -> None:
        place.weight, place.bias = pair

    def norm(place: Any, name: str) -> None:
        place.gamma, place.beta = weights.norm(name)

    spec.encoder.embeddings[0].weight, spec.decoder.embeddings.weight = weights.source, weights.target
    spec.encoder.position_encodings.encodings = spec.decoder.position_encodings.encodings = weights.positions()
    spec.decoder.projection.weight = weights.target
    for number, layer in enumerate(spec.encoder.layer, 1):
        name = f"encoder_stage{number}"
        dense(layer.self_attention.linear[0], weights.dense(f"{name}_attention_query_key_value"))
        dense(layer.self_attention.linear[1], weights.dense(f"{name}_attention_output"))
        norm(layer.self_attention.layer_norm, f"{name}_attention_norm")
        dense(layer.ffn.linear_0, weights.dense(f"{name}_feed_forward_1"))
        dense(layer.ffn.linear_1, weights.dense(f"{name}_feed_forward_2"))
        norm(layer.ffn.layer_norm, name)
    for number, layer in enumerate(spec.decoder.layer, 1):
        name = f"decoder_stage{number}"
        dense(layer.self_attention.linear[0], weights.dense(f"{name}_self_attention_query_key_value"))
        dense(layer.self_attention.linear[1], weights.dense(f"{name}_self_attention_output"))
        norm(layer.self_attention.layer_norm, f"{name}_written")
        dense(layer.attention.linear[0], weights.dense(f"{name}_cross_attention_query"))
        dense(layer.attention.linear[1], weights.dense(f"{name}_cross_attention_key_value"))
        dense(layer.attention.linear[2], weights.dense(f"{name}_cross_attention_output"))
        norm(layer.attention.layer_norm, f"{name}_read")
        dense(layer.ffn.linear_0, weights.dense(f"{name}_feed_forward_1"))
        dense(layer.ffn.linear_1, weights.dense(f"{name}_feed_forward_2"))
        norm(layer.ffn.layer_norm, name)
    spec.config.layer_norm_epsilon = EPSILON
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = "1", "2", "3"
    spec.config.decoder_start_token = "2"
    spec.register_source_vocabulary([str(i) for i in range(len(weights.source))])
    spec.register_target_vocabulary([str(i) for i in range(len(weights.target))])
    spec.validate()
    spec.optimize()
    folder.mkdir(parents=True)
    spec.save(str(folder))


def write_marian(model: Any, folder: Path) -> None:
    """Writes a model that `transformers.MarianMTModel.from_pretrained` loads."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    weights = Weights(model)
    sides = ("encoder", "decoder")
    sizes: dict[str, Any] = {f"{side}_layers": weights.depth for side in sides}
    sizes |= {f"{side}_attention_heads": weights.heads for side in sides}
    sizes |= {f"{side}_ffn_dim": weights.feed_forward for side in sides}
    joint = weights.source is weights.target or np.array_equal(weights.source, weights.target)
    config = MarianConfig(
        vocab_size=len(weights.source), decoder_vocab_size=len(weights.target), d_model=weights.width, **sizes,
        activation_function="relu", scale_embedding=True, share_encoder_decoder_embeddings=joint,
        tie_word_embeddings=True, max_position_embeddings=POSITIONS,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    marian = MarianMTModel(config)
    values = dict(_marian_values(weights))
    own = marian.state_dict()
    tied = {"model.shared.weight"} if joint else set()
    for name in own:
        if name not in values and name not in tied | {"final_logits_bias"} and "embed_positions" not in name:
            raise ValueError(f"transformers has a weight of Marian that we do not know: {name}")
    told = {name: torch.from_numpy(np.array(value)) for name, value in values.items() if name in own}
    if joint:
        told["model.shared.weight"] = torch.from_numpy(np.array(weights.source))
    marian.load_state_dict(told, strict=False)
    marian.save_pretrained(folder)


def _marian_values(weights: Weights) -> Iterator[tuple[str, np.ndarray]]:
    yield "model.encoder.embed_tokens.weight", weights.source
    yield "model.decoder.embed_tokens.weight", weights.target
    yield "lm_head.weight", weights.target
    for side in ("encoder", "decoder"):
        for number in range(weights.depth):
            for name, pair in _marian_layer(weights, side, f"{side}_stage{number + 1}"):
                for part, value in zip(("weight", "bias"), pair, strict=True):
                    yield f"model.{side}.layers.{number}.{name}.{part}", value


def _marian_layer(weights: Weights, side: str, name: str) -> Iterator[tuple[str, Pair]]:
    projections = ("q_proj", "k_proj", "v_proj")
    encoder = side == "encoder"
    own = f"{name}_attention" if encoder else f"{name}_self_attention"
    for part, pair in zip(projections, weights.parts(f"{own}_query_key_value", 3), strict=True):
        yield f"self_attn.{part}", pair
    yield "self_attn.out_proj", weights.dense(f"{own}_output")
    yield "self_attn_layer_norm", weights.norm(f"{name}_attention_norm" if encoder else f"{name}_written")
    if not encoder:
        cross = f"{name}_cross_attention"
        yield "encoder_attn.q_proj", weights.dense(f"{cross}_query")
        for part, pair in zip(projections[1:], weights.parts(f"{cross}_key_value", 2), strict=True):
            yield f"encoder_attn.{part}", pair
        yield "encoder_attn.out_proj", weights.dense(f"{cross}_output")
        yield "encoder_attn_layer_norm", weights.norm(f"{name}_read")
    yield "fc1", weights.dense(f"{name}_feed_forward_1")
    yield "fc2", weights.dense(f"{name}_feed_forward_2")
    yield "final_layer_norm", weights.norm(name)
