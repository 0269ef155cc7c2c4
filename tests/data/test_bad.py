"""Pipelines that go on past examples that cannot be decoded."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bigkeras.data.bad import decode_or_mark, reason, short
from bigkeras.data.decode import decode_image, transcode
from bigkeras.data.source import FileSource

BROKEN = {3: b"", 7: b"hello", 11: None}


@pytest.fixture
def source(tmp_path):
    """Sixteen pictures of which one is empty, one is none and one is not there."""
    for i in range(16):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
        if i in BROKEN:
            (tmp_path / f"{i}.png").unlink()
            if BROKEN[i] is not None:
                (tmp_path / f"{i}.png").write_bytes(BROKEN[i])
    return FileSource([str(tmp_path / f"{i}.png") for i in range(16)], [0] * 16)


def marked(source, parallel):
    rows = tf.data.Dataset.range(16).map(lambda i: {"index": i, "weight": tf.cast(i, tf.float32)})

    def prepare(row):
        image = decode_image(source.fetch(row["index"])["image"], channels=3)
        return {**row, "columns": {"image": tf.ensure_shape(image, (4, 4, 3))}}

    return decode_or_mark(rows, prepare, parallel)


@pytest.mark.parametrize("parallel", [1, 3])
def test_every_row_comes_in_order_and_broken_ones_are_zeros_and_not_valid(source, parallel):
    rows = list(marked(source, parallel).as_numpy_iterator())
    assert [row["index"] for row in rows] == list(range(16))
    assert [row["weight"] for row in rows] == list(range(16))
    assert {i for i, row in enumerate(rows) if not row["valid"]} == set(BROKEN)
    assert [row["columns"]["image"][0, 0, 0] for row in rows] == [0 if i in BROKEN else i for i in range(16)]


def test_shapes_stay_static(source):
    spec = marked(source, 2).element_spec
    assert spec["columns"]["image"].shape == (4, 4, 3)
    assert spec["valid"].shape == ()


def test_the_reason_is_one_line_that_says_what_is_wrong(source):
    def prepare(columns):
        return decode_image(columns["image"], channels=3)

    assert reason(source, 0, prepare) == ""
    assert reason(source, 3, prepare) == "the picture has no bytes"
    assert "not in a format that is read" in reason(source, 7, prepare)
    assert "No such file" in reason(source, 11, prepare)
    assert "\n" not in reason(source, 11, prepare)


def test_the_message_of_a_python_error_is_kept_without_its_stack():
    message = "ValueError: not a picture that Pillow reads: cut\nTraceback (most recent call last):\n  File x\n"
    assert short(message) == "not a picture that Pillow reads: cut"


def test_whatever_pillow_raises_for_a_file_is_a_reason(monkeypatch):
    def failing(image):
        raise RuntimeError("Failed to decode frame 0")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", failing)
    out = io.BytesIO()
    Image.new("RGB", (3, 3)).save(out, "TIFF")
    with pytest.raises(ValueError, match="not a picture that Pillow reads: Failed to decode frame 0"):
        transcode(out.getvalue())


def test_a_truncated_file_of_each_format_is_marked(tmp_path):
    forms = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8))
    for form in forms:
        out = io.BytesIO()
        noise.save(out, form)
        (tmp_path / form).write_bytes(out.getvalue()[:-60])
    source = FileSource([str(tmp_path / form) for form in forms], [0] * 6)
    rows = tf.data.Dataset.range(6).map(lambda i: {"index": i})
    found = decode_or_mark(
        rows, lambda r: {"image": tf.shape(decode_image(source.fetch(r["index"])["image"], channels=3))}, 2
    )
    assert [bool(row["valid"]) for row in found.as_numpy_iterator()] == [False] * 6
