"""Checks of an adapter in an isolated process, with the memory store as the reference.

Every write goes to both stores, and both must give the same answer. Reads go to the adapter, and the checks judge them
as usual: by an oracle whose census is that of the reference, after a scan of every tenant has shown that both stores
hold the same rows. So nothing here depends on the harness, which the adapter's author may have written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from vectoracl.adapter_api.contract import Capabilities, Opened
from vectoracl.adapter_api.operations import OPERATIONS, Operation
from vectoracl.errors import VectorACLError
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.model.records import Hit, Record
from vectoracl_conformance.context.assertions import Abstain, Assertions, Breach, Unsupported, short
from vectoracl_conformance.context.check_context import (
    STORE,
    AwaitableHandle,
    CheckContext,
    Client,
    Mode,
    claims_of,
    drive,
)
from vectoracl_conformance.context.corpus import DIMENSION, FIELDS, Corpus, build
from vectoracl_conformance.context.oracle import UnfitError
from vectoracl_conformance.context.perform import Options, perform
from vectoracl_conformance.context.recorder import Recorder
from vectoracl_conformance.context.registry import CHECKS
from vectoracl_conformance.harness import Needs, Store
from vectoracl_conformance.harnesses.memory import MemoryStore
from vectoracl_conformance.isolated.identity import Identity, identify
from vectoracl_conformance.isolated.interpreter import PlainEnvironment
from vectoracl_conformance.isolated.process import LIMIT, Far, OtherError
from vectoracl_conformance.verdict import MODES, Noted
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper

CHECKED = (
    *(f"R{number}" for number in (1, 2, 4, 5, 9, 10, 11, 12, 13, 14)),
    *(f"W{number}" for number in range(1, 10)),
    "P2",
    "X4",
)
DECOYS = 150
_WRITES = frozenset(kind.method for kind in OPERATIONS.values() if kind.writes)
_ALL = frozenset({"text", "metadata", "vector"})
_NEAR = 1e-3


@dataclass(frozen=True, slots=True)
class Place:
    """Where the adapter's process finds an empty store of the harness's.

    `config` is `[stores.NAME]` without `metadata`. `source` is Python text that defines
    `dress(opened)`, put into that process first.
    `settle` waits until what was written is visible. `python` is the interpreter, "" for this one. `environment` is
    one that was made before, for several processes; without it, each process makes its own. `admit` registers a tenant
    before the first write for it. `measured` takes the code that the process ran.
    """

    config: Mapping[str, Any]
    source: str = ""
    settle: Callable[[], None] = lambda: None
    python: str = ""
    paths: Sequence[str] = ()
    limit: float = LIMIT
    environment: PlainEnvironment | None = None
    admit: Callable[[str], None] = lambda _: None
    measured: list[Identity] = field(default_factory=list)


class _Declared(AdapterWrapper):
    """The memory adapter with what another one declares."""

    declared: Capabilities

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities that the other declares, at the memory store's own grade."""
        own = self.inner.capabilities
        return replace(self.declared, grade=own.grade, metric=own.metric, dimension=own.dimension)


class FarHandle(AwaitableHandle):
    """A handle whose writes go to both stores and whose reads go to the adapter's."""

    def __init__(
        self, reference: AwaitableHandle, client: IsolatedClient, claims: dict[str, Any], narrows: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(reference.inner, reference.mode, reference.most)
        self._reference = reference
        self._door = client
        self._claims = claims
        self._narrows = narrows

    async def _do(self, name: str, *args: Any, **given: Any) -> Any:
        if name not in _WRITES:
            return self._far(name, *args, **given)
        self._door.context.admit(name, self._claims["tenant"])
        right = await _outcome(getattr(self._reference, name)(*args, **given))
        got = await _outcome(_later(lambda: self._far(name, *args, **given)))
        self._door.context.agree(right, got, f"{name} as {self._claims['tenant']!r}", self._door.can)
        if isinstance(got, BaseException):
            raise got
        return got

    def _far(self, name: str, *args: Any, **given: Any) -> Any:
        if name == "upsert":
            args = (list(args[0]), *args[1:])
        return self._door.context.far.ask(
            "call", self._door.number, self._claims, list(self._narrows), name, args, given
        )

    async def scan(self, where: Any = ALWAYS, **given: Any) -> Any:
        """Return what a scan yields, taken at once."""
        for hit in self._far("scan", where, **given):
            yield hit

    def narrow(self, where: Predicate = ALWAYS, actions: Any = None) -> AwaitableHandle:
        """Narrow both."""
        narrowed = self._reference.narrow(where, actions)
        return FarHandle(narrowed, self._door, self._claims, (*self._narrows, (where, actions)))


async def _later(make: Callable[[], Any]) -> Any:
    return make()


async def _outcome(work: Any) -> Any:
    try:
        return await work
    except (Abstain, Breach):
        raise
    except Exception as error:  # noqa: BLE001 - an error is an answer, and compared
        return error


class IsolatedClient(Client):
    """A client of the adapter in its process, along with one of the reference."""

    def __init__(self, reference: Client, context: IsolatedContext, config: Mapping[str, Any]) -> None:
        super().__init__(reference.acl, reference.mode, reference.recorder)
        self.reference = reference
        self.context = context
        self.number = context.number()
        self._config = dict(config)
        self.can: Capabilities = context.declared

    async def open(self) -> None:
        """Open both; the adapter says what it can do when it is opened."""
        provision, self.context.provision = self.context.provision, False
        self.context.far.ask("client", self.number, self._config, self.mode, provision)
        self.can = self.context.far.ask("capabilities", self.number)
        if not isinstance(self.can, Capabilities):
            raise Abstain("the adapter's process did not say what the adapter can do")
        self.context.declared = self.can
        await self.reference.open()

    async def close(self) -> None:
        """Close both."""
        self.context.far.ask("close", self.number)
        await self.reference.close()

    def as_principal(self, principal: Any, **given: Any) -> AwaitableHandle:
        """Return a handle on both."""
        reference = self.reference.as_principal(principal, **given)
        self.context.tenants[principal.tenant] = None
        return FarHandle(reference, self, claims_of(principal))

    @property
    def adapter(self) -> Any:
        """The part of the adapter that is available here: its declared capabilities."""
        return SimpleNamespace(capabilities=self.can)

    async def raw(self, operation: Operation) -> Any:
        """Hand *operation* to both adapters; a write has to be answered alike."""
        self.context.tenants[operation.partition] = None
        if not OPERATIONS[type(operation)].writes:
            return self.context.far.ask("raw", self.number, operation)
        self.context.admit(OPERATIONS[type(operation)].method, operation.partition)
        right = await _outcome(self.reference.raw(operation))
        got = await _outcome(_later(lambda: self.context.far.ask("raw", self.number, operation)))
        self.context.agree(right, got, f"{type(operation).__name__} handed to the adapter itself", self.can)
        if isinstance(got, BaseException):
            raise got
        return got


class _Mirror(Store):
    """The reference as a store for the checks: its census, and the adapter's time to settle."""

    def __init__(self, memory: MemoryStore, context: IsolatedContext) -> None:
        self.config = memory.config
        self._memory = memory
        self._context = context

    def census(self) -> Sequence[Record]:
        """Read the reference."""
        return self._memory.census()

    def settle(self) -> None:
        """Let the adapter's store settle, where it says that it has to."""
        if self._context.declared.visible == "eventual":
            self._context.place.settle()

    def declaring(self, opened: Opened) -> Opened:
        """Declare what the adapter declares."""
        kind = type("Declared", (_Declared,), {"declared": self._context.declared})
        return replace(opened, adapter=kind(opened.adapter, self))


class IsolatedContext(CheckContext):
    """A context whose adapter runs in the isolated process."""

    client: IsolatedClient

    def __init__(self, place: Place, far: Far, corpus: Corpus, mode: Mode) -> None:
        self.place = place
        self.far = far
        self.provision = True  # the first client makes what the store needs; a store in its process needs it all
        self.tenants: dict[str, None] = {}
        self._clients = 0
        self._admitted: set[str] = set()
        memory = MemoryStore(Needs(DIMENSION, FIELDS))
        self.declared: Capabilities = _memory_capabilities(memory)
        mirror = _Mirror(memory, self)
        super().__init__(mirror, corpus, mode, mirror.declaring)

    def admit(self, method: str, tenant: str) -> None:
        """Admit *tenant* before its first write, as an operator does."""
        if method in ("upsert", "replace") and tenant not in self._admitted:
            self._admitted.add(tenant)
            self.place.admit(tenant)

    def number(self) -> int:
        """Return the number of the next client."""
        self._clients += 1
        return self._clients

    def new_client(self, *, policy: Any = None, single: bool = False, other: Any = None, **more: Any) -> Client:
        """Return a client on both sides. Raises: Abstain for what cannot be taken to the other process."""
        if policy is not None or single or other is not None:
            raise Abstain("a check that needs the kit next to the adapter was run out of sight")
        reference = super().new_client(**more)
        own = {**self.place.config, "metadata": dict(FIELDS)}
        return IsolatedClient(reference, self, {"version": 1, "stores": {STORE: own}, **more})

    def agree(self, right: Any, got: Any, what: str, can: Capabilities) -> None:
        """Demand that a write was answered by the adapter as by the reference. Raises: Breach."""

        def told(answer: Any) -> Any:
            if isinstance(answer, BaseException):
                return type(answer).__name__ if isinstance(answer, VectorACLError) else "an error"
            count = getattr(answer, "count", answer)
            return "done" if count is None else count

        one, other = told(right), told(got)
        if other == "done" and not can.delete_counts and isinstance(one, int):
            return
        if one != other:
            raise Breach(what, f"{short(got)}", f"the reference answers {short(right)}")

    async def same(self) -> None:
        """Demand that both stores hold the same, tenant by tenant. Raises: Breach."""
        self.store.settle()
        for tenant in self.tenants:
            try:
                handle = self.client.handle(tenant)
            except VectorACLError:
                continue
            if not isinstance(handle, FarHandle):
                continue
            got = {(hit.document, hit.id): hit for hit in [one async for one in handle.scan(include=_ALL)]}
            right = {(r.tag.document, r.tag.chunk): r for r in self.store.census() if r.tag.tenant == tenant}
            away = sorted(set(got) ^ set(right))
            if away:
                raise Breach(f"scan as {tenant!r}", f"{len(got)} rows", f"{len(right)} were written: {short(away)}")
            for place, hit in got.items():
                if (reason := _differs(hit, right[place])) is not None:
                    raise Breach(f"scan as {tenant!r}", f"{reason} of {place!r} differs", "it is not what was written")


def _differs(hit: Hit, row: Record) -> str | None:
    if hit.text != row.text:
        return "the text"
    if dict(hit.metadata or {}) != dict(row.metadata):
        return "the metadata"
    if (hit.tag.tenant, hit.tag.label, hit.tag.position) != (row.tag.tenant, row.tag.label, row.tag.position):
        return "the tag"
    if hit.vector is None or hit.vector.shape != row.vector.shape:
        return "the vector"
    one, other = hit.vector.astype(np.float64), row.vector.astype(np.float64)
    close = np.allclose(one / np.linalg.norm(one), other / np.linalg.norm(other), atol=_NEAR)
    return None if close else "the vector"


def _memory_capabilities(memory: MemoryStore) -> Capabilities:
    from vectoracl.adapter_api.loading import load

    capabilities: Capabilities = load(str(memory.config["adapter"])).vectoracl_describe()
    return replace(capabilities, dimension=DIMENSION)


@contextmanager
def _far(place: Place) -> Any:
    far = Far(place.python, place.paths, place.limit, place.environment)
    try:
        if place.source:
            far.ask("source", place.source)
        yield far
    finally:
        far.close()


async def out_of_sight(t: Assertions, place: Place, mode: Mode, seed: int, decoys: int) -> None:
    """Run the checks of `CHECKED` on the adapter out of sight, and judge them as attacks of *t*."""
    with _far(place) as far:
        context = IsolatedContext(place, far, build(seed, min(decoys, DECOYS)), mode)

        await context.open()
        for tenant, chunks in context.corpus.chunks.items():
            batch = context.client.can.max_batch
            for start in range(0, len(chunks), batch):
                await context.handle(tenant).upsert(chunks[start : start + batch])
        for id_ in CHECKED:
            await _one(t, context, id_, CHECKS[id_].body)
        if far.environment.site is not None:
            place.measured.append(identify(far, str(place.config["adapter"])))
        await context.close()


async def _one(t: Assertions, context: IsolatedContext, id_: str, body: Any) -> None:
    assertions = Assertions(context)
    try:
        await body(assertions)
        await context.same()
    except Breach as breach:
        raise Breach(f"{id_}, out of sight: {breach.attacked}", breach.back, breach.why) from None
    except (Abstain, UnfitError) as error:
        raise Abstain(f"{id_}, out of sight: {error}") from None
    except Unsupported:
        pass
    except VectorACLError as error:
        back = f"{type(error).__name__}: {short(error)}"
        raise Breach(f"{id_}, out of sight: a legitimate call", back, "what is permitted has to work") from None
    except OtherError as error:
        why = "an error that is not of the documented tree"
        raise Breach(f"{id_}, out of sight: a call", short(error), why) from None
    finally:
        t.controls += assertions.controls
        t.attacks += assertions.attacks


def noted(place: Place, mode: Mode, options: Options) -> Noted:
    """Perform X6 by itself, in a process that holds neither the adapter nor its harness, and note what became of it."""
    seed = options.seed + 1 + MODES.index(mode)
    body = partial(out_of_sight, place=place, mode=mode, seed=seed, decoys=options.decoys)
    work = perform(replace(CHECKS["X6"], body=body), SimpleNamespace(mode=mode, recorder=Recorder()), options)  # type: ignore[arg-type]
    return drive(work) if mode == "sync" else asyncio.run(work)
