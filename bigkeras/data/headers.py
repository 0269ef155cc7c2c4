"""What the header of an encoded picture says, read by graph ops: its format, size, orientation and first frame.

Positions are int64 scalars; what lies beyond the end reads as zeros, so nothing here fails on a file that was cut.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

UNKNOWN, JPEG, PNG, GIF, BMP, WEBP = range(6)
HEADER = 54  # bytes of the longest header that is read as a whole (BMP)
MAX_CHUNKS = 1000  # of a file; the orientation stands among the first
FREE_BLOCKS, LEAST_BLOCK = 200, 32  # of a GIF's chain: so many of any size, the others of so many bytes on average

_BYTES = [bytes([value]) for value in range(256)]
# The first 16 bytes of JPEG, PNG, GIF, BMP and WEBP files; a dot, as -1, is any byte.
_SIGNS = np.array(
    [
        [-1 if octet == ord(".") else octet for octet in sign.ljust(16, b".")]
        for sign in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n....IHDR", b"GIF8", b"BM", b"RIFF....WEBP")
    ]
)


def window(encoded: tf.Tensor, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """`count` bytes from a position on: int64 `(count,)`."""
    start = tf.minimum(tf.cast(position, tf.int64), tf.cast(tf.strings.length(encoded), tf.int64))
    part = tf.strings.substr(encoded, start, tf.constant(count, tf.int64))
    return tf.cast(tf.ensure_shape(tf.io.decode_raw(part, tf.uint8, fixed_length=count), (count,)), tf.int64)


def big_endian(octets: tf.Tensor) -> tf.Tensor:
    """The number that bytes `(…, n)` spell with the highest first."""
    count = octets.shape[-1]
    return tf.reduce_sum(octets * [256 ** (count - 1 - i) for i in range(count)], -1)


def little_endian(octets: tf.Tensor) -> tf.Tensor:
    """The number that bytes `(…, n)` spell with the lowest first."""
    return tf.reduce_sum(octets * [256**i for i in range(octets.shape[-1])], -1)


def spells(octets: tf.Tensor, text: bytes) -> tf.Tensor:
    """Whether bytes `(n,)` are these."""
    return tf.reduce_all(octets == list(text))


def image_format(header: tf.Tensor) -> tf.Tensor:
    """JPEG, PNG, GIF, BMP, WEBP or UNKNOWN, int32, by the first bytes `(HEADER,)` of a file."""
    fits = tf.reduce_all((header[:16] == _SIGNS) | (_SIGNS < 0), axis=1)
    return tf.reduce_max(tf.where(fits, tf.range(1, 6), 0))


def plain_bmp(header: tf.Tensor) -> tf.Tensor:
    """Whether a BMP is of the kind that TensorFlow decodes: 8, 24 or 32 bits a pixel, not compressed."""
    depth = little_endian(header[28:30])
    fits = tf.reduce_any(depth == [8, 24, 32])
    return fits & (little_endian(header[30:34]) == 0) & (little_endian(header[14:18]) >= 40)


def bmp_size(header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width; a BMP's height is negative where its rows stand from top to bottom."""
    height = little_endian(header[22:26])
    return tf.where(height >= 2**31, 2**32 - height, height), little_endian(header[18:22])


def webp_size(header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width of a WebP: RFC 9649, sections 2.5 to 2.7."""
    lossy = (little_endian(header[28:30]) % 2**14, little_endian(header[26:28]) % 2**14)
    packed = little_endian(header[21:25])
    lossless = (packed // 2**14 % 2**14 + 1, packed % 2**14 + 1)
    extended = (little_endian(header[27:30]) + 1, little_endian(header[24:27]) + 1)
    is_lossless, is_extended = spells(header[12:16], b"VP8L"), spells(header[12:16], b"VP8X")
    height, width = (
        tf.where(is_extended, x, tf.where(is_lossless, y, z)) for x, y, z in zip(extended, lossless, lossy, strict=True)
    )
    return height, width


def jpeg_exif(encoded: tf.Tensor) -> tf.Tensor:
    """Where a JPEG's EXIF block begins, 0 without; looked for among the segments of applications and comments."""

    def step(position: tf.Tensor, _going: tf.Tensor, _tiff: tf.Tensor) -> tuple[tf.Tensor, ...]:
        segment = window(encoded, position, 10)
        marker, filled = segment[1], segment[1] == 0xFF
        exif = (marker == 0xE1) & spells(segment[4:], b"Exif\0\0")
        skippable = (segment[0] == 0xFF) & ((marker // 16 == 0xE) | (marker == 0xFE) | filled)
        following = position + tf.where(filled, tf.constant(1, tf.int64), 2 + big_endian(segment[2:4]))
        return following, skippable & ~exif, tf.where(exif, position + 4, tf.constant(0, tf.int64))

    return _walk(step, 2, encoded)[1]


def png_notes(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where a PNG's EXIF block begins, 0 without, and whether it has a tRNS chunk; read up to the first IDAT."""

    def step(position: tf.Tensor, _going: tf.Tensor, tiff: tf.Tensor, clear: tf.Tensor) -> tuple[tf.Tensor, ...]:
        chunk = window(encoded, position, 8)
        name = chunk[4:]
        tiff = tf.where(spells(name, b"eXIf"), position + 8, tiff)
        going = ~spells(name, b"IDAT") & ~spells(name, b"\0\0\0\0")
        return position + 12 + big_endian(chunk[:4]), going, tiff, clear | spells(name, b"tRNS")

    _, tiff, clear = _walk(step, 8, encoded, tf.constant(False))
    return tiff, clear


def webp_chunks(encoded: tf.Tensor, header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where a WebP's EXIF block and its first frame of an animation begin; 0 without."""
    announced = spells(header[12:16], b"VP8X") & (tf.bitwise.bitwise_and(header[20], 0b1010) > 0)

    def step(position: tf.Tensor, _going: tf.Tensor, exif: tf.Tensor, frame: tf.Tensor) -> tuple[tf.Tensor, ...]:
        chunk = window(encoded, position, 8)
        name, length = chunk[:4], little_endian(chunk[4:])
        exif = tf.where(spells(name, b"EXIF"), position + 8, exif)
        frame = tf.where((frame == 0) & spells(name, b"ANMF"), position + 8, frame)
        return position + 8 + length + length % 2, ~spells(name, b"\0\0\0\0"), exif, frame

    start = tf.where(announced, tf.constant(12, tf.int64), tf.constant(2**40, tf.int64))
    _, exif, frame = _walk(step, start, encoded, tf.constant(0, tf.int64))
    return exif, frame


def webp_is_animated(header: tf.Tensor) -> tf.Tensor:
    """Whether a WebP says that it is an animation."""
    return spells(header[12:16], b"VP8X") & (tf.bitwise.bitwise_and(header[20], 0b10) > 0)


def webp_first_frame(encoded: tf.Tensor, frame: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """An animated WebP's first frame as a still WebP, and its height and width."""
    described = window(encoded, frame - 4, 20)
    length = little_endian(described[:4]) - 16
    riff = length + 22
    size = tf.stack([riff // 256**i % 256 for i in range(4)])
    has_alpha = spells(window(encoded, frame + 16, 4), b"ALPH")
    start = [b"RIFF", _joined(size), b"WEBPVP8X\x0a\0\0\0", tf.where(has_alpha, b"\x10\0\0\0", b"\0\0\0\0")]
    still = tf.strings.join([*start, _joined(described[10:16]), _part(encoded, frame + 16, length)])
    return still, little_endian(described[13:16]) + 1, little_endian(described[10:13]) + 1


def gif_first_frame(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A GIF with nothing but the first frame, its transparent colour made white; the frame's height and width.

    TensorFlow reads all frames of a GIF into memory before it takes the first one.
    """
    data = tf.io.decode_raw(encoded, tf.uint8)
    flags = window(encoded, 10, 1)[0]
    palette_end = 13 + _palette_length(flags)

    def step(position: tf.Tensor, _going: tf.Tensor, clear: tf.Tensor) -> tuple[tf.Tensor, ...]:
        block = window(encoded, position, 8)
        extension = block[0] == 0x21
        control = extension & (block[1] == 0xF9) & (block[3] % 2 == 1)
        following = tf.cond(extension, lambda: _after_sub_blocks(data, position + 2), lambda: position)
        return following, extension, tf.where(control, block[6] + 1, clear)

    start, clear = _walk(step, palette_end, encoded)
    image = window(encoded, start, 10)
    height, width = little_endian(image[7:9]), little_endian(image[5:7])
    colours = start + 10
    end = _after_sub_blocks(data, colours + _palette_length(image[9]) + 1)
    # Without the blocks between palette and image, which would make TensorFlow paint the transparent colour black.
    whole = [_part(encoded, 0, palette_end), b",\0\0\0\0", _part(encoded, start + 5, end - start - 5), b";"]
    own = image[9] >= 128
    palette = tf.where(own, palette_end + 10, tf.constant(13, tf.int64))
    known = 3 * clear <= tf.where(own, _palette_length(image[9]), palette_end - 13)
    still = _whitened(tf.strings.join(whole), palette + 3 * (clear - 1), (clear > 0) & known)
    is_image = image[0] == 0x2C
    return still, tf.where(is_image, height, 0), tf.where(is_image, width, 0)


def orientation_at(encoded: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The orientation, 1 to 8, in the EXIF block (TIFF 6.0, section 2) at a position; 1 where none is given."""
    # JPEG's mark before the block, which some writers put into WebP, too.
    tiff = position + tf.where(spells(window(encoded, position, 6), b"Exif\0\0"), tf.constant(6, tf.int64), 0)
    start = window(encoded, tiff, 8)
    little = spells(start[:2], b"II")
    known = little | spells(start[:2], b"MM")

    def number(octets: tf.Tensor) -> tf.Tensor:
        return tf.where(little, little_endian(octets), big_endian(octets))

    directory = tiff + number(start[4:])
    count = tf.minimum(number(window(encoded, directory, 2)), 200)
    raw = tf.io.decode_raw(_part(encoded, directory + 2, 12 * count), tf.uint8, fixed_length=12 * 200)
    entries = tf.cast(tf.reshape(raw, (200, 12)), tf.int64)
    wanted = (number(entries[:, :2]) == 0x112) & (number(entries[:, 2:4]) == 3)
    value = tf.reduce_max(tf.where(wanted, number(entries[:, 8:10]), 0))
    return tf.where(known & (value >= 1) & (value <= 8), value, tf.constant(1, tf.int64))


def _walk(
    step: Callable[..., tuple[tf.Tensor, ...]], start: tf.Tensor | int, encoded: tf.Tensor, *extra: tf.Tensor
) -> list[tf.Tensor]:
    """Runs a step from block to block, at most MAX_CHUNKS, until it says stop or the file ends.

    `step` takes and gives position, going, a number that begins with 0, and `extra`; the result leaves out going.
    """
    size = tf.cast(tf.strings.length(encoded), tf.int64)
    first = (tf.cast(start, tf.int64), tf.constant(True), tf.constant(0, tf.int64), *extra)
    position, _, *found = tf.while_loop(
        lambda position, going, *_: going & (position < size),
        step,
        first,
        maximum_iterations=MAX_CHUNKS,
        parallel_iterations=1,
    )
    return [position, *found]


def _after_sub_blocks(data: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The position after a GIF's chain of sub-blocks, of which each begins with its length."""
    size = tf.size(data, tf.int64)

    def step(place: tf.Tensor, _: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        length = tf.cast(data[place], tf.int64)
        return place + 1 + length, length, count + 1

    # Few ops a step: a large GIF is a chain of thousands of blocks of 255 bytes. Tiny ones by the thousand, which no
    # program writes, would take minutes.
    last, length, _ = tf.while_loop(
        lambda place, length, count: (
            (length > 0) & (place < size) & (count < FREE_BLOCKS + (place - position) // LEAST_BLOCK)
        ),
        step,
        (position, tf.constant(1, tf.int64), tf.constant(0, tf.int64)),
        parallel_iterations=1,
    )
    # What was left before the chain's end is a file that ends here: from elsewhere on it could claim another size.
    return tf.where(length > 0, size, tf.minimum(last, size))


def _palette_length(flags: tf.Tensor) -> tf.Tensor:
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8), 0)


def _whitened(gif: tf.Tensor, position: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
    """The GIF with three bytes of 255 at a position, where that is asked for."""
    changed = tf.strings.join([_part(gif, 0, position), b"\xff\xff\xff", _part(gif, position + 3, 2**31)])
    return tf.where(there, changed, gif)


def _part(encoded: tf.Tensor, position: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """A part of the bytes; less where they end before."""
    size = tf.cast(tf.strings.length(encoded), tf.int64)
    start = tf.clip_by_value(tf.cast(position, tf.int64), 0, size)
    return tf.strings.substr(encoded, start, tf.maximum(tf.cast(count, tf.int64), 0))


def _joined(octets: tf.Tensor) -> tf.Tensor:
    return tf.strings.reduce_join(tf.gather(tf.constant(_BYTES), octets))
