"""Which encoding a text file has: said by its first bytes, by being valid UTF-8, or told from a sample."""

import codecs
import re
import unicodedata
from collections import Counter

from bigkeras.data.source import DataError

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ASCII = bytes(range(128))
SAMPLE = 20_000  # bytes that tell an encoding
# What people's tables are saved in, beside UTF-8; rarer ones can be named.
LIKELY = (
    "gb18030", "big5", "cp932", "cp949", "cp874", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257",
    "koi8_r",
)  # fmt: skip


EUROPEAN = ("cp1250", "cp1252", "cp1254", "cp1257")


def decoded(data: bytes, origin: str, encoding: str | None = None) -> tuple[str, str]:
    """The text of some bytes, and the encoding that was taken: `encoding`, or the one found.

    Bytes that are broken in an encoding that was found, few beside those that are not ASCII, become U+FFFD. Raises
    DataError that names `origin`.
    """
    if encoding is not None:
        try:
            text = data.decode(encoding).removeprefix("\ufeff").replace("\n\ufeff", "\n")
            # utf-7 and unicode_escape can hold halves of a character, which no other encoding has.
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), encoding
        except LookupError:
            raise DataError(f"encoding={encoding!r}: no such encoding; utf-8, gb18030 and cp1252 are some") from None
        except UnicodeError as error:
            place = f", line {data[: error.start].count(10) + 1}" if isinstance(error, UnicodeDecodeError) else ""
            raise DataError(f"{origin}{place}: not {encoding} text: leave encoding out to have it found") from None
        except ValueError as error:
            raise DataError(f"encoding={encoding!r}: {error}") from None
    found = found_encoding(data)
    # Where files with a mark at their beginning were put one below the other, it stands inside.
    return data.decode(found, "replace").replace("\n\ufeff", "\n"), found


def decoded_as(data: bytes, origin: str, encoding: str) -> tuple[str, str]:
    """The same in an encoding that was found from more than these bytes; one broken character is always allowed."""
    text = data.decode(encoding, "replace")
    if text.count("�") > max(1, len(data) / 1000):
        raise DataError(f"{origin}: neither UTF-8 nor {encoding}, as other files are")
    return text, encoding


def says_nothing(text: str) -> bool:
    """Whether a text holds only what preprocessing takes for spaces: spaces, controls and what joins signs."""
    return all(unicodedata.category(sign) in ("Zs", "Zl", "Zp", "Cc", "Cf") for sign in text)


def found_encoding(data: bytes) -> str:
    """The encoding that the bytes are most likely in; never fails."""
    return unicode_encoding(data) or _told_from(data)


def unicode_encoding(data: bytes) -> str | None:
    """The encoding of bytes that are Unicode, be some of them broken; None for others, of which a language tells."""
    for mark, name in MARKS:
        if data.startswith(mark):
            return name
    zeros = (data[:SAMPLE:2].count(0), data[1:SAMPLE:2].count(0))
    # Before UTF-8, which pure ASCII in 16 bits is, too; of Cyrillic in 16 bits, spaces and signs alone have a zero, and
    # half of the other halves are one and the same.
    places = min(len(data), SAMPLE) / 2
    side = int(zeros[1] > zeros[0])
    usual = Counter(data[side:SAMPLE:2]).most_common(1)[0][1] if data else 0
    alike = zeros[side] > 2 and zeros[side] > 0.02 * places and zeros[1 - side] * 20 < zeros[side]
    if zeros[side] > 0.3 * places > zeros[1 - side] or (alike and usual > 0.5 * places):
        return "utf-16-le" if side else "utf-16-be"
    if _reads(data, "utf-8"):
        return "utf-8"
    broken = data.decode("utf-8", "replace").count("�") - data.count("�".encode())
    high = len(data.translate(None, ASCII))
    if broken * 4 < high:
        return "utf-8"  # with broken bytes among them; of another encoding's half or more would be
    return None


def _told_from(data: bytes) -> str:
    import charset_normalizer

    # Lines with something that is not ASCII tell; whole lines, since half a character would rule its encoding out.
    lines = [line for line in data.splitlines(keepends=True) if not line.isascii()]
    sample = b""
    for line in lines:
        if len(sample) > SAMPLE:
            break
        sample += line
    alone = sum(1 for a, b, c in zip(b" " + sample, sample, sample[1:] + b" ", strict=False) if b > 127 > max(a, c))
    # Most of them alone: opções has two side by side, and of Big5 a fourth may stand alone; of Japanese kana (0x82 and
    # 0x83 in Shift-JIS) more.
    high = sum(byte > 127 for byte in sample)
    if high and alone >= 0.5 * high and sample.count(0x82) + sample.count(0x83) < 0.3 * high:
        return _european(sample)
    # One character that is cut in two rules its encoding out: the lines tell that it does read.
    for encoding in ("gb18030", "big5", "cp932", "cp949"):
        whole = [line for line in sample.splitlines(keepends=True) if _reads(line, encoding)]
        if whole and 0.9 < sum(map(len, whole)) / len(sample) < 1:
            best = charset_normalizer.from_bytes(b"".join(whole), cp_isolation=list(LIKELY)).best()
            if best and best.encoding == encoding:
                return encoding
    # Hebrew's letters are small Cyrillic ones, but the last five, without which no text of Cyrillic does, or small
    # Greek ones, of which a twentieth and more is ο.
    fits = not any(sample.count(byte) for byte in range(0xFB, 0x100)) and sample.count(0xEF) < 0.05 * high
    if high > 20 and fits and sum(0xE0 <= byte <= 0xFA for byte in sample) > 0.97 * high:
        return "cp1255"
    best = charset_normalizer.from_bytes(sample, cp_isolation=list(LIKELY)).best()
    if best and best.encoding in EUROPEAN and (told := _european(sample)) != "cp1252":
        return told  # where many stand side by side, these are alike to it
    return best.encoding if best else "gb18030" if _reads(sample, "gb18030") else "cp1252"


def _european(sample: bytes) -> str:
    """The encoding of a text whose accents stand alone among plain letters: mostly Western, cp1252."""
    times = Counter(byte for byte in sample if byte > 127)

    def share(letters: str, encoding: str) -> float:
        return sum(times[byte] for byte in letters.encode(encoding)) / times.total()

    # In cp1252 the Polish ones are ³ and ¹, which stand inside no word; no language has the Czech ones together.
    inside = re.findall(rb"[a-z\x80-\xff][\xb3\xb9][a-z\x80-\xff]", sample)
    if len(inside) > 0.02 * times.total():
        return "cp1250"
    if share("šž", "cp1250") > 0.05 and share("čřě", "cp1250") > 0.05:
        return "cp1250"
    if share("ő", "cp1250") > 0.02 and share("áé", "cp1250") > 0.2 and not share("ãç", "cp1252"):
        return "cp1250"
    # Romanian ă is ã, and ţ is þ, which Portuguese has not.
    if share("ă", "cp1250") > 0.1 and share("ţ", "cp1250") > 0.02:
        return "cp1250"
    # Lithuanian and Latvian: ë, ø and û, or â, ç and î, beside the ð and þ of Icelandic.
    lithuanian = min(share("ėųū", "cp1257"), share("šž", "cp1257")) > 0.1 and share("óý", "cp1252") < 0.05  # Faroese
    if lithuanian or (share("āēī", "cp1257") > 0.4 and share("šžņ", "cp1257") > 0.05):
        return "cp1257"
    # Icelandic has ð and þ in their places, but hardly ý.
    if share("ışğ", "cp1254") > 0.2 and share("ı", "cp1254") > 0.1 and share("áíóæ", "cp1252") < 0.05:
        return "cp1254"
    return "cp1252"


def _reads(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
        return True
    except UnicodeDecodeError:
        return False
