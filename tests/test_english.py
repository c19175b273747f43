"""Words that are not written in this project, and what is written instead (see CONTRIBUTING.md)."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = {
    r"(?<!there )(?<!there’s )\b(is|are|was|were) no (?!longer\b|more\b|less\b|such\b|one\b)\w+": "is not a …",
    r"\bof (its|their|our|one's|your|an?) own\b": "its own, separate, or nothing",
    r"\bbeside\b": "next to, in addition to, along with",
    r"\b(told|tells|said)\b": "reported, returned, recorded",
    r"\bmend(s|ed|ing)?\b": "fix",
    # A former value of the `copy` command's JSON, which the changelog names in backticks, is left out.
    r"(?<!`)\banew\b": "again",
    r"\bmeanwhile\b": "in the meantime, concurrently",
    r"\bat hand\b": "available",
    r"^\W*likewise\W*$": "the reason itself",
    # The account "nobody" and the end of a namespace's name, "nobody-", are names.
    r"\b(?!nobody[`-]|(?<=\")nobody\")(no|some)body\b": "name the actor",
    r"\bgo(es)? on with\b": "continues",
    r'^[rf]?"""What\b': "name the thing",
    r"\bas far as\b": "say how far",
    r"\bso many\b": "this many, or the number",
    r"\bthe other way round\b": "say what is reversed",
}
# Clean as a whole; the list grows until it is everything.
CLEAN = ["src/vectoracl", *sorted(str(one.relative_to(ROOT)) for one in ROOT.glob("adapters/*/src"))]
CLEAN += ["conformance/src"]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "examples/README.md", "conformance/README.md", "adapters/*/README.md")
    for page in ROOT.glob(pattern)
)


def texts(path):
    """Yield (line, text) of each comment and string of a Python file, or of each line of a page."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(content.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)):
            yield token.start[0], " ".join(token.string.split())


def files(part):
    path = ROOT / part
    return [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.suffix in (".py", ".md"))


@pytest.mark.parametrize("part", [*CLEAN, *PAGES])
def test_plain_english(part):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r}; write: {instead}"
        for path in files(part)
        for line, text in texts(path)
        for pattern, instead in WORDS.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert not found, "\n" + "\n".join(found)
