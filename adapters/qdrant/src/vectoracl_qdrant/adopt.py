"""An existing collection becomes governed: planned, checked as a whole, copied tenant by tenant, verified.

The old collection is only read. One point that cannot be taken stops all: nothing is copied until it is fixed, and
there is no default tenant. What a point may hold is what `upsert` would take, by the same checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from qdrant_client import models

from vectoracl.adapter_api import adoption, adoption_template
from vectoracl.adapter_api.adoption import PATH, Findings, id_in, only
from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.contract import Port, Progress
from vectoracl.engine.drivers import run
from vectoracl.errors import RefusedError, StoreError, without_context
from vectoracl.filters.field_types import FieldType
from vectoracl.model.records import Chunk, Record, Tag
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.compile_predicate import keyword
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.decode import ADAPTER, Decoder
from vectoracl_qdrant.names import NO_VERSION, id_of
from vectoracl_qdrant.pages import Pages
from vectoracl_qdrant.versions import Versions

_BATCH = 200
_LOOK = 1000  # points by whose keys the mapping is found
_TENANT = ("tenant_id", "tenant", "group_id", "org_id", "organization_id", "organisation_id", "account_id",
           "workspace_id", "customer_id")  # fmt: skip
_CHUNK = ("chunk_id",)
_TEXT = (*adoption.TEXT, "document")
_METADATA = ("metadata", "meta")


class Reader(Protocol):
    """The reader of the old collection: `execute.Administrator`."""

    def describe(self, name: str) -> models.CollectionInfo:
        """Read how it is configured."""
        ...

    def read(
        self, name: str, where: models.Filter | None, limit: int, offset: Any, *, vectors: bool | list[str]
    ) -> tuple[list[models.Record], Any]:
        """Read one page of its points."""
        ...


class Keys(NamedTuple):
    """Which path of the payload holds what; None: no part of it does."""

    tenant: str
    document: str | None
    chunk: str | None
    text: str | None
    metadata: str | None


class Adoption(adoption_template.Adoption[models.Record, models.Record]):
    """One collection whose points are imported."""

    adapter = ADAPTER
    row = "point"

    def __init__(
        self,
        config: QdrantConfig,
        fields: Mapping[str, FieldType],
        source: str,
        reader: Reader,
        port: Port,
        known: Sequence[str],
        progress: Progress | None,
    ) -> None:
        if source == config.collection:
            raise RefusedError("That collection is this store's own: name the one that is to be copied in.")
        super().__init__(config, fields, source, progress, known)
        self._config = config
        self._fields = fields
        self._reader = reader
        self._port = port
        self._compile = QdrantCompiler(config, fields)
        pages = Pages(config, self._compile)
        self._versions = Versions(config, self._compile, Decoder(config, fields), pages)
        self._pages = pages
        self._vector = self._find_vector()
        self._mapping = self._find()

    # What the points hold

    @without_context
    def _find_vector(self) -> str:
        """Return the name of the dense vector that is taken ("" where it has none). Raises: RefusedError."""
        try:
            params = self._reader.describe(self.source).config.params
        except StoreError as error:
            if error.code != "not_provisioned":
                raise
            raise RefusedError(f"There is no collection {self.source!r} that these credentials can read.") from None
        has = params.vectors or {}
        dense = {"": has} if isinstance(has, models.VectorParams) else dict(has)
        setting = self._config.adopt.vector
        fitting = [name for name, one in dense.items() if one.size == self._config.dimension]
        if setting is not None:
            fitting = [setting] if setting in fitting else []
        if len(fitting) != 1:
            there = ", ".join(f"{name or 'unnamed'} ({one.size})" for name, one in dense.items()) or "none"
            raise RefusedError(
                f"{self.source} has to hold one dense vector of {self._config.dimension} numbers; it has: {there}. "
                "Name it: [stores.NAME.adopt] vector, or correct the dimension."
            )
        cosine = dense[fitting[0]].distance == models.Distance.COSINE
        if cosine and self._config.metric != "cosine":
            raise RefusedError(
                f"{self.source} compares by the cosine, for which Qdrant keeps vectors at length 1: their lengths "
                f'are lost, and metric = "{self._config.metric}" would rank by them. Set metric = "cosine".'
            )
        return fitting[0]

    def _find(self) -> Keys:
        """Return the mapping: what the configuration says, else well-known keys. Raises: RefusedError."""
        points, _ = self._reader.read(self.source, None, _LOOK, None, vectors=False)
        settings = self._config.adopt
        top = {key for point in points for key in (point.payload or {})}
        objects = {key for point in points for key, one in (point.payload or {}).items() if isinstance(one, Mapping)}
        metadata = settings.metadata or self._one("metadata", [key for key in _METADATA if key in objects])
        nested = {
            key for point in points if metadata is not None
            for key in (_at(point.payload or {}, metadata) or {})
        } if metadata is not None else set()  # fmt: skip
        paths = [*top, *(f"{metadata}.{key}" for key in nested)]

        def known(names: Sequence[str], taken: set[str | None]) -> list[str]:
            matches = [name for name in names if name in paths and name not in taken]
            return matches or [f"{metadata}.{name}" for name in names if f"{metadata}.{name}" in paths]

        tenant = settings.tenant or self._one("tenant", known(_TENANT, {metadata}))
        if tenant is None:
            raise RefusedError(
                f"No key of {self.source} is known to hold the tenant. Say which: [stores.NAME.adopt] tenant = "
                '"…" (a payload key, or a path such as "metadata.tenant_id").'
            )
        usual = known(_TEXT, {metadata, tenant, settings.document, settings.chunk})
        if not usual and "_node_content" in paths:
            usual = ["_node_content->>text"]  # LlamaIndex keeps the whole node as JSON
        text = settings.text or self._first("text", usual)
        document = settings.document or self._one(
            "document", known(adoption.DOCUMENT, {metadata, tenant, text, settings.chunk})
        )
        chunk = settings.chunk or self._one("chunk", known(_CHUNK, {metadata, tenant, text, document}))
        return Keys(tenant, document, chunk, text, metadata)

    def _one(self, what: str, found: Sequence[str]) -> str | None:
        return only(what, found, f"keys of {self.source}")

    def _first(self, what: str, found: Sequence[str]) -> str | None:
        # `document` is the text with one client and the document's name elsewhere: the name, if there is another text.
        return self._one(what, [one for one in found if one != "document"] or found)

    def record(self, row: models.Record) -> Record:
        """Return *row* as a chunk that `upsert` would take. Raises: RefusedError with the reason."""
        payload = dict(row.payload or {})
        mapping = self._mapping
        tenant = adoption.tenant_in(id_in(_at(payload, mapping.tenant)))
        chunk = str(row.id) if mapping.chunk is None else id_in(_at(payload, mapping.chunk))
        if chunk is None:
            raise RefusedError("No chunk id.")
        document = chunk if mapping.document is None else id_in(_at(payload, mapping.document))
        if document is None:
            raise RefusedError("No document.")
        text = None
        if mapping.text is not None:
            path, *keys = adoption.steps(mapping.text)
            text = adoption.text_at(_at(payload, path), keys)
        vector = row.vector.get(self._vector) if isinstance(row.vector, dict) else row.vector
        if vector is None:
            raise RefusedError("No vector.")
        item = Chunk(chunk, document, text or "", np.asarray(vector, np.float32), metadata=self._metadata(payload))
        return self.checks.record(tenant, item)

    def _metadata(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Join the metadata and the other keys; a key that is null is one that is not there."""
        mapping = self._mapping
        tag_paths = {one for one in (mapping.tenant, mapping.document, mapping.chunk, mapping.text) if one is not None}
        metadata = {} if mapping.metadata is None else _at(payload, mapping.metadata)
        if metadata is None:
            metadata = {}
        if not isinstance(metadata, Mapping):
            raise RefusedError("The metadata is not an object.")
        inner = {key: one for key, one in metadata.items() if f"{mapping.metadata}.{key}" not in tag_paths}
        skipped = {*tag_paths, mapping.metadata, *self._config.adopt.leave_out}
        extra = {key: one for key, one in payload.items() if key not in skipped and one is not None}
        both = inner.keys() & extra.keys()
        if both:
            raise RefusedError(f"The key {min(both)!r} is both at the top and in the metadata: leave one out.")
        return adoption.moments(self.checks.metadata({**inner, **extra}), self._fields)

    # Reading

    def read(self) -> Iterator[list[models.Record]]:
        """Yield the points of the old collection, page by page."""
        offset: Any = None
        while True:
            points, offset = self._reader.read(self.source, None, _BATCH, offset, vectors=[self._vector])
            if points:
                yield points
            if offset is None:
                return

    def row_id(self, row: models.Record) -> str:
        """Return the point's id."""
        return str(row.id)

    def key(self, tag: Tag) -> str:
        """Return the id of the copy's point."""
        return id_of(tag)

    def check(self, row: models.Record, findings: Findings) -> Record:
        """Return *row* as a record; the tenant of a refused one may still look like another tenant."""
        try:
            return self.record(row)
        except RefusedError:
            tenant = id_in(_at(row.payload or {}, self._mapping.tenant))
            if tenant is not None:
                findings.tenants.setdefault(tenant, 0)
            raise

    def mapping(self) -> Iterator[str]:
        """Yield which key of the payload holds what."""
        mapping = self._mapping
        yield f"Adopt {self.source} into {self._config.collection}. {self.source} is read and never changed."
        yield f"tenant      {mapping.tenant}"
        yield f"document    {mapping.document or 'each chunk is its own document'}"
        yield f"chunk id    {mapping.chunk or 'the id of the point'}"
        yield f"text        {mapping.text or 'none: left empty'}"
        yield f"vector      {self._vector or 'the unnamed one'}"
        rest = "" if mapping.metadata is None else f"all of {mapping.metadata}, and "
        yield f"metadata    {rest}every other key at the top"
        if self._config.adopt.leave_out:
            yield f"left out    {', '.join(self._config.adopt.leave_out)}"

    # The copies

    def existing(self, tenant: str, records: Sequence[Record], *, content: bool) -> dict[str, models.Record]:
        """Return the points of the copies that exist."""
        where = self._compile.rows(tenant, self._compile.ids(id_of(record.tag) for record in records))
        assert where is not None
        include: Any = frozenset({"text", "metadata", "vector"}) if content else frozenset()
        points = run(self._pages.all(self._compile.listing(tenant, where, include)), {"store": self._port})
        return {str(point.id): point for point in points}

    def replaced(self, tenant: str, records: Sequence[Record]) -> set[str]:
        """Return the documents whose heads name a later version."""
        documents = sorted({record.tag.document for record in records})
        heads = run(self._versions.current(tenant, documents), {"store": self._port})
        return {document for document, head in heads.items() if head.place != (0, NO_VERSION)}

    def path(self, copy: models.Record) -> object:
        """Return the ingestion path in the payload."""
        return (copy.payload or {}).get(self._config.payload.path)

    def same_content(self, record: Record, copy: models.Record) -> bool:
        """Compare the payload and the vector."""
        keys, payload = self._config.payload, copy.payload or {}
        if payload.get(keys.text) != record.text:
            return False
        if payload.get(keys.metadata) != dump_metadata(record.metadata).decode():
            return False
        vector = copy.vector.get(self._config.vector or "") if isinstance(copy.vector, dict) else copy.vector
        return self.checks.alike(np.asarray(vector), record.vector)

    def write(self, tenant: str, records: Sequence[Record]) -> None:
        """Upsert the points, except where another path wrote one in the same moment."""
        points = self._compile.points(records, self._compile.words_of(records), NO_VERSION)
        ours = keyword(self._config.payload.path, PATH, adoption.path_of(self.source))
        self._port.execute(self._compile.upsert(tenant, points, ours), None)

    def advice(self, findings: Findings) -> Iterator[str]:
        """Name the tenants that are large enough for a shard each."""
        large = sorted(name for name, count in findings.tenants.items() if count >= self._config.promote_rows)
        if large and self._config.tiers:
            yield f"worth a separate shard each (vectoracl tenants promote): {', '.join(map(ascii, large))}"


def _at(payload: Mapping[str, Any], path: str) -> Any:
    """Return what *payload* holds at *path*: a key as it is, else keys with dots between them; None if nothing."""
    if path in payload:
        return payload[path]
    value: Any = payload
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
