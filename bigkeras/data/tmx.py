"""TMX, the file format of translation memories, read as a stream and without entities of its own."""

import gzip
import re
import zlib
from collections import Counter
from html.entities import html5
from pathlib import Path
from xml.parsers import expat

from bigkeras.data.cleaning import base, code
from bigkeras.data.source import DataError

# Inside a segment these hold codes of the markup that was there; all else holds text.
CODES = ("bpt", "ept", "ph", "it", "ut")
# What of their contents parts words: HTML's and RTF's breaks, and a break itself.
BREAKS = ("lb", "pb", "cb")  # of a line, a page, a column: types of <ph> in TMX 1.4b, section 4.3
BREAK = re.compile(r"<(br|p|tab)\b|\\(par|line|tab)\b|[\n\t]", re.IGNORECASE)

Unit = tuple[str, str, str]  # place: its line, and its number where others begin there, too; source; target


def read_tmx(
    path: Path, source_language: str, target_language: str
) -> tuple[list[Unit], list[tuple[str, str]], tuple[str, str]]:
    """The units that have both languages, those that lack one (place and why), and the languages.

    A unit of several translations comes once for each. A language of "" is what the file says. Raises DataError.
    """
    reader = _Reader()
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            reader.parser.ParseFile(file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except _Entity as error:
        raise DataError(f"{path}: needs the entity {error} of its own: a translation memory has none") from None
    except (LookupError, ValueError) as error:
        raise DataError(f"{path}: its encoding cannot be read here ({error}): save it as UTF-8") from None
    except expat.ExpatError as error:
        raise DataError(f"{path}, line {error.lineno}: not whole XML: {expat.ErrorString(error.code)}") from None
    if not reader.units:
        raise DataError(f"{path}: holds no unit of a translation memory (tu): is it TMX?")
    languages = _chosen(path, reader, source_language, target_language)
    units, lacking, begun = [], [], Counter(line for line, _ in reader.units)
    for number, (line, segments) in enumerate(reader.units, 1):
        place = str(line) if begun[line] == 1 else f"{line}, unit {number}"
        sides = [_segments(segments, language) for language in languages]
        lacking += [(place, f"no {name} in it") for name, side in zip(languages, sides, strict=True) if not side][:1]
        units += [(place, source, target) for source in sides[0] for target in sides[1]]
    if not units:
        found = ", ".join(sorted(reader.languages)) or "none"
        raise DataError(f"{path}: no unit in both {languages[0]} and {languages[1]}; its languages are {found}")
    return units, lacking, languages


class _Entity(Exception):
    """A declaration that could make a small file a huge one."""


class _Reader:
    """What expat calls while it reads: collects the segments of each unit by language."""

    def __init__(self) -> None:
        self.units: list[tuple[int, dict[str, list[str]]]] = []
        self.languages: dict[str, None] = {}
        self.source = ""
        self.segments: dict[str, list[str]] = {}
        self.line, self.language, self.codes = 0, "", 0
        self.code: list[str] = []
        self.text: list[str] | None = None
        self.parser = expat.ParserCreate()
        self.parser.specified_attributes = True  # not those that a declaration adds to every element
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.EntityDeclHandler = self._entity
        # Where a DOCTYPE names a file, which is not read, expat leaves out what that may have declared.
        self.parser.SkippedEntityHandler = self._skipped

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "header":
            self.source = attributes.get("srclang", "")
        elif name == "tu":
            self.line, self.segments = self.parser.CurrentLineNumber, {}
        elif name == "tuv":
            self.language = attributes.get("xml:lang") or attributes.get("lang", "")
            self.languages[self.language] = None
        elif name == "seg":
            self.text = []
        elif name in CODES:
            self.codes += 1
            self.code = ["\n"] if attributes.get("type", "").lower() in BREAKS else []

    def _end(self, name: str) -> None:
        if name == "seg" and self.text is not None:
            self.segments.setdefault(self.language, []).append("".join(self.text))
            self.text = None
        elif name == "tu":
            self.units.append((self.line, self.segments))
        elif name in CODES:
            self.codes -= 1
            if self.text is not None and not self.codes and BREAK.search("".join(self.code)):
                self.text.append(" ")

    def _characters(self, data: str) -> None:
        if self.codes:
            self.code.append(data)
        elif self.text is not None:
            self.text.append(data)

    def _skipped(self, name: str, is_parameter: bool) -> None:
        if is_parameter:
            return
        text = html5.get(f"{name};")  # not html.unescape, to which &section; is § and "ion;"
        if text is None:
            raise _Entity(name)
        self._characters(text)

    def _entity(self, name: str, *rest: object) -> None:
        raise _Entity(name)


def _chosen(path: Path, reader: _Reader, source: str, target: str) -> tuple[str, str]:
    found = [name for name in reader.languages if name]
    free = [name for name in found if not target or base(name) != base(target)]
    for same in (code, base):  # the very one that the header names, else that of another country
        source = source or next((name for name in free if same(name) == same(reader.source)), "")
    if not source and (not target or len({base(name) for name in free}) == 1):
        source = (free or [""])[0]
    others = [name for name in found if base(name) != base(source)]
    if not source or (not target and len({base(name) for name in others}) != 1):
        told = ", ".join(found) or "none"
        raise DataError(f"{path}: which of {told}? --set data.source_language=… and data.target_language=…")
    return source, target or others[0]


def _segments(segments: dict[str, list[str]], language: str) -> list[str]:
    """The texts of a language: of its very code, else of another country's; empty ones only where all are."""
    for same in (code, base):
        for name, texts in segments.items():
            if same(name) == same(language):
                return [text for text in dict.fromkeys(texts) if text.strip()] or texts[:1]
    return []
