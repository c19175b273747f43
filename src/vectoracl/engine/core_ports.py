"""The core's own ports: policy, embedder, audit and clock. A flow asks for them as it asks for the store."""

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
from vectoracl.model.actions import Action
from vectoracl.model.principal import Principal
from vectoracl.model.records import Vector
from vectoracl.text.embedders import Embedder, Kind, embed_checked, identity_of

_log = logging.getLogger("vectoracl")


class PolicyFailedError(Exception):
    """The policy raised *error*, whatever it is: apart from what a port or a driver raises, it is a denial."""

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class LateRecordError(StoreError):
    """A record was not kept in time; the thread that writes it may still do so."""


@dataclass(frozen=True, slots=True)
class ReadVersion(Request[str | None]):
    """Ask the policy for its version, where reading that runs code of its own."""

    port: ClassVar[str] = "policy"


@dataclass(frozen=True, slots=True)
class Decide(Request[Decision]):
    """Ask the policy."""

    port: ClassVar[str] = "policy"
    principal: Principal
    action: Action


@dataclass(frozen=True, slots=True)
class WriteRecord(Request[None]):
    """Keep the record of a decision."""

    port: ClassVar[str] = "audit"
    record: AuditRecord


@dataclass(frozen=True, slots=True)
class EmbedQueries(Request[Sequence[Vector]]):
    """Embed texts that are searched for in `store`, which keeps the embedder of the identity `kept` (None: unknown)."""

    port: ClassVar[str] = "embedder"
    texts: tuple[str, ...]
    store: str = ""
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class EmbedDocuments(Request[Sequence[Vector]]):
    """Embed texts that are stored in `store`; see `EmbedQueries`."""

    port: ClassVar[str] = "embedder"
    texts: tuple[str, ...]
    store: str = ""
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class Sleep(Request[None]):
    """Wait."""

    port: ClassVar[str] = "clock"
    seconds: float


CoreRequest = ReadVersion | Decide | WriteRecord | EmbedQueries | EmbedDocuments | Sleep
CORE_PORTS = ("policy", "audit", "embedder", "clock")
EMBEDDING = frozenset({"embedder"})
"""The port whose time is not the store's: it has a limit of its own, `[embedder] timeout`."""


_LATE_POLICY = "The policy did not decide within the time limit, so nothing was sent."
_LATE_SINK = (
    "The decision could not be recorded within the time limit, so nothing was sent. Look for a process that holds the "
    "audit file's lock, or for a disk that does not answer."
)


class CorePort:
    """Performs the core's requests: in this thread, or in one of its own what may wait, so that a time limit holds."""

    parallel = 1

    def __init__(
        self,
        policy: Policy,
        sink: Sink,
        embedder: Embedder | None,
        *,
        debug: bool = False,
        embedder_timeout: float | None = None,
    ) -> None:
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
                # A disk, a pipe or a network's file system that does not answer holds up whoever writes to it.
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
            case Sleep(seconds=seconds):
                time.sleep(seconds if timeout is None else min(seconds, timeout))
                return None
        assert_never(request)

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
        """Tell whether the policy is asked in the caller's thread: the default one, or one that has to be."""
        return type(self._policy) is TenantPolicy or getattr(self._policy, "same_thread", False) is True

    def sink_is_quick(self) -> bool:
        """Tell whether the sink writes in the caller's thread: to memory, or because it has to."""
        return type(self._sink) is MemorySink or getattr(self._sink, "same_thread", False) is True

    def asking(self, request: Decide | ReadVersion) -> Callable[[], Any]:
        """Return what asks the policy; its error is a value, so that nothing can take it for one of ours."""

        def ask() -> Any:
            try:
                if isinstance(request, ReadVersion):
                    return self._policy.version
                return self._policy.decide(request.principal, request.action)
            except Exception as error:  # noqa: BLE001 - whatever breaks in a policy is a denial
                return PolicyFailedError(error)

        return ask

    def recording(self, record: AuditRecord, timeout: float | None) -> Callable[[], StoreError | None]:
        """Return what keeps *record*; the error is a value: what the sink said may quote paths and is in the log."""

        def keep() -> StoreError | None:
            try:
                if type(self._sink) is JsonlSink:  # one that was made of it may take a record and no more
                    self._sink.write(record, timeout=timeout)
                else:
                    self._sink.write(record)
            except Exception as error:  # noqa: BLE001 - whatever breaks in a sink stops the operation
                _log.error("audit sink failed to keep a decision: %s", _said(error))
                if isinstance(self._sink, JsonlSink) and isinstance(error, TimeoutError):
                    return StoreError(_LATE_SINK, code="timeout", sent="no")
                text = "The decision could not be recorded, so nothing was sent. Fix the audit sink; the log says why."
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


def answer(value: Any) -> Any:
    """Return what a policy answered. Raises: PolicyFailedError."""
    if isinstance(value, PolicyFailedError):
        raise value
    return value


def late_error(text: str) -> StoreError:
    """Return the error of a call that did not end in time."""
    kind = LateRecordError if text is _LATE_SINK else StoreError
    return kind(text, code="timeout", sent="no")


def _said(error: Exception) -> str:
    """Say what kind of error it is, and for one of the system why; never what a foreign library wrote."""
    why = error.strerror if isinstance(error, OSError) else None
    return type(error).__name__ if why is None else f"{type(error).__name__}: {why}"


class AsyncCorePort:
    """Performs the core's requests for asyncio: in a thread whatever may wait, so that other tasks go on."""

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
            case EmbedQueries() | EmbedDocuments():
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
