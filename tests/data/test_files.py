"""Own pictures: folders and tables."""

import os
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bigkeras.data import DATASETS
from bigkeras.data.decode import decode_image
from bigkeras.data.source import DataError
from bigkeras.recipe_data import load_splits
from bigkeras.recipes import RECIPES

image_folder, image_table = DATASETS["image_folder"], DATASETS["image_table"]


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (value, 0, 0)).save(path)


@pytest.fixture
def animals(tmp_path):
    """Ten cats and ten dogs."""
    for first, name in ((0, "cat"), (10, "dog")):
        for i in range(10):
            picture(tmp_path / name / f"{i}.png", first + i)
    return tmp_path


def all_names(splits):
    parts = (splits.train, splits.validation, splits.test)
    return [part.name(i) for part in parts if part for i in range(len(part))]


def test_a_folder_is_split_by_its_seed_and_holds_every_picture_once(animals):
    first, again = (image_folder(directory=str(animals), test=0.2) for _ in range(2))
    assert (len(first.train), len(first.validation), len(first.test)) == (14, 2, 4)
    assert all_names(first) == all_names(again)
    assert len(set(all_names(first))) == 20
    assert first.class_names == ("cat", "dog")


def test_copies_of_a_picture_come_to_one_split(animals):
    for i in range(10):
        picture(animals / "cat" / f"{i} (copy).png", i)
    for seed in range(3):
        splits = image_folder(directory=str(animals), validation=0.3, test=0.3, seed=seed)
        parts = [
            {(animals / part.name(i)).read_bytes() for i in range(len(part))}
            for part in (splits.train, splits.validation, splits.test)
        ]
        assert sum(map(len, parts)) == 20 and not splits.ignored
    (animals / "all").mkdir()
    for name in ("cat", "dog"):
        (animals / name).rename(animals / "all" / name)
    (animals / "all").rename(animals / "train")
    splits = image_folder(directory=str(animals), validation=0.3)
    parts = [{(animals / p.name(i)).read_bytes() for i in range(len(p))} for p in (splits.train, splits.validation)]
    assert sum(map(len, parts)) == 20


def test_copies_of_a_picture_in_a_table_come_to_one_split(animals):
    for i in range(10):
        picture(animals / "cat" / f"{i} (copy).png", i)
    rows = [f"{path.relative_to(animals)},{path.parent.name}" for path in sorted(animals.rglob("*.png"))]
    file = table(animals, "\n".join(["path,label", *rows]))
    for seed in range(3):
        splits = image_table(file=file, validation=0.3, test=0.3, seed=seed)
        parts = [
            {(animals / part.name(i)).read_bytes() for i in range(len(part))}
            for part in (splits.train, splits.validation, splits.test)
        ]
        assert sum(map(len, parts)) == 20


@pytest.mark.parametrize("read", [image_folder, image_table])
def test_of_very_many_pictures_it_is_told_that_copies_are_not_looked_for(read, animals, monkeypatch):
    rows = [f"{path.relative_to(animals)},{path.parent.name}" for path in sorted(animals.rglob("*.png"))]
    file = table(animals, "\n".join(["path,label", *rows]))
    for module in ("folder", "table"):
        monkeypatch.setattr(f"bigkeras.data.{module}.COMPARED", 19)
    splits = read(directory=str(animals)) if read is image_folder else read(file=file)
    assert splits.found.startswith("20 pictures: copies among them")


@pytest.mark.parametrize("others", [("test",), ("valid", "test")])
def test_copies_in_the_parts_that_the_data_itself_has_are_told(others, animals, tmp_path_factory):
    root = tmp_path_factory.mktemp("layout")
    (root / "train").symlink_to(animals)
    for part in others:
        for i, name in enumerate(("cat", "dog")):
            picture(root / part / name / "new.png", 30 + 2 * others.index(part) + i)
    assert not image_folder(directory=str(root)).found
    for i in (3, 4):
        picture(root / "test" / "cat" / f"known {i}.png", i)
    splits = image_folder(directory=str(root))
    assert splits.found.startswith("2 for training stand in another part, too, such as ")
    assert splits.found.endswith("train/cat/3.png in test: scores are too good") and len(splits.test) == 4


def test_fetch_gives_the_bytes_of_the_named_file(animals):
    train = image_folder(directory=str(animals)).train
    pixels = decode_image(train.fetch(tf.constant(5, tf.int64))["image"], channels=3)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(train.name(5))))


def test_a_layout_of_train_and_test_is_the_split(animals, tmp_path_factory):
    root = tmp_path_factory.mktemp("layout")
    (root / "Train").symlink_to(animals)
    for name in ("cat", "dog"):
        picture(root / "test" / name / "1.jpg")
    splits = image_folder(directory=str(root), validation=0.1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 2, 2) and not splits.found
    asked = image_folder(directory=str(root), validation=0.2, test=0.3)
    assert asked.found == "data.test=0.3: not heeded, since the data says its own parts" and len(asked.validation) == 4
    (root / "test" / "notes.txt").touch()
    asked = image_folder(directory=str(root), test=0.3)
    assert asked.found.count("left out") == 1 and "notes.txt" in asked.found


def test_a_folder_beside_the_parts_is_named(animals, tmp_path_factory):
    root = tmp_path_factory.mktemp("layout")
    for name in ("train", "test", "masks"):
        (root / name).symlink_to(animals)
    with pytest.raises(DataError, match="are parts of the data, and masks none: take it away"):
        image_folder(directory=str(root))


@pytest.mark.parametrize(
    "names", [("training_set", "test_set"), ("seg_train", "seg_val", "seg_test"), ("train", "test1")]
)
def test_parts_by_other_names_are_no_classes(animals, tmp_path_factory, names):
    root = tmp_path_factory.mktemp("parts")
    for name in names:
        (root / name).symlink_to(animals)
    with pytest.raises(
        DataError, match=f"{names[0]}.* look like parts of the data: call them train, validation and test"
    ):
        image_folder(directory=str(root))
    for name in names[1:]:
        (root / name).unlink()
    (root / "steam_train").symlink_to(animals)
    assert "steam_train" in image_folder(directory=str(root)).class_names  # both speak of trains
    (root / "steam_train").rename(root / "bus")  # a class, beside one called train
    assert "bus" in image_folder(directory=str(root)).class_names


def test_parts_without_one_for_training_are_parts(animals, tmp_path_factory):
    root = tmp_path_factory.mktemp("held-out")
    for name in ("validation", "test"):
        (root / name).symlink_to(animals)
    splits = image_folder(directory=str(root))
    assert splits.class_names == image_folder(directory=str(animals)).class_names
    assert not len(splits.train) and len(splits.validation) == len(splits.test) > 0


def test_a_class_with_one_picture_is_trained_on(animals):
    picture(animals / "emu" / "1.png")
    splits = image_folder(directory=str(animals), validation=0.3, test=0.3)
    assert 2 in splits.train.labels


def test_names_of_classes_that_look_alike_are_one_or_told(animals):
    for part in ("train", "val"):
        for i, name in enumerate(("caf\u00e9" if part == "train" else "cafe\u0301", "tea", "Tea")):
            picture(animals / "drinks" / part / name / f"{part}.png", 50 + i)
    splits = image_folder(directory=str(animals / "drinks"))
    assert splits.class_names == ("Tea", "caf\u00e9", "tea") and len(splits.validation) == 3
    assert splits.found.endswith("'Tea' and 'tea' are two classes: write them alike if they are one")
    text = "path,label\n" + ROWS.replace(",cat", ",caf\u00e9").replace(",dog", ",cafe\u0301\u200b", 3).replace(
        ",dog", ",tea"
    )
    assert image_table(file=table(animals, text)).class_names == ("caf\u00e9", "tea")


def test_deeper_folders_cases_and_languages_of_names(animals):
    names = ["deep/er/a.JPEG", "猫 的 照片.png", "🐱.webp", "scan.TIFF"]
    for name in names:
        picture(animals / "cat" / name)
    found = all_names(image_folder(directory=str(animals)))
    assert {str(animals / "cat" / name) for name in names} <= set(found)


def test_a_tiff_is_fetched_as_bytes_that_decode(animals):
    picture(animals / "cat" / "scan.tif", 77)
    train = image_folder(directory=str(animals), validation=0, test=0).train
    place = next(i for i in range(len(train)) if train.name(i).endswith("tif"))
    assert decode_image(train.fetch(tf.constant(place, tf.int64))["image"], channels=3)[0, 0, 0] == 77


def test_hidden_files_are_ignored_and_others_are_named(animals):
    (animals / "cat" / ".DS_Store").write_bytes(b"")
    (animals / ".git").mkdir()
    (animals / "cat" / "notes.txt").write_text("x")
    splits = image_folder(directory=str(animals))
    assert splits.ignored == ((str(animals / "cat" / "notes.txt"), "not a picture, by its name"),)


def test_pictures_in_no_classs_folder_are_named(animals, tmp_path_factory):
    picture(animals / "lost.png")
    splits = image_folder(directory=str(animals))
    assert splits.ignored == ((str(animals / "lost.png"), "in no class's folder"),)
    layout = tmp_path_factory.mktemp("kaggle")
    (layout / "train").symlink_to(animals)
    picture(layout / "test" / "1.png")
    assert (str(layout / "test" / "1.png"), "in no class's folder") in image_folder(directory=str(layout)).ignored


def test_a_loop_of_links_ends(animals):
    (animals / "cat" / "loop").symlink_to(animals / "cat")
    assert len(all_names(image_folder(directory=str(animals)))) == 20


def test_links_in_a_circle_are_ignored(animals):
    (animals / "cat" / "again.png").symlink_to("again.png")
    (animals / "self").symlink_to("self")
    splits = image_folder(directory=str(animals))
    assert len(all_names(splits)) == 20
    assert splits.ignored == ((str(animals / "cat" / "again.png"), "a link in a circle"),)


@pytest.mark.parametrize("place", ["~nobody-of-this-name", "~nobody-of-this-name/pictures"])
def test_the_home_of_nobody_is_a_place_that_is_not_there(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, argument in (("image_folder", "directory"), ("packed", "directory"), ("text_folder", "directory"),
                           ("image_table", "file"), ("text_table", "file")):  # fmt: skip
        with pytest.raises(DataError, match=place):
            DATASETS[name](**{argument: place})


def test_a_file_name_that_is_not_utf8_is_read(animals):
    picture(animals / "cat" / os.fsdecode(b"caf\xe9.png"), 9)
    splits = image_folder(directory=str(animals), validation=0, test=0)
    place = next(i for i in range(len(splits.train)) if "caf" in splits.train.name(i))
    assert decode_image(splits.train.fetch(tf.constant(place, tf.int64))["image"], channels=3)[0, 0, 0] == 9


def test_names_that_are_not_utf8_are_told_as_text(animals):
    (animals / "cat" / os.fsdecode(b"r\xe9sum\xe9.txt")).write_text("x")
    (animals / "dog" / os.fsdecode(b"\xe9.png")).symlink_to("nothing")
    told = [name for name, _ in image_folder(directory=str(animals)).ignored]
    assert told == [str(animals / "cat" / r"r\xe9sum\xe9.txt"), str(animals / "dog" / r"\xe9.png")]
    picture(animals / os.fsdecode(b"caf\xe9") / "1.png")
    with pytest.raises(DataError, match=r"caf\\xe9: its name, a class's, is not UTF-8: rename the folder"):
        image_folder(directory=str(animals))


def test_mistakes_in_a_folder_are_named(animals, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match="nothing is there"):
        image_folder(directory=str(empty / "none"))
    with pytest.raises(DataError, match="no sub-folder with pictures"):
        image_folder(directory=str(empty))
    (animals / "emu").mkdir()
    with pytest.raises(DataError, match="emu: the folder of class 'emu' holds no picture"):
        image_folder(directory=str(animals))
    picture(empty / "cat" / "1.png")
    recipe = RECIPES["image-folder"].override(**{"data.directory": str(empty)})
    with pytest.raises(DataError, match=f"{empty}: only one class, 'cat'"):
        load_splits(recipe)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_without_permission_is_named(animals):
    (animals / "cat").chmod(0)
    try:
        with pytest.raises(DataError, match="cat: cannot be listed: Permission denied"):
            image_folder(directory=str(animals))
    finally:
        (animals / "cat").chmod(0o755)


def test_a_folder_or_pictures_that_may_not_be_read_are_named_to_root_too(animals, monkeypatch):
    def scandir(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return original(path)

    original = os.scandir
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", scandir)
        with pytest.raises(DataError, match="cat: cannot be listed: Permission denied"):
            image_folder(directory=str(animals))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match=r"0\.png: may not be read, and neither may any other picture"):
        image_folder(directory=str(animals))


def table(folder, text, name="table.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return str(path)


ROWS = "".join(f"{name}/{i}.png,{name}\n" for name in ("cat", "dog") for i in range(10))


@pytest.mark.parametrize(
    ("text", "name", "encoding"),
    [
        ("path,label\n" + ROWS, "a.csv", "utf-8"),
        ("path,label\r\n" + ROWS.replace("\n", "\r\n"), "a.csv", "utf-8-sig"),
        (("path,label\n" + ROWS).replace(",", ";"), "a.csv", "utf-8"),
        (("path,label\n" + ROWS).replace(",", "\t"), "a.tsv", "utf-8"),
        ("note,path,label\n" + "".join(f'"a, b\nc",{row}\n' for row in ROWS.splitlines()), "a.csv", "utf-8"),
    ],
)
def test_a_table_gives_what_the_folder_gives(animals, text, name, encoding):
    by_table = image_table(file=table(animals, text, name, encoding))
    by_folder = image_folder(directory=str(animals))
    assert all_names(by_table) == all_names(by_folder)
    np.testing.assert_array_equal(by_table.test.labels, by_folder.test.labels)


def test_the_split_column_is_the_split(animals):
    text = "path,label,split\n" + "".join(
        f"{row},{'test' if i % 5 == 0 else 'val' if i % 5 == 1 else 'train'}\n"
        for i, row in enumerate(ROWS.splitlines())
    )
    splits = image_table(file=table(animals, text))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (12, 4, 4)


def test_a_split_column_has_any_case_and_one_that_is_asked_for_is_there(animals):
    named = "path,label,Split\n" + "".join(f"{row},{'test' if i < 4 else ''}\n" for i, row in enumerate(ROWS.split()))
    assert len(image_table(file=table(animals, named)).test) == 4
    with pytest.raises(DataError, match=r"no column 'fold' among 'path', 'label', 'Split': --set data\.split_column="):
        image_table(file=table(animals, named), split_column="fold")


def test_the_names_of_the_columns_come_again_where_tables_were_put_together(animals):
    lines = [f"{name}/{i}.png,{name}" for name in ("cat", "dog") for i in range(10)]
    (animals / "t.csv").write_text("\n".join(["path,label", *lines[:10], "path,label", *lines[10:]]))
    splits = image_table(file=str(animals / "t.csv"))
    assert splits.class_names == ("cat", "dog") and len(all_names(splits)) == 20
    assert splits.ignored == ((f"{animals / 't.csv'}:12", "the names of the columns, once more"),)


def test_a_picture_of_several_rows_comes_to_one_split(animals):
    text = "path,label\n" + ROWS + ROWS + ROWS.replace(",cat", ",animal")
    splits = image_table(file=table(animals, text), validation=0.2, test=0.2)
    parts = [{part.name(i) for i in range(len(part))} for part in (splits.train, splits.validation, splits.test)]
    assert all(parts) and sum(map(len, parts)) == 20 and len(all_names(splits)) == 60


def test_a_tilde_means_home_before_a_slash_only(animals, monkeypatch):
    monkeypatch.setenv("HOME", str(animals / "dog"))
    picture(animals / "~root.png")
    text = "path,label\n~root.png,cat\n~/1.png,dog\n"
    found = all_names(image_table(file=table(animals, text), validation=0, test=0))
    assert found == [str(animals / "~root.png"), str(animals / "dog" / "1.png")]


def test_a_label_of_several_lines_is_one_line(animals):
    text = "path,label\n" + ROWS.replace(",cat", ',"big\r\n  cat"')
    assert image_table(file=table(animals, text)).class_names == ("big cat", "dog")


@pytest.mark.parametrize("name", ["big\ncat", "big\rcat", " "])
def test_a_class_that_is_not_one_line_is_refused_before_a_run(name, animals):
    (animals / "cat").rename(animals / name)
    recipe = RECIPES["digits"].override(**{"data": "image_folder", "data.directory": str(animals)})
    with pytest.raises(DataError, match=re.escape(f"class {name!r}: the name of a class is one line of text")):
        load_splits(recipe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("file,label\n" + ROWS, "no column 'path' among 'file', 'label'"),
        ("path,label,label\n" + ROWS, "two columns are called 'label': rename one, or --set data.label_column=NAME"),
        ("path,label\n" + ROWS + "cat/1.png,\n", "line 22: no label"),
        ("path,label\n\n" + ROWS + ",cat\n", "line 23: no path"),
        ("path,label\n" + ROWS + "cat/1.png\n", "line 22: 1 columns where the first line names 2"),
        ("path,label\n", "no row below the first line"),
        ("path,label,split\ncat/1.png,cat,holdout\n", "line 2: split 'holdout' is not one of"),
        ('path,label\ncat/1.png,"cat\n', "line 2: not CSV"),
    ],
)
def test_mistakes_in_a_table_are_named(animals, text, message):
    with pytest.raises(DataError, match=message):
        image_table(file=table(animals, text))


def test_another_encoding_is_named_with_its_line(animals):
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        image_table(file=table(animals, "path,label\na.png,a\nb.png,é\n", encoding="latin-1"))
