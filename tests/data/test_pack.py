"""Packed pictures give what their files give."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bigkeras.data import DATASETS, arrays
from bigkeras.data.pack import pack
from bigkeras.data.source import DataError, FileSource, Splits

image_folder, packed = DATASETS["image_folder"], DATASETS["packed"]


@pytest.fixture
def splits(tmp_path):
    random = np.random.default_rng(0)
    for name in ("猫", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(10):
            suffix = "tif" if i == 3 else "png"
            Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8)).save(tmp_path / "in" / name / f"{i}.{suffix}")
    return image_folder(directory=str(tmp_path / "in"), validation=0.2, test=0.2)


def parts(splits):
    return [part for part in (splits.train, splits.validation, splits.test) if part]


def fetched(source):
    indices = tf.data.Dataset.range(len(source))
    rows = indices.map(source.fetch, num_parallel_calls=4, deterministic=True)
    return [row["image"] for row in rows.as_numpy_iterator()]


def test_packed_examples_names_and_labels_equal_the_folders(splits, tmp_path):
    found = packed(directory=str(pack(splits, tmp_path / "out")))
    assert found.class_names == splits.class_names
    for part, original in zip(parts(found), parts(splits), strict=True):
        assert fetched(part) == fetched(original)
        assert [part.name(i) for i in range(len(part))] == [original.name(i) for i in range(len(original))]
        np.testing.assert_array_equal(part.labels, original.labels)


def test_what_a_link_points_at_is_packed_as_a_picture_or_not_at_all(splits, tmp_path):
    (tmp_path / "secret").write_text("a key")
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.png").symlink_to(tmp_path / "in" / "dog" / "0.png")
        (tmp_path / "photos" / name / "b.jpg").symlink_to(tmp_path / "secret")
    linked = image_folder(directory=str(tmp_path / "photos"), validation=0, test=0)
    found = fetched(packed(directory=str(pack(linked, tmp_path / "out"))).train)
    assert found == [(tmp_path / "in" / "dog" / "0.png").read_bytes(), b""] * 2


def test_what_lies_behind_a_linked_folder_is_packed_as_a_picture_or_not_at_all(splits, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.jpg").write_text("a key")
    (tmp_path / "private" / "p.png").write_bytes((tmp_path / "in" / "dog" / "0.png").read_bytes())
    (tmp_path / "real" / "cat").mkdir(parents=True)
    (tmp_path / "real" / "cat" / "broken.jpg").write_text("no picture")
    (tmp_path / "real" / "dog").symlink_to(tmp_path / "private")
    (tmp_path / "photos").symlink_to(tmp_path / "real")  # how the whole folder is called is the user's choice
    linked = image_folder(directory=str(tmp_path / "photos"), validation=0, test=0)
    found = fetched(packed(directory=str(pack(linked, tmp_path / "out"))).train)
    assert found == [b"no picture", b"", (tmp_path / "private" / "p.png").read_bytes()]
    key = str(tmp_path / "photos" / "dog" / "key.jpg")
    outside = FileSource([key], [0], transform=linked.train.transform)  # a part all of whose files lie there
    splits = Splits(linked.train, outside, None, linked.class_names)
    assert fetched(packed(directory=str(pack(splits, tmp_path / "both"))).validation) == [b""]


def test_who_may_write_into_a_pack_is_what_the_user_masks(splits, tmp_path):
    tmp_path.chmod(0o777)
    before = os.umask(0o022)
    try:
        assert pack(splits, tmp_path / "out").stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)
    assert not list(tmp_path.glob("*.part"))


def test_several_shards_read_as_one(splits, tmp_path):
    out = pack(splits, tmp_path / "out", shard_megabytes=0)
    assert len(list(out.glob("*.array_record"))) == 20
    assert fetched(packed(directory=str(out)).test) == fetched(splits.test)


def test_a_part_of_a_packed_source_keeps_its_examples(splits, tmp_path):
    train = packed(directory=str(pack(splits, tmp_path / "out"))).train
    some = train.take(np.array([5, 2]))
    assert fetched(some) == [fetched(train)[i] for i in (5, 2)]
    assert some.name(0) == train.name(5)


def test_an_interrupted_pack_leaves_nothing(splits, tmp_path, monkeypatch):
    def interrupt(index):
        raise KeyboardInterrupt

    monkeypatch.setattr(splits.test, "fetch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack(splits, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_mistakes_with_a_pack_are_named(splits, tmp_path):
    with pytest.raises(DataError, match=r"index\.json: cannot be read"):
        packed(directory=str(tmp_path))
    out = pack(splits, tmp_path / "out")
    with pytest.raises(DataError, match="stands there already"):
        pack(splits, out)
    labels, index = out / "train_labels.npy", out / "index.json"
    for path, content, told in (
        (labels, b"", "train_labels.npy: missing or damaged"),
        (index, b"[]", "index.json: not what pack wrote"),
        (index, b'{"version": 1, "parts": ["train"]}', "index.json: not what pack wrote"),
    ):
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(DataError, match=told):
            packed(directory=str(out))
        path.write_bytes(whole)
    shard = next(out.glob("*.array_record"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match="bytes instead of"):
        packed(directory=str(out))
    with pytest.raises(DataError, match="arrays in memory are not packed"):
        pack(arrays.digits(), tmp_path / "digits")


def test_a_broken_file_whose_name_is_not_utf8_is_packed_as_it_is(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"II*nonsense")
    source = image_folder(directory=str(tmp_path / "in"), validation=0, test=0)
    assert fetched(packed(directory=str(pack(source, tmp_path / "out"))).train) == [b"II*nonsense"] * 2


def test_a_file_that_is_gone_is_named_and_a_broken_one_is_packed_as_it_is(splits, tmp_path):
    place = Path(splits.train.name(0))
    place.write_bytes(b"II*nonsense")
    assert fetched(packed(directory=str(pack(splits, tmp_path / "out"))).train)[0] == b"II*nonsense"
    place.unlink()
    with pytest.raises(DataError, match=f"{place}: cannot be packed"):
        pack(splits, tmp_path / "again")
