"""Decoding pictures by core TensorFlow ops: the same graph in training and in the exported SavedModel.

`decode_image` takes JPEG, PNG, GIF, BMP and WebP, upright by their EXIF orientation, transparent parts on white. A
picture's size is read from its header before anything is decoded: a 20,000×20,000 PNG of 49 kB takes no memory.
Sources read other formats, too (TIFF and whatever Pillow knows), by way of `load_image`.
"""

import functools
import io
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from bigkeras.data import headers

# A 61-megapixel camera's pictures are decoded, into 192 MB each; two threads of a laptop hold two of them, and twice
# that while one is turned upright.
MAX_PIXELS = 64_000_000
# A row of a million pixels is resized by way of the model's height times as many: gigabytes. It is JPEG's limit, too.
MAX_SIDE = 65_535

FORMATS = "JPEG, PNG, WebP, GIF or BMP"

# The bytes to decode, height, width, where the EXIF block begins (0 without), and a truth that the format needs:
# CMYK for JPEG, transparency for PNG, a palette for BMP.
Described = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


def decode_image(encoded: tf.Tensor, *, channels: int, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Encoded bytes, a scalar string, to upright uint8 pixels `(height, width, channels)`; a graph function.

    `channels` is 3 (RGB) or 1 (grey by ITU-R 601, the Y of a JPEG). Of 16-bit samples the high byte is taken, of a
    GIF and an animated WebP the first frame as it is stored. Raises InvalidArgumentError for other formats, for broken
    files and for pictures of more than `max_pixels` pixels, or 65,535 of a side.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels={channels}: 1 (grey) or 3 (RGB)")
    return _decoder(channels, max_pixels)(encoded)


@functools.cache
def _decoder(channels: int, max_pixels: int) -> Any:
    """One trace for all graphs of a process: it takes a second, and a run has eight pipelines that decode."""
    decode = functools.partial(_decode, channels=channels, max_pixels=max_pixels)
    return tf.function(decode, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def _decode(encoded: tf.Tensor, channels: int, max_pixels: int) -> tf.Tensor:
    header = headers.window(encoded, 0, headers.HEADER)
    kind = headers.image_format(header)
    # Two switches with everything else between and after them once: a graph's dead branches cost time, too. All
    # branches stand in the order of headers.UNKNOWN, JPEG, PNG, GIF, BMP, WEBP.
    still, height, width, exif, special = tf.switch_case(
        kind,
        [
            lambda: _unknown(encoded),
            lambda: _jpeg(encoded),
            lambda: _png(encoded, header),
            lambda: _gif(encoded),
            lambda: _bmp(encoded, header),
            lambda: _webp(encoded, header),
        ],
    )
    checked = _checked(still, height, width, max_pixels)
    pixels = tf.switch_case(
        kind,
        [
            lambda: tf.zeros((1, 1, channels), tf.uint8),
            lambda: _jpeg_pixels(checked, special, channels),
            lambda: tf.cond(special, lambda: tf.io.decode_png(checked, 4), lambda: tf.io.decode_png(checked, 3)),
            lambda: tf.io.decode_image(checked, 3, expand_animations=False),
            lambda: _bmp_pixels(checked, header, special),
            # 3 or 4 channels as the file has them: TensorFlow refuses to give others.
            lambda: tf.image.decode_webp(checked)[0],
        ],
    )
    opaque = tf.cond(tf.shape(pixels)[-1] == 4, lambda: _on_white(pixels), lambda: pixels)
    if channels == 1:
        opaque = tf.cond(tf.shape(pixels)[-1] >= 3, lambda opaque=opaque: grey(opaque), lambda opaque=opaque: opaque)
    upright = tf.cond(exif > 0, lambda: _upright(opaque, headers.orientation_at(encoded, exif)), lambda: opaque)
    return tf.ensure_shape(upright, (None, None, channels))


def is_native(encoded: tf.Tensor) -> tf.Tensor:
    """Whether `decode_image` reads a file of these first bytes: a bool scalar."""
    header = headers.window(encoded, 0, headers.HEADER)
    found = headers.image_format(header)
    return (found != headers.UNKNOWN) & ((found != headers.BMP) | headers.plain_bmp(header))


def load_image(encoded: tf.Tensor) -> tf.Tensor:
    """Bytes that `decode_image` reads, from those of any format that Pillow knows; for sources, not for export."""

    def read(given: Any) -> bytes:
        # Bytes in a graph; an array of no dimensions when called eagerly.
        return transcode(given if isinstance(given, bytes) else given.item())

    def foreign() -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read, [encoded], tf.string), ())

    # Empty bytes are left to the decoder's own message.
    return tf.cond(is_native(encoded) | (tf.strings.length(encoded) == 0), lambda: tf.identity(encoded), foreign)


def transcode(encoded: bytes, max_pixels: int = MAX_PIXELS) -> bytes:
    """The first page of a picture of any format that Pillow knows, upright, as a PNG; ValueError where it cannot."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(encoded), formats=_formats()) as image:
            width, height = image.size
            if width * height > max_pixels or max(width, height) > MAX_SIDE:
                most = f"{max_pixels} are decoded" if width * height > max_pixels else f"{MAX_SIDE} of a side"
                raise ValueError(f"the picture of {width}x{height} pixels is too large: at most {most}")
            upright = _eight_bits(ImageOps.exif_transpose(image))
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
            out = io.BytesIO()
            upright.convert("L" if upright.mode in ("1", "L") else "RGB").save(out, "PNG", compress_level=1)
            return out.getvalue()
    except Image.DecompressionBombError:
        raise ValueError(f"the picture is too large: at most {MAX_PIXELS} are decoded") from None
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise what they like for damaged files
        # Pillow's message names the BytesIO object.
        text = "cannot identify the format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise ValueError(f"not a picture that Pillow reads: {text}") from None


@functools.cache
def _formats() -> list[str]:
    """What Pillow may read here. The first time, it is told how much."""
    from PIL import Image

    # It raises above twice that many: of pictures inside an icon, too, whose size a file's own does not tell.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    Image.init()
    # To read EPS, Pillow starts Ghostscript, which runs what the file says; IPTC may hold one.
    return [name for name in Image.ID if name not in ("EPS", "IPTC")]


def _eight_bits(image: Any) -> Any:
    """Grey pictures of 16 or 32 bits or of floats (up to 1, or up to 255) as 8 bits; others as they are."""
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F":
        scaled = values * 255 if values.size and values.max() <= 1 else values
    else:
        scaled = values // 256 if image.mode != "I" or values.max() > 255 else values
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _unknown(encoded: tf.Tensor) -> Described:
    empty = tf.strings.length(encoded) == 0
    told = tf.where(empty, "the picture has no bytes", f"the picture is not in a format that is read: {FORMATS}")
    with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), [told])]):
        return tf.identity(encoded), _zero(), _zero(), _zero(), tf.constant(False)


def _jpeg(encoded: tf.Tensor) -> Described:
    shape = tf.image.extract_jpeg_shape(encoded, tf.int64)
    return tf.identity(encoded), shape[0], shape[1], headers.jpeg_exif(encoded), shape[2] == 4


def _png(encoded: tf.Tensor, header: tf.Tensor) -> Described:
    exif, clear = headers.png_notes(encoded)
    alpha = clear | (header[25] >= 4)  # the colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA
    return tf.identity(encoded), headers.big_endian(header[20:24]), headers.big_endian(header[16:20]), exif, alpha


def _gif(encoded: tf.Tensor) -> Described:
    return *headers.gif_first_frame(encoded), _zero(), tf.constant(False)


def _bmp(encoded: tf.Tensor, header: tf.Tensor) -> Described:
    plain = tf.debugging.Assert(headers.plain_bmp(header), ["a BMP is read with 8, 24 or 32 bits, not compressed"])
    with tf.control_dependencies([plain]):
        has_palette = headers.little_endian(header[28:30]) == 8
    return tf.identity(encoded), *headers.bmp_size(header), _zero(), has_palette


def _webp(encoded: tf.Tensor, header: tf.Tensor) -> Described:
    named = tf.reduce_any([headers.spells(header[12:16], name) for name in (b"VP8 ", b"VP8L", b"VP8X")])
    # Without a name the decoder would find the size elsewhere than it is looked for here.
    with tf.control_dependencies([tf.debugging.Assert(named, ["the picture is cut or broken: a WebP without a name"])]):
        header = tf.identity(header)
    exif, frame = headers.webp_chunks(encoded, header)
    animated = headers.webp_is_animated(header)
    # An animation may not reach the decoder whole: TensorFlow 2.21 writes beyond its buffer.
    found = tf.debugging.Assert((frame > 0) | ~animated, ["the picture is cut or broken: a WebP without its frames"])

    def first() -> tuple[tf.Tensor, ...]:
        return headers.webp_first_frame(encoded, frame)

    with tf.control_dependencies([found]):
        animated = tf.identity(animated)
    still, height, width = tf.cond(animated, first, lambda: (tf.identity(encoded), *headers.webp_size(header)))
    return still, height, width, exif, tf.constant(False)


def _jpeg_pixels(encoded: tf.Tensor, is_cmyk: tf.Tensor, channels: int) -> tf.Tensor:
    def decoded(wanted: int) -> tf.Tensor:
        # The accurate transform gives Pillow's pixels exactly; the default differs by 1 on average.
        return tf.io.decode_jpeg(encoded, wanted, dct_method="INTEGER_ACCURATE")

    # libjpeg turns CMYK into RGB, but not into grey.
    return decoded(3) if channels == 3 else tf.cond(is_cmyk, lambda: decoded(3), lambda: decoded(1))


def _bmp_pixels(encoded: tf.Tensor, header: tf.Tensor, has_palette: tf.Tensor) -> tf.Tensor:
    pixels = tf.io.decode_bmp(encoded)

    def coloured() -> tf.Tensor:
        # TensorFlow gives the places in the palette as if they were grey levels.
        table = tf.cast(headers.window(encoded, 14 + headers.little_endian(header[14:18]), 1024), tf.uint8)
        return tf.gather(tf.reshape(table, (256, 4))[:, 2::-1], tf.cast(pixels[..., 0], tf.int32))

    # The fourth byte of a pixel has no meaning in a plain BMP.
    return tf.cond(has_palette, coloured, lambda: pixels[..., :3])


def _checked(encoded: tf.Tensor, height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """The same bytes, once the size in their header is found good."""
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    numbers = [tf.strings.as_string(width), "x", tf.strings.as_string(height)]
    none = tf.strings.join(["the picture is cut or broken: its header says ", *numbers, " pixels"])
    many = tf.strings.join(["the picture of ", *numbers, f" pixels is too large: at most {max_pixels} are decoded"])
    long = tf.strings.join(["the picture of ", *numbers, f" pixels is too large: at most {MAX_SIDE} of a side"])
    few = height <= max_pixels // tf.maximum(width, 1)  # not as a product, which might overflow
    checks = [
        tf.debugging.Assert((height > 0) & (width > 0), [none]),
        tf.debugging.Assert(few & (tf.maximum(height, width) <= MAX_SIDE), [tf.where(few, long, many)]),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(encoded)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The picture turned and mirrored as its EXIF orientation, 1 to 8, asks (EXIF 2.3, section 4.6.4)."""
    turned = tf.cond(orientation >= 5, lambda: _transposed(image), lambda: image)
    mirrored = [[value in (3, 4, 7, 8), value in (2, 3, 6, 7), False] for value in range(9)]
    # This Reverse takes truth values, so the axes may depend on the file.
    return tf.raw_ops.Reverse(tensor=turned, dims=tf.gather(mirrored, orientation))


def _transposed(image: tf.Tensor) -> tf.Tensor:
    """uint8 `(height, width, 1 or 3)` as `(width, height, 1 or 3)`.

    A pixel travels as one float32, which a last byte of 64 keeps an ordinary number: for integers, TensorFlow writes a
    line on oneDNN and AVX-512 to the terminal.
    """
    channels = tf.shape(image)[2]
    filled = tf.pad(image, [[0, 0], [0, 0], [0, 4 - channels]], constant_values=64)
    numbers = tf.transpose(tf.bitcast(tf.ensure_shape(filled, (None, None, 4)), tf.float32))
    return tf.ensure_shape(tf.bitcast(numbers, tf.uint8)[..., :channels], (None, None, image.shape[2]))


def _on_white(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 RGBA `(height, width, 4)` laid on white: RGB."""
    alpha = pixels[..., 3:]

    def blended() -> tf.Tensor:
        # In 16 bits, a third of what floats would take; x + 128 + … // 256 divides by 255, rounding.
        wide = tf.cast(alpha, tf.uint16)
        x = tf.cast(pixels[..., :3], tf.uint16) * wide + (255 - wide) * 255 + 128
        return tf.cast(tf.bitwise.right_shift(x + tf.bitwise.right_shift(x, _eight(x)), _eight(x)), tf.uint8)

    return tf.cond(tf.reduce_all(alpha == 255), lambda: pixels[..., :3], blended)


def grey(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 RGB to grey `(height, width, 1)` by ITU-R 601, in 16 bits; equal channels keep their value."""
    red, green, blue = (tf.cast(pixels[..., i : i + 1], tf.uint16) for i in range(3))
    x = red * 77 + green * 150 + blue * 29 + 128
    return tf.cast(tf.bitwise.right_shift(x, _eight(x)), tf.uint8)


def _eight(like: tf.Tensor) -> tf.Tensor:
    return tf.constant(8, like.dtype)


def _zero() -> tf.Tensor:
    return tf.constant(0, tf.int64)
