"""`connect` and the object that it returns: the stores, policy, audit sink and embedder of one configuration."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from vectoracl._util.import_path import import_path, made_by
from vectoracl.access.policy import Policy, TenantPolicy
from vectoracl.adapter_api.contract import GRADES, AsyncPort, Flow, Grade, OpenContext, Opened, Operator, Port
from vectoracl.adapter_api.loading import load
from vectoracl.adapter_api.posture import Posture, demand, judged, with_findings
from vectoracl.adapter_api.versions import VersionTable, Witness
from vectoracl.audit.returned_hashes import ReturnedIds
from vectoracl.audit.sinks import JsonlSink, MemorySink, Sink
from vectoracl.client.governance import AsyncGovernance, Governance
from vectoracl.client.retriever import AsyncScopedRetriever, ScopedRetriever
from vectoracl.client.start_check import aposture_at_start, posture_at_start
from vectoracl.client.version_asserting import asserted_table, witnessing
from vectoracl.config import (
    EMBEDDER_TIMEOUT,
    AuditConfig,
    Config,
    IngestConfig,
    PolicyConfig,
    RegistryConfig,
    StoreConfig,
    adapter_config,
    read,
)
from vectoracl.engine.core_ports import (
    CORE_PORTS,
    EMBEDDING,
    AsyncCorePort,
    AsyncRegistryPort,
    CorePort,
    RegistryPort,
)
from vectoracl.engine.drivers import arun, run, wrapped
from vectoracl.engine.explain import Explanation, explain_flow
from vectoracl.engine.fair_queue import AsyncFairPort, AsyncGate, FairPort, Gate, Quota
from vectoracl.engine.governed_store import check_governable
from vectoracl.engine.governing import Governor
from vectoracl.engine.handle import Lifetime
from vectoracl.engine.operator_flows import accepting
from vectoracl.engine.pipeline import Caller, Pipeline, Store, check_supported
from vectoracl.engine.recorded_operator import recorded_operator
from vectoracl.engine.routes import MARK, Routes
from vectoracl.errors import (
    ClosedError,
    ConfigError,
    InvalidInputError,
    PostureError,
    RefusedError,
    StoreError,
    VectorACLError,
    without_context,
)
from vectoracl.filters.predicate import ALWAYS, Range
from vectoracl.filters.validation import check_fields
from vectoracl.ingestion.opening import open_validator
from vectoracl.ingestion.validators import NamedValidator
from vectoracl.model.actions import ALL_ACTIONS, Action, check_action, check_actions
from vectoracl.model.identifiers import check_id, check_tenant, check_text
from vectoracl.model.principal import Principal, check_principal
from vectoracl.registry.scopes import OPERATIONS
from vectoracl.text.embedders import Embedder, identity_of, open_embedder

if TYPE_CHECKING:
    from vectoracl.registry.sql_registry import Registry

T = TypeVar("T")
_MAX_HELPERS = 32
_MAX_TENANTS = 4096
REGISTRY_FILE = "vectoracl-registry.db"
"""The file of the registry, next to the configuration, where `registry.url` names no other."""
Source = str | os.PathLike[str] | Mapping[str, Any] | Config


@dataclass(slots=True)
class _OpenStore:
    """One opened store: its flows, its ports (created at first use) and its posture."""

    store: Store
    opened: Opened
    config: StoreConfig
    port: Port | None = None
    aport: AsyncPort | None = None
    posture: Posture | None = None
    asserts: VersionTable | None = None
    ports: dict[str, Port] = field(default_factory=dict)
    aports: dict[str, AsyncPort] = field(default_factory=dict)
    gate: Gate | None = None
    agate: AsyncGate | None = None
    fair: dict[str, Mapping[str, Port]] = field(default_factory=dict)
    afair: dict[str, Mapping[str, AsyncPort]] = field(default_factory=dict)

    def quota(self) -> Quota | None:
        """The limits of requests in flight; None if there are none."""
        config = self.config
        slots = self.opened.in_flight if config.in_flight is None else config.in_flight
        if slots is None and config.in_flight_per_tenant is None:
            return None
        wait = self.opened.in_flight_wait if config.in_flight_wait is None else config.in_flight_wait
        return Quota(self.store.name, slots, config.in_flight_per_tenant, wait)

    def ports_of(self, tenant: str) -> Mapping[str, Port]:
        """Return the sync ports for requests of *tenant*; "" is the operator."""
        if self.gate is None:
            return self.ports
        ports = self.fair.get(tenant)
        if ports is None:
            ports = {**self.ports, "store": FairPort(self.gate, self.ports, tenant)}
            _remember(self.fair, tenant, ports)
        return ports

    def aports_of(self, tenant: str) -> Mapping[str, AsyncPort]:
        """Return the async ports for requests of *tenant*."""
        if self.agate is None:
            return self.aports
        ports = self.afair.get(tenant)
        if ports is None:
            ports = {**self.aports, "store": AsyncFairPort(self.agate, self.aports, tenant)}
            _remember(self.afair, tenant, ports)
        return ports


def _remember(ports: dict[str, T], tenant: str, made: T) -> None:
    if len(ports) >= _MAX_TENANTS:
        ports.clear()
    ports[tenant] = made


class _TenantDriver:
    """The driver of a handle: drives its flows in turn with those of other tenants; all else is the VectorACL's."""

    __slots__ = ("_acl", "_tenant")

    def __init__(self, acl: Any, tenant: str) -> None:
        self._acl = acl
        self._tenant = tenant

    def run(self, store: Store, flow: Flow[T], timeout: float | None) -> T:
        return self._acl.run(store, flow, timeout, self._tenant)  # type: ignore[no-any-return]

    async def arun(self, store: Store, flow: Flow[T], timeout: float | None) -> T:
        return await self._acl.arun(store, flow, timeout, self._tenant)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._acl, name)


class _Base:
    """The base of `VectorACL` and `AsyncVectorACL`: everything except driving flows."""

    def __init__(
        self,
        config: Source,
        *,
        store: str | None = None,
        policy: Policy | None = None,
        sink: Sink | None = None,
        embedder: Embedder | None = None,
        clients: Mapping[str, Any] | None = None,
    ) -> None:
        self._clients = dict(clients or {})
        self.config, self._base = read(config, store=store)
        self._pid = os.getpid()
        self._lock = RLock()
        self._making = RLock()  # held while a port is created, and by close(), which must not wait for a store's reply
        self._closed = False
        self._stores: dict[str, _OpenStore] = {}
        # A given object counts even if it is falsy: an empty policy denies; it must not become the default policy.
        self._embedder = _open_embedder(self.config) if embedder is None else embedder
        self.embedder_identity = None if self._embedder is None else identity_of(self._embedder)
        debug = self.config.debug_errors
        if policy is None:
            policy = _open_policy(self.config.policy, self.config.tenants.shared, debug=debug)
        self.policy = policy
        validators = _open_validators(self.config)
        routes = self.config.tenants.routes
        self.routes = None if routes is None else Routes(self._base / routes, self._configured)
        self.registry = open_registry(self.config, self._base)
        self._registry_checked = False
        self.sink: Sink = _open_sink(self.config, self._base) if sink is None else sink
        ingest = self.config.ingest
        self.pipeline = Pipeline(
            self.policy,
            self.sink,
            self._route,
            debug=self.config.debug_errors,
            decision_ttl=self.config.policy.decision_ttl,
            returned=_open_returned(self.config.audit, self._base),
            registry=None if self.registry is None else self.registry.settings,
            routes=self.routes,
            sources=None if ingest is None or ingest.sources is None else frozenset(ingest.sources),
            validated=bool(validators),
        )
        self.registry_port = None if self.registry is None else RegistryPort(self.registry)
        self.core_port = CorePort(
            self.policy,
            self.sink,
            self._embedder,
            debug=self.config.debug_errors,
            embedder_timeout=EMBEDDER_TIMEOUT if self.config.embedder is None else self.config.embedder.timeout,
            validators=validators,
            validator_timeout=IngestConfig().timeout if ingest is None else ingest.timeout,
        )

    def __repr__(self) -> str:
        stores = ", ".join(f"{name} ({one.adapter})" for name, one in self.config.stores.items())
        return f"<{type(self).__name__} over {stores}>"

    def place(self, store: str) -> object:
        """Return a key of *store*, equal only for the same settings; two keys may still mean one physical store."""
        config = self.config.stores[store]
        own = config.own()
        if store in self._clients or (config.adapter == "memory" and own.get("name") is None):
            return id(self), store
        return self._base, config.adapter, own

    def _own_place(self, store: str) -> frozenset[str]:
        return frozenset({f"by its configuration: {self.place(store)!r}"})

    def store_of(self, tenant: str) -> str:
        """Return the name of the store to which the configuration routes *tenant*. Raises: InvalidTenantError."""
        return self._route(check_tenant(tenant))

    def meaning_of(self, store: str) -> dict[str, object]:
        """Return what decides what rows mean in *store*: adapter, vectors, metadata fields and embedder; no secrets.

        Raises: ClosedError, ConfigError.
        """
        named = self._named(self._known(store))
        can = named.store.capabilities
        return {
            "adapter": named.config.adapter,
            "dimension": can.dimension,
            "metric": can.metric,
            "vectors": can.vectors,
            "fields": {name: kind.value for name, kind in sorted(named.store.fields.items())},
            "embedder": self.embedder_identity,
        }

    def keeps(self, store: str) -> bool:
        """Return whether the rows of *store* outlive this process. Raises: ClosedError, ConfigError."""
        return self._named(self._known(store)).opened.kept

    def _configured(self, tenant: str) -> str:
        return self.config.tenants.store.get(tenant, self.config.default)

    def _route(self, tenant: str) -> str:
        """Return the name of the store of *tenant*. Raises: ConfigError if its route cannot be read."""
        if self.routes is None:
            return self._configured(tenant)
        store = self.routes.store_of(tenant)
        if store not in self.config.stores:
            raise ConfigError(
                f"The tenant {tenant!a} was switched to the store {store!r}, which this configuration does not have. "
                "Give every process the configuration with that store."
            )
        return store

    def _known(self, store: str | None) -> str:
        if store is not None and store not in self.config.stores:
            raise ConfigError(
                f"There is no store {store!r} in the configuration. Its stores: "
                f"{', '.join(sorted(self.config.stores))}."
            )
        return store or self.config.default

    def _alive(self) -> bool:
        return not self._closed

    @without_context
    def _named(self, name: str) -> _OpenStore:
        """Return the store, opened but not contacted. Raises: ClosedError, ConfigError, AdapterNotFoundError."""
        if self._closed:
            raise ClosedError("This VectorACL was closed.")
        if os.getpid() != self._pid:
            raise ClosedError("A VectorACL cannot be used across a fork. Call connect() in the child process.")
        named = self._stores.get(name)
        if named is not None:
            return named
        with self._lock:
            named = self._stores.get(name)
            if named is None:
                config = self.config.stores[name]
                hooks = load(config.adapter, config.distribution)
                fields = check_fields(config.metadata)
                model = adapter_config(hooks.vectoracl_config_model(), config, name)
                context = OpenContext(
                    name,
                    fields,
                    str(self._base),
                    self.config.debug_errors,
                    self._clients.get(name),
                    self.embedder_identity,
                    None if self.registry is None else self._registry_identity(),
                    self.registry is not None,
                )
                with self._foreign(config.adapter):
                    opened: Opened = hooks.vectoracl_open(config=model, context=context)
                can = opened.adapter.capabilities
                if self._embedder is not None and self._embedder.dimension != can.dimension:
                    raise ConfigError(
                        f"The embedder's dimension is {self._embedder.dimension} and that of the store {name!r} is "
                        f"{can.dimension}. Configure the same dimension for both."
                    )
                embedder = partial(self._kept_embedder, name)
                asserts = partial(self._asserts, name)
                store = Store(name, config.adapter, opened.adapter, fields, embedder, config.expiring, asserts)
                if config.expiring:
                    check_supported(Range("@expires", gt=0.0), can)
                named = _OpenStore(store, opened, config)
                if self.registry is not None:
                    check_governable(named.store)
                self._stores[name] = named
        return named

    def _registry_identity(self) -> str | None:
        """Return the id that marks the stores of this registry; None before its tables were created."""
        assert self.registry is not None
        return self.registry.identity() if self.registry.ready() else None

    def _asserts(self, name: str) -> VersionTable | None:
        return self._stores[name].asserts

    def _asked_for_versions(self, named: _OpenStore) -> Flow[Witness | None] | None:
        """Return the flow that asks the store where it reaches the registry's table; None to ask nothing."""
        one = self.config.registry
        return witnessing(self.registry, named.store.adapter) if one is not None and one.assert_versions else None

    def _kept_embedder(self, name: str) -> str | None:
        posture = self._stores[name].posture
        return None if posture is None else posture.embedder

    def _port(self, named: _OpenStore, kind: Literal["port", "aport"]) -> Any:
        """Return the port of *named*, created once for all threads. Raises: ClosedError."""
        with self._making:
            if self._closed:
                raise ClosedError("This VectorACL was closed.")
            if getattr(named, kind) is None:
                setattr(named, kind, getattr(named.opened, kind)())
            return getattr(named, kind)

    def _mark_closed(self) -> bool:
        """Let no thread create a port from now on; return False if it was closed already."""
        with self._making:
            before, self._closed = self._closed, True
        return not before

    @contextmanager
    def _foreign(self, adapter: str) -> Iterator[None]:
        """Wrap an exception that the adapter did not map: its text may quote a connection string."""
        try:
            yield
        except VectorACLError:
            raise
        except Exception as error:  # noqa: BLE001 - raised again as a StoreError
            debug = self.config.debug_errors
            message = (
                f"The adapter {adapter!r} raised an unexpected {type(error).__name__} while its store was opened. Set "
                "debug_errors = true to see it as the cause of this error."
            )
            raise wrapped(error, message, debug=debug, code="internal") from (error if debug else None)

    def _check_registry(self, named: _OpenStore, posture: Posture) -> None:
        """Refuse a store that another registry governs, or one that this process would read without it.

        Raises: PostureError; ConfigError where the registry's tables are not those of this version; StoreError.
        """
        if self.registry is not None and not self._registry_checked:
            from vectoracl.registry import migrate

            migrate.check(self.registry.database)
            self.registry.check_protected()
            self.registry.compare_journal()
            self._registry_checked = True
        identity = None if self.registry is None else self.registry.identity()
        if (posture.registry or "").startswith(MARK):
            self._check_routes(named.store.name, posture.registry)
        elif posture.registry != identity:
            raise PostureError(other_registry(named.store.name, posture.registry, identity))

    def _check_routes(self, store: str, marked: str | None) -> None:
        """Refuse a store from which tenants were switched by other routes. Raises: PostureError, ConfigError."""
        if self.routes is None or self.routes.mark != marked:
            raise PostureError(
                f"Tenants were switched from the store {store!r} to another one, and this configuration does not name "
                "the folder of the routes that say so: it would show rows that are out of date. Set [tenants] routes "
                "to the folder that the other processes use."
            )

    def _demand(self, named: _OpenStore, posture: Posture) -> None:
        """Refuse a store whose actual posture is weaker than the required grade. Raises: PostureError."""
        self._check_registry(named, posture)
        demanded: Grade = self.config.minimum_grade or named.store.capabilities.grade
        reached = GRADES.index(posture.grade) if posture.grade in GRADES else 0
        if reached >= GRADES.index(demanded):
            return
        lowering = [one for one in posture.findings if one.rule.lowers]
        listed = "".join(
            f"\n  {one.rule.id} {one.subject}: {one.message}\n    {one.fix.splitlines()[0] if one.fix else ''}"
            for one in lowering[:8]
        )
        error = PostureError(
            f"The store {named.store.name!r} reaches the isolation grade {posture.grade!r}; {demanded!r} is required."
            f"{listed}\n`vectoracl check` shows how to fix it."
        )
        error.findings = tuple(lowering)
        raise error

    def _satisfies(self, named: _OpenStore, posture: Posture) -> bool:
        try:
            self._demand(named, posture)
        except PostureError:
            return False
        return True

    def _with_registry(self, posture: Posture) -> Posture:
        """Return *posture* with the findings about the tables of the registry. Raises: StoreError."""
        if self.registry is None:
            return posture
        return with_findings(posture, self.registry.deviations())

    def _demanded(self, name: str, posture: Posture) -> Posture:
        return demand(posture, self.config.minimum_grade, name, GRADES)

    def _caller(self, principal: object, actions: Iterable[Action] | None, source: str | None = None) -> Caller:
        who = check_principal(principal)
        if source is not None:
            source = check_id(source, "source")
            if source in OPERATIONS:
                raise InvalidInputError(
                    f"{source!r} is the name of an operation; give the pipeline another one.", field="source"
                )
        return Caller(who, ALL_ACTIONS if actions is None else check_actions(actions), ALWAYS, source)

    def _governance(self, make: Callable[..., T], principal: object, *, operator: bool = False, reason: str = "") -> T:
        who = check_principal(principal)
        if self.registry is None:
            raise ConfigError(
                "There is no [registry] in the configuration, so there is nothing to govern. Add it and run `vectoracl "
                "provision` (docs/governance.md)."
            )
        name = self._route(who.tenant)
        driver = _TenantDriver(self, who.tenant)
        governor = Governor(who, operator)
        life = Lifetime(self._alive)
        return make(self.pipeline, lambda: self._named(name).store, driver, governor, life, reason, self._sign)

    @cached_property
    def _sign(self) -> Callable[[Mapping[str, Any]], bytes]:
        """The maker of receipts. Raises: ConfigError for a key that cannot be used."""
        from vectoracl.registry.receipts import Signer

        one = self.config.registry
        key = None if one is None or one.receipt_key is None else one.receipt_key.reveal(self._base)
        return Signer(key).receipt

    def _handle(
        self,
        make: Callable[..., T],
        principal: Principal,
        actions: Iterable[Action] | None,
        source: str | None,
    ) -> T:
        caller = self._caller(principal, actions, source)
        tenant = caller.principal.tenant
        name = self._route(tenant)
        driver = _TenantDriver(self, tenant)

        def store() -> Store:
            return self._named(name if self.routes is None else self._route(tenant)).store

        return make(self.pipeline, store, driver, caller, Lifetime(self._alive))

    def _explain(self, principal: object, action: object, document: str | None) -> tuple[Store, Flow[Explanation]]:
        caller = self._caller(principal, None)
        store = self._named(self._route(caller.principal.tenant)).store
        return store, explain_flow(self.pipeline, store, caller, check_action(action), document)


class VectorACL(_Base):
    """An opened configuration, which returns handles for principals. Thread-safe; it cannot be used across a fork.

    As a context manager it closes itself at the end of the block.
    """

    _helpers: ThreadPoolExecutor | None = None

    def scoped(
        self, principal: Principal, *, actions: Iterable[Action] | None = None, source: str | None = None
    ) -> ScopedRetriever:
        """Return a handle bound to *principal*. Nothing is contacted.

        Args:
            principal: The verified principal for which the handle acts.
            actions: The actions that the handle may do, if the policy permits them; None means all actions.
            source: The name of the pipeline that writes with this handle, noted in each chunk next to the operation.
                `[ingest] sources` may list those that may write.

        Returns:
            The handle. The policy is asked at each of its calls.

        Raises:
            InvalidPrincipalError: *principal* is not a `Principal`.
            InvalidInputError: *actions* holds an unknown action.
        """
        return self._handle(ScopedRetriever, principal, actions, source)

    def governance(self, principal: Principal) -> Governance:
        """Return a handle that governs the tenant of *principal*: labels, holds, retention, quarantine, erasure.

        Args:
            principal: A principal whom `[registry] governors` names; for anyone else every method is denied.

        Returns:
            The handle. Nothing is contacted.

        Raises:
            ConfigError: There is no `[registry]`.
            InvalidPrincipalError: *principal* is not a `Principal`.
        """
        return self._governance(Governance, principal)

    def run(self, store: Store, flow: Flow[T], timeout: float | None, tenant: str = "") -> T:
        """Drive *flow* on *store* for *tenant*; called by handles. *timeout* is in seconds."""
        named = self._stores.get(store.name)
        if named is None or named.posture is None or self._closed:
            named = self._ready(store.name)
        if timeout is None:
            limit = named.config.timeout
            return run(flow, named.ports_of(tenant), timeout=limit, pool=self._threads, separate_limit=EMBEDDING)
        return run(flow, named.ports_of(tenant), timeout=timeout, pool=self._threads)

    def _threads(self) -> ThreadPoolExecutor:
        """Return the threads that read several partitions concurrently, created when a call first needs them."""
        if self._helpers is None:
            with self._lock:
                if self._helpers is None:
                    self._helpers = ThreadPoolExecutor(_MAX_HELPERS, thread_name_prefix="vectoracl-leg")
        return self._helpers

    def _ready(self, name: str) -> _OpenStore:
        named = self._named(name)
        if named.posture is None:
            with self._lock:
                if named.posture is None:
                    self._look(named)
        return named

    def _look(self, named: _OpenStore) -> Posture:
        posture = self._posture(named, start=True)
        assert named.port is not None
        self._demand(named, posture)
        self._accepting(named, "connect", posture)
        found = self.witness(named)
        named.asserts = None if self.registry is None else asserted_table(self.registry, found)
        named.ports = {**dict.fromkeys(CORE_PORTS, self.core_port), "store": named.port}
        if self.registry_port is not None:
            named.ports["registry"] = self.registry_port
        quota = named.quota()
        named.gate = None if quota is None else Gate(quota)
        named.posture = posture
        return posture

    def witness(self, named: _OpenStore) -> Witness | None:
        """Return how the store reaches the registry's table; None if that is not known."""
        flow = self._asked_for_versions(named)
        if flow is None:
            return None
        try:
            return run(flow, {"store": self._port(named, "port")}, timeout=named.config.timeout)
        except StoreError:
            return None

    def _accepting(self, named: _OpenStore, door: str, posture: Posture) -> None:
        flow = accepting(self.pipeline, named.store, door, posture)
        run(flow, {"audit": self.core_port}, timeout=named.config.timeout)

    @without_context
    def _posture(self, named: _OpenStore, *, start: bool = False) -> Posture:
        """Measure the posture; with *start*, use one that was kept if nothing has changed since."""
        with self._foreign(named.config.adapter):
            port: Port = self._port(named, "port")
            perform = partial(run, ports={"store": port}, timeout=named.config.timeout)
            if start and named.config.keep_posture:
                posture = posture_at_start(named.store, perform, satisfies=partial(self._satisfies, named))
            else:
                posture = perform(named.store.adapter.posture())
            return judged(posture, named.store.name, self.embedder_identity)

    def open(self) -> Self:
        """Contact the default store and check its posture now.

        Returns:
            This object.

        Raises:
            StoreError: The store cannot be reached.
            PostureError: The store does not reach the required isolation grade.
        """
        self._ready(self.config.default)
        return self

    def check(self) -> dict[str, Posture]:
        """Read the actual posture of every configured store, without refusing weak ones.

        Findings that the configuration accepts do not lower the grade; they are recorded in the audit.

        Returns:
            The posture of each store, by the store's name.

        Raises:
            StoreError: A store cannot be reached.
        """
        return {name: self.check_store(name) for name in self.config.stores}

    def check_store(self, store: str) -> Posture:
        """Read the actual posture of one store; see `check`.

        Args:
            store: The store's name in the configuration.

        Returns:
            The posture.

        Raises:
            StoreError: The store cannot be reached.
            ConfigError: There is no such store.
        """
        name = self._known(store)
        posture = self._with_registry(self._demanded(name, self._posture(self._named(name))))
        self._accepting(self._named(name), "check", posture)
        return posture

    @without_context
    def store_identity(self, store: str) -> frozenset[str]:
        """Return texts that identify the physical store; `store_identity.shared` compares those of two stores.

        It contacts the store and requires no posture.

        Args:
            store: The store's name in the configuration.

        Returns:
            Texts from the server and its address. Two stores with a text in common are one.

        Raises:
            StoreError: The store cannot be reached.
        """
        named = self._named(self._known(store))
        with self._foreign(named.config.adapter):
            port: Port = self._port(named, "port")
            return frozenset(f"{named.config.adapter}: {one}" for one in named.opened.identity(port))

    def identity_for_journal(self, store: str) -> frozenset[str]:
        """Return texts that identify *store* in the journal of a load; never empty. Raises: StoreError."""
        return self.store_identity(store) or self._own_place(store)

    def operator(self, store: str | None = None, *, reason: str = "acl.operator()") -> Operator:
        """Return the operator of a store: provisioning and tenant moves, with the operator's own credentials.

        Every method except `close` writes an audit record with *reason* before it acts, and its outcome afterwards; it
        does nothing if the record cannot be written. This call contacts nothing and requires no posture, since an
        operator is the way to repair a store.

        Args:
            store: The store's name; None means the default store.
            reason: The reason that is recorded.

        Returns:
            The operator; call its `close` at the end.

        Raises:
            RefusedError: The adapter has nothing to operate.
            ConfigError: There is no such store, or the operator's credentials are not configured.
            InvalidInputError: *reason* is blank.
        """
        if not isinstance(reason, str) or not reason.strip():
            raise InvalidInputError("reason must be a non-blank str that states why.", field="reason")
        raw = self._operator(store)
        named = self._named(self._known(store))
        return recorded_operator(raw, self.pipeline, named.store, self.core_port, check_text(reason, "reason", 1024))

    @without_context
    def _operator(self, store: str | None) -> Operator:
        """Return the adapter's own operator, whose calls are not recorded; `hazmat` writes the records."""
        named = self._named(self._known(store))
        if named.opened.operator is None:
            raise RefusedError(
                f"The adapter {named.config.adapter!r} has no operator: nothing to provision and no tenants to move.",
                field="adapter",
            )
        with self._foreign(named.config.adapter):
            return named.opened.operator()

    def server(self, store: str | None = None) -> str:
        """Return a description of the server of *store* for reports; it is known after the first contact.

        Args:
            store: The store's name; None means the default store.

        Returns:
            A short text, for example a product and its version.
        """
        return self._named(self._known(store)).opened.server()

    def explain(self, principal: Principal, action: Action = "search", *, document: str | None = None) -> Explanation:
        """Explain what *principal* may see: the decision, its reasons, and the number of visible chunks.

        Args:
            principal: The principal to explain.
            action: The action to decide.
            document: A document whose visible chunks are counted too. Another tenant's document reads like one that
                does not exist.

        Returns:
            The explanation.

        Raises:
            InvalidInputError: *action* or *document* is invalid.
            RefusedError: The scope has no form on this store.
            StoreError: The store or the audit sink failed.
        """
        store, flow = self._explain(principal, action, document)
        return self.run(store, flow, None, principal.tenant)

    @without_context
    def close(self) -> None:
        """Close every store and the audit sink; handles raise ClosedError from then on. It can be called again.

        Raises:
            StoreError: Closing failed; the code is "audit" if outcomes could not be written. Everything else was
                closed first, and notes list further errors.
        """
        if os.getpid() != self._pid:  # the parent's connections and its audit file are not the child's to close
            self._closed = True
            return
        if not self._mark_closed():
            return
        closing = _CloseAll(debug=self.config.debug_errors)
        for named in self._stores.values():
            if named.port is not None:
                with closing.of(f"The store {named.store.name!r}"):
                    named.port.close()
        if self._helpers is not None:
            self._helpers.shutdown(wait=False)
        self.core_port.close()
        if self.registry_port is not None:
            with closing.of("The registry"):
                self.registry_port.close()
        self.pipeline.settle_rest()
        with closing.of("The audit sink"):
            self.sink.close()
        closing.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except VectorACLError as closing:
            _attach(closing, error)


class AsyncVectorACL(_Base):
    """`VectorACL` for asyncio: opened at first use, closed with `await acl.close()`, both in one event loop.

    The stores' clients hold sockets and locks of the loop in which they were opened; in another loop they would hang,
    or fail in the background. So the object belongs to the loop of its first use; any other loop gets ClosedError.
    """

    def __init__(self, config: Source, **given: Any) -> None:
        super().__init__(config, **given)
        self._core_async = AsyncCorePort(self.core_port)
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _check_loop(self) -> None:
        """Bind to the running loop at first use. Raises: ClosedError in any other loop."""
        running = asyncio.get_running_loop()
        if self._loop is None:
            with self._lock:
                self._loop = self._loop or running
        if self._loop is not running:
            raise ClosedError(
                "An AsyncVectorACL can only be used in the event loop of its first use, and this is another loop. Call "
                "aconnect() in each loop (each asyncio.run), or use connect() from threads."
            )

    def scoped(
        self, principal: Principal, *, actions: Iterable[Action] | None = None, source: str | None = None
    ) -> AsyncScopedRetriever:
        """Return a handle bound to *principal*; see `VectorACL.scoped`."""
        return self._handle(AsyncScopedRetriever, principal, actions, source)

    def governance(self, principal: Principal) -> AsyncGovernance:
        """Return a handle that governs the tenant of *principal*; see `VectorACL.governance`."""
        return self._governance(AsyncGovernance, principal)

    async def arun(self, store: Store, flow: Flow[T], timeout: float | None, tenant: str = "") -> T:
        """Drive *flow* on *store* for *tenant*; called by handles. *timeout* is in seconds."""
        named = await self._ready(store.name)
        if timeout is None:
            limit = named.config.timeout
            return await arun(flow, named.aports_of(tenant), timeout=limit, separate_limit=EMBEDDING)
        return await arun(flow, named.aports_of(tenant), timeout=timeout)

    async def _ready(self, name: str) -> _OpenStore:
        named = self._named(name)
        self._check_loop()
        if named.posture is None:
            async with self._opening:
                if named.posture is None:
                    posture = await self._posture(named, start=True)
                    await asyncio.to_thread(self._demand, named, posture)
                    await self._accepting(named, "connect", posture)
                    if self.registry is not None:
                        found = await self._witness(named)
                        named.asserts = await asyncio.to_thread(asserted_table, self.registry, found)
                    assert named.aport is not None
                    named.aports = {**dict.fromkeys(CORE_PORTS, self._core_async), "store": named.aport}
                    if self.registry_port is not None:
                        named.aports["registry"] = AsyncRegistryPort(self.registry_port)
                    quota = named.quota()
                    named.agate = None if quota is None else AsyncGate(quota)
                    named.posture = posture
        return named

    async def _witness(self, named: _OpenStore) -> Witness | None:
        flow = self._asked_for_versions(named)
        if flow is None or named.aport is None:
            return None
        try:
            return await arun(flow, {"store": named.aport}, timeout=named.config.timeout)
        except StoreError:
            return None

    async def _accepting(self, named: _OpenStore, door: str, posture: Posture) -> None:
        flow = accepting(self.pipeline, named.store, door, posture)
        await arun(flow, {"audit": self._core_async}, timeout=named.config.timeout)

    @without_context
    async def _posture(self, named: _OpenStore, *, start: bool = False) -> Posture:
        with self._foreign(named.config.adapter):
            # Created and stored in the thread: if the caller is cancelled, close() still finds the port.
            aport: Any = named.aport or await asyncio.to_thread(self._port, named, "aport")
            perform = partial(arun, ports={"store": aport}, timeout=named.config.timeout)
            if start and named.config.keep_posture:
                posture = await aposture_at_start(named.store, perform, satisfies=partial(self._satisfies, named))
            else:
                posture = await perform(named.store.adapter.posture())
            return judged(posture, named.store.name, self.embedder_identity)

    async def open(self) -> Self:
        """Contact the default store and check its posture now. Raises: StoreError, PostureError."""
        await self._ready(self.config.default)
        return self

    async def check(self) -> dict[str, Posture]:
        """Read the real posture of every configured store; see `VectorACL.check`."""
        return {name: await self.check_store(name) for name in self.config.stores}

    async def check_store(self, store: str) -> Posture:
        """Read the real posture of *store* alone; see `VectorACL.check_store`."""
        self._check_loop()
        name = self._known(store)
        measured = self._demanded(name, await self._posture(self._named(name)))
        posture = await asyncio.to_thread(self._with_registry, measured)
        await self._accepting(self._named(name), "check", posture)
        return posture

    async def store_identity(self, store: str) -> frozenset[str]:
        """See `VectorACL.store_identity`."""
        named = self._named(self._known(store))

        def found() -> frozenset[str]:
            with self._foreign(named.config.adapter):
                port = named.opened.port()
                try:
                    texts = named.opened.identity(port)
                finally:
                    port.close()
            return frozenset(f"{named.config.adapter}: {one}" for one in texts)

        return await asyncio.to_thread(found)

    async def identity_for_journal(self, store: str) -> frozenset[str]:
        """See `VectorACL.identity_for_journal`."""
        return await self.store_identity(store) or self._own_place(store)

    async def explain(
        self, principal: Principal, action: Action = "search", *, document: str | None = None
    ) -> Explanation:
        """See `VectorACL.explain`."""
        store, flow = self._explain(principal, action, document)
        return await self.arun(store, flow, None, principal.tenant)

    @without_context
    async def close(self) -> None:
        """Close every store and the audit sink; see `VectorACL.close`.

        Raises:
            StoreError: Closing failed.
            ClosedError: It was called in another event loop.
        """
        if self._closed:
            return
        if os.getpid() != self._pid:
            self._closed = True
            return
        if self._stores:
            self._check_loop()
        self._closed = True
        closing = _CloseAll(debug=self.config.debug_errors)
        if self._stores:  # a port that is being created is finished first; in a thread, since that may take long
            with closing.of("A port that was being created"):
                await _run_to_completion(self._mark_closed)
        for named in self._stores.values():
            if named.aport is not None:
                with closing.of(f"The store {named.store.name!r}"):
                    await named.aport.close()
        self.core_port.close()
        if self.registry_port is not None:
            with closing.of("The registry"):
                self.registry_port.close()
        self.pipeline.settle_rest()
        with closing.of("The audit sink"):
            if self.core_port.sink_is_quick():
                self.sink.close()
            else:
                await _run_to_completion(self.sink.close)
        closing.finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except VectorACLError as closing:
            _attach(closing, error)


def connect(
    config: Source,
    *,
    store: str | None = None,
    policy: Policy | None = None,
    sink: Sink | None = None,
    embedder: Embedder | None = None,
    clients: Mapping[str, Any] | None = None,
) -> VectorACL:
    """Open a configuration, contact its default store and check that store's posture.

    Args:
        config: The path of a TOML file, a dict or a `Config`.
        store: The name of the default store; overrides the configuration.
        policy: The policy; overrides the configuration.
        sink: The audit sink; overrides the configuration.
        embedder: The embedder; overrides the configuration.
        clients: The application's own clients by the store's name (pgvector: a psycopg pool). They stay open.

    Returns:
        The opened configuration; use it as a context manager, or call `close`.

    Raises:
        ConfigError: The configuration is wrong.
        AdapterNotFoundError: The adapter is not installed.
        PostureError: The store does not reach the required isolation grade.
        StoreError: The store cannot be reached.
    """
    acl = VectorACL(config, store=store, policy=policy, sink=sink, embedder=embedder, clients=clients)
    try:
        return acl.open()
    except BaseException as error:
        acl.__exit__(type(error), error, error.__traceback__)
        raise


def aconnect(
    config: Source,
    *,
    store: str | None = None,
    policy: Policy | None = None,
    sink: Sink | None = None,
    embedder: Embedder | None = None,
    clients: Mapping[str, Any] | None = None,
) -> AsyncVectorACL:
    """Return the asyncio form of `connect`, opened at first use or by `await acl.open()`.

    Args:
        config: See `connect`.
        store: See `connect`.
        policy: See `connect`.
        sink: See `connect`.
        embedder: See `connect`.
        clients: The application's own asyncio clients by the store's name.

    Returns:
        The configuration, not yet opened.

    Raises:
        ConfigError: The configuration is wrong.
    """
    return AsyncVectorACL(config, store=store, policy=policy, sink=sink, embedder=embedder, clients=clients)


async def _run_to_completion(work: Callable[[], object]) -> None:
    """Run *work* in a thread to its end, even if the caller is cancelled; then raise the cancellation."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    failed = task.exception()
    if cancelled is None:
        task.result()
        return
    if failed is not None:
        cancelled.add_note(f"and then: {type(failed).__name__}")
    raise cancelled


class _CloseAll:
    """Closes several objects in turn, whatever fails, and raises the first error at the end."""

    def __init__(self, *, debug: bool) -> None:
        self._debug = debug
        self._first: BaseException | None = None

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Collect an error of the block, which closes *what* (the start of a sentence), and continue."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - raised after the rest was closed
            if isinstance(error, Exception) and not isinstance(error, VectorACLError):
                message = (
                    f"{what} could not be closed ({type(error).__name__}). Everything else was closed. Set "
                    "debug_errors = true to see the cause."
                )
                error = wrapped(error, message, debug=self._debug, code="close")
            if self._first is None:
                self._first = error
            elif not isinstance(error, Exception) and isinstance(self._first, Exception):
                self._first = error  # Ctrl-C and cancellation come before what merely failed
            else:
                self._first.add_note(f"and then: {error}")

    def finish(self) -> None:
        """Raise the first error, if there was one."""
        if self._first is not None:
            raise self._first from self._first.__cause__


def _attach(closing: VectorACLError, error: BaseException | None) -> None:
    """Attach *closing*, an error of closing, as a note to *error*, which ended the block. Raises: *closing* if None."""
    if error is None:
        raise closing
    error.add_note(f"and then: {closing}")


def _open_embedder(config: Config) -> Embedder | None:
    one = config.embedder
    return None if one is None else open_embedder(one.use, dimension=one.dimension, allow_import=one.allow_import)


def _open_validators(config: Config) -> tuple[NamedValidator, ...]:
    return tuple(
        open_validator(
            one.use,
            one.name or one.use,
            one.options,
            key=f"ingest.validators[{number}]",
            allow_import=one.allow_import,
            debug=config.debug_errors,
        )
        for number, one in enumerate(() if config.ingest is None else config.ingest.validators)
    )


@without_context
def open_registry(config: Config, base: Path) -> Registry | None:
    """Return the registry of *config*, not contacted; None without `[registry]`. Raises: ConfigError."""
    one = config.registry
    if one is None:
        return None
    try:
        from vectoracl.registry.sql_registry import Registry
    except ModuleNotFoundError:
        raise ConfigError(
            "[registry] needs SQLAlchemy and Alembic: pip install 'sqlalchemy>=2.0.30' 'alembic>=1.14'"
        ) from None
    settings = one.settings(config.tenants.shared)
    url = f"sqlite:///{base / REGISTRY_FILE}" if one.url is None else _database_url(one.url.reveal(base), base)
    owner = None if one.owner_url is None else one.owner_url.reveal(base)
    journal = _journal_url(one, base, url)
    registry = Registry(url, settings, journal=journal, owner_url=owner, schema=one.schema_name)
    remote = sorted(name for name, store in config.stores.items() if store.adapter != "memory")
    if registry.path is not None and remote and not one.single_host:
        registry.close()
        raise ConfigError(
            f"The registry is a file of this host, and other hosts may reach the stores {', '.join(remote)}; they "
            "would not see its changes. Set registry.url to PostgreSQL, or single_host = true if only this host uses "
            "them."
        )
    return registry


def _database_url(url: str, base: Path) -> str:
    """Return *url*, with a relative file taken from *base*."""
    if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        return f"sqlite:///{base / url.removeprefix('sqlite:///')}"
    return url


def _journal_url(one: RegistryConfig, base: Path, registry: str) -> str | None:
    """Return the URL of the registry's journal; None without one. Raises: ConfigError."""
    if one.journal is None:
        return None
    url = _database_url(one.journal.reveal(base), base)
    if url == registry:
        raise ConfigError("registry.journal must be another database: it has to survive when the registry is restored.")
    return url


def other_registry(store: str, marked: str | None, own: str | None) -> str:
    """Return the text of the refusal of a store that is not marked by the configured registry."""
    if own is None:
        return (
            f"The store {store!r} is governed by a registry, and the configuration has no [registry]: it would show "
            "what the registry hides. Configure the registry."
        )
    if marked is None:
        return (
            f"The store {store!r} is not yet under the registry. Run `vectoracl provision`, which marks it and "
            "registers the documents that it holds."
        )
    return (
        f"The store {store!r} is governed by another registry. Configure that one; if it was restored or replaced on "
        "purpose, its documents have to be registered again."
    )


@without_context
def _open_policy(config: PolicyConfig, shared: tuple[str, ...], *, debug: bool = False) -> Policy:
    if config.use == "tenant":
        return TenantPolicy(tuple(check_tenant(one) for one in shared))
    if not config.allow_import:
        raise ConfigError(
            "policy.use is an import path, which runs code. If you trust it, set allow_import = true under [policy]."
        )
    policy = import_path(config.use, "policy.use")
    if not isinstance(policy, Policy) and callable(policy):
        policy = made_by(policy, "policy.use", "policy", debug=debug)
    if not isinstance(policy, Policy):
        raise ConfigError("policy.use must name a Policy (version and decide) or a callable that returns one.")
    return policy


def _open_returned(config: AuditConfig, base: Path) -> ReturnedIds | None:
    return None if config.key is None else ReturnedIds(config.key.reveal(base))


def _open_sink(config: Config, base: Path) -> Sink:
    if config.audit.sink == "jsonl":
        assert config.audit.path is not None
        return JsonlSink(base / config.audit.path, fsync=config.audit.fsync)
    return MemorySink()
