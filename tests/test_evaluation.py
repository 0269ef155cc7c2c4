"""Answers averaged over changed pictures, and labels of data that names its classes in another order."""

import numpy as np
import pytest
import tensorflow as tf

from bigkeras.data.source import ArraySource, DataError, FileSource, Splits, joined
from bigkeras.evaluation import numbered
from bigkeras.predictions import AVERAGES


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("flips", {(2, 2): 1 / 2, (2, 3): 1 / 2}),
        ("shifts", {(2, 2): 1 / 2, (3, 3): 1 / 4, (1, 1): 1 / 4}),
        ("flips-shifts", {(2, 2): 1 / 4, (2, 3): 1 / 4, (3, 3): 1 / 8, (3, 2): 1 / 8, (1, 1): 1 / 8, (1, 4): 1 / 8}),
    ],
)
def test_one_bright_pixel_is_seen_where_the_changes_bring_it(name, weights):
    pixels = np.zeros((1, 6, 6, 1), "float32")
    pixels[0, 2, 2] = 1
    seen = AVERAGES[name](tf.identity)(tf.constant(pixels)).numpy()[0, ..., 0]
    assert {tuple(map(int, place)): seen[tuple(place)] for place in np.argwhere(seen)} == pytest.approx(weights)


def test_labels_of_other_data_are_those_of_the_models_classes():
    source = ArraySource({"text": np.zeros(3)}, [1, 0, 1], ["a", "b", "c"])
    assert numbered(source, ("bad", "good"), ("awful", "bad", "good")).labels.tolist() == [2, 1, 2]
    assert source.labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="a: class 'good' is none of the model's, 'bad', 'Good': 2 of 3 examples"):
        numbered(source, ("bad", "good"), ("bad", "Good"))


def test_all_of_a_data_set_are_its_parts_one_after_the_other():
    arrays = [ArraySource({"x": np.full((n, 2), n)}, [n] * n, f"part{n}") for n in (3, 1, 2)]
    whole = joined(Splits(arrays[0], arrays[1], arrays[2], ("a",)))
    assert whole.labels.tolist() == [3, 3, 3, 1, 2, 2]
    assert whole.columns["x"][:, 0].tolist() == [3, 3, 3, 1, 2, 2]
    assert [whole.name(i) for i in (0, 3, 5)] == ["part3[0]", "part1[0]", "part2[1]"]

    files = [FileSource(names, [0] * len(names)) for names in (["a", "b"], ["c"])]
    assert joined(Splits(files[0], None, files[1], ("a",))).paths.tolist() == [b"a", b"b", b"c"]
    assert joined(Splits(files[0], None, None, ("a",))) is files[0]
    with pytest.raises(DataError, match="name one of train, validation and test"):
        joined(Splits(files[0], None, arrays[0], ("a",)))
