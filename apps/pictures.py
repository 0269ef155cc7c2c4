"""Where an app's pictures come from: files, folders, patterns and standard input; and their encoded bytes."""

import contextlib
import glob
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a folder is searched for. A file that is named itself is tried whatever its suffix.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".jp2", ".avif"),
)
FORMATS = ("JPEG", "PNG", "GIF", "WebP", "plain BMP")
LARGEST_FILE = 256 << 20  # bytes; also ends the reading of /dev/zero
HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # kinds of the files that iPhones write
LARGEST_PICTURE = 64_000_000  # pixels, as the artifacts' own check


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
            found = sorted(_matches(path))
            given: set[str] = set()  # "**" finds a folder, and what is in it, too
            for match in found:
                if _place(match) in given:
                    continue
                for picture in _in_folder(match) if os.path.isdir(match) else [Picture(match)]:
                    if _place(picture.path) not in given:
                        given.add(_place(picture.path))
                        yield picture
                given.add(_place(match))
            if not found:
                yield Picture(path, "no file matches")
        else:
            yield Picture(path, "broken link" if os.path.islink(path) else _missing(path))


def _matches(pattern: str) -> Iterator[str]:
    """As `glob.glob(pattern, recursive=True)`, which follows links to folders above some forty times, each of them."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    first = parts.index("**")
    above, rest = os.sep.join(parts[:first]) + os.sep * (first > 0), os.sep.join(parts[first + 1 :]).lstrip(os.sep)
    for top in glob.glob(above) if above else [""]:
        for folder in _folders(top):
            if rest:
                yield from _matches(os.path.join(glob.escape(folder), rest))
            else:
                yield folder or os.curdir
                if parts[-1] != "**":  # of "**/" the folders alone
                    continue
                with contextlib.suppress(OSError):
                    yield from (os.path.join(folder, n) for n in os.listdir(folder or os.curdir) if n[0] != ".")


def _folders(top: str) -> Iterator[str]:
    """A folder and those in it, each once, whatever links lead there; none that begins with a dot. "" is this one."""
    seen, waiting = set(), [top]
    while waiting:
        folder = waiting.pop()
        try:
            place = os.stat(folder or os.curdir)
            inside = [e for e in os.scandir(folder or os.curdir) if e.name[0] != "." and _is_folder(e)]
        except OSError:
            continue
        if (place.st_dev, place.st_ino) not in seen:
            seen.add((place.st_dev, place.st_ino))
            yield folder
            waiting += [os.path.join(folder, entry.name) for entry in inside]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that one may not enter
        return False


def _missing(path: str) -> str:
    """Why there is nothing at a path: it may lie in a folder that one may not enter."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    except OSError as error:
        return str(error.strerror)
    return "no such file or folder"


def _place(path: str) -> str:
    """Where a path leads, by its folder: through a link to a folder above it would come again and again."""
    folder, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(folder), name)


def _in_folder(folder: str) -> Iterator[Picture]:
    problems: list[Picture] = []
    some = False
    seen = set()  # folders, so that a link to one above ends
    for root, folders, files in os.walk(
        folder, followlinks=True, onerror=lambda e: problems.append(Picture(e.filename, str(e.strerror)))
    ):
        place = os.stat(root)
        if (place.st_dev, place.st_ino) in seen:
            folders[:] = []
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                some = True
                yield Picture(os.path.join(root, name))
            elif name.lower().endswith((".heic", ".heif")) and not name.startswith("."):
                problems.append(Picture(os.path.join(root, name), "a HEIC picture, which is not read"))
    yield from problems
    if not some and not problems:
        yield Picture(folder, "no pictures in this folder")


def read(path: str) -> bytes:
    """The encoded bytes of a picture, in a format that artifacts decode; raises PictureError.

    Other formats than these few (TIFF, for one) are turned into PNG by Pillow, if it is installed.
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
    """Whether artifacts decode this format: JPEG, PNG, GIF, WebP, and BMP of 8, 24 or 32 bits without compression."""
    if data.startswith(b"BM"):
        depth, compression, header = (int.from_bytes(data[a:b], "little") for a, b in ((28, 30), (30, 34), (14, 18)))
        return depth in (8, 24, 32) and compression == 0 and header >= 40
    if data.startswith(b"RIFF"):
        return data[8:12] == b"WEBP"
    return data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8"))


def to_png(data: bytes) -> bytes:
    """The first frame of any picture that Pillow reads, upright, as PNG; raises PictureError."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise PictureError(f"neither {', '.join(FORMATS)}; other formats need Pillow: pip install pillow") from None
    # Pillow raises above twice that many: of pictures inside an icon, too, whose size the check below does not see.
    Image.MAX_IMAGE_PIXELS = LARGEST_PICTURE // 2
    Image.init()
    # To read EPS, Pillow starts Ghostscript, which runs what the file says; IPTC may hold one.
    formats = [name for name in Image.ID if name not in ("EPS", "IPTC")]
    png = io.BytesIO()
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > LARGEST_PICTURE:
                raise PictureError(f"{image.width} x {image.height} pixels are too many: at most {LARGEST_PICTURE}")
            upright = _eight_bits(ImageOps.exif_transpose(image))
            upright.convert("RGBA" if upright.has_transparency_data else "RGB").save(png, "PNG", compress_level=1)
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in HEIF:
            raise PictureError("a HEIC picture, which is not read: heif-convert makes a JPEG of it") from None
        raise PictureError("not a picture in any known format") from None
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"its pixels are too many: at most {LARGEST_PICTURE}") from None
    except Exception as error:  # Pillow's many readers raise whatever a damaged file leads them to
        raise PictureError(f"cannot be decoded: {error}") from None
    return png.getvalue()


def _eight_bits(image: Any) -> Any:
    """Grey pictures of 16 or 32 bits or of floats (up to 1, or up to 255) as 8 bits; others as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    if image.mode == "F":
        factor = 255.0 if image.getextrema()[1] <= 1 else 1.0
    else:  # of I;16B Pillow gives no extremes
        factor = 1.0 if image.mode == "I" and image.getextrema()[1] <= 255 else 1 / 256
    return image.convert("F").point(lambda value: value * factor).convert("L")
