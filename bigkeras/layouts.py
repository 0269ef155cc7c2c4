"""Which part of a model lies on which device, on Keras' JAX backend.

A mesh has the axes "data" and "model". Every batch is parted along the first. Along the second, layers are: attention
heads and the inner width of feed-forwards, the rows of embeddings, the channels of convolutions, the gates of recurrent
cells. Source: Shoeybi et al. 2019 (arXiv 1909.08053), section 3; the optimizer's state along the first axis, too:
Rajbhandari et al. 2020 (arXiv 1910.02054), section 5.1, ZeRO stage 1.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from bigkeras import runtime

DATA, MODEL = "data", "model"
# What the path of a variable says of the axis that is parted over the model's devices, counted from the end; the first
# that matches counts, and what matches none is whole on every device.
AXES: tuple[tuple[str, int], ...] = (
    (r".*attention_(query|key|value|query_key_value|key_value)/(kernel|bias)", -1),
    (r".*attention_output/kernel", -2),
    (r".*feed_forward_1/(kernel|bias)", -1),
    (r".*feed_forward_2/kernel", -2),
    (r".*embedding/(embeddings|table\d+)", -2),
    (r".*(lstm|gru|simple_rnn)_cell/(kernel|recurrent_kernel|bias)", -1),
    (r".*conv[^/]*/(kernel|bias)", -1),
    (r"(stem|stage\d+)/(kernel|bias)", -1),
)


def set_distribution(make: Callable[[], keras.Model], machine: runtime.Machine) -> None:
    """Tells Keras how models that are made from now on lie on the devices; `make` gives one such model.

    Raises MachineError where the devices do not part so.
    """
    distribution = keras.distribution
    chosen = runtime.choose_on_jax(machine)
    # Keras forgets names, and how models lie on the devices: what is made first is called the same each time.
    keras.backend.clear_session()
    if chosen == "one":
        return
    devices = distribution.list_devices()
    if chosen == "data_parallel":
        distribution.set_distribution(distribution.DataParallel(devices=devices))
        return
    mesh = distribution.DeviceMesh((len(devices) // machine.shards, machine.shards), (DATA, MODEL), devices)
    # Made once undistributed, since a layout needs the shapes.
    shapes = {variable.path: tuple(variable.shape) for variable in make().variables}
    keras.backend.clear_session()
    layout = distribution.LayoutMap(mesh)
    for path, axes in layouts(shapes, machine.shards).items():
        layout[path] = distribution.TensorLayout(axes, mesh)
    distribution.set_distribution(distribution.ModelParallel(layout_map=layout, batch_dim_name=DATA))


def data_devices(machine: runtime.Machine) -> int:
    """Over how many devices a batch is parted. Raises MachineError where the devices do not part so."""
    count = len(keras.distribution.list_devices())
    return {"one": 1, "data_parallel": count, "model_parallel": count // max(machine.shards, 1)}[
        runtime.choose_on_jax(machine)
    ]


def layouts(shapes: dict[str, tuple[int, ...]], shards: int) -> dict[str, tuple[str | None, ...]]:
    """The axes of each variable by its path: "model" at the parted one, None at others.

    A variable whose axis does not divide by `shards` is whole on every device.
    """
    return {path: _axes(path, shape, shards) for path, shape in shapes.items()}


def _axes(path: str, shape: Sequence[int], shards: int) -> tuple[str | None, ...]:
    axis = next((axis for pattern, axis in AXES if re.fullmatch(pattern, path)), None)
    if axis is None or len(shape) < -axis or shape[axis] % shards:
        return (None,) * len(shape)
    return tuple(MODEL if place == axis % len(shape) else None for place in range(len(shape)))


def place_optimizer(optimizer: Any) -> None:
    """Parts the optimizer's moments over the data axis: each device keeps and updates its share alone.

    Of each variable the first axis that is whole and divides; what has none stays whole. To be called after `build`.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in inner.variables:
        sharding = variable.value.sharding
        if not len(variable.shape) or not isinstance(sharding, NamedSharding):
            continue
        axes = list(sharding.spec) + [None] * (len(variable.shape) - len(sharding.spec))
        name = sharding.mesh.axis_names[0]
        count = sharding.mesh.shape[name]
        for place, (axis, size) in enumerate(zip(axes, variable.shape, strict=True)):
            if axis is None and size % count == 0:
                axes[place] = name
                # Keras puts what is assigned where `_layout` says.
                variable._layout = NamedSharding(sharding.mesh, PartitionSpec(*axes))
                variable._value = jax.device_put(variable.value, variable._layout)
                break
