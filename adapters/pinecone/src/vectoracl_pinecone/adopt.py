"""Records that lie in an index already become governed: planned, checked as a whole, copied, verified.

`--adopt NAMESPACE` takes the records of one namespace (`__default__` is the unnamed one), whose tenant is in their
metadata; `--adopt "*"` takes every namespace that is not ours, each of which is a tenant. What is there is only read.
One record that cannot be taken stops all: nothing is copied until it is fixed, and there is no default tenant. What
a record may hold is what `upsert` would take, by the same checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vectoracl.adapter_api import adoption, adoption_template
from vectoracl.adapter_api.adoption import Findings
from vectoracl.adapter_api.chunk_validation import check_metadata
from vectoracl.adapter_api.contract import Port, Progress
from vectoracl.adapter_api.operations import Upsert
from vectoracl.engine.drivers import run
from vectoracl.errors import RefusedError, StoreError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Chunk as Plain
from vectoracl.model.records import Record, Tag
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.compile import NO_VERSION, PineconeCompiler
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import DEFAULT_NAMESPACE, document_prefix, id_of, tenant_of
from vectoracl_pinecone.pages import parts_of
from vectoracl_pinecone.requests import Describe, Match, Page, SourceIds, SourceRows

EVERY_NAMESPACE = "*"
_BATCH = 100
_TEXT = ("text", "content", "body", "chunk_text", "page_content")

Item = tuple[str, Match]
"""A record, and the namespace in which it lies."""


class Adoption(adoption_template.Adoption[Item, Match]):
    """One namespace, or all of them, whose records are imported."""

    adapter = "pinecone"
    row = "record"
    chunk = "id"
    compared = "ids, texts, metadata and vectors"

    def __init__(
        self,
        config: PineconeConfig,
        fields: Mapping[str, FieldType],
        port: Port,
        source: str,
        progress: Progress | None,
    ) -> None:
        stats = port.execute(Describe(), None)
        prefix = config.namespace_prefix
        known = {tenant for name in stats.namespaces if (tenant := tenant_of(prefix, name)) is not None}
        strangers = {name or DEFAULT_NAMESPACE: count for name, count in stats.namespaces.items()
                     if not name.startswith(prefix)}  # fmt: skip
        if source == EVERY_NAMESPACE:
            # The default namespace is left out: its name is not a tenant's.
            self._namespaces = {name: count for name, count in strangers.items() if name != DEFAULT_NAMESPACE}
        elif source in strangers:
            self._namespaces = {source: strangers[source]}
        else:
            raise RefusedError(
                f"There is no namespace {source!r} to adopt. Those that belong to no tenant here: "
                f'{", ".join(map(ascii, sorted(strangers))) or "none"}; "*" takes each of them as a tenant.'
            )
        super().__init__(config, fields, source, progress, known, title=", ".join(map(ascii, sorted(self._namespaces))))
        self._config = config
        self._fields = fields
        self._port = port
        self._adapter = PineconeAdapter(config, fields)
        self._compile = PineconeCompiler(config, fields)
        self._parts: dict[str, set[str]] = {"tenant": set(), "document": set(), "text": set()}
        self.place = self._compile.namespace
        self.expected = sum(self._namespaces.values())

    # Reading

    def read(self) -> Iterator[list[Item]]:
        """Yield all records in batches."""
        for namespace in sorted(self._namespaces):
            token: str | None = None
            while True:
                page: Page = self._port.execute(SourceIds(namespace, token), None)
                ids = tuple(match.id for match in page.matches)
                for start in range(0, len(ids), _BATCH // 2):
                    some = ids[start : start + _BATCH // 2]
                    matches = self._port.execute(SourceRows(namespace, some), None)
                    yield [(namespace, match) for match in matches]
                if page.token is None:
                    break
                token = page.token

    def _part(self, metadata: Mapping[str, Any], chosen: str | None, known: tuple[str, ...], what: str) -> str | None:
        """Return the key that holds one part of a chunk. Raises: RefusedError where two could be meant."""
        if chosen is not None:
            return chosen if chosen in metadata else None
        there = [key for key in known if key in metadata]
        if len(there) > 1:
            raise RefusedError(f"Several keys may be the {what}: {', '.join(there)}. Say which: [stores.NAME.adopt].")
        return there[0] if there else None

    def row_id(self, row: Item) -> str:
        """Return the record's id."""
        return ascii(row[1].id)

    def record(self, row: Item) -> Record:
        """Return a record as a chunk that `upsert` would take. Raises: RefusedError with the reason."""
        return self._parted(row)[0]

    def _parted(self, item: Item) -> tuple[Record, Mapping[str, str]]:
        """Return a record as a chunk that `upsert` would take, and the keys of its parts. Raises: RefusedError."""
        namespace, match = item
        chosen, metadata = self._config.adopt, dict(match.metadata or {})
        parts: dict[str, str] = {}
        if self.source == EVERY_NAMESPACE:
            tenant: Any = namespace
        else:
            key = self._part(metadata, chosen.tenant, adoption.TENANT, "tenant")
            tenant = metadata.pop(key, None) if key is not None else None
            parts["tenant"] = key or ""
        if isinstance(tenant, float) and tenant.is_integer():
            tenant = str(int(tenant))
        tenant = adoption.tenant_in(tenant)
        key = self._part(metadata, chosen.document, adoption.DOCUMENT, "document")
        document = metadata.pop(key) if key is not None else match.id
        if not isinstance(document, str):
            raise RefusedError("The document is not a text.")
        parts["document"] = key or ""
        path, *keys = adoption.steps(chosen.text or "")
        key = self._part(metadata, path or None, _TEXT, "text")
        if key is None and not path and "_node_content" in metadata:
            key, keys = "_node_content", ["text"]  # LlamaIndex keeps the whole node as JSON
        held = "" if key is None else metadata[key] if keys else metadata.pop(key)
        text = adoption.text_at(held, keys) or ""
        parts["text"] = "->>".join((key, *keys)) if key else ""
        if not match.values:
            raise RefusedError("No dense vector.")
        checked = check_metadata(self.checks.metadata(metadata), self._fields)
        chunk = Plain(match.id, document, text, match.values, metadata=checked)
        record = self.checks.record(tenant, chunk)
        self._compile.records_of([record], NO_VERSION)  # with the tag it may be more than Pinecone keeps
        return record, parts

    def key(self, tag: Tag) -> str:
        """Return the id of the copy's record."""
        return id_of(tag)

    def check(self, row: Item, findings: Findings) -> Record:
        """Return *row* as a record, and note which keys hold its parts."""
        record, parts = self._parted(row)
        for what, key in parts.items():
            self._parts[what].add(key)
        findings.show(record.tag.tenant, self.row_id(row))
        return record

    def look(self) -> Findings:
        """Check every record; the total is that of the accepted ones."""
        findings = super().look()
        self.total = sum(findings.tenants.values())
        return findings

    def mapping(self) -> Iterator[str]:
        """Yield which keys hold what, as the records show it."""
        yield f"Adopt {self.title or 'nothing'}: read, and never changed."
        for what, fallback in (("tenant", "the namespace"), ("document", "the record's id"), ("text", "left empty")):
            yield f"{what:<11} {', '.join(sorted(key for key in self._parts[what] if key)) or fallback}"

    # The copies

    def existing(self, tenant: str, records: Sequence[Record], *, content: bool) -> dict[str, Match]:
        """Return the records of the copies that exist; Pinecone returns their content in any case."""
        del content
        copies: dict[str, Match] = {}
        ids = [id_of(one.tag) for one in records]
        for start in range(0, len(ids), _BATCH // 2):
            some = tuple(ids[start : start + _BATCH // 2])
            rows = self._port.execute(SourceRows(self._compile.namespace(tenant), some), None)
            copies |= {row.id: row for row in rows}
        return copies

    def replaced(self, tenant: str, records: Sequence[Record]) -> set[str]:
        """Return the documents of which a later generation exists."""
        documents = set()
        for document in sorted({record.tag.document for record in records}):
            ids = run(self._adapter.listed(tenant, document_prefix(document)), {"store": self._port})
            if any(parts_of(one).generation for one in ids):
                documents.add(document)
        return documents

    def path(self, copy: Match) -> object:
        """Return the ingestion path in the metadata."""
        return (copy.metadata or {}).get(self._config.keys.path)

    def same_content(self, record: Record, copy: Match) -> bool:
        """Compare the metadata and the vector with those that would be written."""
        keys, has = self._config.keys, copy.metadata or {}
        (expected,) = self._compile.records_of([record], NO_VERSION)
        same = all(
            has.get(key) == expected.metadata[key] for key in (keys.tenant, keys.document, keys.text, keys.metadata)
        )
        return same and np.allclose(copy.values or [], expected.values, rtol=1e-4, atol=1e-5)

    def write(self, tenant: str, records: Sequence[Record]) -> None:
        """Upsert the records in batches of the size that Pinecone accepts."""
        for batch in self._compile.batches(records):
            run(self._adapter.upsert(Upsert(tenant, ALWAYS, tuple(batch))), {"store": self._port})

    def disagreement(self, different: Mapping[str, int], seen: int) -> StoreError | None:
        """Return the error for copies that differ, or for records that came or went since they were checked."""
        differ = sum(different.values())
        if not differ and seen == self.total:
            return None
        return StoreError(
            f"{differ} records differ from what was copied, and {seen} are there where {self.total} were checked: the "
            "index was written to in the meantime, or its reads are behind its writes. Run it again.",
            code="adopt",
            adapter="pinecone",
        )

    def refused_title(self) -> str:
        """Return the beginning of the sentence that refuses the source."""
        return "Nothing was"

    def advice(self, findings: Findings) -> Iterator[str]:
        """Name what has to be deleted before the store serves requests."""
        del findings
        if DEFAULT_NAMESPACE in self._namespaces:
            yield "look at the copies, then delete the records of the default namespace: until then nothing is served"
