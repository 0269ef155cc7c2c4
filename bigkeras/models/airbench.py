"""The network of "94% on CIFAR-10 in 3.29 Seconds": few layers, a whitening start, made to train in ten epochs."""

import keras
from keras import ops

from bigkeras.layers import ApproximateGelu, BatchNorm, PatchWhitening, ScaledBias
from bigkeras.models.blocks import check

L = keras.layers

# The paper's hyperparameters: few steps, so statistics that follow fast. Its epsilon is 1e-12; the fused kernel's
# smallest is this one.
BATCH_NORM_MOMENTUM = 0.6
BATCH_NORM_EPSILON = 1.001e-5


@keras.saving.register_keras_serializable(package="bigkeras")
class PartialIdentity(keras.initializers.Initializer):
    """A convolution's start: the first outputs repeat the inputs (Dirac), the others are uniform ±1/√fan_in.

    `keras.initializers.IdentityInitializer` is for matrices only. Shape `(h, w, inputs, outputs)`, h and w odd.
    Source: Jordan 2024 (arXiv 2404.00498), section 3.3.
    """

    def __init__(self, seed: int | None = None):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        """Gives the kernel of `shape`."""
        height, width, inputs, outputs = shape
        limit = (height * width * inputs) ** -0.5
        uniform = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)
        same = min(inputs, outputs)
        identity = ops.eye(inputs, same, dtype=dtype)
        identity = ops.reshape(identity, (1, 1, inputs, same))
        identity = ops.pad(identity, [(height // 2, height // 2), (width // 2, width // 2), (0, 0), (0, 0)])
        if outputs == same:
            return identity
        return ops.concatenate([identity, uniform((height, width, inputs, outputs - same), dtype)], axis=-1)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"seed": self.seed}


def airbench(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    widths: tuple[int, ...] = (64, 256, 256),
    convs_per_stage: int = 2,
    scaling: float = 1 / 9,
) -> keras.Model:
    """A frozen 2×2 whitening convolution, stages that halve the image, and a maximum over what is left.

    1,971,352 trainable parameters at 32×32×3 with ten classes.
    Call `model.get_layer("stem_whitening").adapt(images)` with normalised training images before training. Three
    convolutions in a stage get the paper's residual connection around the last two ("airbench96" with
    `widths=(128, 384, 512)`). `scaling` keeps the first logits small; it is applied before the last, linear layer,
    where it means the same.
    GELU is its approximation by tanh, the paper's is exact. Raises ValueError for images too small for the stages.
    Source: Jordan 2024 (arXiv 2404.00498), section 3 and appendix A.
    """
    check(input_shape=input_shape, num_classes=num_classes, smallest=2 ** len(widths) + 1)
    if not widths or min(widths) < 1:
        raise ValueError(f"widths={widths}: one positive width for each stage")
    if convs_per_stage < 1:
        raise ValueError(f"convs_per_stage={convs_per_stage}: at least 1")
    inputs = keras.Input(input_shape, name="image")
    x = PatchWhitening(2, name="stem_whitening")(inputs)
    x = ApproximateGelu(name="stem")(x)
    for stage, width in enumerate(widths, start=1):
        x = _stage(x, width, convs_per_stage, name=f"stage{stage}")
    x = L.GlobalMaxPooling2D(name="pool")(x)
    x = L.Rescaling(scaling, name="features")(x)
    limit = x.shape[-1] ** -0.5
    start = keras.initializers.RandomUniform(-limit, limit)
    x = L.Dense(num_classes, use_bias=False, kernel_initializer=start, dtype="float32", name="logits")(x)
    return keras.Model(inputs, x, name="airbench")


def _stage(x, width: int, convs: int, *, name: str):
    """Convolution, halving maximum, then convolutions at the smaller size: `(batch, h/2, w/2, width)`."""
    x = _conv(x, width, name=f"{name}_1_conv")
    x = L.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = _norm(x, name=f"{name}_1_bn")
    x = ApproximateGelu(name=name if convs == 1 else f"{name}_1")(x)
    shortcut = x
    for index in range(2, convs + 1):
        x = _conv(x, width, name=f"{name}_{index}_conv")
        x = _norm(x, name=f"{name}_{index}_bn")
        if index == convs and convs > 2:
            x = L.Add(name=f"{name}_add")([shortcut, x])
        x = ApproximateGelu(name=name if index == convs else f"{name}_{index}")(x)
    return x


def _conv(x, width: int, *, name: str):
    return L.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=PartialIdentity(), name=name)(x)


def _norm(x, *, name: str):
    x = BatchNorm(momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, scale=False, center=False, name=name)(x)
    return ScaledBias(name=f"{name}_bias")(x)
