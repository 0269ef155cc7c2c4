"""Recipes for images. Each claim says data, time, machine and score; the command is `bigkeras train NAME`."""

from bigkeras.recipe import Choice, Recipe

IMAGES = Choice("image_classification")

DIGITS = Recipe(
    name="digits",
    claim="8×8 digits that come with scikit-learn: seconds on two CPU cores",
    data=Choice("digits"),
    task=IMAGES,
    model=Choice("simple_cnn", {"width": 32}),
    optimizer=Choice("adamw", {"learning_rate": 3e-3, "weight_decay": 1e-2}),
    schedule=Choice("cosine", {"warmup_epochs": 1.0}),
    augmentation=(Choice("crop", {"padding": 1, "mode": "constant"}),),
    epochs=20,
    batch_size=64,
)

MNIST_LENET = Recipe(
    name="mnist-lenet",
    claim="LeNet-5 on MNIST: 99.39 % of the test images (three seeds, ± 0.07), 5 minutes on two cores",
    data=Choice("mnist", {"validation": 0.0}),
    task=IMAGES,
    model=Choice("lenet"),
    optimizer=Choice("adamw", {"learning_rate": 2e-3, "weight_decay": 5e-2}),
    schedule=Choice("cosine", {"warmup_epochs": 1.0}),
    augmentation=(Choice("crop", {"padding": 2, "mode": "constant"}),),
    epochs=15,
    batch_size=128,
)

MNIST_CNN = Recipe(
    name="mnist-cnn",
    claim="a small network on MNIST: 99.70 % of the test images (three seeds, ± 0.05); 16 minutes on two cores",
    data=Choice("mnist", {"validation": 0.0}),
    task=IMAGES,
    model=Choice("airbench", {"widths": [32, 64, 128]}),
    loss=Choice("cross_entropy", {"label_smoothing": 0.05}),
    optimizer=Choice("adamw", {"learning_rate": 3e-3, "weight_decay": 2e-2}),
    schedule=Choice("cosine", {"warmup_epochs": 1.0}),
    augmentation=(
        Choice("crop", {"padding": 2, "mode": "constant"}),
        Choice("random_rotation", {"factor": 0.03, "fill_mode": "constant"}),
        Choice("random_zoom", {"height_factor": 0.1, "fill_mode": "constant"}),
    ),
    ema=0.995,
    epochs=15,
    batch_size=250,
)

FASHION = Recipe(
    name="fashion",
    claim="Fashion-MNIST: 94.63 % of the test images, 94.90 % averaged over flips and shifts; 89 minutes, busy cores",
    data=Choice("fashion_mnist", {"validation": 0.0}),
    task=IMAGES,
    model=Choice("airbench", {"widths": [64, 128, 256]}),
    loss=Choice("cross_entropy", {"label_smoothing": 0.1}),
    optimizer=Choice("sgd", {"learning_rate": 0.75, "momentum": 0.85, "nesterov": True}),
    schedule=Choice("linear", {"warmup_epochs": 2.0, "final": 0.05}),
    l2=6.6e-4,
    augmentation=(
        Choice("flip"),
        Choice("crop", {"padding": 2, "mode": "constant"}),
        Choice("random_erasing", {"factor": 0.3, "scale": [0.02, 0.2]}),
    ),
    ema=0.99,
    epochs=20,
    batch_size=512,
)

CIFAR10_RESNET = Recipe(
    name="cifar10-resnet20",
    claim="ResNet-20 of He et al. 2015, section 4.2, on CIFAR-10: the classic, for an accelerator",
    data=Choice("cifar10"),
    task=IMAGES,
    model=Choice("resnet", {"depth": 20}),
    optimizer=Choice("sgd", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    schedule=Choice("step", {"at": [0.5, 0.75], "factor": 0.1}),
    l2=5e-5,
    augmentation=(Choice("flip"), Choice("crop")),
    epochs=160,
    batch_size=128,
)

PHOTOS10 = Recipe(
    name="photos10",
    claim="CIFAR-10: 93.59 % of the test images, 94.25 % averaged over flips and shifts, 104 minutes on two cores",
    data=Choice("cifar10", {"validation": 0.0}),
    task=IMAGES,
    model=Choice("airbench"),
    loss=Choice("cross_entropy", {"label_smoothing": 0.2}),
    optimizer=Choice("sgd", {"learning_rate": 1.5, "momentum": 0.85, "nesterov": True}),
    schedule=Choice("linear", {"warmup_epochs": 2.3, "final": 0.07}),
    l2=6.6e-4,
    augmentation=(Choice("flip"), Choice("crop", {"padding": 2})),
    ema=0.99,
    epochs=18,
    batch_size=1024,
)

IMAGE_FOLDER = Recipe(
    name="image-folder",
    claim="your own folder, one sub-folder per class (--data DIR): tries candidates that suit it and keeps the best",
    data=Choice("image_folder"),
    task=IMAGES,
    model=Choice("auto"),
)

IMAGE_TABLE = Recipe(
    name="image-table",
    claim="your own CSV or TSV of path and label (--data FILE): what image-folder does with a folder",
    data=Choice("image_table"),
    task=IMAGES,
    model=Choice("auto"),
)

RECIPES = {
    r.name: r
    for r in (
        DIGITS,
        MNIST_LENET,
        MNIST_CNN,
        FASHION,
        CIFAR10_RESNET,
        PHOTOS10,
        IMAGE_FOLDER,
        IMAGE_TABLE,
    )
}
