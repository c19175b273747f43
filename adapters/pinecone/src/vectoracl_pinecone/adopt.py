"""Records that lie in an index already become governed: planned, checked as a whole, copied, verified.

`--adopt NAMESPACE` takes the records of one namespace (`__default__` is the unnamed one), whose tenant is in their
metadata; `--adopt "*"` takes every namespace that is not ours, each of which is a tenant. What is there is only read.
One record that cannot be taken stops all: nothing is copied until it is mended, and there is no default tenant. What
a record may hold is what `upsert` would take, by the same checks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vectoracl.adapter_api import adoption
from vectoracl.adapter_api.adoption import Findings, Groups
from vectoracl.adapter_api.chunk_validation import check_metadata
from vectoracl.adapter_api.contract import Adopted, Port, Progress
from vectoracl.adapter_api.operations import Upsert
from vectoracl.engine.drivers import run
from vectoracl.errors import RefusedError, StoreError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.filters.validation import FieldType
from vectoracl.model.records import Chunk as Plain
from vectoracl.model.records import Record
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.compile import NO_VERSION, PineconeCompiler
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import DEFAULT_NAMESPACE, document_prefix, id_of, tenant_of
from vectoracl_pinecone.pages import taken_apart
from vectoracl_pinecone.requests import Describe, Match, Page, SourceIds, SourceRows

EVERY_NAMESPACE = "*"
_BATCH = 100
_TEXT = ("text", "content", "body", "chunk_text", "page_content")

Item = tuple[str, Match]
"""A record, and the namespace in which it lies."""


class Adoption:
    """One namespace, or all of them, that are taken over."""

    def __init__(
        self,
        config: PineconeConfig,
        fields: Mapping[str, FieldType],
        port: Port,
        source: str,
        progress: Progress | None,
    ) -> None:
        self._config = config
        self._fields = fields
        self._port = port
        self._source = source
        self._progress = progress or (lambda *_: None)
        self._adapter = PineconeAdapter(config, fields)
        self._compile = PineconeCompiler(config, fields)
        self._checks = adoption.Checks(
            fields, config.dimension, config.metric, source=source, prefix=config.adopt.prefix
        )
        found = port.execute(Describe(), None)
        prefix = config.namespace_prefix
        self._known = {tenant for name in found.namespaces if (tenant := tenant_of(prefix, name)) is not None}
        strangers = {name or DEFAULT_NAMESPACE: count for name, count in found.namespaces.items()
                     if not name.startswith(prefix)}  # fmt: skip
        if source == EVERY_NAMESPACE:
            # Nobody's name: what is in the default namespace belongs to no tenant by its place.
            self._namespaces = {name: count for name, count in strangers.items() if name != DEFAULT_NAMESPACE}
        elif source in strangers:
            self._namespaces = {source: strangers[source]}
        else:
            raise RefusedError(
                f"There is no namespace {source!r} to adopt. Those that are no tenant's here: "
                f'{", ".join(map(ascii, sorted(strangers))) or "none"}; "*" takes each of them as a tenant.'
            )
        self._named = ", ".join(map(ascii, sorted(self._namespaces)))

    # Reading

    def _read(self) -> Iterator[list[Item]]:
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

    def _record(self, item: Item) -> Record:
        return self._parted(item)[0]

    def _parted(self, item: Item) -> tuple[Record, Mapping[str, str]]:
        """Return a record as a chunk that `upsert` would take, and the keys of its parts. Raises: RefusedError."""
        namespace, match = item
        chosen, metadata = self._config.adopt, dict(match.metadata or {})
        parts: dict[str, str] = {}
        if self._source == EVERY_NAMESPACE:
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
            raise RefusedError("The document is no text.")
        parts["document"] = key or ""
        said, *keys = adoption.steps(chosen.text or "")
        key = self._part(metadata, said or None, _TEXT, "text")
        if key is None and not said and "_node_content" in metadata:
            key, keys = "_node_content", ["text"]  # LlamaIndex keeps the whole node as JSON
        held = "" if key is None else metadata[key] if keys else metadata.pop(key)
        text = adoption.text_at(held, keys) or ""
        parts["text"] = "->>".join((key, *keys)) if key else ""
        if not match.values:
            raise RefusedError("No dense vector.")
        checked = check_metadata(self._checks.metadata(metadata), self._fields)
        chunk = Plain(match.id, document, text, match.values, metadata=checked)
        made = self._checks.record(tenant, chunk)
        self._compile.records_of([made], NO_VERSION)  # with the tag it may be more than Pinecone keeps
        return made, parts

    # Checking

    def _look(self) -> tuple[Findings, dict[str, set[str]]]:
        """Check every record; return also the keys that hold each part of a chunk."""
        findings = Findings("record", chunk="id")
        keys: dict[str, set[str]] = {"tenant": set(), "document": set(), "text": set()}

        def record(item: Item) -> Record:
            made, parts = self._parted(item)
            for what, key in parts.items():
                keys[what].add(key)
            findings.show(made.tag.tenant, _id_of(item))
            return made

        total = sum(self._namespaces.values())
        adoption.look(
            findings,
            self._read(),
            record,
            _id_of,
            lambda tag: (tag.tenant, tag.document, tag.chunk),
            self._progress,
            total,
            taken=self._taken,
        )
        findings.refuse_look_alikes(self._known)
        return findings, keys

    def plan(self) -> str:
        """Return, as text, how the records would be adopted; every one is read and checked."""
        findings, keys = self._look()
        lines = [f"Adopt {self._named or 'nothing'}: read, and never changed."]
        for what in ("tenant", "document", "text"):
            named = sorted(key for key in keys[what] if key)
            fallback = {"tenant": "the namespace", "document": "the record's id", "text": "left empty"}[what]
            lines.append(f"{what:<11} {', '.join(named) or fallback}")
        lines += self._checks.described()
        lines += findings.summary(sum(findings.tenants.values()), self._compile.namespace)
        # A line break inside of a name would end the comment it stands in.
        return "".join(f"# {line.encode('unicode_escape').decode()}\n" for line in lines)

    # Copying

    def copy(self, adopted: Adopted | None = None) -> list[str]:
        """Copy what is not there yet; return what was done. Can be run again.

        *adopted* is kept up to date meanwhile. Raises: RefusedError with the refused records, and then nothing is
        copied; StoreError if in the end a record is not there as it was read (written to meanwhile).
        """
        findings, _ = self._look()
        adopted = adopted or Adopted()
        findings.settle(adopted, "Nothing was")
        total = sum(findings.tenants.values())
        adoption.copy(self._read(), self._groups, self._write, adopted, self._progress, total)
        self._verify(total)
        compared = "ids, texts, metadata and vectors"
        done = [findings.report(self._named, adopted, compared)]
        if DEFAULT_NAMESPACE in self._namespaces:
            done.append(
                "look at the copies, then delete the records of the default namespace: until then nothing is served"
            )
        return done

    def _groups(self, items: Collection[Item]) -> Groups:
        return adoption.by_tenant(items, self._record, _id_of, self._named, "record")

    def _taken(self, tenant: str, records: Sequence[Record]) -> list[Record]:
        """Return those of *records* whose ids are those of chunks that were adopted from another namespace."""
        rows, key = self._rows(tenant, records), self._config.keys.path
        paths = {id_: (row.metadata or {}).get(key) for id_, row in rows.items()}
        return [one for one in records if adoption.from_another(paths.get(self._wanted(one).id), self._source)]

    def _wanted(self, record: Record) -> Any:
        return self._compile.records_of([record], NO_VERSION)[0]

    def _rows(self, tenant: str, records: Sequence[Record]) -> dict[str, Match]:
        """Return the copies that are there, of documents that were not replaced since, by their ids."""
        found: dict[str, Match] = {}
        ids = [self._wanted(one).id for one in records]
        for start in range(0, len(ids), _BATCH // 2):
            some = tuple(ids[start : start + _BATCH // 2])
            rows = self._port.execute(SourceRows(self._compile.namespace(tenant), some), None)
            found |= {row.id: row for row in rows}
        return found

    def _write(self, tenant: str, records: Sequence[Record]) -> tuple[int, int]:
        """Write what is not there yet, and again what changed in the source since; return how many of each.

        A document that was replaced since lives in a later generation; its old chunks do not come back.
        """
        ports = {"store": self._port}
        rows = self._rows(tenant, records)
        new, changed = [], []
        for document in sorted({record.tag.document for record in records}):
            there = set(run(self._adapter.listed(tenant, document_prefix(document)), ports))
            if any(taken_apart(one).generation for one in there):
                continue
            for record in records:
                if record.tag.document == document and id_of(record.tag) not in there:
                    new.append(record)
                elif record.tag.document == document and not self._alike(record, rows.get(self._wanted(record).id)):
                    changed.append(record)
        for batch in self._compile.batches([*new, *changed]):
            run(self._adapter.upsert(Upsert(tenant, ALWAYS, tuple(batch))), ports)
        return len(new), len(changed)

    def _verify(self, total: int) -> None:
        """Read every record again, here and there, and compare. Raises: StoreError."""
        different, seen = adoption.compare(self._read(), self._groups, self._differing, self._progress, total)
        differ = sum(different.values())
        if differ or seen != total:
            raise StoreError(
                f"{differ} records differ from what was copied, and {seen} are there where {total} were checked: the "
                "index was written to meanwhile, or its reads are behind its writes. Run it again.",
                code="adopt",
                adapter="pinecone",
            )

    def _differing(self, _: str, records: Sequence[Record]) -> int:
        return sum(not self._same(made) for made in records)

    def _same(self, made: Record) -> bool:
        tenant = made.tag.tenant
        if id_of(made.tag) not in (ids := run(self._adapter.listed(tenant, document_prefix(made.tag.document)),
                                              {"store": self._port})):  # fmt: skip
            return any(taken_apart(one).generation for one in ids)
        return self._alike(made, self._rows(tenant, [made]).get(self._wanted(made).id))

    def _alike(self, made: Record, copy: Match | None) -> bool:
        """Whether *copy* is as *made*; what was written here since is what the store is for."""
        if copy is None:
            return False
        keys, has, wanted = self._config.keys, dict(copy.metadata or {}), self._wanted(made)
        if not adoption.was_adopted(has.get(keys.path), self._source):
            return not adoption.from_another(has.get(keys.path), self._source)
        same = all(
            has.get(key) == wanted.metadata[key] for key in (keys.tenant, keys.document, keys.text, keys.metadata)
        )
        return same and np.allclose(copy.values or [], wanted.values, rtol=1e-4, atol=1e-5)


def _id_of(item: Item) -> str:
    return ascii(item[1].id)
