"""Decoding by graph ops against Pillow."""

import io
import re
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, features

from bigkeras.data.decode import MAX_PIXELS, _decoder, decode_image, is_native, load_image, transcode

SIGNATURE = [tf.TensorSpec((), tf.string)]
RANDOM = np.random.default_rng(0)
RGB = Image.fromarray(RANDOM.integers(0, 256, (11, 17, 3), np.uint8))
RGBA = Image.fromarray(RANDOM.integers(0, 256, (11, 17, 4), np.uint8))
PALETTE = RGB.quantize(16)
LOSSLESS = {"lossless": True, "exact": True}
FRAMES = {"save_all": True, "append_images": [RGB.transpose(0)] * 3}


@pytest.fixture(scope="module")
def decode():
    """The decoders as graphs, by channels."""
    return {c: tf.function(lambda x, c=c: decode_image(x, channels=c), input_signature=SIGNATURE) for c in (1, 3)}


@pytest.fixture(scope="module")
def load():
    return tf.function(lambda x: decode_image(load_image(x), channels=3), input_signature=SIGNATURE)


def encoded(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def by_pillow(data):
    """Upright RGB on white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def with_orientation(orientation, form, **options):
    exif = Image.Exif()
    exif[0x112] = orientation
    return encoded(RGB, form, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_stands_upright_by_its_orientation(decode, form, orientation):
    data = with_orientation(orientation, form, **(LOSSLESS if form == "WEBP" else {}))
    np.testing.assert_array_equal(decode[3](data), by_pillow(data))


def test_orientation_is_read_in_both_byte_orders(decode):
    data = with_orientation(6, "JPEG")
    start = data.index(b"Exif\0\0") + 6
    for order, mark in (("<", b"II"), (">", b"MM")):
        entry = struct.pack(order + "HHIHH", 0x112, 3, 1, 6, 0)
        tiff = mark + struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", 1) + entry + bytes(4)
        length = struct.pack(">H", len(tiff) + 8)
        changed = (
            data[: start - 8]
            + length
            + b"Exif\0\0"
            + tiff
            + data[start - 8 + struct.unpack(">H", data[start - 8 : start - 6])[0] :]
        )
        assert decode[3](changed).shape == (17, 11, 3)


def test_an_orientation_that_leads_nowhere_is_ignored(decode):
    data = bytearray(with_orientation(6, "JPEG"))
    start = data.index(b"Exif\0\0") + 6
    data[start + 4 : start + 8] = b"\xff\xff\xff\xff"
    assert decode[3](bytes(data)).shape == (11, 17, 3)


@pytest.mark.parametrize(
    "data",
    [
        encoded(RGB, "PNG"),
        encoded(RGBA, "PNG"),
        encoded(RGBA.convert("LA"), "PNG"),
        encoded(RGB.convert("L"), "PNG"),
        encoded(RGB.convert("1"), "PNG"),
        encoded(PALETTE, "PNG"),
        encoded(PALETTE, "PNG", transparency=3),
        encoded(RGB, "PNG", transparency=RGB.getpixel((3, 3))),
        encoded(RGB, "WEBP", **LOSSLESS),
        encoded(RGBA, "WEBP", **LOSSLESS),
        encoded(RGB, "WEBP"),
        encoded(RGBA, "WEBP"),
        encoded(RGB, "WEBP", **FRAMES, **LOSSLESS),
        encoded(RGBA, "WEBP", **FRAMES),
        encoded(PALETTE, "GIF"),
        encoded(PALETTE, "GIF", transparency=3),
        encoded(PALETTE, "GIF", **FRAMES),
        encoded(RGB, "BMP"),
        encoded(PALETTE, "BMP"),
        encoded(RGB.convert("L"), "BMP"),
        encoded(RGB, "JPEG"),
        encoded(RGB.convert("L"), "JPEG"),
        encoded(RGB.convert("CMYK"), "JPEG"),
        encoded(RGB, "JPEG", progressive=True),
    ],
    ids=[
        "png",
        "png-rgba",
        "png-la",
        "png-l",
        "png-1",
        "png-p",
        "png-p-clear",
        "png-rgb-clear",
        "webp",
        "webp-rgba",
        "webp-lossy",
        "webp-lossy-rgba",
        "webp-frames",
        "webp-frames-rgba",
        "gif",
        "gif-clear",
        "gif-frames",
        "bmp",
        "bmp-p",
        "bmp-l",
        "jpeg",
        "jpeg-l",
        "jpeg-cmyk",
        "jpeg-progressive",
    ],
)
def test_colours_equal_pillows(decode, data):
    expected = by_pillow(data)
    np.testing.assert_array_equal(decode[3](data), expected)
    grey = np.asarray(Image.fromarray(expected).convert("L")).astype(int)
    # A JPEG's Y is not what its colours give where these were cut to 0 or 255; the others differ by rounding.
    tolerance = 15 if data[:2] == b"\xff\xd8" else 1
    assert np.abs(decode[1](data).numpy()[..., 0] - grey).max() <= tolerance


def test_of_16_bits_the_high_byte_is_taken(decode):
    values = RANDOM.integers(0, 2**16, (5, 6), np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    np.testing.assert_array_equal(decode[1](data)[..., 0], values // 256)


def interlaced_png(pixels):
    """Grey pixels `(height, width)` as an Adam7 PNG, which Pillow does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [pixels[y::down, x::right] for y, x, down, right in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return png(pixels.shape[1], pixels.shape[0], zlib.compress(rows), colour=0, interlace=1)


def png(width, height, data, colour=2, interlace=0):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_an_interlaced_png_is_read(decode):
    pixels = RANDOM.integers(0, 256, (13, 10), np.uint8)
    np.testing.assert_array_equal(decode[1](interlaced_png(pixels))[..., 0], pixels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the picture has no bytes"),
        (b"hello", "not in a format that is read: JPEG, PNG, WebP, GIF or BMP"),
        (b"\xff\xd8\xff", "Invalid JPEG data"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "cut or broken"),
        (b"GIF89a", "cut or broken"),
        (b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\x01\x00" * 100_000, "cut or broken"),
        (b"GIF89a" + bytes(7) + (b"\x21\xfe" + b"\x01a" * 14_000 + b"\0") * 100, "cut or broken"),
        (b"BM", "8, 24 or 32 bits"),
        (b"RIFF1234WEBP", "cut or broken"),
        *(
            (encoded(RGB, form)[:-30], "cut or broken|Invalid|Failed to decode|differ by -30")
            for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP")
        ),
    ],
)
def test_a_broken_picture_is_an_error(decode, data, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode[3](data)


@contextmanager
def takes_less_than(megabytes):
    """Fails where the process has had that much more memory inside than before."""
    status = Path("/proc/self/status")

    def field(name):
        return int(re.search(rf"{name}:\s+(\d+) kB", status.read_text())[1]) / 1024

    try:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of whatever ran before
    except OSError:
        pytest.skip("the peak of this process' memory cannot be measured here")
    before = field("VmRSS")
    yield
    assert field("VmHWM") - before < megabytes


def huge(form):
    """A small file whose header says 20,000×20,000."""
    if form == "PNG":
        return png(20000, 20000, zlib.compress(bytes(1000)))
    data = bytearray(encoded(RGB, form, **(LOSSLESS if form == "WEBP" else {})))
    if form == "GIF":
        place = data.index(b",\0\0\0\0")
        data[place + 5 : place + 9] = struct.pack("<HH", 20000, 20000)
    elif form == "BMP":
        data[18:26] = struct.pack("<ii", 20000, -20000)
    elif form == "WEBP":
        # A VP8L header holds 14 bits for each side: 16,384 at most.
        data[21:25] = struct.pack("<I", 16383 | 16383 << 14)
    else:
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", 20000, 20000)
    return bytes(data)


def test_a_webp_whose_picture_has_no_name_is_refused(decode):
    # The decoder takes it, and finds 16,384x16,384 where its size should not stand; here 1x1 would be read.
    bits = b"\x2f\xff\xff\xff\x0f\x88\x88\x08" + bytes(6) + b"\x01\0\x01\0" + bytes(24)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a WebP without a name"):
        decode[3](b"RIFF" + struct.pack("<I", len(bits) + 4) + b"WEBP" + bits)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
IN_IPTC = b"".join(
    bytes([0x1C, record, number]) + len(data).to_bytes(2, "big") + data
    for record, number, data in (
        (2, 0, b" " * 120), (3, 60, b"\1\0"), (3, 20, b"\x09"), (3, 30, b"\x09"), (3, 120, b"\5"), (8, 10, EPS),
    )
)  # fmt: skip


def test_no_program_is_started_to_read_a_picture():
    with pytest.raises(ValueError, match="cannot identify the format"):
        transcode(EPS)
    # Nor where it is wrapped in another format, whose reader opens anything.
    with pytest.raises(ValueError, match="cannot identify the format"):
        transcode(IN_IPTC)
    assert Image.open(io.BytesIO(IN_IPTC), formats=["IPTC"]).size == (9, 9)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_a_huge_picture_is_refused_by_its_header_and_takes_no_memory(decode, form):
    refused = pytest.raises(tf.errors.InvalidArgumentError, match="pixels is too large: at most 64000000 are decoded")
    data = huge(form)
    with takes_less_than(50), refused:
        decode[3](data)


def test_many_frames_take_the_memory_of_one(decode):
    frames = [Image.new("P", (2000, 2000), i) for i in range(40)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with takes_less_than(80):  # all frames would be 160 MB
        assert decode[3](data).shape == (2000, 2000, 3)


@pytest.mark.parametrize(
    "data",
    [
        encoded(RGB, "TIFF"),
        encoded(RGB, "TIFF", compression="tiff_lzw"),
        encoded(RGB.convert("CMYK"), "TIFF"),
        encoded(RGB, "TIFF", **FRAMES),
        encoded(RGBA, "TIFF"),
        encoded(RGB.convert("1"), "BMP"),
        encoded(RGB, "PPM"),
        *([encoded(RGB, "AVIF", quality=100)] if features.check("avif") else []),
    ],
)
def test_sources_read_what_pillow_reads(load, data):
    assert not is_native(data)
    np.testing.assert_array_equal(load(data), by_pillow(data))


def test_a_16_bit_tiff_gives_its_high_bytes(load):
    values = RANDOM.integers(0, 2**16, (5, 6), np.uint16)
    np.testing.assert_array_equal(load(encoded(Image.fromarray(values), "TIFF"))[..., 0], values // 256)


def test_transcoding_refuses_a_huge_picture():
    with pytest.raises(ValueError, match="17x11 pixels is too large: at most 100"):
        transcode(encoded(RGB, "TIFF"), max_pixels=100)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_side_that_resizing_would_take_gigabytes_for_is_refused(kind, load):
    errors, told = (tf.errors.InvalidArgumentError, ValueError), "65536x1 pixels is too large: at most 65535 of a side"
    with pytest.raises(errors, match=told):
        load(encoded(Image.new("RGB", (65_536, 1)), kind))
    assert decode_image(encoded(Image.new("RGB", (65_535, 1)), "PNG"), channels=3).shape == (1, 65_535, 3)


def test_native_bytes_pass_through_unchanged():
    data = encoded(RGB, "JPEG")
    assert load_image(data).numpy() == data


def test_a_map_and_a_mapped_function_decode_alike(decode):
    data = [encoded(RGB, "PNG"), encoded(RGB.transpose(0), "WEBP", **LOSSLESS)]
    by_map = list(tf.data.Dataset.from_tensor_slices(data).map(decode[3].python_function, num_parallel_calls=2))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def batch(images):
        spec = tf.TensorSpec((None, None, 3), tf.uint8)
        return tf.map_fn(decode[3].python_function, images, fn_output_signature=spec)

    np.testing.assert_array_equal(batch(data), np.stack(by_map))


def test_a_decoder_is_traced_once_for_all_pipelines():
    data, counts = tf.data.Dataset.from_tensors(encoded(RGB, "PNG")), []
    for _ in range(2):
        list(data.map(lambda image: decode_image(image, channels=3)))
        counts.append(_decoder(3, MAX_PIXELS).experimental_get_tracing_count())
    assert counts[0] == counts[1] > 0


def test_a_saved_model_decodes_in_the_cpp_loader(decode, tmp_path):
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": decode[3]})
    data = with_orientation(6, "JPEG")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        signature = loaded.signature_def["serving_default"]
        feed = next(iter(signature.inputs.values())).name
        fetch = next(iter(signature.outputs.values())).name
        pixels = session.run(fetch, {feed: data})
        with pytest.raises(tf.errors.InvalidArgumentError, match="no bytes"):
            session.run(fetch, {feed: b""})
    np.testing.assert_array_equal(pixels, by_pillow(data))


def test_only_one_or_three_channels_are_given():
    with pytest.raises(ValueError, match="channels=4"):
        decode_image(b"", channels=4)
