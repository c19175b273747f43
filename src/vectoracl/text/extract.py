"""Extraction of plain text from HTML and Python sources. Nothing is imported, run or downloaded."""

from __future__ import annotations

import ast
import inspect
import warnings
from html.parser import HTMLParser

from vectoracl.errors import InvalidInputError, without_context

_DROPPED = frozenset({"head", "script", "style", "template", "noscript", "svg", "nav", "title"})
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "figcaption", "figure", "footer", "header"}
    | {"hr", "li", "main", "ol", "p", "pre", "section", "table", "tr", "ul", *_HEADINGS}
)


class _Text(HTMLParser):
    """Collects the visible text of a page, with headings as in Markdown and a blank line between blocks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._dropped: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - its base's form
        if tag in _DROPPED:
            self._dropped.append(tag)
        elif tag == "body":
            self._dropped.clear()  # an unclosed <head> ends here, as in browsers
        if tag in _BLOCKS:
            self.parts.append("\n\n")
        elif tag == "br":
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")
        self.parts.append(_HEADINGS.get(tag, ""))
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in self._dropped:
            del self._dropped[self._dropped.index(tag) :]
        if tag in _BLOCKS:
            self.parts.append("\n\n")
        self._pre = max(0, self._pre - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if self._dropped:
            return
        if not self._pre:
            lead, trail = data[:1].isspace(), data[-1:].isspace()
            data = " " * lead + " ".join(data.split()) + " " * (trail and not data.isspace())
        self.parts.append(data)


def html_text(source: str) -> str:
    """Return the visible text of an HTML page; broken markup is read as well as possible."""
    parser = _Text()
    parser.feed(source)
    parser.close()
    lines = [line.rstrip() for line in "".join(parser.parts).splitlines()]
    visible_lines: list[str] = []
    for line in lines:
        if line.strip() or (visible_lines and visible_lines[-1]):
            visible_lines.append(line if line.strip() else "")
    return "\n".join(visible_lines).strip()


@without_context
def docstrings(source: str | bytes, title: str) -> str:
    """Return the docstrings of a Python source, each under a heading with its name; "" if it has none.

    The source is parsed, never run. *title* is the module's name.
    Raises: InvalidInputError if this interpreter cannot parse it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escape sequences in the source
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidInputError(f"It cannot be parsed as Python ({type(error).__name__}).", field="source") from None
    parts: list[str] = []
    _collect(tree, title, 1, parts)
    return "\n\n".join(parts)


def _collect(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str, level: int, parts: list[str]
) -> None:
    text = ast.get_docstring(node, clean=False)
    if text and text.strip():
        # cleandoc expands tabs and removes the indentation; a NUL or lone surrogate in a literal cannot be stored.
        clean = inspect.cleandoc(text).replace("\0", "").encode("utf-8", "ignore").decode()
        parts.append(f"{'#' * level} {name}\n\n{clean}")
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                below = child.name if isinstance(node, ast.Module) else f"{name}.{child.name}"
                _collect(child, below, min(level + 1, 6), parts)
