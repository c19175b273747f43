"""An existing collection becomes governed: planned, checked as a whole, copied tenant by tenant, verified.

Of a multi-tenant collection each tenant is a tenant, by its own name; of any other one (and where config says so) a
property of each object names it. The old collection is only read. One object that cannot be taken stops all: nothing
is copied until it is fixed, and there is no default tenant. What an object may hold is what `upsert` would take, by
the same checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import numpy as np

from vectoracl.adapter_api import adoption, adoption_template
from vectoracl.adapter_api.adoption import SHOWN, Findings, only
from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.contract import Port, Progress
from vectoracl.adapter_api.operations import Include, Upsert
from vectoracl.engine.drivers import run
from vectoracl.errors import RefusedError, StoreError, TooLargeError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Chunk, Hit, Record, Tag
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


class Adoption(adoption_template.Adoption[Item, Hit]):
    """One collection whose objects are imported.

    *known* are this store's tenants by their ids, *states* by Weaviate's names; *create* makes one, as an operator
    does (with its key, where each has one).
    """

    adapter = ADAPTER
    row = "object"

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
        collection = admin.ask("GET", f"/v1/schema/{quote(source, safe='')}", absent=None)
        if collection is None:
            raise RefusedError(f"There is no collection {source!a} that these credentials can read.")
        # As the server spells it, which may not be how it was asked for.
        super().__init__(config, fields, str(collection["class"]), progress, known)
        if self.source == config.collection:
            raise RefusedError("That collection is this store's own: name the one that is to be copied in.")
        self._config = config
        self._fields = fields
        self._admin = admin
        self._port = port
        self._states = states
        self._tenants = set(states)
        self._create = create
        self.place = tenant_name
        self._compile = WeaviateCompiler(config, fields)
        self._decode = Decoder(config, fields)
        self._adapter = WeaviateAdapter(config, fields)
        self._types = {one["name"]: one["dataType"][0] for one in collection.get("properties") or ()}
        defaults = Properties()
        if all(getattr(defaults, name) in self._types for name in _OURS):
            raise RefusedError(
                f"{self.source} was written by vectoracl: vectoracl copy moves it with its tags and its tenants."
            )
        self._vector = self._find_vector(collection)
        self._names = self._find(multi=bool((collection.get("multiTenancyConfig") or {}).get("enabled")))
        self._parts = self._find_parts(collection)

    # What the objects hold

    def _find_vector(self, found: Mapping[str, Any]) -> str:
        """Return the name of the vector that is taken ("" for the unnamed one). Raises: RefusedError."""
        there: list[str] = sorted(found.get("vectorConfig") or {})
        if found.get("vectorIndexType"):
            there.insert(0, "")
        choice = self._config.adopt.vector
        fitting = [name for name in there if choice is None or name == choice]
        if len(fitting) != 1:
            listed = ", ".join(name or "the unnamed one" for name in there) or "none"
            raise RefusedError(
                f"One vector of {self.source} has to be taken; it has: {listed}. Say which: "
                '[stores.NAME.adopt] vector = "…".'
            )
        return fitting[0]

    def _find(self, *, multi: bool) -> Names:
        """Return the mapping: what the configuration says, else well-known names. Raises: RefusedError."""
        settings = self._config.adopt
        self._text, *self._text_keys = adoption.steps(settings.text or "")
        unknown = [
            name
            for name in (settings.tenant, settings.document, settings.chunk, self._text or None, *settings.leave_out)
            if name is not None and name not in self._types
        ]
        if unknown:
            raise RefusedError(f"{self.source} has no property {min(unknown)!a}: correct [stores.NAME.adopt].")
        references = [
            name for name, kind in self._types.items() if kind[:1].isupper() and name not in settings.leave_out
        ]
        if references:
            raise RefusedError(
                f"The property {min(references)!a} of {self.source} is a reference, which a chunk cannot hold. To "
                f'copy the objects without it: [stores.NAME.adopt] leave_out = ["{min(references)}"].'
            )
        assigned_names: set[str | None] = {
            settings.tenant,
            settings.document,
            settings.chunk,
            self._text or None,
            *settings.leave_out,
        }

        def one(what: str, chosen: str | None, known: Sequence[str]) -> str | None:
            if chosen is not None:
                return chosen
            there = [name for name in known if name in self._types and name not in assigned_names]
            property_name = only(what, there, f"properties of {self.source}")
            assigned_names.update(there)
            return property_name

        tenant = settings.tenant if multi else one("tenant", settings.tenant, _TENANT)
        if tenant is None and not multi:
            raise RefusedError(
                f"{self.source} is not multi-tenant, and no property of it is known to hold the tenant. Say which: "
                '[stores.NAME.adopt] tenant = "…".'
            )
        text = one("text", self._text or None, adoption.TEXT)
        if text is None and "_node_content" in self._types and "_node_content" not in assigned_names:
            text, self._text_keys = "_node_content", ["text"]  # LlamaIndex keeps the whole node as JSON
        document = one("document", settings.document, _DOCUMENT)
        return Names(tenant, document, one("chunk", settings.chunk, _CHUNK), text)

    def _find_parts(self, found: Mapping[str, Any]) -> tuple[str | None, ...]:
        """Return the old tenants, None for the whole of a collection that has none. Raises: RefusedError."""
        if not (found.get("multiTenancyConfig") or {}).get("enabled"):
            return (None,)
        listed = self._admin.ask("GET", f"/v1/schema/{self.source}/tenants")
        resting = sorted(one["name"] for one in listed if one.get("activityStatus") not in ("HOT", "ACTIVE"))
        if resting:
            more = "" if len(resting) <= SHOWN else ", …"
            raise RefusedError(
                f"{len(resting)} tenants of {self.source} are not active, so their objects cannot be read: "
                f"{', '.join(map(ascii, resting[:SHOWN]))}{more}. Activate them, or remove them, and adopt again."
            )
        return tuple(sorted(one["name"] for one in listed))

    def record(self, row: Item) -> Record:
        """Return an object as a chunk that `upsert` would take. Raises: RefusedError with the reason."""
        part, one = row
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
        new_chunk = Chunk(chunk, document, text, np.asarray(vector, np.float32), metadata=self._metadata(held))
        record = self.checks.record(tenant, new_chunk)
        self._compile.check_size([record])
        return record

    def _metadata(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """Return every other property; one that is null is one that is not there."""
        exclusions = {*self._names, *self._config.adopt.leave_out}
        if self._text_keys:
            exclusions.discard(self._names.text)
        metadata = {key: value for key, value in held.items() if key not in exclusions}
        return adoption.moments(self.checks.metadata(metadata), self._fields)

    # Reading

    def read(self) -> Iterator[list[Item]]:
        """Yield all objects in batches of one old tenant each, in the order of their ids."""
        for part in self._parts:
            after = ""
            while True:
                query = {"class": self.source, "limit": str(_BATCH), "include": "vector", "after": after}
                if part is not None:
                    query["tenant"] = part
                objects = self._admin.ask("GET", f"/v1/objects?{urlencode(query)}")["objects"]
                if objects:
                    yield [(part, one) for one in objects]
                if len(objects) < _BATCH:
                    break
                after = objects[-1]["id"]

    def row_id(self, row: Item) -> str:
        """Return the object's id."""
        return str(row[1]["id"])

    def key(self, tag: Tag) -> str:
        """Return the id of the copy's object."""
        return id_of(tag)

    def look_alike_names(self) -> set[str]:
        """Return the names of the tenants here, and those of the source's tenants that hold nothing."""
        empty = {part for part in self._parts if part is not None} if self._names.tenant is None else set()
        return {*self.known, *empty}

    def mapping(self) -> Iterator[str]:
        """Yield which property holds what."""
        names = self._names
        yield f"Adopt {self.source} into {self._config.collection}. {self.source} is read and never changed."
        yield f"tenant      {names.tenant or 'the tenant of the collection'}"
        yield f"document    {names.document or 'each chunk is its own document'}"
        yield f"chunk id    {names.chunk or 'the id of the object'}"
        yield f"text        {'->>'.join((names.text, *self._text_keys)) if names.text else 'none: left empty'}"
        yield f"vector      {self._vector or 'the unnamed one'}"
        yield "metadata    every other property"
        if self._config.adopt.leave_out:
            yield f"left out    {', '.join(self._config.adopt.leave_out)}"

    # The copies

    def prepare(self, findings: Findings) -> None:
        """Create the tenants: Weaviate writes to none that does not exist."""
        for number, tenant in enumerate(sorted(findings.tenants)):
            self._create(tenant)
            self._tenants.add(tenant_name(tenant))
            self.progress("creating tenants", number + 1, len(findings.tenants))

    def existing(self, tenant: str, records: Sequence[Record], *, content: bool) -> dict[str, Hit]:
        """Return the copies that exist as hits, by the ids of their objects."""
        if tenant_name(tenant) not in self._tenants:
            return {}
        where = self._compile.ids(id_of(record.tag) for record in records)
        include: Include = frozenset({"text", "metadata", "vector"}) if content else frozenset()
        request = self._compile.listing(tenant, where, len(records), self._compile.properties(include), vectors=content)
        objects = self._port.execute(request, None)
        return {one.metadata.id: row[1] for one, row in zip(objects, self._decode.rows(objects), strict=True)}

    def replaced(self, tenant: str, records: Sequence[Record]) -> set[str]:
        """Return the documents of which a later generation exists."""
        rest = {record.tag.document for record in records}
        documents: set[str] = set()
        while rest:
            where = every([self._compile.documents(rest), self._compile.replaced()])
            request = self._compile.listing(tenant, where, self._config.page, self._compile.places)
            objects = self._port.execute(request, None)
            names = {self._decode.version(one).document for one in objects}
            documents |= names
            rest -= names
            if len(objects) < self._config.page:
                break
        return documents

    def path(self, copy: Hit) -> object:
        """Return the ingestion path in the tag."""
        return copy.tag.path

    def same_content(self, record: Record, copy: Hit) -> bool:
        """Compare the hit with the record."""
        if copy.text != record.text or copy.vector is None or copy.metadata is None:
            return False
        if dump_metadata(copy.metadata) != dump_metadata(record.metadata):
            return False
        return self.checks.alike(copy.vector, record.vector)

    def write(self, tenant: str, records: Sequence[Record]) -> None:
        """Upsert the objects, in halves where they are too large for one request."""
        try:
            run(self._adapter.upsert(Upsert(tenant, ALWAYS, tuple(records))), {"store": self._port})
        except TooLargeError:  # each one fits, as was checked
            half = len(records) // 2
            if not half:
                raise
            self.write(tenant, records[:half])
            self.write(tenant, records[half:])

    def disagreement(self, different: Mapping[str, int], seen: int) -> StoreError | None:
        """Return the error for copies that differ, or for objects that came or went since they were checked."""
        if not different and seen == self.total:
            return None
        listed = ", ".join(ascii(tenant) for tenant in sorted(different)[:SHOWN])
        return StoreError(
            f"The copy was made, but of {self.total} objects that were checked {seen} are there, and "
            f"{sum(different.values())} chunks of {len(different)} tenants differ: {listed or 'none'}. They were "
            "written to in the meantime, here or there; adopt again for what is missing, or look at them.",
            code="adopt_differs",
            adapter=ADAPTER,
            sent="unknown",
        )


def _id(value: Any) -> str | None:
    """Return *value* as an id; a number is one too, and Weaviate writes an int of JSON as a float."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return adoption.id_in(value)
