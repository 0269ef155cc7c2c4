"""Which encoding a text file has: said by its first bytes, by being valid UTF-8, or told from a sample."""

import codecs
import unicodedata

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
LIKELY = ("gb18030", "big5", "cp932", "cp949", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r")


def decoded(data: bytes, origin: str, encoding: str | None = None) -> tuple[str, str]:
    """The text of some bytes, and the encoding that was taken: `encoding`, or the one found.

    Bytes that are broken in an encoding that was found, few beside those that are not ASCII, become U+FFFD. Raises
    DataError that names `origin`.
    """
    if encoding is not None:
        try:
            text = data.decode(encoding).removeprefix("\ufeff")
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
    return data.decode(found, "replace"), found


def decoded_as(data: bytes, origin: str, encoding: str) -> tuple[str, str]:
    """The same in an encoding that was found from more than these bytes; one broken character is always allowed."""
    text = data.decode(encoding, "replace")
    if text.count("�") > max(1, len(data) / 1000):
        raise DataError(f"{origin}: neither UTF-8 nor {encoding}, as other files are")
    return text, encoding


def is_clear(data: bytes) -> bool:
    """Whether the bytes are valid UTF-8, or say by their beginning what they are."""
    return data.startswith(tuple(mark for mark, _ in MARKS)) or _reads(data, "utf-8")


def says_nothing(text: str) -> bool:
    """Whether a text holds only what preprocessing takes for spaces: spaces, controls and what joins signs."""
    return all(unicodedata.category(sign) in ("Zs", "Zl", "Zp", "Cc", "Cf") for sign in text)


def found_encoding(data: bytes) -> str:
    """The encoding that the bytes are most likely in; never fails."""
    for mark, name in MARKS:
        if data.startswith(mark):
            return name
    zeros = (data[:SAMPLE:2].count(0), data[1:SAMPLE:2].count(0))
    # Before UTF-8, which pure ASCII in 16 bits is, too.
    if max(zeros) > 0.3 * min(len(data), SAMPLE) / 2 > min(zeros):
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    if _reads(data, "utf-8"):
        return "utf-8"
    broken = data.decode("utf-8", "replace").count("�")
    high = len(data.translate(None, ASCII))
    if broken * 20 < high:
        return "utf-8"  # with a broken byte here and there; of another encoding's half or more would be
    return _told_from(data)


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
    if alone > 0.7 * sum(byte > 127 for byte in sample):
        # Accents stand alone among plain letters; the Western ones are by far the most frequent.
        return "cp1252"
    # One character that is cut in two rules its encoding out: the lines tell that it does read.
    for encoding in ("gb18030", "big5", "cp932", "cp949"):
        whole = [line for line in sample.splitlines(keepends=True) if _reads(line, encoding)]
        if whole and 0.9 < sum(map(len, whole)) / len(sample) < 1:
            best = charset_normalizer.from_bytes(b"".join(whole), cp_isolation=list(LIKELY)).best()
            if best and best.encoding == encoding:
                return encoding
    best = charset_normalizer.from_bytes(sample, cp_isolation=list(LIKELY)).best()
    return best.encoding if best else "gb18030" if _reads(sample, "gb18030") else "cp1252"


def _reads(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
        return True
    except UnicodeDecodeError:
        return False
