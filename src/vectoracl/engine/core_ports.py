"""The core's own ports: policy, embedder, audit and clock. Flows use them by requests, like the store's port."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, assert_never

from vectoracl._util.worker_threads import LateError, Workers
from vectoracl.access.policy import Decision, Policy, TenantPolicy
from vectoracl.adapter_api.contract import Request
from vectoracl.adapter_api.store_notes import other_embedder
from vectoracl.audit.sinks import AuditRecord, JsonlSink, MemorySink, Sink
from vectoracl.errors import ConfigError, StoreError, caused
from vectoracl.ingestion.validators import Ingestion, Judgement, NamedValidator, judge
from vectoracl.model.actions import Action
from vectoracl.model.principal import Principal
from vectoracl.model.records import Vector
from vectoracl.registry.requests import RegistryRequest
from vectoracl.text.embedders import Embedder, Kind, embed_checked, identity_of

_log = logging.getLogger("vectoracl")


class PolicyFailedError(Exception):
    """Wraps *error*, an exception of the policy, to distinguish it from errors of ports and drivers: it denies."""

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class LateRecordError(StoreError):
    """A record was not written in time; its thread may still write it."""


@dataclass(frozen=True, slots=True)
class ReadVersion(Request[str | None]):
    """Read the policy's version, where that runs code of the policy (a property)."""

    port: ClassVar[str] = "policy"


@dataclass(frozen=True, slots=True)
class Decide(Request[Decision]):
    """Ask the policy for a decision."""

    port: ClassVar[str] = "policy"
    principal: Principal
    action: Action


@dataclass(frozen=True, slots=True)
class WriteRecord(Request[None]):
    """Write the record of a decision."""

    port: ClassVar[str] = "audit"
    record: AuditRecord


@dataclass(frozen=True, slots=True)
class EmbedQueries(Request[Sequence[Vector]]):
    """Embed query texts for `store`; `kept` is the embedder's identity that is noted in it (None: unknown)."""

    port: ClassVar[str] = "embedder"
    texts: tuple[str, ...]
    store: str = ""
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class EmbedDocuments(Request[Sequence[Vector]]):
    """Embed texts to be stored in `store`; see `EmbedQueries`."""

    port: ClassVar[str] = "embedder"
    texts: tuple[str, ...]
    store: str = ""
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class Validate(Request[tuple[Judgement, ...]]):
    """Ask the configured validators about what is to be written, up to the first refusal."""

    port: ClassVar[str] = "validators"
    ingestions: tuple[Ingestion, ...]


@dataclass(frozen=True, slots=True)
class Sleep(Request[None]):
    """Wait for `seconds`."""

    port: ClassVar[str] = "clock"
    seconds: float


CoreRequest = ReadVersion | Decide | WriteRecord | EmbedQueries | EmbedDocuments | Validate | Sleep
CORE_PORTS = ("policy", "audit", "embedder", "validators", "clock")
EMBEDDING = frozenset({"embedder", "validators"})
"""The ports whose time does not count as the store's: the limits are `timeout` of `[embedder]` and `[ingest]`."""


_LATE_POLICY = "The policy did not decide within the time limit, so nothing was sent."
_LATE_SINK = (
    "The decision could not be recorded within the time limit, so nothing was sent. Look for a process that holds the "
    "audit file's lock, or for a disk that does not answer."
)


class CorePort:
    """Performs the core's requests: in the caller's thread, or in a worker thread if they may block past a timeout."""

    parallel = 1

    def __init__(
        self,
        policy: Policy,
        sink: Sink,
        embedder: Embedder | None,
        *,
        debug: bool = False,
        embedder_timeout: float | None = None,
        validators: Sequence[NamedValidator] = (),
        validator_timeout: float = 30.0,
    ) -> None:
        self._validators = tuple(validators)
        self._validator_timeout = validator_timeout
        # Apart from the policy's and the sink's, which validators that hang must not hold up.
        self._validating = Workers("vectoracl-validators")
        self._policy = policy
        self._sink = sink
        self._embedder = embedder
        self._embedder_timeout = embedder_timeout
        self._identity = None if embedder is None else identity_of(embedder)
        self._debug = debug
        self.workers = Workers()

    def execute(self, request: CoreRequest, timeout: float | None) -> Any:
        """Perform *request*."""
        match request:
            case WriteRecord(record=record):
                call = self.recording(record, timeout)
                # A disk, pipe or network file system that does not answer blocks the thread that writes to it.
                aside = timeout is not None and not self.sink_is_quick()
                failed: Exception | None = self._aside(call, timeout, _LATE_SINK) if aside else call()
                if failed is not None:
                    raise failed
                return None
            case Decide() | ReadVersion():
                asking = self.asking(request)
                aside = timeout is not None and not self.policy_is_quick()
                return answer(self._aside(asking, timeout, _LATE_POLICY) if aside else asking())
            case EmbedQueries(texts=texts):
                return self._embed(request, texts, "query", timeout)
            case EmbedDocuments(texts=texts):
                return self._embed(request, texts, "document", timeout)
            case Validate(ingestions=ingestions):
                return self._judged(ingestions, timeout)
            case Sleep(seconds=seconds):
                time.sleep(seconds if timeout is None else min(seconds, timeout))
                return None
        assert_never(request)

    def _judged(self, ingestions: Sequence[Ingestion], timeout: float | None) -> tuple[Judgement, ...]:
        """Ask the validators; one that is not shipped runs in another thread, so that its time limit holds."""
        until = None if timeout is None else time.monotonic() + timeout

        def perform(call: Callable[[], object], one: NamedValidator) -> object:
            if one.quick:
                return call()
            limit = self._validator_timeout
            if until is not None:
                limit = min(limit, until - time.monotonic())
            if limit <= 0:
                raise LateError
            return self._validating.call(call, limit)

        return judge(self._validators, ingestions, perform)

    def _embed(
        self, request: EmbedQueries | EmbedDocuments, texts: Sequence[str], kind: Kind, timeout: float | None
    ) -> Any:
        embedder = self.embedder()
        if request.kept is not None and self._identity is not None and request.kept != self._identity:
            raise other_embedder(request.store, request.kept, self._identity)
        return embed_checked(embedder, texts, kind, limit=self._embedder_timeout, within=timeout)

    def embedder(self) -> Embedder:
        """Return the configured embedder. Raises: ConfigError with what to add."""
        if self._embedder is None:
            raise ConfigError(
                'Text was given but config names no embedder. Pass a vector, or add [embedder] use = "hashed".'
            )
        return self._embedder

    def policy_is_quick(self) -> bool:
        """Return whether the policy runs in the caller's thread: the default one, or one that requires it."""
        return type(self._policy) is TenantPolicy or getattr(self._policy, "same_thread", False) is True

    def sink_is_quick(self) -> bool:
        """Return whether the sink writes in the caller's thread: to memory, or because it requires that."""
        return type(self._sink) is MemorySink or getattr(self._sink, "same_thread", False) is True

    def asking(self, request: Decide | ReadVersion) -> Callable[[], Any]:
        """Return a function that asks the policy and returns its exception as a value (PolicyFailedError)."""

        def ask() -> Any:
            try:
                if isinstance(request, ReadVersion):
                    return self._policy.version
                return self._policy.decide(request.principal, request.action)
            except Exception as error:  # noqa: BLE001 - every exception of a policy denies
                return PolicyFailedError(error)

        return ask

    def recording(self, record: AuditRecord, timeout: float | None) -> Callable[[], StoreError | None]:
        """Return a function that writes *record* and returns an error as a value; the sink's exception is logged."""

        def keep() -> StoreError | None:
            try:
                if type(self._sink) is JsonlSink:  # the `write` of a subclass may not take a timeout
                    self._sink.write(record, timeout=timeout)
                else:
                    self._sink.write(record)
            except Exception as error:  # noqa: BLE001 - every exception of a sink stops the operation
                _log.error("audit sink failed to keep a decision: %s", _reason(error))
                if isinstance(self._sink, JsonlSink) and isinstance(error, TimeoutError):
                    return StoreError(_LATE_SINK, code="timeout", sent="no")
                text = "The decision could not be recorded, so nothing was sent. Fix the audit sink; see the log."
                return caused(StoreError(text, code="audit", sent="no"), error, debug=self._debug)
            return None

        return keep

    def _aside(self, call: Callable[[], Any], timeout: float | None, late: str) -> Any:
        try:
            return self.workers.call(call, timeout)
        except LateError:
            pass
        raise late_error(late)

    def close(self) -> None:
        """End the threads; the sink is closed by its owner."""
        self.workers.close()
        self._validating.close()


def answer(value: Any) -> Any:
    """Return *value*, the answer of a policy. Raises: PolicyFailedError if it is one."""
    if isinstance(value, PolicyFailedError):
        raise value
    return value


def late_error(text: str) -> StoreError:
    """Return the error of a call that did not end in time."""
    kind = LateRecordError if text is _LATE_SINK else StoreError
    return kind(text, code="timeout", sent="no")


def _reason(error: Exception) -> str:
    """Return the class of *error*, and the system's text of an OSError; never the text of another library."""
    why = error.strerror if isinstance(error, OSError) else None
    return type(error).__name__ if why is None else f"{type(error).__name__}: {why}"


class RegistryPort:
    """Performs requests to the registry: each is one transaction of its database."""

    parallel = 1

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self.workers = Workers("vectoracl-registry")

    def execute(self, request: RegistryRequest[Any], timeout: float | None) -> Any:
        """Perform *request*. Its database has its own time limits, so *timeout* only keeps it from beginning late."""
        if timeout is not None and timeout <= 0:
            raise late_error("The time limit was reached before the registry was asked, so nothing was sent.")
        return request.perform(self._registry)

    def close(self) -> None:
        """End the threads and close the registry."""
        self.workers.close()
        self._registry.close()


class AsyncRegistryPort:
    """Performs requests to the registry in threads, so that other tasks continue."""

    parallel = 1

    def __init__(self, port: RegistryPort) -> None:
        self._port = port

    async def execute(self, request: RegistryRequest[Any], timeout: float | None) -> Any:
        """Perform *request*; a cancelled one still runs to its end."""
        return await self._port.workers.acall(lambda: self._port.execute(request, timeout), None)

    async def close(self) -> None:
        """Nothing to release: the sync port is closed by its owner."""


class AsyncCorePort:
    """Performs the core's requests for asyncio: those that may block run in a thread, so that other tasks continue."""

    parallel = 1

    def __init__(self, port: CorePort) -> None:
        self._port = port

    async def execute(self, request: CoreRequest, timeout: float | None) -> Any:
        """Perform *request*."""
        match request:
            case WriteRecord(record=record) if not self._port.sink_is_quick():
                failed = await self._aside(self._port.recording(record, timeout), timeout, _LATE_SINK)
                if failed is not None:
                    raise failed
                return None
            case Decide() | ReadVersion() if not self._port.policy_is_quick():
                return answer(await self._aside(self._port.asking(request), timeout, _LATE_POLICY))
            case Sleep(seconds=seconds):
                await asyncio.sleep(seconds if timeout is None else min(seconds, timeout))
                return None
            case EmbedQueries() | EmbedDocuments() | Validate():
                return await asyncio.to_thread(self._port.execute, request, timeout)
        return self._port.execute(request, timeout)

    async def _aside(self, call: Callable[[], Any], timeout: float | None, late: str) -> Any:
        try:
            return await self._port.workers.acall(call, timeout)
        except LateError:
            pass
        raise late_error(late)

    async def close(self) -> None:
        """Nothing to release."""
