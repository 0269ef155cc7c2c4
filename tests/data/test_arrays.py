"""The small data sets, their forms on disk and the stratified splits."""

import gzip
import threading
from pathlib import Path

import numpy as np
import pytest

from bigkeras.data import DATASETS, arrays, tfds
from bigkeras.data.source import DataError
from bigkeras.data.splits import stratified_sample, stratified_split


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(tfds, "answers", lambda url: False)


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + np.asarray(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    """Forty training and ten test images of two classes, as unpacked idx files."""
    for name, count in (("train", 40), ("t10k", 10)):
        labels = np.arange(count) % 2
        images = np.arange(count)[:, None, None] * np.ones((28, 28))
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


@pytest.mark.parametrize("fractions", [(0.9, 0.1), (0.7, 0.15, 0.15), (0.5, 0.5)])
def test_a_split_holds_every_example_once(fractions):
    labels = np.random.default_rng(0).integers(0, 7, 503)
    parts = stratified_split(labels, fractions, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(503))


def test_the_parts_of_a_split_have_their_sizes_and_the_classes_their_proportions():
    labels = np.repeat(np.arange(10), 101)
    held_out = stratified_split(labels, (0.9, 0.1), seed=0)[1]
    assert len(held_out) == 101
    assert set(np.bincount(labels[held_out])) <= {10, 11}


def test_a_class_with_one_example_stands_in_the_first_part():
    labels = np.array([0] * 20 + [1] + [2] + [3] * 20)
    train, *others = stratified_split(labels, (0.4, 0.3, 0.3), seed=0)
    assert {1, 2} <= set(labels[train])
    assert not {1, 2} & set(labels[np.concatenate(others)])


def test_a_class_of_two_keeps_one_to_train_on_and_tiny_ones_take_nothing_from_a_large_one():
    labels = np.array([0] * 20 + [1, 1] + [2] * 20)
    assert 1 in labels[stratified_split(labels, (0.2, 0.4, 0.4), seed=0)[0]]
    # A hundred classes of one example each, of which none can be held out, and a large one.
    many = np.concatenate([np.arange(100), np.full(1000, 100)])
    held_out = stratified_split(many, (0.9, 0.1), seed=0)[1]
    assert set(many[held_out]) == {100} and len(held_out) in (100, 101)


@pytest.mark.parametrize("content", ["{", "{}", '{"name": "mnist", "version": "3.0.1"}'])
def test_what_tensorflow_datasets_has_prepared_and_cannot_read_is_one_line(content, tmp_path):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(content)
    with pytest.raises(DataError, match=r"mnist/3\.0\.1: TensorFlow Datasets cannot read .*: move that folder away"):
        tfds.tfds_arrays("mnist", tmp_path)


def test_a_split_is_decided_by_its_seed():
    labels = np.arange(100) % 3
    first, again, other = (stratified_split(labels, (0.8, 0.2), seed)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_sample_has_its_size_and_every_class():
    labels = np.repeat([0, 1, 2], [90, 9, 1])
    sample = stratified_sample(labels, 20, seed=0)
    assert len(sample) == 20
    assert set(labels[sample]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [
        ("mnist", (54000, 6000, 10000), (28, 28, 1)),
        ("fashion_mnist", (54000, 6000, 10000), (28, 28, 1)),
        ("cifar10", (45000, 5000, 10000), (32, 32, 3)),
    ],
)
def test_the_published_files_give_the_published_sizes(name, sizes, shape, has_data):
    has_data(name, name.replace("_", "-"))
    splits = DATASETS[name]()
    parts = (splits.train, splits.validation, splits.test)
    assert tuple(map(len, parts)) == sizes
    assert all(p.columns["image"].shape[1:] == shape and p.columns["image"].dtype == np.uint8 for p in parts)
    assert len(splits.class_names) == 10


def test_digits_fill_the_range_of_bytes_and_split_into_three():
    splits = DATASETS["digits"]()
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1257, 270, 270)
    assert splits.train.columns["image"].shape[1:] == (8, 8, 1)
    assert splits.train.columns["image"].max() == 255


def test_validation_of_zero_trains_on_everything(idx_folder):
    splits = arrays.mnist(directory=str(idx_folder), validation=0)
    assert splits.validation is None
    assert len(splits.train) == 40


def test_a_share_that_comes_to_no_image_is_no_validation(idx_folder):
    assert arrays.mnist(directory=str(idx_folder), validation=1e-6).validation is None


def test_validation_and_training_share_no_image(idx_folder):
    splits = arrays.mnist(directory=str(idx_folder), validation=0.2)
    firsts = [set(part.columns["image"][:, 0, 0, 0]) for part in (splits.train, splits.validation)]
    assert len(firsts[0]) == 32 and len(firsts[1]) == 8 and not firsts[0] & firsts[1]


def test_limit_train_leaves_validation_and_test_alone(idx_folder):
    splits = arrays.mnist(directory=str(idx_folder), validation=0.2, limit_train=10)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 8, 10)


def test_an_example_is_named_by_its_place_in_the_published_split(idx_folder):
    splits = arrays.mnist(directory=str(idx_folder), validation=0.2)
    assert splits.validation.name(0) == f"train[{splits.validation.columns['image'][0, 0, 0, 0]}]"


def test_a_file_that_is_not_the_published_one_is_named(idx_folder):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: not the published file"):
        arrays.mnist(directory=str(idx_folder))


def test_a_cut_file_is_named(idx_folder):
    path = idx_folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: .* not whole"):
        arrays.mnist(directory=str(idx_folder))


def test_cifar10_reads_npz_and_binary_batches_alike(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    labels = (np.arange(20) % 10).astype(np.uint8)
    rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(20, -1)], axis=1)
    npz, batches = tmp_path / "npz", tmp_path / "batches"
    npz.mkdir()
    batches.mkdir()
    for split in ("train", "test"):
        np.savez(npz / f"cifar10_{split}.npz", x=images, y=labels)
    for i in range(5):
        (batches / f"data_batch_{i + 1}.bin").write_bytes(rows[4 * i : 4 * i + 4].tobytes())
    (batches / "test_batch.bin").write_bytes(rows.tobytes())
    first, second = (arrays.cifar10(directory=str(folder), validation=0) for folder in (npz, batches))
    np.testing.assert_array_equal(first.train.columns["image"], second.train.columns["image"])
    np.testing.assert_array_equal(first.test.labels, second.test.labels)
    np.savez(npz / "cifar10_test.npz", x=images, y=labels + 1)
    with pytest.raises(DataError, match="the test images have labels from 1 to 10, where there are 10 classes"):
        arrays.cifar10(directory=str(npz))
    np.savez(npz / "cifar10_test.npz", x=images, y=np.array(["cat"] * len(images)))
    with pytest.raises(DataError, match="y is <U3, not whole numbers"):
        arrays.cifar10(directory=str(npz))


@pytest.mark.parametrize("damage", ["empty", "cut", "half", "flipped", "encrypted", "array"])
def test_a_damaged_npz_is_named_in_one_line(damage, tmp_path):
    path = tmp_path / "cifar10_train.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8), y=np.arange(2))
    data = bytearray(path.read_bytes())
    if damage == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    else:
        data[60] ^= 0xFF  # of what is compressed
        flag = data.index(b"PK\1\2") + 8
        locked = data[:flag] + bytes([data[flag] | 1]) + data[flag + 1 :]
        kinds = {"empty": b"", "cut": data[:-30], "half": data[: len(data) // 2], "flipped": data, "encrypted": locked}
        path.write_bytes(kinds[damage])
    with pytest.raises(DataError, match=r"cifar10_train\.npz: not an? .*npz file with x and y: .") as told:
        arrays.cifar10(directory=str(tmp_path))
    assert "\n" not in str(told.value)


def test_without_files_and_network_the_error_says_what_to_place_where(tmp_path, no_network, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"place there the four files train-images-idx3-ubyte\.gz"):
        arrays.mnist(directory=str(tmp_path))


def test_an_address_that_does_not_answer_is_given_up(monkeypatch):
    told = threading.Event()

    def silent(*_, **__):
        told.wait(600)
        raise OSError("no answer")

    monkeypatch.setattr("urllib.request.urlopen", silent)
    assert not tfds.answers("http://192.0.2.1/", seconds=0.05)
    told.set()


@pytest.mark.parametrize("fractions", [{"validation": 1.0}, {"validation": -0.1}, {"validation": 0.6, "test": 0.6}])
def test_fractions_that_leave_nothing_to_train_on_are_refused(fractions):
    with pytest.raises(DataError, match="validation"):
        DATASETS["digits"](**fractions)


def test_the_default_directory_is_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("BIGKERAS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert arrays.data_directory() == Path(tmp_path) / "bigkeras"
