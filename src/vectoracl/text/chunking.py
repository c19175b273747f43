"""Splitting texts into chunks, and reading files, for `vectoracl ingest` and the demo. Deterministic."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from vectoracl.errors import InvalidInputError
from vectoracl.model.records import Chunk
from vectoracl.text.sources import MAX_FILE_BYTES, Document, File, Report, Skipped, find, read

__all__ = ["Document", "Report", "Skipped", "Span", "chunk_ids", "chunks", "document_chunks", "documents"]

SIZE = 800
SMALLEST_SIZE = 16

_FENCE = re.compile(r"\s{0,3}(```|~~~)")
_ATX = re.compile(r"#{1,6}\s+\S")
_RULER = re.compile(r"([=\-~^\"'#*+.:_`])\1{2,}\s*$")
_SENTENCE = re.compile(r"[.!?]['\")\]]*\s+|[。！？]")
_BLANK = re.compile(r"\s+")


class Span(NamedTuple):
    """A part of a text from `start` to before `end`; `heading` if it opens a section."""

    start: int
    end: int
    heading: bool = False


def chunks(text: str, size: int = SIZE, overlap: int = 0) -> list[str]:
    """Split *text* into chunks of at most *size* characters, each of whole paragraphs where they fit.

    Headings (Markdown, reStructuredText) stay with the text that follows them, and open a new chunk if the current one
    is half full; a fenced code block counts as one paragraph. A longer text is cut after a sentence, else after a line,
    else between words, and only then inside a word, never between a character and its combining marks. With *overlap*
    each chunk begins with up to this number of characters of the preceding text. Blanks at both ends of a chunk are
    dropped; everything else is kept, in order.

    Raises: InvalidInputError if *size* is below 16 or *overlap* is not from 0 to half of *size*.
    """
    if size < SMALLEST_SIZE:
        raise InvalidInputError(f"The chunk size must be at least {SMALLEST_SIZE} characters.", field="size")
    if not 0 <= overlap <= size // 2:
        raise InvalidInputError("The overlap must be from 0 to half of the chunk size.", field="overlap")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    parts = []
    last = 0
    for span in _packed(text, size - overlap):
        start = _overlapped(text, span.start, max(last, span.start - overlap)) if overlap else span.start
        last = span.start
        parts.append(text[start : span.end].strip())
    return [one for one in parts if one]


def chunk_ids(texts: Sequence[str]) -> list[str]:
    """Return an id for each chunk of a document: 24 hex digits of a digest of its text, with "-2" etc. for repetitions.

    The ids do not depend on the position: after an edit, unchanged chunks keep their ids.
    """
    counts: Counter[str] = Counter()
    ids = []
    for text in texts:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        counts[digest] += 1
        ids.append(digest if counts[digest] == 1 else f"{digest}-{counts[digest]}")
    return ids


def document_chunks(document: Document, size: int = SIZE, overlap: int = 0) -> list[Chunk]:
    """Split *document* into chunks with ids by `chunk_ids`, positions from 0 and no vectors."""
    texts = chunks(document.text, size, overlap)
    return [
        Chunk(id=one, document=document.name, text=text, position=position)
        for position, (one, text) in enumerate(zip(chunk_ids(texts), texts, strict=True))
    ]


def _packed(text: str, room: int) -> Iterator[Span]:
    """Yield spans of at most *room* characters that cover *text* except blanks between them."""
    current: Span | None = None
    for unit in _units(text):
        if current is not None:
            full = unit.heading and current.end - current.start >= room // 2
            if not full and unit.end - current.start <= room:
                current = Span(current.start, unit.end)
                continue
            yield current
        *whole, current = _cut(text, unit, room)
        yield from whole
    if current is not None:
        yield current


def _units(text: str) -> Iterator[Span]:
    """Yield the paragraphs of *text*, headings together with the paragraph after them."""
    opened: int | None = None
    end = 0
    for block in _blocks(text):
        end = block.end
        while end > block.start and text[end - 1].isspace():
            end -= 1
        if block.heading:
            opened = block.start if opened is None else opened
        else:
            yield Span(block.start if opened is None else opened, end, heading=opened is not None)
            opened = None
    if opened is not None:
        yield Span(opened, end, heading=True)


def _blocks(text: str) -> Iterator[Span]:
    """Yield headings and paragraphs; a fenced block is one paragraph."""
    lines: list[str] = []  # of the paragraph that is open
    start = at = 0
    fence = ""
    for line in text.split("\n"):
        line_start, at = at, at + len(line) + 1
        stripped = line.strip()
        if fence:
            lines.append(line)
            if stripped.startswith(fence):
                yield Span(start, min(at, len(text)))
                lines, fence = [], ""
            continue
        opening = _FENCE.match(line)
        heading = bool(_ATX.match(line))
        if lines and (not stripped or opening or heading):
            yield Span(start, line_start)
            lines = []
        if not stripped:
            continue
        if heading:
            yield Span(line_start, min(at, len(text)), heading=True)
            continue
        if not lines:
            start = line_start
        lines.append(line)
        if opening:
            fence = opening.group(1)
        elif _RULER.match(stripped) and _is_title(lines):
            yield Span(start, min(at, len(text)), heading=True)
            lines = []
    if lines:
        yield Span(start, len(text))


def _is_title(lines: Sequence[str]) -> bool:
    """Return whether a paragraph that ends with a ruler is a title: "Title, ruler" or "ruler, title, ruler"."""
    over = len(lines) == 3 and bool(_RULER.match(lines[0].strip()))
    return (over or len(lines) == 2) and not _RULER.match(lines[-2].strip())


def _cut(text: str, unit: Span, room: int) -> list[Span]:
    """Return *unit* in parts of at most *room* characters."""
    parts = []
    start = unit.start
    while unit.end - start > room:
        cut = _place(text, start, room)
        parts.append(Span(start, cut))
        blank = _BLANK.match(text, cut, unit.end)
        start = blank.end() if blank else cut
    if start < unit.end or not parts:
        parts.append(Span(start, unit.end))
    return parts


def _place(text: str, start: int, room: int) -> int:
    """Return the best position to cut after *start*, at most *room* characters later."""
    low, high = start + max(1, room // 2), start + room
    paragraph = text.rfind("\n\n", low, high)
    if paragraph > 0:
        return paragraph
    sentence = 0
    for match in _SENTENCE.finditer(text, low, high):
        sentence = match.end()
    if sentence:
        return sentence
    line = text.rfind("\n", low, high)
    if line > 0:
        return line
    # One character further: a word that ends exactly at the limit still fits.
    for at in range(high, low, -1):
        if text[at].isspace():
            return at
    return _whole(text, high, low)


def _whole(text: str, at: int, low: int) -> int:
    """Return the nearest position from *at* back to *low* that does not split a visible character."""
    for place in range(at, low, -1):
        if not _joins(text[place]) and text[place - 1] != "\u200d":
            return place
    return at


def _joins(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Mc", "Me") or char == "\u200d" or "\U0001f3fb" <= char <= "\U0001f3ff"


def _overlapped(text: str, start: int, low: int) -> int:
    """Return the start of a chunk at *start* with its overlap: the start of a word, not before *low*."""
    if low == 0 or low >= start:
        return low if low < start else start
    blank = _BLANK.search(text, low - 1, start)
    if blank is not None and blank.end() < start:
        return blank.end()
    if blank is not None:
        return start
    while low < start and _joins(text[low]):
        low += 1
    return low


def documents(
    paths: Iterable[str | os.PathLike[str]], *, report: Report | None = None, max_bytes: int = MAX_FILE_BYTES
) -> Iterator[Document]:
    """Read the texts of files and folders: .md, .rst, .txt, .html (its text), .py (its docstrings), .pdf, .docx.

    They are named by `sources.find`. Files that are skipped or cannot be read are passed to *report*. All paths are
    listed before the first text is read; texts are read one by one, sorted by name.

    Raises: InvalidInputError if a path does not exist, or if two files would have the same name.
    """
    skip = report or (lambda _: None)
    return _read_all(find(paths, skip), skip, max_bytes)


def _read_all(files: Sequence[File], report: Report, max_bytes: int) -> Iterator[Document]:
    for file in files:
        document = read(file, report, max_bytes)
        if document is not None:
            yield document
