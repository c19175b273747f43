"""The demo's input: the documentation of the installed distributions, which was not written for the demo.

There is one tenant per distribution, with its README (the payload of its metadata) and the docstrings of its modules,
which are parsed and never imported. Nothing is downloaded, and the same environment yields the same corpus.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vectoracl.errors import InvalidInputError
from vectoracl.model.identifiers import check_id, check_tenant
from vectoracl.text.chunking import SIZE, Document, Report, chunks, documents
from vectoracl.text.embedders import FUNCTION_WORDS
from vectoracl.text.extract import docstrings

GENERIC_QUERIES = (
    "how do I install it",
    "configuration options and defaults",
    "raise an exception when a value is invalid",
    "asynchronous support",
    "parse text into tokens",
    "read a file from a path",
)
_LEFT_OUT = re.compile(
    r"(^|/)(tests?|testing|_?vendor(ed)?|_vendored|migrations|locale|examples?|conftest\.py|_version\.py)(/|$)"
)
_LARGEST_MODULE = 400_000
_SPARSE = 0.1  # the share of a source that looks like docstrings
_PARSED_BYTES = 3_000_000  # of one distribution: keeps the whole below a few seconds


class TenantCorpus(NamedTuple):
    """A tenant with its documents, in the order in which they were chosen."""

    tenant: str
    documents: tuple[Document, ...]

    def __repr__(self) -> str:
        return f"TenantCorpus({self.tenant!r}, {len(self.documents)} documents)"

    def chunk_count(self) -> int:
        """Return the number of chunks of the default size."""
        return sum(len(chunks(one.text)) for one in self.documents)


def installed_corpus(limit_tenants: int = 12, limit_chunks_per_tenant: int = 500) -> list[TenantCorpus]:
    """Return the documentation of the installed distributions with the most documentation, by tenant.

    A tenant's id is the distribution's normalised name. At most *limit_chunks_per_tenant* chunks (of 800 characters)
    of each are kept: the README, then modules from the top of the package down; the last document may be cut.
    vectoracl's own distributions are omitted.
    """
    named: dict[str, Distribution] = {}
    for one in distributions():
        name = one.metadata["Name"]
        if name:
            # The first one of a name is the one that an import would use.
            named.setdefault(re.sub(r"[-_.]+", "-", str(name)).lower(), one)
    candidates = []
    for name, one in sorted(named.items()):
        if name != "vectoracl" and not name.startswith("vectoracl-"):
            modules = _modules(one)
            readme = _readme(one)
            candidates.append((-(sum(size for _, size in modules) // 4 + len(readme)), name, readme, modules))
    # Sizes only select candidates, twice the wanted number; then their docstrings are counted.
    gathered = []
    for _, name, readme, modules in sorted(candidates, key=lambda one: one[:2])[: 2 * limit_tenants]:
        corpus = _gather(name, readme, modules, limit_chunks_per_tenant)
        gathered.append((-sum(len(one.text) for one in corpus.documents), corpus))
    gathered.sort(key=lambda one: (one[0], one[1].tenant))
    return sorted(corpus for weight, corpus in gathered[:limit_tenants] if weight)


def _readme(distribution: Distribution) -> str:
    """Return the long description; older metadata keeps it in a header."""
    payload = distribution.metadata.get_payload()  # type: ignore[attr-defined]  # an email.message.Message underneath
    text = payload if isinstance(payload, str) and payload.strip() else str(distribution.metadata["Description"] or "")
    return _clean(text)


def _clean(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "ignore").decode().strip()


def _modules(distribution: Distribution) -> list[tuple[PackagePath, int]]:
    """Return the modules that the distribution installed, with their sizes, from the top of the package down."""
    modules = []
    for path in distribution.files or ():
        if path.suffix == ".py" and ".." not in path.parts and not _LEFT_OUT.search(path.as_posix()):
            size = path.size or 0
            if size <= _LARGEST_MODULE:
                modules.append((path, size))
    return sorted(modules, key=lambda one: (len(one[0].parts), one[0].as_posix()))


def _gather(tenant: str, readme: str, modules: Sequence[tuple[PackagePath, int]], limit: int) -> TenantCorpus:
    """Read documents until *limit* chunks are reached."""
    selection: list[Document] = []
    room = limit
    for document in _documents(tenant, readme, modules):
        parts = chunks(document.text)
        if len(parts) > room:
            document = Document(document.name, "\n\n".join(parts[:room]))
            parts = chunks(document.text)
        if room <= 0 or not parts:
            break
        selection.append(document)
        room -= len(parts)
    return TenantCorpus(tenant, tuple(selection))


def _documents(tenant: str, readme: str, modules: Sequence[tuple[PackagePath, int]]) -> Iterator[Document]:
    if readme:
        yield Document(f"{tenant}/README", readme)
    parsed = 0
    for path, _ in modules:
        try:
            source = Path(str(path.locate())).read_bytes()
            if sum(map(len, source.split(b'"""')[1::2])) < max(SIZE // 4, _SPARSE * len(source)):
                continue  # hardly any docstring: not worth the parsing, which is nearly all of the time
            parsed += len(source)
            text = docstrings(source, ".".join(PurePosixPath(path).with_suffix("").parts).removesuffix(".__init__"))
            name = check_id(f"{tenant}/{path.as_posix()}", "document")
        except (OSError, InvalidInputError):
            continue  # deleted files, templates that are not Python, invalid names: the demo has enough others
        if len(text) >= SIZE // 4:
            yield Document(name, text)
        if parsed > _PARSED_BYTES:
            return


def folder_corpus(folder: str | os.PathLike[str], *, report: Report | None = None) -> list[TenantCorpus]:
    """Return a tenant for each subfolder of *folder*, with its texts; the subfolder's name is the tenant's id.

    Files next to the subfolders, and hidden and linked folders, are omitted.
    Raises: InvalidInputError if there is no subfolder with text; InvalidTenantError if a name is not a tenant id.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InvalidInputError(f"There is no folder {str(root)!r}.", field="folder")
    corpora = []
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            tenant = check_tenant(unicodedata.normalize("NFC", path.name))
            texts = tuple(documents([path], report=report))
            if texts:
                corpora.append(TenantCorpus(tenant, texts))
    if not corpora:
        raise InvalidInputError(
            f"{str(root)!r} has no subfolder with text. Put the texts of each tenant into a separate subfolder.",
            field="folder",
        )
    if len({one.tenant for one in corpora}) != len(corpora):
        raise InvalidInputError("Two subfolders have the same name in normal form C.", field="folder")
    return corpora


_TITLE_WORD = re.compile(r"[a-z]{3,}")
_DULL = FUNCTION_WORDS | frozenset(
    {"class", "false", "function", "method", "module", "name", "names", "new", "none", "object", "return", "returns"}
    | {"self", "set", "true", "type", "types", "value", "values"}
)


def demo_queries(corpora: Sequence[TenantCorpus], per_tenant: int = 3) -> list[tuple[str, str]]:
    """Return pairs of a tenant and a question: its specific questions, then the generic ones.

    A tenant's specific questions are headings and first sentences of *other* tenants' texts whose words all occur in
    the tenant's texts too. So the tenant has an answer, while most of the nearest chunks belong to other tenants; a
    search without a scope would return those.
    """
    used = {one.tenant: _word_counts(one) for one in corpora}
    everywhere: Counter[str] = sum(used.values(), Counter())
    titles = {one.tenant: sorted(_titles(one)) for one in corpora}
    queries: list[tuple[str, str]] = []
    for corpus in corpora:
        own = used[corpus.tenant]
        ranked = []
        for other in corpora:
            if other.tenant == corpus.tenant:
                continue
            for title, words in titles[other.tenant]:
                if all(own[word] for word in words):
                    # Rare words pick few chunks, and foreign ones if the others use them more often.
                    foreign = [1 - own[word] / everywhere[word] for word in words]
                    rarity = [1 / everywhere[word] ** 0.5 for word in words]
                    score = sum(share * rare for share, rare in zip(foreign, rarity, strict=True))
                    ranked.append((-score, title, other.tenant))
        ranked.sort()
        sources: set[str] = set()
        for _, title, source in ranked:
            if len(sources) == per_tenant:
                break
            if source not in sources:  # each from another tenant
                sources.add(source)
                queries.append((corpus.tenant, title))
        queries.extend((corpus.tenant, query) for query in GENERIC_QUERIES)
    return queries


def _word_counts(corpus: TenantCorpus) -> Counter[str]:
    """Return the number of chunks that contain each word."""
    counts: Counter[str] = Counter()
    for document in corpus.documents:
        for text in chunks(document.text):
            counts.update(set(_TITLE_WORD.findall(text.lower())))
    return counts


def _titles(corpus: TenantCorpus) -> set[tuple[str, tuple[str, ...]]]:
    """Return lines that could be a question (headings and first sentences of prose) with their significant words."""
    titles = set()
    for document in corpus.documents:
        for line in document.text.splitlines():
            text = line.strip().strip("#*=").strip().rstrip(".:")
            plain = text.replace(" ", "").replace("-", "").replace(",", "").isalpha()
            if 12 <= len(text) <= 70 and plain and text[0].isupper() and 3 <= text.count(" ") + 1 <= 9:
                words = tuple(sorted({word for word in _TITLE_WORD.findall(text.lower()) if word not in _DULL}))
                if 2 <= len(words) <= 6 and _is_opening(line, document.text):
                    titles.add((text, words))
    return titles


def _is_opening(line: str, text: str) -> bool:
    """Return whether *line* is a heading or a paragraph of one line."""
    return line.lstrip().startswith("#") or f"\n\n{line}\n\n" in text
