"""A translation model taken apart for decoding: the source is read once, then the target is written step by step."""

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from bigkeras.layers import (
    CachedSelfAttention,
    CrossAttention,
    LearnedPositions,
    RecurrentStep,
    RowsAtOnce,
    SelfAttention,
    SinusoidalPositions,
)
from bigkeras.models.transformer import attention_map

State = dict[str, Any]
ONE_STEP = (
    "in its decoder only bigkeras.layers.SelfAttention(causal=True) and recurrent layers with an initial_state, whose "
    "names begin with decoder, may look back, and CrossAttention, or AdditiveAttention of query, value and key, at the "
    "source"
)
SAME_LOGITS = 0.05  # of their size; in 16 bits a hundredth is rounding


@dataclass(frozen=True)
class Stepper:
    """Two models over the layers of one: what `models.stepper.stepper` gives.

    `encoder`: source → the memory, and the first states of recurrent layers. `decoder`: the tokens of one step, what
    was remembered → logits, and what is to be remembered. `caches`: for each attention to what was written the heads,
    their width and the type. `states`: how many states recurrent layers have. `longest`: the most steps that the
    positions allow, None without end. `compiled`: whether it is for a function that XLA compiles. Several hypotheses of
    one sentence (beams) are steps beside one another: their keys and values lie in one cache that only grows, and a
    mask, carried over from parent to child, tells each beam which of them are its own past. So no keys are moved, and
    the memory is not repeated. `covers`: whether the state holds `coverage`, float32 `(batch, beams, source length)`:
    how much each beam has looked at each piece of the source so far, the mean of all heads and layers; 1 at padding.
    `tied`: the embeddings that make the logits, if those are theirs; `transposed`: their table for a product, while it
    is at hand.
    """

    encoder: keras.Model
    decoder: keras.Model
    caches: tuple[tuple[int, int, str], ...]
    states: int
    longest: int | None
    compiled: bool = False
    covers: bool = False
    tied: keras.layers.Layer | None = None
    transposed: Any = None
    # What is larger in a `grown` state: its third axis.
    growing = ("mask", "cache")

    def ready(self) -> "Stepper":
        """This one with `transposed` made, for the steps of one search, which are not taken without it.

        A graph that nothing optimises would transpose the table at every step, which took more than half of its time.
        """
        if self.tied is None:
            return self
        return replace(self, transposed=ops.cast(ops.transpose(self.tied.embeddings), self.tied.compute_dtype))

    def start(self, source, *, beams: int, steps) -> tuple[Any, State]:
        """Reads the source `(batch, length)` and gives (memory, state) for `beams` and at most `steps`."""
        outputs = keras.tree.flatten(self.encoder(source, training=False))  # a single one is no list
        memory, states = outputs[: len(outputs) - self.states], outputs[len(outputs) - self.states :]
        states = [ops.repeat(x[:, None], beams, axis=1) for x in states]
        batch, slots = ops.shape(source)[0], steps * beams if self.caches else 0
        cache = [
            ops.zeros((batch, heads, slots, size), dtype=dtype) for heads, size, dtype in self.caches for _ in range(2)
        ]
        state = {"mask": ops.zeros((batch, beams, slots), dtype="bool"), "cache": cache, "states": states}
        if self.covers:
            padding = ops.cast(ops.equal(source, 0), "float32")
            state["coverage"] = ops.repeat(padding[:, None], beams, axis=1)
        return memory, state

    def room(self, state: State):
        """How many steps the caches of a state have room for; None where there are none, and any number will do."""
        return ops.shape(state["mask"])[2] // state["mask"].shape[1] if self.caches else None

    def grown(self, state: State, steps) -> State:
        """The state with room for `steps` steps in all: attention takes time for all that there is room for."""
        if not self.caches:
            return state
        more = steps * state["mask"].shape[1] - ops.shape(state["mask"])[2]

        def longer(x):
            shape = [*ops.shape(x)]
            return ops.concatenate([x, ops.zeros((*shape[:2], more, *shape[3:]), dtype=x.dtype)], axis=2)

        return {**state, "mask": longer(state["mask"]), "cache": [longer(x) for x in state["cache"]]}

    def step(self, tokens, index, memory, state: State) -> tuple[Any, State]:
        """The logits after one more token of each beam, float32 `(batch, beams, vocabulary)`, and the next state.

        `tokens`: int32 `(batch, beams)`, the first of them the beginning's; `index`: the step, a scalar from 0 on.
        """
        index = ops.convert_to_tensor(index, dtype="int32")
        beams, slots = state["mask"].shape[1], ops.shape(state["mask"])[2]
        own = ops.arange(slots)[None, :] == ops.arange(beams)[:, None] + index * beams
        mask = ops.logical_or(state["mask"], own[None])
        places = ops.broadcast_to(index, (beams,))
        transposed = [] if self.tied is None else [self.transposed]  # which `ready` has made
        inputs = [tokens, *memory, places, index * beams, mask, *transposed, *state["cache"], *state["states"]]
        logits, *rest = keras.tree.flatten(self.decoder(inputs, training=False))
        following = {"mask": mask}
        if self.covers:
            following["coverage"] = state["coverage"] + rest.pop()
        cache, states = rest[: len(rest) - self.states], rest[len(rest) - self.states :]
        return logits, {**following, "cache": cache, "states": states}

    def select(self, state: State, parents) -> State:
        """The state in which beam i goes on from where beam `parents[:, i]` stood; int32 `(batch, beams)`."""
        moved: State = {name: _take_beams(state[name], parents) for name in ("mask", "coverage") if name in state}
        return {**state, **moved, "states": [_take_beams(x, parents) for x in state["states"]]}


def stepper(model: keras.Model, *, compiled: bool = False, covers: bool = False) -> Stepper:
    """Makes the Stepper of a translation model, new or loaded; both share their weights.

    `compiled`: for a function that XLA compiles: the caches are then written quicker, and a search keeps its shapes
    static; without it the steps hold no XLA operation. `covers`: for a search with a coverage penalty. The decoder's
    graph is walked once more, with a cache in the place of what looks back. Raises ValueError for a model that does not
    turn `source` and `target` into logits, and for coverage of one that has no attention to the source.
    """
    _check_inputs(model)
    source, target = model.inputs
    readers = _readers(model)
    attentions = [layer for layer in model.layers if isinstance(layer, SelfAttention) and layer.causal]
    recurrent = [a for a in model.layers if isinstance(a, keras.layers.RNN) and a.name.startswith("decoder")]
    if covers and not readers:
        raise ValueError(f"{model.name} has no attention to the source: there is no coverage to ask for")
    memory, starts = _beside_the_first(readers), _beside_the_first(recurrent)
    lengths = [layer.length for layer in model.layers if isinstance(layer, LearnedPositions)]
    tied = None if compiled else _tied(model)
    return Stepper(
        encoder=keras.Model(source, [*memory, *starts], name="encoder"),
        decoder=_one_step(model, target, memory, attentions, recurrent, readers if covers else [], not compiled, tied),
        caches=tuple((a.num_heads, a.output.shape[-1] // a.num_heads, a.compute_dtype) for a in attentions),
        states=len(starts),
        longest=min(lengths, default=None),
        compiled=compiled,
        covers=covers,
        tied=tied,
    )


def check_steps(model: keras.Model, *, covers: bool = False) -> None:
    """Raises ValueError for a translation model that a search cannot go through, one that `covers` where it is asked.

    That is one whose steps have other logits than its full pass, of some tokens: so it is where layers look back that
    the stepper does not know, such as Keras' own attention, which would see the beams of one step in the place of the
    tokens before. Or one of other logits than float32.
    """
    _check_inputs(model)
    if covers and not _readers(model):
        raise ValueError("has no attention to the source, which a coverage penalty asks for: task.coverage_penalty=0")
    if model.output.dtype != "float32":
        raise ValueError(f'gives logits in {model.output.dtype}: its last layer needs dtype="float32"')
    source = np.array([[5, 6, 7, 8], [6, 5, 0, 0]], "int32")
    target = np.array([[4, 5, 6], [6, 4, 4]], "int32")
    if ops.convert_to_numpy(model([source, target], training=False)).any():
        _compare(model, source, target, covers)
        return
    # Weights that begin at 0 would hide whatever comes before them.
    kept, random = model.get_weights(), np.random.default_rng(0)
    model.set_weights([w + random.normal(0, 0.1, w.shape).astype(w.dtype) * (w.dtype.kind == "f") for w in kept])
    try:
        _compare(model, source, target, covers)
    finally:
        model.set_weights(kept)


def _compare(model: keras.Model, source: np.ndarray, target: np.ndarray, covers: bool) -> None:
    expected, found = ops.convert_to_numpy(model([source, target], training=False)), []
    try:
        steps = stepper(model, covers=covers).ready()
        memory, state = steps.start(ops.convert_to_tensor(source), beams=1, steps=target.shape[1])
        for index in range(target.shape[1]):
            logits, state = steps.step(ops.convert_to_tensor(target[:, index : index + 1]), index, memory, state)
            found.append(ops.convert_to_numpy(logits))
        difference = np.linalg.norm(np.concatenate(found, 1) - expected)
    except Exception as error:  # what Keras raises of a graph that cannot be cut there
        raise ValueError(f"cannot write token by token: {ONE_STEP}") from error
    if not difference <= SAME_LOGITS * np.linalg.norm(expected):  # which may be no number
        raise ValueError(f"written token by token it gives other logits than of all tokens at once: {ONE_STEP}")


def _readers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that look at the source."""
    return [layer for layer in model.layers if isinstance(layer, CrossAttention | keras.layers.AdditiveAttention)]


def _check_inputs(model: keras.Model) -> None:
    if [tensor.name for tensor in model.inputs] != ["source", "target"]:
        raise ValueError(f"{model.name} is not a translation model: its inputs are not source and target")


def _tied(model: keras.Model) -> keras.layers.Layer | None:
    """The embeddings whose table makes the model's logits, with nothing else to it.

    XLA is left alone: with a table transposed before, the product took longer there.
    """
    layers = {layer.name: layer for layer in model.layers}
    layer = layers.get("embedding", layers.get("target_embedding"))
    if not isinstance(layer, keras.layers.ReversibleEmbedding) or not layer.tie_weights:
        return None
    more = (layer.quantization_mode, layer.logit_soft_cap, layer.reverse_dtype)
    return layer if more == (None, None, None) else None


def _beside_the_first(layers: list) -> list:
    """What the layers take beside the running tensor, once each: keys, values and masks; first states."""
    tensors = [tensor for layer in layers for tensor in keras.tree.flatten(layer.input)[1:]]
    return list({id(tensor): tensor for tensor in tensors}.values())


def _one_step(
    model: keras.Model,
    target,
    memory: list,
    attentions: list,
    recurrent: list,
    observed: list,
    scatter: bool,
    tied: keras.layers.Layer | None,
) -> keras.Model:
    """The decoder with its beams where the target's length was, and with a memory of its own for what looks back.

    Its last output is, where there are `observed` layers, the mean of their attention weights.
    """
    places = keras.Input(batch_shape=(None,), dtype="int32", name="places")
    slot = keras.Input(batch_shape=(), dtype="int32", name="slot")
    mask = keras.Input((None, None), dtype="bool", name="mask")
    transposed = []
    if tied is not None:
        transposed = [keras.Input(batch_shape=tied.embeddings.shape[::-1], dtype=tied.compute_dtype)]
    before = {layer.name: [_cache(layer, part) for part in ("key", "value")] for layer in attentions}
    before |= {layer.name: [_state(x) for x in keras.tree.flatten(layer.input)[1:]] for layer in recurrent}
    after, looked = {}, []

    def call(layer, *args, **kwargs):
        if layer in observed:
            tensors = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
            looked.append(ops.mean(ops.cast(attention_map(layer, tensors), "float32"), axis=1))
        if isinstance(layer, SinusoidalPositions | LearnedPositions):
            return layer(*args, start=places)
        # A sum such as x + y is no layer, and has no type.
        twin: dict[str, Any] = {"dtype": getattr(layer, "dtype_policy", None), "name": f"{layer.name}_step"}
        if layer in attentions:
            step = CachedSelfAttention(layer.num_heads, rotary=layer.rotary, scatter=scatter, **twin)
            outputs, *after[layer.name] = step(*args, *before[layer.name], slot, mask=mask, positions=places)
        elif layer in recurrent:
            outputs, *after[layer.name] = RecurrentStep(layer.cell, **twin)(args[0], before[layer.name])
        elif isinstance(layer, keras.layers.Dense) or kwargs.get("reverse"):
            # Several calls share one layer: embedding and output.
            given = {"kernel": transposed[0]} if layer is tied else kwargs
            outputs = RowsAtOnce(layer, dtype=layer.compute_dtype)(*args, **given)  # its policy may be quantised
        else:
            outputs = layer(*args, **kwargs)
        return outputs

    own = [places, slot, mask, *transposed, *(x for inputs in before.values() for x in inputs)]
    given = [target, *memory, *_beside_the_first(recurrent)]
    history = target._keras_history
    decoder = keras.Model([*given, *own], model.output)
    inputs = [*(keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in given), *own]
    walked = keras.models.clone_model(decoder, inputs, clone_function=lambda layer: layer, call_function=call)
    # Keras 3.15 gives the input a new origin where inputs and inner tensors are mixed: `model` could not be saved.
    target._keras_history = history
    rest = [x for name in before for x in after[name]]
    if looked:
        rest.append(ops.mean(ops.stack(looked), axis=0))
    return keras.Model([*inputs[: len(memory) + 1], *own], [walked.output, *rest], name="step")


def _state(first):
    """A recurrent state of every beam."""
    return keras.Input((None, first.shape[-1]), dtype=first.dtype)


def _cache(layer: SelfAttention, part: str):
    shape = (layer.num_heads, None, layer.output.shape[-1] // layer.num_heads)
    return keras.Input(shape, dtype=layer.compute_dtype, name=f"{layer.name}_{part}")


def _take_beams(x, parents):
    """Of `(batch, beams, …)` the beams that `parents` `(batch, beams)` says."""
    batch, beams = ops.shape(parents)[0], parents.shape[1]
    rows = ops.arange(batch, dtype="int32")[:, None] * beams + parents
    flat = ops.reshape(x, (batch * beams, *ops.shape(x)[2:]))
    return ops.reshape(ops.take(flat, ops.reshape(rows, (-1,)), axis=0), ops.shape(x))
