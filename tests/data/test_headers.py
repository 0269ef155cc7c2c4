"""What is read of a picture's header."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bigkeras.data.decode import decode_image


@pytest.mark.parametrize("local", [False, True])
def test_a_transparent_colour_beyond_a_gifs_palette_changes_no_pixel(local):
    pixels = np.random.default_rng(0).integers(0, 4, (60, 70), np.uint8)
    image = Image.fromarray(pixels, "P")
    image.putpalette([0, 0, 0, 250, 0, 0, 0, 250, 0, 0, 0, 250])
    out = io.BytesIO()
    image.save(out, "GIF", transparency=3, optimize=False, interlace=0)
    data = out.getvalue()
    place = data.index(b"\x21\xf9\x04") + 6
    assert data[place] == 3
    if local:  # the palette behind the description of the image
        size = 3 * 2 ** (data[10] % 8 + 1)
        start = data.index(b",", 13 + size)
        described = data[start : start + 9] + bytes([0x80 | data[10] % 8])
        head = data[:10] + b"\0" + data[11:13]
        data = head + data[13 + size : start] + described + data[13 : 13 + size] + data[start + 10 :]
        place -= size
    opaque = data[: place - 3] + bytes([data[place - 3] & ~1]) + data[place - 2 :]
    beyond = data[:place] + b"\xc8" + data[place + 1 :]
    white = data[:place] + b"\x03" + data[place + 1 :]
    wanted = np.array(Image.open(io.BytesIO(opaque)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(tf.constant(beyond), channels=3), wanted)
    assert (decode_image(tf.constant(white), channels=3).numpy()[pixels == 3] == 255).all()
