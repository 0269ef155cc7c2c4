"""What is compared: our step, stock Keras and PyTorch on the same models, one process each.

`python -m benchmarks.contenders '{"contender": "ours", "workload": "lenet", …}'` is started by train_image.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.interleave import serve

Run = Callable[[int], float]  # so many steps -> their mean loss
CLASSES = 10
MOMENTUM = 0.9
SEED = 0
EXAMPLES = 4096
PICTURE = (375, 500, 3)  # about what ImageNet's are like


@dataclass(frozen=True)
class Workload:
    """A model, its images `(height, width, channels)`, and how many steps a turn has."""

    model: str
    shape: tuple[int, int, int]
    batch: int
    steps: int
    learning_rate: float
    augmentation: tuple[tuple[str, Mapping[str, Any]], ...]
    args: Mapping[str, Any] = field(default_factory=dict)
    files: bool = False  # whether the real input is JPEG files, or arrays in memory


CROP = ("crop", {"padding": 2, "mode": "constant"})
WORKLOADS = {
    "lenet": Workload("lenet", (28, 28, 1), 128, 30, 0.005, (CROP,)),
    "resnet20": Workload("resnet", (32, 32, 3), 128, 3, 0.05, (("flip", {}), ("crop", {})), {"depth": 20}),
    "efficientnet-b0": Workload(
        "efficientnet", (224, 224, 3), 16, 1, 0.02, (("flip", {}), ("random_resized_crop", {})), files=True
    ),
    "tiny": Workload("lenet", (12, 12, 1), 8, 20, 0.02, (CROP,)),  # for the tests
}


def make(options: Mapping[str, Any]) -> Run:
    """The contender of a worker process. Options: contender, workload, precision, threads, folder (of JPEGs)."""
    return CONTENDERS[options["contender"]](WORKLOADS[options["workload"]], options)


def examples(shape: tuple[int, int, int], count: int, *, spread: float = 25.0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images, a pattern of 4×4 patches for each class under noise, and their int32 labels."""
    random = np.random.default_rng(SEED)
    labels = np.arange(count, dtype=np.int32) % CLASSES
    patterns = random.integers(64, 192, (CLASSES, 4, 4, shape[2])).astype(np.float32)
    rows, columns = (np.arange(side) * 4 // side for side in shape[:2])
    whole = patterns[:, rows][:, :, columns]
    images = np.empty((count, *shape), np.uint8)
    for image, label in zip(images, labels, strict=True):
        noise = random.standard_normal(shape, np.float32) * spread
        image[:] = np.clip(whole[label] + noise, 0, 255)
    return images, labels


def one_batch(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """float32 images of mean 0 and spread 1, and labels: what every contender but ours on real input gets."""
    images, labels = examples(workload.shape, workload.batch)
    return ((images - images.mean()) / images.std()).astype(np.float32), labels


# ---------------------------------------------------------------------- ours


def ours(workload: Workload, options: Mapping[str, Any]) -> Run:
    """The step that `bigkeras train` makes, on one batch that lies ready."""
    images, labels = examples(workload.shape, max(workload.batch, 64))
    tf, step, *_ = _our_step(workload, options, _arrays(images, labels), {})
    batch = images[: workload.batch], labels[: workload.batch], np.ones(workload.batch, np.float32)
    return our_run(step, tf.data.Dataset.from_tensors(batch).repeat())


def ours_input(workload: Workload, options: Mapping[str, Any]) -> Run:
    """The same on real input: read, decoded, augmented and batched by the trainer's own pipeline."""
    if workload.files:
        from bigkeras.data import DATASETS

        splits = DATASETS["image_folder"](directory=options["folder"])
        sizes = {"height": workload.shape[0], "width": workload.shape[1]}
    else:
        splits, sizes = _arrays(*examples(workload.shape, EXAMPLES)), {}
    _, step, recipe, task = _our_step(workload, options, splits, sizes)
    from bigkeras.checkpoint import Position
    from bigkeras.recipe_data import datasets

    batches, _ = datasets(recipe, splits, task, Position(), _bad, step.distribute_strategy)
    return our_run(step, batches)


def _bad(source: Any, index: int) -> None:
    raise ValueError(f"{source.name(index)} cannot be read")


def _arrays(images: np.ndarray, labels: np.ndarray) -> Any:
    from bigkeras.data.source import ArraySource, Splits

    return Splits(ArraySource({"image": images}, labels), None, None, tuple(map(str, range(CLASSES))))


def _our_step(workload: Workload, options: Mapping[str, Any], splits: Any, sizes: Mapping[str, int]) -> tuple:
    tf = start_tensorflow(options["threads"])
    from bigkeras import runtime
    from bigkeras.assembly import make_step
    from bigkeras.recipe import Choice, Recipe
    from bigkeras.tasks import TASKS

    recipe = Recipe(
        name="benchmark",
        data=Choice("none"),
        task=Choice("image_classification", sizes),
        model=Choice(workload.model, workload.args),
        optimizer=Choice("sgd", {"learning_rate": workload.learning_rate, "momentum": MOMENTUM}),
        schedule=Choice("constant"),
        augmentation=tuple(Choice(name, args) for name, args in workload.augmentation),
        precision=keras_precision(options),
        batch_size=workload.batch,
        epochs=100_000,
        seed=SEED,
    )
    task = TASKS["image_classification"](splits, recipe.augmentation, **sizes)
    with runtime.precision(recipe.precision):
        step = make_step(recipe, splits, task, runtime.Machine(), None)
    return tf, step, recipe, task


def our_run(step: Any, batches: Any) -> Run:
    step.make_train_function()
    iterator = iter(batches)

    def run(count: int) -> float:
        step.reset_metrics()
        step.steps_left = count
        while step.steps_left:
            step.train_function(iterator)
        return step.get_metrics_result()["loss"]

    return run


# ---------------------------------------------------------------------- stock Keras


def stock(workload: Workload, options: Mapping[str, Any]) -> Run:
    """`compile` and the train function of `fit`, on the same model of stock layers, with the same first weights."""
    start_tensorflow(options["threads"])
    import keras

    keras.utils.set_random_seed(SEED)
    return stock_run(stock_model(workload, keras_precision(options)), one_batch(workload), workload.learning_rate)


def stock_run(model: Any, batch: tuple[np.ndarray, np.ndarray], learning_rate: float) -> Run:
    """Stock Keras' own training of a model on one batch that lies ready."""
    import keras
    import tensorflow as tf

    model.compile(
        keras.optimizers.SGD(learning_rate, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    model._symbolic_build(data_batch=batch)  # as fit does first
    model.make_train_function()

    def run(count: int) -> float:
        model.reset_metrics()
        for _ in range(count):
            model.train_function(iterator)
        return float(model.get_metrics_result()["loss"])

    return run


def stock_model(workload: Workload, precision: str) -> Any:
    """Our model with Keras' own layer wherever bigkeras has one of its own, and the weights of ours."""
    import keras

    from bigkeras import layers, runtime
    from bigkeras.models import MODELS

    replaced = {
        layers.BatchNorm: keras.layers.BatchNormalization,
        layers.DepthwiseConv: keras.layers.DepthwiseConv2D,
    }

    def clone(layer: Any) -> Any:
        return replaced.get(type(layer), type(layer)).from_config(layer.get_config())

    with runtime.precision(precision):
        own = MODELS[workload.model](input_shape=workload.shape, num_classes=CLASSES, **workload.args)
        model = keras.models.clone_model(own, clone_function=clone)
    model.set_weights(own.get_weights())
    return model


def keras_precision(options: Mapping[str, Any]) -> str:
    return {"float32": "float32", "bfloat16": "mixed_bfloat16"}[options["precision"]]


def start_tensorflow(threads: int) -> Any:
    from bigkeras import runtime

    runtime.check_backend()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


# ---------------------------------------------------------------------- PyTorch


def pytorch(workload: Workload, options: Mapping[str, Any], *, compiled: bool = False) -> Run:
    """A plain training loop, channels last, the optimizer's fused form."""
    torch = start_pytorch(options)
    from benchmarks.pytorch_models import MODELS

    images, labels = one_batch(workload)
    layout = torch.channels_last
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    network = MODELS[options["workload"]](workload.shape, CLASSES).to(memory_format=layout)
    return pytorch_run(network, [x], labels, workload.learning_rate, options, compiled)


def start_pytorch(options: Mapping[str, Any]) -> Any:
    """PyTorch on so many threads, seeded."""
    import torch

    # TensorFlow does so itself. Without it the gradients that vanish over 200 steps make an LSTM's step take ten times.
    torch.set_flush_denormal(True)
    torch.set_num_threads(options["threads"])
    torch.manual_seed(SEED)
    return torch


def pytorch_run(
    network: Any,
    x: Sequence[Any],
    labels: np.ndarray,
    learning_rate: float,
    options: Mapping[str, Any],
    compiled: bool,
    **loss_args: Any,
) -> Run:
    """PyTorch's training of a network on one batch that lies ready; `loss_args` are those of its cross entropy."""
    import torch

    y = torch.from_numpy(labels.astype(np.int64))
    optimizer = torch.optim.SGD(network.train().parameters(), learning_rate, momentum=MOMENTUM, fused=True)
    forward = torch.compile(network) if compiled else network
    half = options["precision"] == "bfloat16"

    def run(count: int) -> float:
        total = torch.zeros(())
        for _ in range(count):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = torch.nn.functional.cross_entropy(forward(*x).flatten(0, -2), y, **loss_args)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item() / count

    return run


CONTENDERS: dict[str, Callable[[Workload, Mapping[str, Any]], Run]] = {
    "ours": ours,
    "ours, real input": ours_input,
    "stock Keras": stock,
    "PyTorch": pytorch,
    "PyTorch, compiled": functools.partial(pytorch, compiled=True),  # needs a C++ compiler
}

if __name__ == "__main__":
    serve(make)
