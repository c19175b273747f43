"""The core's own ports: policy, embedder, audit and clock. A flow asks for them as it asks for the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, assert_never

from vectoracl.actions import Action
from vectoracl.adapter import Request
from vectoracl.audit import AuditRecord, Sink
from vectoracl.embed import Embedder, embed_checked
from vectoracl.errors import ConfigError, StoreError
from vectoracl.policy import Decision, Policy
from vectoracl.principal import Principal
from vectoracl.records import Vector


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
    """Embed texts that are searched for."""

    port: ClassVar[str] = "embedder"
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EmbedDocuments(Request[Sequence[Vector]]):
    """Embed texts that are stored."""

    port: ClassVar[str] = "embedder"
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sleep(Request[None]):
    """Wait."""

    port: ClassVar[str] = "clock"
    seconds: float


CoreRequest = Decide | WriteRecord | EmbedQueries | EmbedDocuments | Sleep
CORE_PORTS = ("policy", "audit", "embedder", "clock")


class CorePort:
    """Performs the core's requests in this thread."""

    parallel = 1

    def __init__(self, policy: Policy, sink: Sink, embedder: Embedder | None) -> None:
        self._policy = policy
        self._sink = sink
        self._embedder = embedder

    def execute(self, request: CoreRequest, timeout: float | None) -> Any:
        """Perform *request*."""
        match request:
            case WriteRecord(record=record):
                try:
                    self._sink.write(record)
                except Exception:  # noqa: BLE001 - whatever breaks in a sink stops the operation
                    raise StoreError(
                        "The decision could not be recorded, so nothing was sent. Mend the audit sink.",
                        code="audit",
                        sent="no",
                    ) from None
                return None
            case Decide(principal=principal, action=action):
                return self._policy.decide(principal, action)
            case EmbedQueries(texts=texts):
                return embed_checked(self.embedder(), texts, "query")
            case EmbedDocuments(texts=texts):
                return embed_checked(self.embedder(), texts, "document")
            case Sleep(seconds=seconds):
                time.sleep(seconds if timeout is None else min(seconds, timeout))
                return None
        assert_never(request)

    def embedder(self) -> Embedder:
        """Return the configured embedder. Raises: ConfigError with what to add."""
        if self._embedder is None:
            raise ConfigError(
                'Text was given but config names no embedder. Pass a vector, or add [embedder] use = "hashed".'
            )
        return self._embedder

    def close(self) -> None:
        """Nothing to release; the sink is closed by its owner."""


class AsyncCorePort:
    """Performs the core's requests for asyncio: embedding in a thread, the rest in place (microseconds)."""

    parallel = 1

    def __init__(self, port: CorePort) -> None:
        self._port = port

    async def execute(self, request: CoreRequest, timeout: float | None) -> Any:
        """Perform *request*."""
        match request:
            case Sleep(seconds=seconds):
                await asyncio.sleep(seconds if timeout is None else min(seconds, timeout))
                return None
            case EmbedQueries() | EmbedDocuments():
                return await asyncio.to_thread(self._port.execute, request, timeout)
        return self._port.execute(request, timeout)

    async def close(self) -> None:
        """Nothing to release."""
