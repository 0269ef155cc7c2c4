"""Pictures as a task: channels and sizes other than those of the data."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bigkeras.data.pipeline import plan_rows
from bigkeras.data.plan import epoch_plan
from bigkeras.data.source import ArraySource, DataError, FileSource, Splits
from bigkeras.inheritance import inherited
from bigkeras.recipe import Choice, Recipe
from bigkeras.tasks import classification, load_preprocessor
from bigkeras.tasks.classification import cross_entropy, focal, image_classification, sample_pixels
from bigkeras.tasks.images import ImagePreprocessor


def splits(channels: int) -> Splits:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 7, channels), np.uint8)
    source = ArraySource({"image": pixels}, np.arange(6) % 2)
    return Splits(source, source, None, ("a", "b"))


@pytest.mark.parametrize(("found", "asked"), [(1, 3), (3, 1)])
@pytest.mark.parametrize("size", [{}, {"height": 5}])
def test_arrays_of_other_channels_become_what_the_artifact_makes_of_their_files(found, asked, size):
    data = splits(found)
    task = image_classification(data, channels=asked, **size)
    pixels = data.train.columns["image"]
    decoded = [task.preprocessor.decode(tf.io.encode_png(image)) for image in pixels]
    np.testing.assert_array_equal(task.preprocessor.fit_size(tf.constant(pixels)), decoded)
    assert task.shown(data.train, 0).shape == task.preprocessor.shape


@pytest.mark.parametrize("augmentation", [(), (Choice("random_resized_crop"),)])
def test_batches_have_the_channels_that_are_asked_for(augmentation):
    data = splits(1)
    task = image_classification(data, augmentation, channels=3)
    rows = plan_rows(lambda epoch: epoch_plan(data.train.labels, batch_size=4, seed=0, epoch=epoch), range(1))
    image, *_ = next(iter(task.dataset(data.train, rows, 4, True, lambda index: None)))
    assert image.shape == (4, 9, 7, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize("resize", ["stretch", "pad"])
def test_a_crop_fraction_that_nothing_heeds_is_refused(resize):
    with pytest.raises(DataError, match=f"task.crop_fraction=0.8: is for task.resize=crop, not for {resize}"):
        image_classification(splits(3), crop_fraction=0.8, resize=resize)
    assert image_classification(splits(3), crop_fraction=0.8, resize="crop").preprocessor.crop_fraction == 0.8
    with pytest.raises(DataError, match=r"task\.crop_fraction=0\.8: the images are 9×7 already"):
        image_classification(splits(3), crop_fraction=0.8, resize="crop", height=9, width=7)


def test_a_mean_that_is_given_stays_and_one_that_cannot_be_is_refused():
    data = splits(3)
    given = image_classification(data, mean=(0.1, 0.2, 0.3)).preprocessor
    assert given.mean == (0.1, 0.2, 0.3) and given.std == image_classification(data).preprocessor.std
    for values, message in (
        ({"mean": (0.5,)}, r"task\.mean=\[0\.5\]: a number for each of 3 channels"),
        ({"std": (0.5, 0.0, 0.5)}, r"task\.std=.*: a number for each of 3 channels, above 0"),
    ):
        with pytest.raises(DataError, match=message):
            image_classification(data, **values)


def test_pictures_of_a_camera_get_the_size_of_a_model(tmp_path):
    for i in range(4):
        Image.new("RGB", (700, 500), (60 * i, 0, 0)).save(tmp_path / f"{i}.png")
    source = FileSource([str(tmp_path / f"{i}.png") for i in range(4)], [0, 1, 0, 1])
    data = Splits(source, None, None, ("a", "b"))
    assert image_classification(data).preprocessor.shape == (224, 224, 3)
    assert image_classification(data, height=300).preprocessor.shape == (300, 300, 3)


def test_pictures_are_prepared_as_those_of_the_model_that_a_run_starts_from():
    origin = Path(__file__).parents[2] / "saved_models" / "photos10"
    recipe = Recipe(
        name="toy", data=Choice("image_folder"), task=Choice("image_classification"), model=Choice("airbench"),
        start_from=str(origin),
    )  # fmt: skip
    found = inherited(recipe, ("", ""))
    assert image_classification(splits(3), **found).preprocessor == load_preprocessor(origin)
    higher = inherited(recipe.override(**{"task.height": 64}), ("", ""))
    assert higher["height"] == 64 and "width" not in higher
    assert "mean" not in inherited(recipe.override(**{"task.channels": 1}), ("", ""))
    asked = recipe.override(model=Choice("efficientnet", {"variant": "lite0"}), start_from="imagenet")
    assert inherited(asked, ("", ""))["mean"] == [127 / 255] * 3
    assert inherited(recipe.override(start_from=None), ("", "")) == {}


@pytest.mark.parametrize("side", ["height", "width"])
def test_one_side_alone_means_a_square(side):
    assert image_classification(splits(3), **{side: 5}).preprocessor.shape == (5, 5, 3)
    assert image_classification(splits(3)).preprocessor.shape == (9, 7, 3)


def test_pictures_that_keep_their_shape_are_not_stretched_in_training():
    with pytest.raises(DataError, match=r"task\.resize=pad: random_resized_crop stretches its parts"):
        image_classification(splits(3), (Choice("random_resized_crop"),), resize="pad")


def test_arrays_that_are_resized_are_looked_at_in_part(monkeypatch):
    monkeypatch.setattr(classification, "SAMPLE", 2)
    monkeypatch.setattr(classification, "RESIZED_BYTES", 3 * 5 * 5 * 3)
    source = splits(3).train
    assert len(sample_pixels(source, ImagePreprocessor(height=5, width=5, channels=3))) == 3
    assert len(sample_pixels(source, ImagePreprocessor(height=9, width=7, channels=3))) == 6


def test_a_sample_is_of_all_classes():
    pixels = np.repeat(np.arange(10, dtype=np.uint8), 4).reshape(40, 1, 1, 1)
    source = ArraySource({"image": pixels}, np.repeat([0, 1], 20))
    task = image_classification(Splits(source, None, None, ("a", "b")), mean=(0.0,), std=(1 / 255,))
    assert len(set(np.ravel(task.sample(source, 10)).round().tolist())) == 10


def test_texts_are_no_pictures():
    texts = ArraySource({"text": np.array([b"a", b"b"], object)}, [0, 1], "train")
    with pytest.raises(DataError, match="needs pictures"):
        image_classification(Splits(texts, None, None, ("a", "b")))


def test_pictures_of_which_none_can_be_read_are_told(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"none of the images can be read, such as .*0\.png: \w+"):
        sample_pixels(
            FileSource([str(path) for path in paths], [0, 1, 0]), ImagePreprocessor(height=8, width=8, channels=1)
        )


def test_focal_loss_teaches_from_the_hardest_examples_too():
    logits = tf.constant([[0.0, 20.0], [0.0, 1.0], [30.0, 0.0]])
    targets = tf.one_hot([0, 0, 0], 2)
    plain = cross_entropy()(targets, logits)
    np.testing.assert_allclose(focal(gamma=0.0)(targets, logits), plain, rtol=1e-6)
    np.testing.assert_allclose(focal(0.0, 0.1)(targets, logits), cross_entropy(0.1)(targets, logits), rtol=1e-5)
    for gamma in (0.5, 2.0):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = focal(gamma)(targets, logits)
        wrong = 1 - tf.nn.softmax(logits)[:, 0]
        np.testing.assert_allclose(losses, wrong**gamma * plain, atol=1e-6)
        slope = tape.gradient(losses, logits).numpy()
        assert np.isfinite(slope).all() and slope[0, 0] == pytest.approx(-1, abs=1e-3)


def test_focal_loss_takes_no_negative_gamma():
    with pytest.raises(ValueError, match="gamma=-2"):
        focal(gamma=-2)
