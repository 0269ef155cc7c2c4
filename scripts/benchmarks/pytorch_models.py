"""The peers in PyTorch: the same LeNet, ResNet-20 and EfficientNet-B0, as a user of PyTorch would write them."""

import torch
from torch import nn
from torch.nn import functional as F

MOMENTUM = 0.1  # of the new statistics: Keras' 0.9

# (blocks, kernel size, stride, expansion, channels): Tan & Le 2019 (arXiv 1905.11946), table 1
EFFICIENTNET_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def lenet(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """LeNet-5 with ReLU and maxima, of images `(height, width, channels)`."""
    height, width, channels = shape
    padding = 2 if min(height, width) < 32 else 0
    sizes = [((side + 2 * padding - 4) // 2 - 4) // 2 for side in (height, width)]
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=padding),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * sizes[0] * sizes[1], 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Linear(84, num_classes),
    )


def conv_norm(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, epsilon: float = 1e-3):
    """Convolution without bias and batch normalisation, in a list."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return [convolution, nn.BatchNorm2d(outputs, eps=epsilon, momentum=MOMENTUM)]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut without parameters (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.stride, self.new = stride, outputs - inputs
        self.body = nn.Sequential(
            *conv_norm(inputs, outputs, 3, stride=stride),
            nn.ReLU(inplace=True),
            *conv_norm(outputs, outputs, 3),
        )

    def forward(self, x):
        shortcut = x
        if self.new:
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new // 2))
        return F.relu(self.body(x) + shortcut, inplace=True)


def resnet20(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """He et al. 2015 (arXiv 1512.03385), section 4.2, with n = 3."""
    layers = [*conv_norm(shape[2], 16, 3), nn.ReLU(inplace=True)]
    inputs = 16
    for outputs in (16, 32, 64):
        for _ in range(3):
            layers.append(BasicBlock(inputs, outputs, 1 if inputs == outputs else 2))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))


class SqueezeExcite(nn.Module):
    """Weighs the channels by what the whole image holds."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True)))))


class InvertedBottleneck(nn.Module):
    """EfficientNet's block; `drop` is the probability of leaving it out for an example."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int, drop: float):
        super().__init__()
        self.residual, self.drop = stride == 1 and inputs == outputs, drop
        wide = inputs * expansion
        expand = [*conv_norm(inputs, wide, 1), nn.SiLU(inplace=True)] if expansion > 1 else []
        self.body = nn.Sequential(
            *expand,
            *conv_norm(wide, wide, kernel, stride=stride, groups=wide),
            nn.SiLU(inplace=True),
            SqueezeExcite(wide, max(1, inputs // 4)),
            *conv_norm(wide, outputs, 1),
        )

    def forward(self, x):
        y = self.body(x)
        if not self.residual:
            return y
        if self.training and self.drop:
            keep = 1 - self.drop
            y = y * (torch.empty(len(y), 1, 1, 1, dtype=y.dtype).bernoulli_(keep) / keep)
        return x + y


def efficientnet_b0(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """EfficientNet-B0 with stochastic depth and dropout of 0.2."""
    layers = [*conv_norm(shape[2], 32, 3, stride=2), nn.SiLU(inplace=True)]
    inputs, done, total = 32, 0, sum(stage[0] for stage in EFFICIENTNET_STAGES)
    for blocks, kernel, stride, expansion, outputs in EFFICIENTNET_STAGES:
        for block in range(blocks):
            layers.append(
                InvertedBottleneck(
                    inputs,
                    outputs,
                    kernel=kernel,
                    stride=1 if block else stride,
                    expansion=expansion,
                    drop=0.2 * done / total,
                )
            )
            inputs, done = outputs, done + 1
    layers += [*conv_norm(inputs, 1280, 1), nn.SiLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(1280, num_classes))


MODELS = {"lenet": lenet, "resnet20": resnet20, "efficientnet-b0": efficientnet_b0, "tiny": lenet}
