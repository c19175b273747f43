"""An existing collection becomes governed: planned, checked as a whole, copied tenant by tenant, verified.

Of a multi-tenant collection each tenant is a tenant, by its own name; of any other one (and where config says so) a
property of each object names it. The old collection is only read. One object that cannot be taken stops all: nothing
is copied until it is mended, and there is no default tenant. What an object may hold is what `upsert` would take, by
the same checks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import numpy as np

from vectoracl.adapter_api import adoption
from vectoracl.adapter_api.adoption import SHOWN, Findings, Groups, only
from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.contract import Adopted, Port, Progress
from vectoracl.adapter_api.operations import Include, Upsert
from vectoracl.engine.drivers import run
from vectoracl.errors import RefusedError, StoreError, TooLargeError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.filters.validation import FieldType
from vectoracl.model.records import Chunk, Record
from vectoracl_weaviate.adapter import WeaviateAdapter
from vectoracl_weaviate.compile import WeaviateCompiler
from vectoracl_weaviate.compile_predicate import every
from vectoracl_weaviate.config import Properties, WeaviateConfig
from vectoracl_weaviate.decode import ADAPTER, Decoder
from vectoracl_weaviate.names import id_of, tenant_name
from vectoracl_weaviate.ports import Administrator
from vectoracl_weaviate.requests import TenantState

_BATCH = 200
_TENANT = ("tenant_id", "tenantId", "tenant", "org_id", "orgId", "organization_id", "organisation_id", "account_id",
           "workspace_id", "customer_id")  # fmt: skip
_DOCUMENT = ("document_id", "documentId", "doc_id", "docId", "document", "source_id", "source")
_CHUNK = ("chunk_id", "chunkId")
_OURS = ("docgen", "seek", "pending", "committed")

Item = tuple[str | None, Mapping[str, Any]]
"""An object, and its tenant in the old collection (None where that has none)."""


class Names(NamedTuple):
    """Which property holds what; None: no property does."""

    tenant: str | None
    document: str | None
    chunk: str | None
    text: str | None


class Adoption:
    """One collection that is taken over.

    *known* are this store's tenants by their ids, *states* by Weaviate's names; *create* makes one, as an operator
    does (with its key, where each has one).
    """

    def __init__(
        self,
        config: WeaviateConfig,
        fields: Mapping[str, FieldType],
        source: str,
        admin: Administrator,
        port: Port,
        known: Sequence[str],
        states: Mapping[str, TenantState],
        create: Callable[[str], object],
        progress: Progress | None,
    ) -> None:
        self._config = config
        self._fields = fields
        self._admin = admin
        self._port = port
        self._known = known
        self._states = states
        self._create = create
        self._progress = progress or (lambda *_: None)
        self._compile = WeaviateCompiler(config, fields)
        self._decode = Decoder(config, fields)
        self._adapter = WeaviateAdapter(config, fields)
        found = admin.ask("GET", f"/v1/schema/{quote(source, safe='')}", absent=None)
        if found is None:
            raise RefusedError(f"There is no collection {source!a} that these credentials can read.")
        self._source = str(found["class"])  # as the server spells it, which may not be how it was asked for
        self._checks = adoption.Checks(
            fields, config.dimension, config.metric, source=self._source, prefix=config.adopt.prefix
        )
        if self._source == config.collection:
            raise RefusedError("That collection is this store's own: name the one that is to be copied in.")
        self._types = {one["name"]: one["dataType"][0] for one in found.get("properties") or ()}
        defaults = Properties()
        if all(getattr(defaults, name) in self._types for name in _OURS):
            raise RefusedError(
                f"{self._source} was written by vectoracl: vectoracl copy moves it with its tags and its tenants."
            )
        self._vector = self._find_vector(found)
        self._names = self._find(multi=bool((found.get("multiTenancyConfig") or {}).get("enabled")))
        self._parts = self._find_parts(found)
        self._total = 0

    # What the objects hold

    def _find_vector(self, found: Mapping[str, Any]) -> str:
        """Return the name of the vector that is taken ("" for the unnamed one). Raises: RefusedError."""
        there: list[str] = sorted(found.get("vectorConfig") or {})
        if found.get("vectorIndexType"):
            there.insert(0, "")
        said = self._config.adopt.vector
        fitting = [name for name in there if said is None or name == said]
        if len(fitting) != 1:
            listed = ", ".join(name or "the unnamed one" for name in there) or "none"
            raise RefusedError(
                f"One vector of {self._source} has to be taken; it has: {listed}. Say which: "
                '[stores.NAME.adopt] vector = "…".'
            )
        return fitting[0]

    def _find(self, *, multi: bool) -> Names:
        """Return the mapping: what the configuration says, else well-known names. Raises: RefusedError."""
        said = self._config.adopt
        self._text, *self._text_keys = adoption.steps(said.text or "")
        unknown = [
            name
            for name in (said.tenant, said.document, said.chunk, self._text or None, *said.leave_out)
            if name is not None and name not in self._types
        ]
        if unknown:
            raise RefusedError(f"{self._source} has no property {min(unknown)!a}: correct [stores.NAME.adopt].")
        references = [name for name, kind in self._types.items() if kind[:1].isupper() and name not in said.leave_out]
        if references:
            raise RefusedError(
                f"The property {min(references)!a} of {self._source} is a reference, which a chunk cannot hold. To "
                f'copy the objects without it: [stores.NAME.adopt] leave_out = ["{min(references)}"].'
            )
        taken: set[str | None] = {said.tenant, said.document, said.chunk, self._text or None, *said.leave_out}

        def one(what: str, chosen: str | None, known: Sequence[str]) -> str | None:
            if chosen is not None:
                return chosen
            there = [name for name in known if name in self._types and name not in taken]
            found = only(what, there, f"properties of {self._source}")
            taken.update(there)
            return found

        tenant = said.tenant if multi else one("tenant", said.tenant, _TENANT)
        if tenant is None and not multi:
            raise RefusedError(
                f"{self._source} is not multi-tenant, and no property of it is known to hold the tenant. Say which: "
                '[stores.NAME.adopt] tenant = "…".'
            )
        text = one("text", self._text or None, adoption.TEXT)
        if text is None and "_node_content" in self._types and "_node_content" not in taken:
            text, self._text_keys = "_node_content", ["text"]  # LlamaIndex keeps the whole node as JSON
        document = one("document", said.document, _DOCUMENT)
        return Names(tenant, document, one("chunk", said.chunk, _CHUNK), text)

    def _find_parts(self, found: Mapping[str, Any]) -> tuple[str | None, ...]:
        """Return the old tenants, None for the whole of a collection that has none. Raises: RefusedError."""
        if not (found.get("multiTenancyConfig") or {}).get("enabled"):
            return (None,)
        listed = self._admin.ask("GET", f"/v1/schema/{self._source}/tenants")
        resting = sorted(one["name"] for one in listed if one.get("activityStatus") not in ("HOT", "ACTIVE"))
        if resting:
            more = "" if len(resting) <= SHOWN else ", …"
            raise RefusedError(
                f"{len(resting)} tenants of {self._source} are not active, so their objects cannot be read: "
                f"{', '.join(map(ascii, resting[:SHOWN]))}{more}. Activate them, or remove them, and adopt again."
            )
        return tuple(sorted(one["name"] for one in listed))

    def _record(self, item: Item) -> Record:
        """Return an object as a chunk that `upsert` would take. Raises: RefusedError with the reason."""
        part, one = item
        names, held = self._names, {key: value for key, value in (one["properties"] or {}).items() if value is not None}
        tenant = adoption.tenant_in(part if names.tenant is None else _id(held.get(names.tenant)))
        if self._states.get(tenant_name(tenant), "active") != "active":
            raise RefusedError(f"The tenant {tenant!a} is not active here: vectoracl tenants activate.")
        chunk = str(one["id"]) if names.chunk is None else _id(held.get(names.chunk))
        if chunk is None:
            raise RefusedError("No chunk id.")
        document = chunk if names.document is None else _id(held.get(names.document))
        if document is None:
            raise RefusedError("No document.")
        text = adoption.text_at("" if names.text is None else held.get(names.text, ""), self._text_keys) or ""
        vector = (one.get("vectors") or {}).get(self._vector) if self._vector else one.get("vector")
        if not vector or isinstance(vector[0], list):
            raise RefusedError("No dense vector.")
        made = Chunk(chunk, document, text, np.asarray(vector, np.float32), metadata=self._metadata(held))
        record = self._checks.record(tenant, made)
        self._compile.check_size([record])
        return record

    def _metadata(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """Return every other property; one that is null is one that is not there."""
        left = {*self._names, *self._config.adopt.leave_out}
        if self._text_keys:
            left.discard(self._names.text)
        found = {key: value for key, value in held.items() if key not in left}
        return adoption.moments(self._checks.metadata(found), self._fields)

    # Reading and checking

    def _read(self) -> Iterator[list[Item]]:
        """Yield all objects in batches of one old tenant each, in the order of their ids."""
        for part in self._parts:
            after = ""
            while True:
                query = {"class": self._source, "limit": str(_BATCH), "include": "vector", "after": after}
                if part is not None:
                    query["tenant"] = part
                found = self._admin.ask("GET", f"/v1/objects?{urlencode(query)}")["objects"]
                if found:
                    yield [(part, one) for one in found]
                if len(found) < _BATCH:
                    break
                after = found[-1]["id"]

    def _look(self) -> Findings:
        """Check every object."""
        findings = Findings("object")
        self._total = adoption.look(
            findings,
            self._read(),
            self._record,
            _id_of,
            lambda tag: (tag.tenant, id_of(tag)),
            self._progress,
            taken=self._taken,
        )
        empty = {part for part in self._parts if part is not None} if self._names.tenant is None else set()
        findings.refuse_look_alikes({*self._known, *empty})
        return findings

    def plan(self) -> Iterator[str]:
        """Yield the plan, a line each. Every object is read and checked; nothing is changed."""
        names = self._names
        yield f"Adopt {self._source} into {self._config.collection}. {self._source} is read and never changed."
        yield f"tenant      {names.tenant or 'the tenant of the collection'}"
        yield f"document    {names.document or 'each chunk is a document of its own'}"
        yield f"chunk id    {names.chunk or 'the id of the object'}"
        yield f"text        {'->>'.join((names.text, *self._text_keys)) if names.text else 'none: left empty'}"
        yield f"vector      {self._vector or 'the unnamed one'}"
        yield "metadata    every other property"
        if self._config.adopt.leave_out:
            yield f"left out    {', '.join(self._config.adopt.leave_out)}"
        findings = self._look()
        yield from self._checks.described()
        yield from findings.summary(self._total, tenant_name)

    # The copy

    def copy(self, adopted: Adopted | None = None) -> list[str]:
        """Copy every object; return what was done. Can be run again: chunks that are there stay as they are.

        *adopted* is kept up to date meanwhile. Raises: RefusedError with the list of refused objects, and then nothing
        is copied; StoreError if in the end a tenant's chunks differ.
        """
        findings = self._look()
        adopted = adopted or Adopted()
        findings.settle(adopted, f"{self._source} was not")
        for number, tenant in enumerate(sorted(findings.tenants)):
            self._create(tenant)
            self._progress("creating tenants", number + 1, len(findings.tenants))
        adoption.copy(self._read(), self._groups, self._write, adopted, self._progress, self._total)
        self._verify()
        compared = "the texts, metadata and vectors"
        return [findings.report(self._source, adopted, compared)]

    def _groups(self, items: Collection[Item]) -> Groups:
        return adoption.by_tenant(items, self._record, _id_of, self._source, "object")

    def _there(self, tenant: str, records: Sequence[Record], *, content: bool) -> dict[str, Any]:
        """Return the copies of *records* that are there, by their ids."""
        where = self._compile.ids(id_of(record.tag) for record in records)
        include: Include = frozenset({"text", "metadata", "vector"}) if content else frozenset()
        request = self._compile.listing(tenant, where, len(records), self._compile.properties(include), vectors=content)
        return {one.metadata.id: one for one in self._port.execute(request, None)}

    def _replaced(self, tenant: str, records: Sequence[Record]) -> set[str]:
        """Return the documents that were replaced since; their old chunks do not come back."""
        left = {record.tag.document for record in records}
        found: set[str] = set()
        while left:
            where = every([self._compile.documents(left), self._compile.replaced()])
            request = self._compile.listing(tenant, where, self._config.page, self._compile.places)
            objects = self._port.execute(request, None)
            names = {self._decode.version(one).document for one in objects}
            found |= names
            left -= names
            if len(objects) < self._config.page:
                break
        return found

    def _taken(self, tenant: str, records: Sequence[Record]) -> list[Record]:
        """Return those of *records* whose ids are those of chunks that were adopted from another source."""
        if tenant_name(tenant) not in self._states:
            return []  # it is not there yet
        there = self._there(tenant, records, content=True)
        paths = {id_: self._decode.rows([copy])[0][1].tag.path for id_, copy in there.items()}
        return [one for one in records if adoption.from_another(paths.get(id_of(one.tag)), self._source)]

    def _write(self, tenant: str, records: Sequence[Record]) -> tuple[int, int]:
        """Write what is not there yet, and again what changed in the source since; return how many of each."""
        there, replaced = self._there(tenant, records, content=True), self._replaced(tenant, records)
        kept = [one for one in records if one.tag.document not in replaced]
        new = [one for one in kept if id_of(one.tag) not in there]
        changed = [one for one in kept if id_of(one.tag) in there and not self._same(one, there[id_of(one.tag)])]
        if new or changed:
            self._upsert(tenant, [*new, *changed])
        return len(new), len(changed)

    def _upsert(self, tenant: str, records: Sequence[Record]) -> None:
        try:
            run(self._adapter.upsert(Upsert(tenant, ALWAYS, tuple(records))), {"store": self._port})
        except TooLargeError:  # each one fits, as was checked
            half = len(records) // 2
            if not half:
                raise
            self._upsert(tenant, records[:half])
            self._upsert(tenant, records[half:])

    def _verify(self) -> None:
        """Count, and compare text, metadata and vector of every object with its copy. Raises: StoreError."""
        different, done = adoption.compare(self._read(), self._groups, self._differing, self._progress, self._total)
        if different or done != self._total:
            listed = ", ".join(ascii(tenant) for tenant in sorted(different)[:SHOWN])
            raise StoreError(
                f"The copy was made, but of {self._total} objects that were checked {done} are there, and "
                f"{sum(different.values())} chunks of {len(different)} tenants differ: {listed or 'none'}. They were "
                "written to meanwhile, here or there; adopt again for what is missing, or look at them.",
                code="adopt_differs",
                adapter=ADAPTER,
                sent="unknown",
            )

    def _differing(self, tenant: str, records: Sequence[Record]) -> int:
        """Return how many of *records* have no copy that is the same."""
        there, replaced = self._there(tenant, records, content=True), self._replaced(tenant, records)
        kept = [record for record in records if record.tag.document not in replaced]
        return sum(not self._same(record, there.get(id_of(record.tag))) for record in kept)

    def _same(self, record: Record, copy: Any) -> bool:
        if copy is None:
            return False
        ((_, hit, _),) = self._decode.rows([copy])
        if not adoption.was_adopted(hit.tag.path, self._source):
            # Written here since, which is what the store is for.
            return not adoption.from_another(hit.tag.path, self._source)
        if hit.text != record.text or hit.vector is None or hit.metadata is None:
            return False
        if dump_metadata(hit.metadata) != dump_metadata(record.metadata):
            return False
        return self._checks.alike(hit.vector, record.vector)


def _id_of(item: Item) -> str:
    return str(item[1]["id"])


def _id(value: Any) -> str | None:
    """Return *value* as an id; a number is one too, and Weaviate writes an int of JSON as a float."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return adoption.id_in(value)
