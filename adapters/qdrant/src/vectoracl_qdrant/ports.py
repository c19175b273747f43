"""The only module that talks to Qdrant: one dispatch function, which returns a value or an awaitable, and two ports.

The sync and the async client have the same methods, so each request is mapped to a call only once. A port is never used
across a fork. The client's timeouts are whole seconds: shorter ones are rounded up there, and the async port enforces
them exactly.
"""

from __future__ import annotations

import asyncio
import math
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, assert_never

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from vectoracl.adapter_api import store_identity as places
from vectoracl.adapter_api.contract import OneProcess
from vectoracl.adapter_api.tls import authority
from vectoracl.errors import ConfigError, StoreError, VectorACLError
from vectoracl_qdrant import local as locals_
from vectoracl_qdrant.compile import shard_key
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.failures import mapped, not_provisioned, server_of, slow
from vectoracl_qdrant.names import HEADS
from vectoracl_qdrant.requests import (
    AnyRequest,
    Describe,
    Points,
    Rank,
    RankGroups,
    RankLegs,
    RankWords,
    Scroll,
    Tenants,
    Version,
    Write,
)
from vectoracl_qdrant.schema import (
    CopyTenant,
    CreateCollection,
    CreateIndex,
    CreateShard,
    CreateWords,
    DropShard,
    KeepEmbedder,
    KeepRegistry,
    Step,
    UpdateCollection,
    UpdateWords,
    kept_registry,
    steps,
)
from vectoracl_qdrant.tiers import Cluster

OLDEST = (1, 20)
Client = QdrantClient | AsyncQdrantClient


def check_client() -> None:
    """Refuse a client whose local mode ignores the root filter of a fusion query. Raises: ConfigError."""
    installed = installed_version("qdrant-client")
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST:
        raise ConfigError(
            f"qdrant-client {installed} is installed; 1.20 is the oldest version whose local mode filters every query: "
            'pip install "qdrant-client>=1.20"'
        )


def call(client: Client, config: QdrantConfig, request: AnyRequest, timeout: float | None) -> Any:
    """Make the one call of *request*; the result, or with the async client an awaitable of it, is the client's."""
    seconds = config.request_timeout if timeout is None else max(1, math.ceil(timeout))
    limit: dict[str, Any] = {} if config.local else {"timeout": seconds}
    name = config.collection
    if config.tiers:
        limit["shard_key_selector"] = shard_key(config, request.partition)
    match request:
        case Rank() | RankWords():
            return client.query_points(
                name,
                query=request.vector if isinstance(request, Rank) else request.words,
                using=_using(config, request),
                query_filter=request.filter,
                search_params=_params(config, request),
                limit=request.limit,
                with_payload=_selected(request.payload),
                with_vectors=_dense(config, wanted=request.vectors),
                **limit,
            )
        case RankLegs():
            limit.pop("shard_key_selector", None)
            legs = [_leg(config, one) for one in request.legs]
            return client.query_batch_points(name, requests=legs, **limit)
        case RankGroups():
            return client.query_points_groups(
                name,
                group_by=request.by,
                query=request.vector,
                using=config.vector,
                query_filter=request.filter,
                search_params=_params(config, request),
                limit=request.limit,
                group_size=request.size,
                with_payload=_selected(request.payload),
                with_vectors=_dense(config, wanted=request.vectors),
                **limit,
            )
        case Scroll():
            if request.shard is not None:
                limit["shard_key_selector"] = request.shard
            return client.scroll(
                name,
                scroll_filter=request.filter,
                limit=request.limit,
                order_by=_order(request),
                offset=request.offset,
                with_payload=_selected(request.payload),
                with_vectors=_dense(config, wanted=request.vectors),
                **limit,
            )
        case Write():
            limit.pop("shard_key_selector", None)  # each operation has its own
            return client.batch_update_points(name, update_operations=list(request.operations), wait=True, **limit)
        case Describe():
            return client.get_collection(name)
        case Version():
            return client.info()
        case Tenants():
            return client.facet(name, key=config.payload.tenant, limit=request.limit, **limit)
    assert_never(request)


def reply_of(request: AnyRequest, answer: Any) -> Any:
    """Return the client's *answer* as the reply of *request*. Raises: StoreError if a write is not done."""
    match request:
        case Rank() | RankWords():
            return answer.points
        case RankLegs():
            return tuple(one.points for one in answer)
        case RankGroups():
            return [point for group in answer.groups for point in group.hits]
        case Scroll():
            points, offset = answer
            return Points(points, None if offset is None else str(offset))
        case Write():
            statuses = (models.UpdateStatus.COMPLETED, models.UpdateStatus.ACKNOWLEDGED)
            if any(one.status not in statuses for one in answer):
                raise StoreError("Qdrant did not finish the write in time.", code="timeout", adapter="qdrant")
            return None
        case Describe():
            return answer
        case Version():
            return str(answer.version)
        case Tenants():
            if len(answer.hits) >= request.limit:
                text = f"The collection has {request.limit:,} tenants or more, which one request cannot list."
                raise StoreError(text, code="too_many_tenants", adapter="qdrant", sent="no")
            return tuple(sorted(str(hit.value) for hit in answer.hits if hit.value != HEADS))
    assert_never(request)


def _leg(config: QdrantConfig, request: Rank | RankWords) -> models.QueryRequest:
    return models.QueryRequest(
        shard_key=shard_key(config, request.partition),
        query=request.vector if isinstance(request, Rank) else request.words,
        using=_using(config, request),
        filter=request.filter,
        params=_params(config, request),
        limit=request.limit,
        with_payload=_selected(request.payload),
        with_vector=_dense(config, wanted=request.vectors),
    )


def _using(config: QdrantConfig, request: Rank | RankWords) -> str | None:
    return config.vector if isinstance(request, Rank) else str(config.words)


def _dense(config: QdrantConfig, *, wanted: bool) -> bool | list[str]:
    """Return the selector of the dense vector, without the words."""
    return [config.vector or ""] if wanted else False


def _params(config: QdrantConfig, request: Rank | RankWords | RankGroups) -> models.SearchParams | None:
    if isinstance(request, RankWords):
        if not request.idf:
            return None
        return models.SearchParams(idf=models.IdfCorpusParams(corpus=request.filter))
    if config.local or (request.hnsw_ef is None and not request.exact):
        return None
    return models.SearchParams(hnsw_ef=request.hnsw_ef, exact=True if request.exact else None)


def _selected(keys: tuple[str, ...]) -> models.PayloadSelectorInclude | bool:
    return models.PayloadSelectorInclude(include=list(keys)) if keys else False


def _order(request: Scroll) -> models.OrderBy | None:
    order = request.order
    if order is None:
        return None
    direction = models.Direction.DESC if order.descending else models.Direction.ASC
    return models.OrderBy(key=order.key, direction=direction, start_from=order.start)


def connect_arguments(config: QdrantConfig, base: Path) -> Mapping[str, Any]:
    """Return the arguments of either client for the configured server."""
    trusted = authority(base, config.ca_file)
    tls = {} if trusted is None else {"verify": trusted.context, "grpc_options": {"root_certificates": trusted.pem}}
    return {
        **tls,
        "url": config.url,
        "api_key": None if config.api_key is None else config.api_key.reveal(base),
        "prefer_grpc": config.grpc,
        "grpc_port": config.grpc_port,
        "timeout": config.request_timeout,
        "check_compatibility": False,  # another request, which only warns; the posture check reads the version
    }


class _Process(OneProcess):
    """The common state of the ports: one process, open or closed."""

    def __init__(self, config: QdrantConfig, *, debug: bool) -> None:
        super().__init__()
        check_client()
        self._config = config
        self._debug = debug
        self.parallel = 1 if config.local else config.parallel


class LocalPort(_Process):
    """Performs requests on the process's local client, one at a time."""

    def __init__(self, config: QdrantConfig, key: str, *, debug: bool, registry: str | None = None) -> None:
        super().__init__(config, debug=debug)
        self._local = locals_.acquire(key)
        if config.memory:
            self._begin(registry)

    def _begin(self, registry: str | None) -> None:
        """Create the collection of a memory store, which starts empty, so that it cannot have been provisioned.

        One without points notes the registry that it is opened with.
        """
        failed, local, name = None, self._local, self._config.collection
        with local.lock:
            try:
                if not local.client.collection_exists(name):
                    for step in steps(self._config, {}, None):
                        _apply(local.client, step)
                found = local.client.get_collection(name)
                if registry is not None and not found.points_count and kept_registry(found) is None:
                    _apply(local.client, KeepRegistry(name, registry))
            except Exception as error:  # noqa: BLE001 - mapped and raised below
                failed = mapped(error, write=True, debug=self._debug)
        if failed is not None:
            self.close()
            raise failed

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        self._check()
        local, failed = self._local, None
        with local.lock:
            try:
                return reply_of(request, call(local.client, self._config, request, timeout))
            except Exception as error:  # noqa: BLE001 - mapped and raised below
                missing = not isinstance(error, VectorACLError) and not self._provisioned()
                failed = mapped(error, write=isinstance(request, Write), debug=self._debug, missing=missing)
        raise failed

    def administer(self, work: Callable[[QdrantClient], None]) -> None:
        """Do *work* on the client."""
        self._check()
        failed = None
        with self._local.lock:
            try:
                work(self._local.client)
                locals_.enable_wal(self._local.client)  # a collection that was made just now
                self._local.keep_private()
            except Exception as error:  # noqa: BLE001 - mapped and raised below
                failed = mapped(error, write=True, debug=self._debug)
        if failed is not None:
            raise failed

    def _provisioned(self) -> bool:
        try:
            return self._local.client.collection_exists(self._config.collection)
        except Exception:  # noqa: BLE001 - a closed client, which the first error reports
            return True

    def close(self) -> None:
        """Let go of the local client."""
        if not self._closed:
            self._closed = True
            self._local.release()


class AsyncLocalPort:
    """The same for asyncio, in a thread: a search over many points takes a while."""

    parallel = 1

    def __init__(self, port: LocalPort) -> None:
        self._port = port

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        return await asyncio.to_thread(self._port.execute, request, timeout)

    async def close(self) -> None:
        """Let go of the local client."""
        self._port.close()


class QdrantPort(_Process):
    """The sync port of a server, with its own client or the application's."""

    def __init__(self, config: QdrantConfig, base: Path, *, debug: bool, client: QdrantClient | None = None) -> None:
        super().__init__(config, debug=debug)
        self._own = client is None
        self._server = server_of(config, given=client is not None)
        _check_passed_client(config, client)
        self._client = client or _new_client(lambda: QdrantClient(**connect_arguments(config, base)), debug=debug)

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        self._check()
        try:
            return reply_of(request, call(self._client, self._config, request, timeout))
        except Exception as error:  # noqa: BLE001 - mapped and raised below
            failed = mapped(error, write=isinstance(request, Write), debug=self._debug, server=self._server)
        raise failed

    def administer(self, work: Callable[[QdrantClient], None]) -> None:
        """Do *work* on the client."""
        self._check()
        try:
            work(self._client)
        except Exception as error:  # noqa: BLE001 - mapped and raised below
            failed = mapped(error, write=True, debug=self._debug, server=self._server)
        else:
            return
        raise failed

    def close(self) -> None:
        """Close the client, unless it is the application's."""
        if not self._closed:
            self._closed = True
            if self._own and os.getpid() == self._pid:
                self._client.close()


class AsyncQdrantPort(_Process):
    """The same for asyncio; *timeout* is kept exactly."""

    def __init__(
        self, config: QdrantConfig, base: Path, *, debug: bool, client: AsyncQdrantClient | None = None
    ) -> None:
        super().__init__(config, debug=debug)
        self._own = client is None
        self._server = server_of(config, given=client is not None)
        _check_passed_client(config, client)
        self._client = client or _new_client(lambda: AsyncQdrantClient(**connect_arguments(config, base)), debug=debug)

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        self._check()
        try:
            async with asyncio.timeout(timeout):
                return reply_of(request, await call(self._client, self._config, request, timeout))
        except TimeoutError:
            failed: VectorACLError = slow(self._server, rpc=self._config.grpc, write=isinstance(request, Write))
        except Exception as error:  # noqa: BLE001 - mapped and raised below
            failed = mapped(error, write=isinstance(request, Write), debug=self._debug, server=self._server)
        raise failed

    async def close(self) -> None:
        """Close the client, unless it is the application's."""
        if not self._closed:
            self._closed = True
            if self._own and os.getpid() == self._pid:
                await self._client.close()


def _check_passed_client(config: QdrantConfig, client: object) -> None:
    """Refuse a setting that has no effect on a client that was passed. Raises: ConfigError."""
    if client is not None and config.ca_file is not None:
        raise ConfigError(
            "ca_file has no effect on a client that was passed: the client decides which certificate authority it "
            "trusts. Remove ca_file, and pass `verify` to the client."
        )


def _new_client(make: Callable[[], Any], *, debug: bool) -> Any:
    """Return a new client. Its errors are mapped to errors without its arguments."""
    try:
        with warnings.catch_warnings():
            # The client warns about a key over http; the posture check reports that (QD012).
            warnings.simplefilter("ignore", UserWarning)
            return make()
    except VectorACLError:
        raise
    except Exception as error:  # noqa: BLE001 - mapped and raised below
        failed = ConfigError(f"The Qdrant client does not accept url and grpc_port ({type(error).__name__}).")
        failed.__cause__ = error if debug else None
    raise failed


class Administrator:
    """Looks at and changes what no request of a flow does, on the port's client; for `operator` only."""

    def __init__(self, port: LocalPort | QdrantPort, config: QdrantConfig) -> None:
        self._port = port
        self._config = config

    def cluster(self) -> Cluster:
        """Read how the collection's shards lie. Raises: StoreError."""
        clusters: list[Cluster] = []
        self._port.administer(lambda client: clusters.append(_cluster(client, self._config.collection)))
        return clusters[0]

    def places(self) -> frozenset[str]:
        """Return the identities of the collection: by the server's address, and by its process if telemetry names it.

        An alias is the collection that it stands for. Raises: StoreError.
        """
        assert self._config.url is not None
        servers, collections = [places.address(self._config.url, 6333)], [self._config.collection]

        def aliases(client: QdrantClient) -> None:
            targets = {one.alias_name: one.collection_name for one in client.get_aliases().aliases}
            collections[0] = targets.get(self._config.collection, self._config.collection)

        def process(client: QdrantClient) -> None:
            telemetry = client.http.service_api.telemetry(details_level=0).result
            if telemetry is not None and telemetry.id:
                servers.append(f"process {telemetry.id}")

        for look in (aliases, process):
            with suppress(StoreError):  # a key may have no right to it
                self._port.administer(look)
        return frozenset(f"{server}/{collections[0]}" for server in servers)

    def describe(self, name: str) -> models.CollectionInfo:
        """Read how the collection *name* is configured. Raises: StoreError."""
        infos: list[models.CollectionInfo] = []

        def work(client: QdrantClient) -> None:
            if not client.collection_exists(name):
                raise not_provisioned()
            infos.append(client.get_collection(name))

        self._port.administer(work)
        return infos[0]

    def read(
        self, name: str, where: models.Filter | None, limit: int, offset: Any, *, vectors: bool | list[str]
    ) -> tuple[list[models.Record], Any]:
        """Read one page of the points of the collection *name*, of all shards, with their whole payload."""
        pages: list[Any] = []
        self._port.administer(
            lambda client: pages.append(
                client.scroll(
                    name, scroll_filter=where, limit=limit, offset=offset, with_payload=True, with_vectors=vectors
                )
            )
        )
        points, after = pages[0]
        return points, after

    def write_words(
        self, points: list[models.PointVectors], where: models.Filter, shard: models.ShardKeyWithFallback | None
    ) -> None:
        """Write the words of those of *points* that still pass *where*. Raises: StoreError."""
        more: dict[str, Any] = {} if shard is None else {"shard_key_selector": shard}

        def work(client: QdrantClient) -> None:
            client.update_vectors(self._config.collection, points=points, wait=True, update_filter=where, **more)

        self._port.administer(work)

    def apply(self, step: Step) -> None:
        """Do *step*. Raises: StoreError."""
        self._port.administer(lambda client: _apply(client, step))

    def close(self) -> None:
        """Close the port."""
        self._port.close()


def _cluster(client: QdrantClient, name: str) -> Cluster:
    params = client.get_collection(name).config.params
    if params.sharding_method != models.ShardingMethod.CUSTOM:
        return Cluster(custom=False)
    info = client.collection_cluster_info(name)
    replicas: dict[str, dict[int, list[str]]] = {}
    shards: list[models.LocalShardInfo | models.RemoteShardInfo] = [*info.local_shards, *info.remote_shards]
    for shard in shards:
        replicas.setdefault(str(shard.shard_key), {}).setdefault(shard.shard_id, []).append(shard.state.value)
    key_of = {shard_id: key for key, some in replicas.items() for shard_id in some}
    moving = {key_of.get(one.to_shard_id if one.to_shard_id is not None else one.shard_id) for one in
              info.shard_transfers}  # fmt: skip
    states = {key: tuple(tuple(one) for one in some.values()) for key, some in replicas.items()}
    return Cluster(custom=True, states=states, moving=frozenset(one for one in moving if one is not None))


def _apply(client: QdrantClient, step: Step) -> None:
    match step:
        case CreateCollection():
            client.create_collection(
                step.name,
                vectors_config=step.vectors,
                sparse_vectors_config=step.words,
                sharding_method=models.ShardingMethod.CUSTOM if step.tiers else None,
                hnsw_config=step.hnsw,
                strict_mode_config=step.strict,
            )
        case KeepEmbedder() | KeepRegistry():
            client.update_collection(step.name, metadata=step.metadata)
        case CreateShard():
            state = models.ReplicaState.PARTIAL if step.partial else None
            client.create_shard_key(step.name, step.key, initial_state=state)
        case DropShard():
            client.delete_shard_key(step.name, step.key)
        case CopyTenant():
            copy = models.ReplicatePoints(filter=step.where, from_shard_key=step.source, to_shard_key=step.target)
            client.cluster_collection_update(step.name, models.ReplicatePointsOperation(replicate_points=copy))
        case CreateWords():
            params = models.SparseVectorConfig(modifier=step.params.modifier)
            client.create_vector_name(step.name, step.key, models.SparseVectorNameConfig(sparse=params))
        case UpdateWords():
            client.update_collection(step.name, sparse_vectors_config={step.key: step.params})
        case UpdateCollection():
            client.update_collection(step.name, hnsw_config=step.hnsw, strict_mode_config=step.strict)
        case CreateIndex():
            client.create_payload_index(step.name, field_name=step.key, field_schema=step.params, wait=True)
        case _:
            assert_never(step)
