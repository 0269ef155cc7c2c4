"""Where an app's pictures come from: files, folders, patterns and standard input; and their encoded bytes."""

# os.path says False where pathlib raises: at names too long, for one.
# ruff: noqa: PTH110, PTH112, PTH114, PTH118, PTH207

import glob
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# What a folder is searched for. A file that is named itself is tried whatever its suffix.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".jp2", ".avif"),
)
LARGEST_FILE = 256 << 20  # bytes; also ends the reading of /dev/zero
LARGEST_PICTURE = 100_000_000  # pixels, as the graph's own check


class PictureError(ValueError):
    """A picture that cannot be had; the message does not name it, for the caller prints the path before it."""


@dataclass(frozen=True)
class Picture:
    """A path as it shall be printed ("-" is standard input), and what is wrong with it, if that is known."""

    path: str
    problem: str = ""


def find(paths: Iterable[str]) -> Iterator[Picture]:
    """The pictures that the arguments of a command line mean, in their order; folders recursively and sorted.

    A path that leads to no picture comes as a Picture with its problem.
    """
    for path in paths:
        if path == "-" or (os.path.exists(path) and not os.path.isdir(path)):
            yield Picture(path)
        elif os.path.isdir(path):
            yield from _in_folder(path)
        elif glob.has_magic(path):
            found = sorted(glob.glob(path, recursive=True))
            for match in found:
                yield from _in_folder(match) if os.path.isdir(match) else [Picture(match)]
            if not found:
                yield Picture(path, "no file matches")
        else:
            yield Picture(path, "broken link" if os.path.islink(path) else "no such file or folder")


def _in_folder(folder: str) -> Iterator[Picture]:
    problems: list[Picture] = []
    some = False
    for root, folders, files in os.walk(folder, onerror=lambda e: problems.append(Picture(e.filename, e.strerror))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                some = True
                yield Picture(os.path.join(root, name))
    yield from problems
    if not some and not problems:
        yield Picture(folder, "no pictures in this folder")


def read(path: str) -> bytes:
    """The encoded bytes of a picture, in a format that artifacts decode; raises PictureError.

    Other formats than JPEG, PNG, GIF and BMP are turned into PNG by Pillow, if it is installed.
    """
    try:
        data = _read_bytes(path)
    except OSError as error:
        raise PictureError(error.strerror or str(error)) from None
    if not data:
        raise PictureError("empty, without a picture")
    if len(data) > LARGEST_FILE:
        raise PictureError(f"larger than {LARGEST_FILE >> 20} MB")
    return data if graph_decodes(data) else to_png(data)


def _read_bytes(path: str) -> bytes:
    if path != "-":
        with Path(path).open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    if sys.stdin is None:
        raise PictureError("standard input is closed")
    return sys.stdin.buffer.read(LARGEST_FILE + 1)


def graph_decodes(data: bytes) -> bool:
    """Whether TensorFlow's decode_image takes this format: JPEG, PNG, GIF, and BMP of plain 24 bits.

    It reads the BMPs of 8 bits without their palette, so these count as other formats.
    """
    if data.startswith(b"BM"):
        return data[28:30] == b"\x18\0" and data[30:34] == b"\0\0\0\0"
    return data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8"))


def to_png(data: bytes) -> bytes:
    """The first frame of any picture that Pillow reads, as PNG; raises PictureError."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise PictureError("neither JPEG, PNG, GIF nor BMP; other formats need Pillow: pip install pillow") from None
    # The check below takes the place of Pillow's own, which warns first.
    Image.MAX_IMAGE_PIXELS = None
    png = io.BytesIO()
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > LARGEST_PICTURE:
                raise PictureError(f"{image.width} x {image.height} pixels, more than {LARGEST_PICTURE:,} in all")
            plain = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")
            plain.save(png, "PNG", compress_level=1)
    except UnidentifiedImageError:
        raise PictureError("not a picture in any known format") from None
    except PictureError:
        raise
    except Exception as error:  # Pillow's many readers raise whatever a damaged file leads them to
        raise PictureError(f"cannot be decoded: {error}") from None
    return png.getvalue()
