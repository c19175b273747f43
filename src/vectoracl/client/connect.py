"""`connect` and the object that it returns: the stores, policy, audit sink and embedder of one configuration."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from vectoracl._util.import_path import import_path
from vectoracl.access.policy import Policy, TenantPolicy
from vectoracl.adapter_api.contract import GRADES, AsyncPort, Flow, Grade, OpenContext, Opened, Operator, Port
from vectoracl.adapter_api.loading import load
from vectoracl.adapter_api.posture import Posture, demand, judged
from vectoracl.audit.returned_hashes import ReturnedIds
from vectoracl.audit.sinks import JsonlSink, MemorySink, Sink
from vectoracl.client.retriever import AsyncScopedRetriever, ScopedRetriever
from vectoracl.config import EMBEDDER_TIMEOUT, AuditConfig, Config, PolicyConfig, StoreConfig, adapter_config, read
from vectoracl.engine.core_ports import CORE_PORTS, EMBEDDING, AsyncCorePort, CorePort
from vectoracl.engine.drivers import arun, run, wrapped
from vectoracl.engine.explain import Explanation, explain_flow
from vectoracl.engine.handle import Lifetime
from vectoracl.engine.operator_flows import accepting
from vectoracl.engine.pipeline import Caller, Pipeline, Store
from vectoracl.engine.recorded_operator import recorded_operator
from vectoracl.errors import (
    ClosedError,
    ConfigError,
    InvalidInputError,
    PostureError,
    RefusedError,
    VectorACLError,
    without_context,
)
from vectoracl.filters.predicate import ALWAYS
from vectoracl.filters.validation import check_fields
from vectoracl.model.actions import ALL_ACTIONS, Action, check_action, check_actions
from vectoracl.model.identifiers import check_tenant, check_text
from vectoracl.model.principal import Principal, check_principal
from vectoracl.text.embedders import Embedder, identity_of, open_embedder

T = TypeVar("T")
_MAX_HELPERS = 32
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
    ports: dict[str, Port] = field(default_factory=dict)
    aports: dict[str, AsyncPort] = field(default_factory=dict)


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
        self.sink: Sink = _open_sink(self.config, self._base) if sink is None else sink
        self.pipeline = Pipeline(
            self.policy,
            self.sink,
            self._route,
            debug=self.config.debug_errors,
            decision_ttl=self.config.policy.decision_ttl,
            returned=_open_returned(self.config.audit, self._base),
        )
        self.core_port = CorePort(
            self.policy,
            self.sink,
            self._embedder,
            debug=self.config.debug_errors,
            embedder_timeout=EMBEDDER_TIMEOUT if self.config.embedder is None else self.config.embedder.timeout,
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

    def keeps(self, store: str) -> bool:
        """Return whether the rows of *store* outlive this process. Raises: ClosedError, ConfigError."""
        return self._named(self._known(store)).opened.kept

    def _route(self, tenant: str) -> str:
        return self.config.tenants.store.get(tenant, self.config.default)

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
                named = _OpenStore(Store(name, config.adapter, opened.adapter, fields, embedder), opened, config)
                self._stores[name] = named
        return named

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

    def _demand(self, named: _OpenStore, posture: Posture) -> None:
        """Refuse a store whose actual posture is weaker than the required grade. Raises: PostureError."""
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

    def _demanded(self, name: str, posture: Posture) -> Posture:
        return demand(posture, self.config.minimum_grade, name, GRADES)

    def _caller(self, principal: object, actions: Iterable[Action] | None) -> Caller:
        who = check_principal(principal)
        return Caller(who, ALL_ACTIONS if actions is None else check_actions(actions), ALWAYS)

    def _handle(self, make: Callable[..., T], principal: Principal, actions: Iterable[Action] | None) -> T:
        caller = self._caller(principal, actions)
        name = self._route(caller.principal.tenant)
        return make(self.pipeline, lambda: self._named(name).store, self, caller, Lifetime(self._alive))

    def _explain(self, principal: object, action: object, document: str | None) -> tuple[Store, Flow[Explanation]]:
        caller = self._caller(principal, None)
        store = self._named(self._route(caller.principal.tenant)).store
        return store, explain_flow(self.pipeline, store, caller, check_action(action), document)


class VectorACL(_Base):
    """An opened configuration, which returns handles for principals. Thread-safe; it cannot be used across a fork.

    As a context manager it closes itself at the end of the block.
    """

    _helpers: ThreadPoolExecutor | None = None

    def scoped(self, principal: Principal, *, actions: Iterable[Action] | None = None) -> ScopedRetriever:
        """Return a handle bound to *principal*. Nothing is contacted.

        Args:
            principal: The verified principal for which the handle acts.
            actions: The actions that the handle may do, if the policy permits them; None means all actions.

        Returns:
            The handle. The policy is asked at each of its calls.

        Raises:
            InvalidPrincipalError: *principal* is not a `Principal`.
            InvalidInputError: *actions* holds an unknown action.
        """
        return self._handle(ScopedRetriever, principal, actions)

    def run(self, store: Store, flow: Flow[T], timeout: float | None) -> T:
        """Drive *flow* on *store*; called by handles. *timeout* is in seconds."""
        named = self._stores.get(store.name)
        if named is None or named.posture is None or self._closed:
            named = self._ready(store.name)
        if timeout is None:
            return run(flow, named.ports, timeout=named.config.timeout, pool=self._threads, separate_limit=EMBEDDING)
        return run(flow, named.ports, timeout=timeout, pool=self._threads)

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
        posture = self._posture(named)
        assert named.port is not None
        self._demand(named, posture)
        self._accepting(named, "connect", posture)
        named.ports = {**dict.fromkeys(CORE_PORTS, self.core_port), "store": named.port}
        named.posture = posture
        return posture

    def _accepting(self, named: _OpenStore, door: str, posture: Posture) -> None:
        flow = accepting(self.pipeline, named.store, door, posture)
        run(flow, {"audit": self.core_port}, timeout=named.config.timeout)

    @without_context
    def _posture(self, named: _OpenStore) -> Posture:
        with self._foreign(named.config.adapter):
            port: Port = self._port(named, "port")
            posture = run(named.store.adapter.posture(), {"store": port}, timeout=named.config.timeout)
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
        posture = self._demanded(name, self._posture(self._named(name)))
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
        return self.run(store, flow, None)

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

    def scoped(self, principal: Principal, *, actions: Iterable[Action] | None = None) -> AsyncScopedRetriever:
        """Return a handle bound to *principal*; see `VectorACL.scoped`."""
        return self._handle(AsyncScopedRetriever, principal, actions)

    async def arun(self, store: Store, flow: Flow[T], timeout: float | None) -> T:
        """Drive *flow* on *store*; called by handles. *timeout* is in seconds."""
        named = await self._ready(store.name)
        if timeout is None:
            return await arun(flow, named.aports, timeout=named.config.timeout, separate_limit=EMBEDDING)
        return await arun(flow, named.aports, timeout=timeout)

    async def _ready(self, name: str) -> _OpenStore:
        named = self._named(name)
        self._check_loop()
        if named.posture is None:
            async with self._opening:
                if named.posture is None:
                    posture = await self._posture(named)
                    self._demand(named, posture)
                    await self._accepting(named, "connect", posture)
                    assert named.aport is not None
                    named.aports = {**dict.fromkeys(CORE_PORTS, self._core_async), "store": named.aport}
                    named.posture = posture
        return named

    async def _accepting(self, named: _OpenStore, door: str, posture: Posture) -> None:
        flow = accepting(self.pipeline, named.store, door, posture)
        await arun(flow, {"audit": self._core_async}, timeout=named.config.timeout)

    @without_context
    async def _posture(self, named: _OpenStore) -> Posture:
        with self._foreign(named.config.adapter):
            # Created and stored in the thread: if the caller is cancelled, close() still finds the port.
            aport: Any = named.aport or await asyncio.to_thread(self._port, named, "aport")
            posture = await arun(named.store.adapter.posture(), {"store": aport}, timeout=named.config.timeout)
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
        posture = self._demanded(name, await self._posture(self._named(name)))
        await self._accepting(self._named(name), "check", posture)
        return posture

    async def identity_for_journal(self, store: str) -> frozenset[str]:
        """See `VectorACL.identity_for_journal`."""
        named = self._named(store)

        def found() -> frozenset[str]:
            with self._foreign(named.config.adapter):
                port = named.opened.port()
                try:
                    texts = named.opened.identity(port)
                finally:
                    port.close()
            return frozenset(f"{named.config.adapter}: {one}" for one in texts)

        return await asyncio.to_thread(found) or self._own_place(store)

    async def explain(
        self, principal: Principal, action: Action = "search", *, document: str | None = None
    ) -> Explanation:
        """See `VectorACL.explain`."""
        store, flow = self._explain(principal, action, document)
        return await self.arun(store, flow, None)

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
        try:
            policy = policy()
        except VectorACLError:
            raise
        except Exception as error:  # noqa: BLE001 - raised again as a ConfigError
            text = (
                f"policy.use: creating the policy failed ({type(error).__name__}). Set debug_errors = true to see the "
                "cause."
            )
            raise ConfigError(text) from (error if debug else None)
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
