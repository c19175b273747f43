"""Operators' commands: provision, import existing points, list tenants, promote a large one, remove one. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from qdrant_client import models

from vectoracl.adapter_api import store_notes
from vectoracl.adapter_api.adoption import printable
from vectoracl.adapter_api.adoption_template import AdoptsInShares
from vectoracl.adapter_api.contract import Adopted, Port, Progress, Request, TenantInfo
from vectoracl.engine.drivers import run
from vectoracl.errors import RefusedError, StoreError, without_context
from vectoracl.filters.field_types import FieldType
from vectoracl.model.identifiers import check_tenant, stored_tenant
from vectoracl_qdrant import adopt as adopts
from vectoracl_qdrant import schema, tiers
from vectoracl_qdrant import words as words_
from vectoracl_qdrant.compile import QdrantCompiler, shard_key
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.decode import Decoder
from vectoracl_qdrant.heads import Heads
from vectoracl_qdrant.names import HEADS, shard_of
from vectoracl_qdrant.pages import Pages
from vectoracl_qdrant.ports import Administrator
from vectoracl_qdrant.posture import paths_held
from vectoracl_qdrant.requests import Describe, Scroll, Tenants, Write
from vectoracl_qdrant.settle import settled
from vectoracl_qdrant.versions import Versions

R = TypeVar("R")
_CLUSTER = (
    "The server cannot create shards: tiers need Qdrant 1.16 or newer in cluster mode (QDRANT__CLUSTER__ENABLED=true; "
    "one node is enough). Otherwise set tiers = false, and name another collection."
)


class QdrantOperator(AdoptsInShares):
    """Operator's work on one configured store."""

    def __init__(
        self,
        config: QdrantConfig,
        fields: Mapping[str, FieldType],
        port: Callable[[], Port],
        administrator: Callable[[], Administrator],
        *,
        store: str = "",
        embedder: str | None = None,
    ) -> None:
        self._name = store
        self._embedder = embedder
        self._config = config
        self._fields = fields
        self._compile = QdrantCompiler(config, fields)
        self._pages = Pages(config, self._compile)
        self._heads = Heads(config, self._compile)
        self._open = port
        self._open_administrator = administrator
        self._port: Port | None = None
        self._administrator: Administrator | None = None

    def _store(self) -> Port:
        if self._port is None:
            self._port = self._open()
        return self._port

    def _admin(self) -> Administrator:
        if self._administrator is None:
            self._administrator = self._open_administrator()
        return self._administrator

    def _ask(self, request: Request[R]) -> R:
        reply: R = self._store().execute(request, None)
        return reply

    # Provisioning

    def _found(self) -> models.CollectionInfo | None:
        try:
            return self._ask(Describe())
        except StoreError as error:
            if error.code != "not_provisioned":
                raise
            return None

    def _steps(self) -> list[schema.Step]:
        info = self._found()
        other = None if info is None else schema.other_vectors(self._config, info)
        if other is not None:
            raise RefusedError(
                f"The collection {self._config.collection} differs from the configuration: {other}. Configure the "
                "vectors that it holds, or name another collection and copy the chunks there (vectoracl copy, with "
                "--reembed for another dimension).",
                field="dimension",
            )
        if info is not None:
            self._check_fields(info)
        recorded = None if info is None else schema.kept_embedder(info)
        embedder = store_notes.learned(self._name, recorded, self._embedder)
        sharded = True
        if info is not None and self._config.tiers:
            cluster = self._admin().cluster()
            if not cluster.custom:
                raise RefusedError(tiers.NOT_CUSTOM)
            sharded = self._config.shared_shard in cluster.states
        steps = list(schema.steps(self._config, self._fields, info, sharded=sharded))
        return steps if embedder is None else [*steps, schema.KeepEmbedder(self._config.collection, embedder)]

    def _check_fields(self, found: models.CollectionInfo) -> None:
        """Refuse declared fields if chunks hold their values as another type. Raises: RefusedError."""
        held = run(paths_held(self._config, self._fields, found), {"store": self._store()})
        wrong = "; ".join(schema.held_otherwise(self._config, self._fields, held))
        if wrong:
            raise RefusedError(
                f"In the collection {self._config.collection} {wrong}. Restore the declaration, or write those "
                "documents again under the new one and then provision.",
                field="metadata",
            )

    def plan(self, *, adopt: str | None = None) -> str:
        """Return the HTTP requests that `provision` would make, and what `adopt` would import; changes nothing."""
        steps = self._steps()
        text = "\n\n".join(schema.text_of(step) for step in steps) + "\n" if steps else "# Everything is in place.\n"
        if adopt is not None:
            text += "".join(f"# {printable(line)}\n" for line in self._adoption(adopt, None).plan())
        return text

    def provision(
        self, *, adopt: str | None = None, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> list[str]:
        """Create or update the collection and its indexes; does only what is missing, and can be run again.

        Chunks that were written before the collection had words get their words.

        Args:
            adopt: The name of an existing collection whose points are then imported; it is only read.
            progress: Called with the progress of each step.
            adopted: Called with the result of the import.

        Returns: One line for each step that was done.
        """
        steps = self._steps()
        report = []
        for number, step in enumerate(steps):
            if progress is not None:
                progress("provisioning", number, len(steps))
            self._apply(step)
            report.append(schema.text_of(step).splitlines()[0])
        if self._config.words is not False and not any(isinstance(step, schema.CreateCollection) for step in steps):
            report.extend(self._fill_words(progress))
        if adopt is not None:
            report.extend(self._adoption(adopt, progress).copy(adopted))
        return report or ["everything is in place"]

    @without_context
    def _apply(self, step: schema.Step) -> None:
        try:
            self._admin().apply(step)
        except StoreError as error:
            if isinstance(step, schema.CreateShard) and error.code in ("rejected", "unavailable"):
                raise RefusedError(_CLUSTER) from None
            if isinstance(step, schema.CreateWords) and error.code in ("rejected", "not_provisioned"):
                raise RefusedError(
                    "This server cannot add a vector to a collection; Qdrant 1.18 and newer can. Upgrade it, set words "
                    "= false, or name another collection and copy the chunks there."
                ) from None
            raise

    def _fill_words(self, progress: Progress | None) -> list[str]:
        """Write the words of chunks that have none, tenant by tenant; concurrently written chunks are not changed."""
        key = str(self._config.words)
        heads = models.FieldCondition(key=self._config.payload.tenant, match=models.MatchValue(value=HEADS))
        lacking = models.Filter(must_not=[models.HasVectorCondition(has_vector=key), heads])
        first, _ = self._admin().read(self._config.collection, lacking, 1, None, vectors=False)
        if not first:
            return []
        filled = 0
        for tenant in self._ask(Tenants(schema.query_limit(self._config))):
            where = self._compile.rows(tenant, lacking)
            assert where is not None
            offset: str | None = None
            while True:
                page = self._ask(Scroll(tenant, where, self._config.page, (self._config.payload.text,), offset=offset))
                words_by_id = [(point.id, words_.stored((point.payload or {}).get(self._config.payload.text) or ""))
                               for point in page.points]  # fmt: skip
                vectors = [
                    models.PointVectors(id=id_, vector={key: words}) for id_, words in words_by_id if words is not None
                ]
                if vectors:
                    self._admin().write_words(vectors, where, shard_key(self._config, tenant))
                    filled += len(vectors)
                    if progress is not None:
                        progress("words of existing chunks", filled, None)
                if page.offset is None:
                    break
                offset = page.offset
        return [f"wrote the words of {filled} existing chunks"] if filled else []

    def _adoption(self, source: str, progress: Progress | None) -> adopts.Adoption:
        try:
            known = list(self._ask(Tenants(schema.query_limit(self._config))))
        except StoreError as error:
            if error.code != "not_provisioned":
                raise
            known = []
        return adopts.Adoption(self._config, self._fields, source, self._admin(), self._store(), known, progress)

    # The registry

    def settle(self) -> list[str]:
        """Leave one version of each document, without marks and heads; see `settle`. Raises: RefusedError."""
        found = self._found()
        if found is None:
            return []
        if schema.kept_registry(found) is not None:
            raise RefusedError(
                "The collection is under a registry, whose unpublished generations are not for this to judge. Run "
                "`vectoracl reconcile`.",
                field="registry",
            )
        versions = Versions(self._config, self._compile, Decoder(self._config, self._fields), self._pages)
        removed = unmarked = 0
        for tenant in self._ask(Tenants(schema.query_limit(self._config))):
            flow = settled(self._config, self._compile, versions, self._pages, tenant)
            one = run(flow, {"store": self._store()})
            removed, unmarked = removed + one.removed, unmarked + one.unmarked
        if not removed and not unmarked:
            return []
        return [f"removed what interrupted writes had left: {removed:,} chunks that no one saw, and {unmarked:,} marks"]

    def mark(self, registry: str | None) -> list[str]:
        """Note which registry governs the collection; None removes the note."""
        self._admin().apply(schema.KeepRegistry(self._config.collection, registry))
        name = self._config.collection
        return [f"{'marked' if registry else 'removed the mark of'} the collection {name} as governed by the registry"]

    # Tenants

    def tenants(self, *, progress: Progress | None = None) -> list[TenantInfo]:
        """List the tenants with their rows, counted by paging, and recommendations."""
        names = self._ask(Tenants(schema.query_limit(self._config)))
        cluster = self._admin().cluster() if self._config.tiers else tiers.Cluster(custom=False)
        listed = []
        for name in names:
            listed.append(self._tenant(name, cluster))
            if progress is not None:
                progress("counting tenants", len(listed), len(names))
        return listed

    def _tenant(self, name: str, cluster: tiers.Cluster) -> TenantInfo:
        where = self._compile.rows(name)
        assert where is not None
        rows = len(run(self._pages.keys(name, where), {"store": self._store()}))
        tier = tiers.tier_of(name, cluster)
        started = shard_of(name) in cluster.states
        unfinished = started and (tier == "shared" or self._left(name))
        large = self._config.tiers and not started and rows >= self._config.promote_rows
        note = tiers.UNFINISHED if unfinished else ""
        return TenantInfo(name, rows, tier, "promote" if unfinished or large else "", note=note)

    def _left(self, tenant: str) -> bool:
        where = self._heads.everything(tenant)
        return bool(self._ask(Scroll(None, where, 1, shard=self._config.shared_shard)).points)

    def promote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:
        """Move *tenant* to its own shard while reads and writes continue. Raises: RefusedError, StoreError."""
        tiers.refuse(self._config)
        return tiers.promote(check_tenant(tenant), _Actions(self), progress)

    def demote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:  # noqa: ARG002 - the contract's
        """Raises: RefusedError."""
        tiers.refuse(self._config)
        raise RefusedError(tiers.NO_WAY_BACK)

    def remove(self, tenant: str) -> list[str]:
        """Delete *tenant*: all of its points of any version in any shard, and its own shard."""
        if self._found() is None:
            check_tenant(tenant)
            return []
        tenant = stored_tenant(tenant, lambda: self._ask(Tenants(schema.query_limit(self._config))))
        where, report = self._heads.everything(tenant), []
        cluster = self._admin().cluster() if self._config.tiers else tiers.Cluster(custom=False)
        # The shard first: while it exists, reads and writes of the tenant go to it.
        if shard_of(tenant) in cluster.states:
            self._admin().apply(schema.DropShard(self._config.collection, shard_of(tenant)))
            report.append(f"removed the shard of the tenant {tenant} with its chunks")
        shard = self._config.shared_shard if self._config.tiers else None
        if self._ask(Scroll(None, where, 1, shard=shard)).points:
            gone = models.FilterSelector(filter=where, shard_key=shard)
            self._ask(Write(None, (models.DeleteOperation(delete=gone),)))
            report.append(f"removed the chunks of the tenant {tenant}")
        return report

    def close(self) -> None:
        """Close the connections."""
        for one in (self._port, self._administrator):
            if one is not None:
                one.close()
        self._port = self._administrator = None


class _Actions:
    """The actions of a promotion on the server; `tiers` decides which one is next."""

    def __init__(self, operator: QdrantOperator) -> None:
        self._operator = operator

    def cluster(self) -> tiers.Cluster:
        return self._operator._admin().cluster()  # noqa: SLF001 - one operator, two classes

    def left(self, tenant: str) -> bool:
        return self._operator._left(tenant)  # noqa: SLF001 - one operator, two classes

    def act(self, task: tiers.Task, tenant: str) -> None:
        one = self._operator
        config, shard = one._config, shard_of(tenant)  # noqa: SLF001 - one operator, two classes
        where = one._heads.everything(tenant)  # noqa: SLF001 - one operator, two classes
        match task:
            case "create":
                one._admin().apply(schema.CreateShard(config.collection, shard, partial=True))  # noqa: SLF001
            case "replicate":
                step = schema.CopyTenant(config.collection, where, config.shared_shard, shard)
                one._admin().apply(step)  # noqa: SLF001 - one operator, two classes
            case "clear":
                gone = models.FilterSelector(filter=where, shard_key=config.shared_shard)
                one._ask(Write(None, (models.DeleteOperation(delete=gone),)))  # noqa: SLF001 - one operator, two classes
