"""Reading of files: lists the files at given paths, names them, and extracts their texts."""

from __future__ import annotations

import io
import logging
import os
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from vectoracl.errors import InvalidInputError, without_context
from vectoracl.model.identifiers import check_id
from vectoracl.text.extract import docstrings, html_text

MAX_FILE_BYTES = 4 << 20
MAX_BINARY_BYTES = 64 << 20  # of a PDF or DOCX, most of which is pictures
_MAX_UNPACKED_BYTES = 512 << 20


class Document(NamedTuple):
    """A text with its name, which is the document's id."""

    name: str
    text: str

    def __repr__(self) -> str:
        return f"Document({self.name!r}, {len(self.text)} characters)"


class Skipped(NamedTuple):
    """A file or folder that was not read, and the reason."""

    name: str
    reason: str


class Failed(Skipped):
    """A file that should have been read but could not be."""

    __slots__ = ()


class File(NamedTuple):
    """A file to read: the document's name, the real path, and the given folder or file that contains it."""

    name: str
    path: Path
    root: Path


Report = Callable[[Skipped], None]


def find(paths: Iterable[str | os.PathLike[str]], report: Report, *, distinct: bool = False) -> list[File]:
    """Return the files of known kinds at *paths*, sorted by name, each only once.

    A given file is named by its file name, a file of a given folder by its path including that folder
    ("docs/guide/intro.md"), so a name does not depend on the working folder. If two names are equal, with *distinct*
    all files are named by their path from the folder that contains all *paths*. Inside folders, hidden files are
    skipped, and links that lead out of the folder are not followed. Skipped files are passed to *report*.

    Raises: InvalidInputError if a path does not exist, or if two files would have the same name.
    """
    roots = _roots(paths)
    labels = {root: root.name for root in roots}
    files, twice = _named_files(roots, labels, report)
    if twice and distinct:
        base = os.path.commonpath([root.parent for root in roots])
        labels = {root: root.relative_to(base).as_posix() for root in roots}
        files, twice = _named_files(roots, labels, lambda _: None)
    if twice:
        raise InvalidInputError(
            f"Two files would be the document {twice!r}. Read them in separate calls.", field="paths"
        )
    return sorted(files.values())


def document_name(label: str, parts: Iterable[str]) -> str:
    """Return the name of the document of a file: the name *label* of its root, and its path from there."""
    return unicodedata.normalize("NFC", _joined(label, parts))  # some file systems decompose letters


def _joined(label: str, parts: Iterable[str]) -> str:
    return "/".join((label, *parts)).lstrip("/")


@without_context
def _roots(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the real paths, folders before their content. Raises: InvalidInputError."""
    roots: dict[tuple[int, int], Path] = {}
    for path in paths:
        try:
            root = Path(path).resolve(strict=True)
            known = root.stat()
        except (OSError, RuntimeError):  # RuntimeError: a loop of links
            raise InvalidInputError(f"The path {str(path)!r} does not exist.", field="paths") from None
        roots.setdefault((known.st_dev, known.st_ino), root)
    return sorted(roots.values(), key=lambda one: (len(one.parts), one))


def _named_files(roots: list[Path], labels: dict[Path, str], report: Report) -> tuple[dict[str, File], str]:
    """Return the files by name, and a name that two of them share, or ""."""
    files: dict[str, File] = {}
    identities: set[tuple[int, int]] = set()
    twice = ""
    for root in roots:
        for name, real in sorted(_files(root, labels[root], report)):
            known = real.stat()
            # Not by path: a file system may ignore case, and a file may have two names.
            if (known.st_dev, known.st_ino) in identities:
                continue
            identities.add((known.st_dev, known.st_ino))
            twice = twice or (name if name in files else "")
            files[name] = File(name, real, root)
    return files, twice


def _files(root: Path, label: str, report: Report) -> Iterator[tuple[str, Path]]:
    """Yield the document's name and the real path of each file that may be read."""
    if not root.is_dir():
        yield from _named(label, root, report, named=True)
        return

    def shown(path: Path) -> str:
        return _joined(label, path.relative_to(root).parts)

    def failed(error: OSError) -> None:
        report(Failed(str(error.filename or root), f"cannot be listed ({type(error).__name__})"))

    links = []
    for folder, folders, files in os.walk(root, onerror=failed):
        here = Path(folder)
        for name in sorted(folders):
            if name.startswith(".") or (here / name).is_symlink():
                report(Skipped(shown(here / name), "is hidden" if name.startswith(".") else "is a linked folder"))
        folders[:] = sorted(one for one in folders if not one.startswith(".") and not (here / one).is_symlink())
        for name in sorted(files):
            file = here / name
            if name.startswith("."):
                report(Skipped(shown(file), "is hidden"))
            elif file.is_symlink():
                links.append(file)
            else:
                yield from _named(shown(file), file, report)
    for file in links:
        try:
            real = file.resolve(strict=True)
        except (OSError, RuntimeError):
            report(Failed(shown(file), "is a broken link"))
            continue
        if real.is_relative_to(root):
            yield from _named(shown(file), real, report)
        else:
            report(Skipped(shown(file), "is a link that leads out of the folder"))


def _named(name: str, real: Path, report: Report, *, named: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield the document's id and the path, if it is a regular file of a known kind.

    *named* means that this very file was given, so that skipping it is a failure.
    """
    outcome = Failed if named else Skipped
    name = document_name(name, ())
    if _suffix(name) not in KINDS:
        report(outcome(name, "is not a text of a known kind"))
        return
    if not real.is_file():  # a pipe or a device, which would block
        report(outcome(name, "is not a regular file"))
        return
    try:
        yield check_id(name, "document"), real
    except InvalidInputError as error:
        report(Failed(ascii(name), f"has a name that cannot be a document id: {error.message}"))


def read(file: File, report: Report, max_bytes: int = MAX_FILE_BYTES) -> Document | None:
    """Return the text of *file*, or None and pass the reason to *report*."""
    limit = max(max_bytes, MAX_BINARY_BYTES) if _suffix(file.name) in BINARY else max_bytes
    try:
        with file.path.open("rb") as opened:
            raw = opened.read(limit + 1)
    except OSError as error:
        report(Failed(file.name, f"cannot be read ({type(error).__name__})"))
        return None
    text, reason = _text(file.name, raw, limit)
    if reason:
        report((Skipped if reason == _EMPTY else Failed)(file.name, reason))
        return None
    return Document(file.name, text)


_EMPTY = "contains no text"


def _text(name: str, raw: bytes, max_bytes: int) -> tuple[str, str]:
    """Return the text of a file and "", or "" and the reason."""
    kind = _suffix(name)
    if len(raw) > max_bytes:
        return "", f"is larger than {max_bytes} bytes"
    if b"\0" in raw and kind not in BINARY:
        return "", "is binary"
    try:
        text = KINDS[kind](raw, name)
    except UnicodeDecodeError:
        return "", "is not UTF-8"
    except InvalidInputError as error:
        return "", error.message
    if text.strip():
        return text, ""
    return "", f"{_EMPTY}: a scan requires OCR first" if kind == ".pdf" and raw else _EMPTY


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _plain(raw: bytes, _: str) -> str:
    return raw.decode("utf-8-sig")


def _html(raw: bytes, _: str) -> str:
    return _storable(html_text(raw.decode("utf-8-sig")))


def _storable(text: str) -> str:
    # A character reference may yield a NUL or a lone surrogate; neither can be stored.
    return text.encode("utf-8", "ignore").decode().replace("\0", "")


def _python(raw: bytes, name: str) -> str:
    return docstrings(raw, name)


@without_context
def _converted(raw: bytes, name: str) -> str:
    """Return a PDF or DOCX as Markdown. Raises: InvalidInputError."""
    kind = _suffix(name)
    converter, stream_info = _converter(kind)
    if kind == ".docx":
        _check_unpacked(raw)
    try:
        text = converter.convert(io.BytesIO(raw), stream_info(extension=kind)).markdown
    except Exception as error:  # noqa: BLE001 - of four parsers, for a broken file; the message may quote it
        raise InvalidInputError(f"cannot be read as {kind[1:].upper()} ({type(error).__name__})") from None
    return _storable(str(text))


@lru_cache
@without_context
def _converter(kind: str) -> tuple[Any, Any]:
    """Return the converter of *kind*: MarkItDown itself would return an unreadable file as plain text."""
    try:
        from markitdown import StreamInfo, converters  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise InvalidInputError(
            'requires a package that is not installed: pip install "markitdown[docx,pdf]"'
        ) from None
    for name in ("pdfminer", "pdfplumber"):  # they warn about unusual fonts
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return (converters.PdfConverter if kind == ".pdf" else converters.DocxConverter)(), StreamInfo


@without_context
def _check_unpacked(raw: bytes) -> None:
    """Refuse an archive that unpacks to more than `_MAX_UNPACKED_BYTES`. Raises: InvalidInputError."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            size = sum(one.file_size for one in archive.infolist())
    except zipfile.BadZipFile:
        raise InvalidInputError("cannot be read as DOCX (BadZipFile)") from None
    if size > _MAX_UNPACKED_BYTES:
        raise InvalidInputError(f"unpacks to more than {_MAX_UNPACKED_BYTES:,} bytes")


BINARY = frozenset({".pdf", ".docx"})
KINDS: dict[str, Callable[[bytes, str], str]] = {
    **dict.fromkeys((".md", ".markdown", ".rst", ".txt"), _plain),
    **dict.fromkeys((".html", ".htm"), _html),
    ".py": _python,
    **dict.fromkeys(BINARY, _converted),
}
