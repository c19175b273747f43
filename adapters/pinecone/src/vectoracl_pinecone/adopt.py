"""Records that lie in an index already become governed: planned, checked as a whole, copied, verified.

`--adopt NAMESPACE` takes the records of one namespace (`__default__` is the unnamed one), whose tenant is in their
metadata; `--adopt "*"` takes every namespace that is not ours, each of which is a tenant. What is there is only read.
One record that cannot be taken stops all: nothing is copied until it is mended, and there is no default tenant. What
a record may hold is what `upsert` would take, by the same checks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vectoracl.adapter import Adopted, Port, Progress
from vectoracl.drive import run
from vectoracl.errors import RefusedError, StoreError
from vectoracl.fields import FieldType, reserved_key
from vectoracl.ids import check_tenant, look_alikes
from vectoracl.operations import Upsert
from vectoracl.predicate import ALWAYS
from vectoracl.prepare import check_metadata, prepare
from vectoracl.records import Chunk as Plain
from vectoracl.records import Record, Tag
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.compile import NO_VERSION, PineconeCompiler
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import DEFAULT_NAMESPACE, document_prefix, id_of, tenant_of
from vectoracl_pinecone.pages import taken_apart
from vectoracl_pinecone.requests import Describe, Match, Page, SourceIds, SourceRows

EVERY_NAMESPACE = "*"
PATH = "adopt"
PRODUCER = "operator"
_BATCH = 100
_SHOWN = 20
_TENANT = ("tenant_id", "tenant", "org_id", "organization_id", "organisation_id", "account_id", "workspace_id",
           "customer_id")  # fmt: skip
_DOCUMENT = ("document_id", "doc_id", "document", "source_id", "source")
_TEXT = ("text", "content", "body", "chunk_text", "page_content")


@dataclass(slots=True)
class Findings:
    """What a look at every record found: records by tenant, and the refused ones by reason with some of their ids."""

    tenants: dict[str, int] = field(default_factory=dict)
    refused: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=lambda: {"tenant": set(), "document": set(), "text": set()})

    def refuse(self, reason: str, ids: list[str], count: int = 1) -> None:
        """Count *count* more records as refused for *reason*."""
        number, shown = self.refused.get(reason, (0, []))
        self.refused[reason] = (number + count, (shown + ids)[:_SHOWN])

    def lines(self) -> Iterator[str]:
        """Describe the refused records by reason and id, never by content."""
        for reason, (count, ids) in sorted(self.refused.items(), key=lambda one: -one[1][0]):
            more = "" if count <= len(ids) else ", …"
            yield f"{count} records: {reason} Ids: {', '.join(map(ascii, ids))}{more}"


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
        self._time = time.time()
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

    # Reading

    def _read(self) -> Iterator[tuple[str, list[Match]]]:
        """Yield all records in batches, with their namespaces."""
        for namespace in sorted(self._namespaces):
            token: str | None = None
            while True:
                page: Page = self._port.execute(SourceIds(namespace, token), None)
                ids = tuple(match.id for match in page.matches)
                for start in range(0, len(ids), _BATCH // 2):
                    some = ids[start : start + _BATCH // 2]
                    yield namespace, list(self._port.execute(SourceRows(namespace, some), None))
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

    def record(self, namespace: str, match: Match) -> tuple[Record, Mapping[str, str]]:
        """Return a record as a chunk that `upsert` would take, and the keys of its parts. Raises: RefusedError."""
        chosen, metadata = self._config.adopt, dict(match.metadata or {})
        parts: dict[str, str] = {}
        if self._source == EVERY_NAMESPACE:
            tenant: Any = namespace
        else:
            key = self._part(metadata, chosen.tenant, _TENANT, "tenant")
            tenant = metadata.pop(key, None) if key is not None else None
            parts["tenant"] = key or ""
        if isinstance(tenant, float) and tenant.is_integer():
            tenant = str(int(tenant))
        if not isinstance(tenant, str) or not tenant.strip():
            raise RefusedError("No tenant.")
        tenant = check_tenant(tenant)
        key = self._part(metadata, chosen.document, _DOCUMENT, "document")
        document = metadata.pop(key) if key is not None else match.id
        if not isinstance(document, str):
            raise RefusedError("The document is no text.")
        parts["document"] = key or ""
        key = self._part(metadata, chosen.text, _TEXT, "text")
        text = metadata.pop(key) if key is not None else ""
        if not isinstance(text, str):
            raise RefusedError("The text is no text.")
        parts["text"] = key or ""
        if not match.values:
            raise RefusedError("No dense vector.")
        strange = [name for name in metadata if reserved_key(name)]
        if strange:
            raise RefusedError(f"The key {min(strange)!r} is a name of the framework.")
        chunk = Plain(match.id, document, text, match.values, metadata=check_metadata(metadata, self._fields))
        zero = self._config.metric == "cosine"
        (ready,) = prepare([chunk], self._fields, self._config.dimension, nonzero=zero, limit=1)
        assert ready.vector is not None
        tag = Tag(tenant, document, match.id, producer=PRODUCER, path=PATH, time=self._time)
        made = Record(tag, text, ready.vector, ready.metadata)
        self._compile.records_of([made], NO_VERSION)  # with the tag it may be more than Pinecone keeps
        return made, parts

    # Checking

    def look(self) -> Findings:
        """Check every record."""
        findings, seen, total = Findings(), 0, sum(self._namespaces.values())
        taken: dict[tuple[str, str, str], int] = {}
        for namespace, matches in self._read():
            for match in matches:
                try:
                    made, parts = self.record(namespace, match)
                except RefusedError as error:
                    findings.refuse(error.message, [match.id])
                    continue
                for what, key in parts.items():
                    findings.keys[what].add(key)
                tenant = made.tag.tenant
                findings.tenants[tenant] = findings.tenants.get(tenant, 0) + 1
                shown = findings.ids.setdefault(tenant, [])
                if len(shown) < _SHOWN:
                    shown.append(match.id)
                name = (tenant, made.tag.document, made.tag.chunk)
                taken[name] = taken.get(name, 0) + 1
                if taken[name] > 1:
                    findings.refuse("The same tenant, document and id as another record.", [match.id])
            seen += len(matches)
            self._progress("checking records", seen, max(total, seen))
        for group in look_alikes(self._known | findings.tenants.keys()):
            ours = [tenant for tenant in group if tenant in findings.tenants]
            if ours:
                listed = ", ".join(ascii(tenant) for tenant in group)
                ids = [id_ for tenant in ours for id_ in findings.ids[tenant]]
                findings.refuse(
                    f"Tenants that look alike: {listed}.", ids, sum(findings.tenants[tenant] for tenant in ours)
                )
        return findings

    def plan(self) -> str:
        """Return, as text, how the records would be adopted; every one is read and checked."""
        findings = self.look()
        lines = [f"Adopt {', '.join(map(ascii, sorted(self._namespaces))) or 'nothing'}: read, and never changed."]
        for what in ("tenant", "document", "text"):
            named = sorted(key for key in findings.keys[what] if key)
            fallback = {"tenant": "the namespace", "document": "the record's id", "text": "left empty"}[what]
            lines.append(f"{what:<11} {', '.join(named) or fallback}")
        lines.append(f"{sum(findings.tenants.values())} records of {len(findings.tenants)} tenants; the largest:")
        ordered = sorted(findings.tenants.items(), key=lambda one: (-one[1], one[0]))
        lines += [
            f"  {count:>10}  {tenant!a} -> {self._compile.namespace(tenant)}" for tenant, count in ordered[:_SHOWN]
        ]
        if findings.refused:
            lines.append("REFUSED. Nothing is copied while there are such records:")
            lines += [f"  {line}" for line in findings.lines()]
        # A line break inside of a name would end the comment it stands in.
        return "".join(f"# {line.encode('unicode_escape').decode()}\n" for line in lines)

    # Copying

    def copy(self, adopted: Adopted | None = None) -> list[str]:
        """Copy what is not there yet; return what was done. Can be run again.

        *adopted* is kept up to date meanwhile. Raises: RefusedError with the refused records, and then nothing is
        copied; StoreError if in the end a record is not there as it was read (written to meanwhile).
        """
        findings = self.look()
        adopted = adopted or Adopted()
        adopted.tenants = len(findings.tenants)
        adopted.refused = sum(count for count, _ in findings.refused.values())
        if findings.refused:
            listed = "\n".join(f"  {line}" for line in findings.lines())
            raise RefusedError(f"Nothing was adopted and nothing was copied. Mend these records first:\n{listed}")
        total, read, new = sum(findings.tenants.values()), 0, 0
        for namespace, matches in self._read():
            by_tenant: dict[str, list[Record]] = {}
            for match in matches:
                made, _ = self.record(namespace, match)
                by_tenant.setdefault(made.tag.tenant, []).append(made)
            for tenant, records in by_tenant.items():
                new += self._write(tenant, records)
                adopted.copied = new
            read += len(matches)
            adopted.there = read - new
            self._progress("copying", read, max(total, read))
        self._verify(total)
        names = ", ".join(map(ascii, sorted(self._namespaces)))
        done = [
            f"adopted {names}: {new} records copied, {read - new} were there already; ids, texts, metadata and vectors "
            f"of {len(findings.tenants)} tenants agree; {names} is as it was"
        ]
        if DEFAULT_NAMESPACE in self._namespaces:
            done.append(
                "look at the copies, then delete the records of the default namespace: until then nothing is served"
            )
        return done

    def _write(self, tenant: str, records: list[Record]) -> int:
        """Write those of one tenant's records that are not there; return how many.

        A document that was replaced since lives in a later generation; its old chunks do not come back.
        """
        ports = {"store": self._port}
        missing = []
        for document in sorted({record.tag.document for record in records}):
            there = run(self._adapter.listed(tenant, document_prefix(document)), ports)
            if any(taken_apart(one).generation for one in there):
                continue
            missing += [one for one in records if one.tag.document == document and id_of(one.tag) not in set(there)]
        for batch in self._compile.batches(missing):
            run(self._adapter.upsert(Upsert(tenant, ALWAYS, tuple(batch))), ports)
        return len(missing)

    def _verify(self, total: int) -> None:
        """Read every record again, here and there, and compare. Raises: StoreError."""
        seen = differ = 0
        for namespace, matches in self._read():
            for match in matches:
                made, _ = self.record(namespace, match)
                differ += not self._same(made)
            seen += len(matches)
            self._progress("verifying", seen, max(total, seen))
        if differ or seen != total:
            raise StoreError(
                f"{differ} records differ from what was copied, and {seen} are there where {total} were checked: the "
                "index was written to meanwhile, or its reads are behind its writes. Run it again.",
                code="adopt",
                adapter="pinecone",
            )

    def _same(self, made: Record) -> bool:
        tenant = made.tag.tenant
        if id_of(made.tag) not in (ids := run(self._adapter.listed(tenant, document_prefix(made.tag.document)),
                                              {"store": self._port})):  # fmt: skip
            return any(taken_apart(one).generation for one in ids)
        (wanted,) = self._compile.records_of([made], NO_VERSION)
        rows = self._port.execute(SourceRows(self._compile.namespace(tenant), (wanted.id,)), None)
        if len(rows) != 1:
            return False
        keys, has = self._config.keys, dict(rows[0].metadata or {})
        same = all(
            has.get(key) == wanted.metadata[key] for key in (keys.tenant, keys.document, keys.text, keys.metadata)
        )
        return same and np.allclose(rows[0].values or [], wanted.values, rtol=1e-4, atol=1e-5)
