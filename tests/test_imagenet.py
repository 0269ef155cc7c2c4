"""The classifier of 1,000 classes that no run made."""

from importlib.util import find_spec

import pytest

from apps import savedmodel
from bigkeras.imagenet import _distinct, _photographs, export_lite0
from bigkeras.models.pretrained import PACKAGE, imagenet_classes


def test_labels_are_short_and_no_two_alike():
    labels = _distinct([name.split(",")[0] for name in imagenet_classes()])
    assert len(set(labels)) == len(labels) == 1000
    assert labels[0] == "tench" and labels[134] == "crane (134)" and labels[517] == "crane (517)"


@pytest.mark.slow
@pytest.mark.skipif(find_spec(PACKAGE) is None, reason="the extra imagenet is not installed")
def test_two_photographs_are_what_they_show(tmp_path):
    export_lite0(tmp_path / "imagenet")
    found = savedmodel.load(tmp_path / "imagenet").run("serving_default", {"image": _photographs()})
    labels = [[label.decode() for label in row] for row in found["label"]]
    assert labels[0][0] == "palace" and labels[1][0] == "daisy"
    assert (tmp_path / "imagenet" / "README.md").read_text(encoding="utf-8").startswith("# EfficientNet-Lite0")
