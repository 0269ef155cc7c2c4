"""A translation model taken apart for decoding: the source is read once, then the target is written step by step."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from bigkeras.layers import CachedSelfAttention, CrossAttention, LearnedPositions, SelfAttention, SinusoidalPositions

State = dict[str, Any]


@dataclass(frozen=True)
class Stepper:
    """Two models over the layers of one: what `models.stepper.stepper` gives.

    `encoder`: source → the memory. `decoder`: the tokens of one step, what was remembered → logits, and what is to be
    remembered. `caches`: for each layer with a cache the shape (heads, d) and the type. `longest`: the most steps that
    the positions allow, None without end. Several hypotheses of one sentence (beams) are steps beside one another:
    their keys and values lie in one cache that only grows, and a mask, carried over from parent to child, tells each
    beam which of them are its own past. So nothing is moved, and the memory is not repeated.
    """

    encoder: keras.Model
    decoder: keras.Model
    caches: tuple[tuple[int, int, str], ...]
    longest: int | None

    def start(self, source, *, beams: int, steps) -> tuple[Any, State]:
        """Reads the source `(batch, length)` and gives (memory, state) for that many beams and at most `steps` steps."""
        memory = self.encoder(source, training=False)
        batch, slots = ops.shape(source)[0], steps * beams
        written = [
            ops.zeros((batch, heads, slots, size), dtype=dtype) for heads, size, dtype in self.caches for _ in range(2)
        ]
        return memory, {"seen": ops.zeros((batch, beams, slots), dtype="bool"), "written": written}

    def step(self, tokens, index, memory, state: State) -> tuple[Any, State]:
        """The logits after one more token of each beam, float32 `(batch, beams, vocabulary)`, and the next state.

        `tokens`: int32 `(batch, beams)`, the first of them the beginning's; `index`: the step, a scalar from 0 on.
        """
        beams, slots = state["seen"].shape[1], ops.shape(state["seen"])[2]
        own = ops.arange(slots)[None, :] == ops.arange(beams)[:, None] + index * beams
        seen = ops.logical_or(state["seen"], own[None])
        places = ops.broadcast_to(index, (beams,))
        inputs = [tokens, *memory, places, index * beams, seen, *state["written"]]
        logits, *written = self.decoder(inputs, training=False)
        return logits, {"seen": seen, "written": written}

    def select(self, state: State, parents) -> State:
        """The state in which beam i goes on from where beam `parents[:, i]` stood; int32 `(batch, beams)`."""
        return {**state, "seen": _take_beams(state["seen"], parents)}


def stepper(model: keras.Model) -> Stepper:
    """Makes the Stepper of a translation model, new or loaded; both share their weights.

    The decoder's graph is walked once more, with a cache in the place of what looks back. Raises ValueError for a
    model that does not turn `source` and `target` into logits.
    """
    if [tensor.name for tensor in model.inputs] != ["source", "target"]:
        raise ValueError(f"{model.name} is not a translation model: its inputs are not source and target")
    source, target = model.inputs
    memory = _memory(model)
    encoder = keras.Model(source, memory, name=f"{model.name}_encoder")
    cached = [layer for layer in model.layers if isinstance(layer, SelfAttention) and layer.causal]
    caches = tuple((a.num_heads, a.output.shape[-1] // a.num_heads, a.compute_dtype) for a in cached)
    lengths = [layer.length for layer in model.layers if isinstance(layer, LearnedPositions)]
    return Stepper(encoder, _one_step(model, target, memory, cached), caches, min(lengths, default=None))


def _memory(model: keras.Model) -> list:
    """What the decoder takes from the encoder: keys, values and mask of each attention to the source, once each."""
    readers = [layer for layer in model.layers if isinstance(layer, CrossAttention)]
    tensors = [tensor for layer in readers for tensor in keras.tree.flatten(layer.input)[1:]]
    return list({id(tensor): tensor for tensor in tensors}.values())


def _one_step(model: keras.Model, target, memory: list, cached: list) -> keras.Model:
    """The decoder with its beams where the target's length was, and a key's and a value's cache for each layer."""
    places = keras.Input(batch_shape=(None,), dtype="int32", name="places")
    slot = keras.Input(batch_shape=(), dtype="int32", name="slot")
    seen = keras.Input((None, None), dtype="bool", name="seen")
    before = {layer.name: [_cache(layer, part) for part in ("key", "value")] for layer in cached}
    after = {}

    def call(layer, *args, **kwargs):
        if isinstance(layer, SinusoidalPositions | LearnedPositions):
            return layer(*args, start=places)
        if isinstance(layer, SelfAttention):
            twin = CachedSelfAttention(
                layer.num_heads, rotary=layer.rotary, dtype=layer.dtype_policy, name=f"{layer.name}_step"
            )
            outputs, *after[layer.name] = twin(*args, *before[layer.name], slot, mask=seen, positions=places)
            return outputs
        return layer(*args, **kwargs)

    own = [places, slot, seen, *keras.tree.flatten(before)]
    decoder = keras.Model([target, *memory, *own], model.output)
    inputs = [*(keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in (target, *memory)), *own]
    walked = keras.models.clone_model(decoder, inputs, clone_function=lambda layer: layer, call_function=call)
    caches = [tensor for layer in cached for tensor in after[layer.name]]
    return keras.Model(inputs, [walked.output, *caches], name=f"{model.name}_step")


def _cache(layer: SelfAttention, part: str):
    shape = (layer.num_heads, None, layer.output.shape[-1] // layer.num_heads)
    return keras.Input(shape, dtype=layer.compute_dtype, name=f"{layer.name}_{part}")


def _take_beams(x, parents):
    """Of `(batch, beams, …)` the beams that `parents` `(batch, beams)` says."""
    batch, beams = ops.shape(parents)[0], parents.shape[1]
    rows = ops.arange(batch, dtype="int32")[:, None] * beams + parents
    flat = ops.reshape(x, (batch * beams, *ops.shape(x)[2:]))
    return ops.reshape(ops.take(flat, ops.reshape(rows, (-1,)), axis=0), ops.shape(x))
