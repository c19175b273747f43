"""Further layers of unusual but right adapters: what they store, and how their ports work; see `peculiar`.

This file is handed to the adapter's process as text after that of `peculiar`, without the import of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from vectoracl.adapter_api.contract import Request
from vectoracl.adapter_api.operations import Found, Rows, Scan, Search
from vectoracl.errors import RefusedError
from vectoracl.filters.predicate import And, Eq, In, Not, Or, Predicate, StartsWith
from vectoracl.model.queries import Lexical
from vectoracl.model.records import Hit
from vectoracl_conformance.harnesses.peculiar import ALL, Layer, mapped

LAYERS: list[Any] = []
_log = logging.getLogger("peculiar")


# Storage.


class Half(Layer):
    """Keeps vectors in half precision."""

    declares: ClassVar = {"vectors": "half"}

    def writing(self, operation: Any) -> Any:
        """Write."""
        return self.do(replace(operation, records=_kept(operation.records, _half)))


class Normalises(Layer):
    """Keeps unit vectors, as some stores do for the cosine."""

    def writing(self, operation: Any) -> Any:
        """Write."""
        return self.do(replace(operation, records=_kept(operation.records, _unit)))


def _kept(records: Any, change: Callable[[Any], Any]) -> Any:
    return tuple(one._replace(vector=change(one.vector)) for one in records)


def _half(vector: Any) -> Any:
    return np.asarray(vector, np.float16).astype(np.float32)


def _unit(vector: Any) -> Any:
    wide = np.asarray(vector, np.float64)
    return np.asarray(wide / np.linalg.norm(wide), np.float32)


_KEY, _MARK = "stored by", "peculiar 1"


class ExtraFields(Layer):
    """Keeps a field of metadata that it does not return."""

    def writing(self, operation: Any) -> Any:
        """Write."""
        return self.do(replace(operation, records=_marked(operation.records)))

    def reading(self, operation: Any) -> Any:
        """Read."""
        return mapped(self.do(operation), _unmarked)


def _marked(records: Any) -> Any:
    return tuple(one._replace(metadata={**one.metadata, _KEY: _MARK}) for one in records)


def _unmarked(row: Any) -> Any:
    if row.metadata is None:
        return row
    return row._replace(metadata={name: one for name, one in row.metadata.items() if name != _KEY})


class RenamedIds(Layer):
    """Keeps chunks under the hexadecimal form of their ids, whose order is the same."""

    def _row(self, row: Any) -> Any:
        return row._replace(tag=row.tag._replace(chunk=_hex(row.tag.chunk))) if getattr(row.tag, "chunk", "") else row

    def _named(self, predicate: Predicate) -> Predicate:
        """Return *predicate* for the stored ids."""
        match predicate:
            case And(operands):
                return And(tuple(map(self._named, operands)))
            case Or(operands):
                return Or(tuple(map(self._named, operands)))
            case Not(operand):
                return Not(self._named(operand))
            case Eq("@chunk", str(value)):
                return Eq("@chunk", _hex(value))
            case In("@chunk", values):
                return In("@chunk", tuple(_hex(str(one)) for one in values))
            case StartsWith("@chunk", prefix):
                return StartsWith("@chunk", _hex(prefix))
        return predicate

    def _inwards(self, operation: Any) -> Any:
        changes: dict[str, Any] = {"scope": self._named(operation.scope)}
        if getattr(operation, "where", None) is not None:
            changes["where"] = self._named(operation.where)
        if getattr(operation, "refs", None) is not None:
            changes["refs"] = tuple(ref._replace(chunk=_hex(ref.chunk)) for ref in operation.refs)
        if getattr(operation, "records", None) is not None:
            changes["records"] = tuple(map(self._row, operation.records))
        if getattr(operation, "after", None) is not None:
            changes["after"] = operation.after._replace(chunk=_hex(operation.after.chunk))
        return replace(operation, **changes)

    def anything(self, operation: Any) -> Any:
        """Perform *operation* by the stored ids."""
        answer = yield from self.do(self._inwards(operation))
        return _plain(answer) if isinstance(answer, Found | Rows) else answer


def _hex(chunk: str) -> str:
    return chunk.encode().hex()


def _plain(answer: Any) -> Any:
    return answer._replace(hits=[_own_id(hit) for hit in answer.hits])


def _own_id(row: Any) -> Any:
    chunk = bytes.fromhex(row.tag.chunk).decode()
    row = row._replace(tag=row.tag._replace(chunk=chunk))
    return row._replace(id=chunk) if isinstance(row, Hit) else row


# Ports.


class Ported(Layer):
    """A layer that performs requests in its own way: `request` is called around both kinds of ports."""

    parallel = 0

    def before(self, request: Any) -> Any:
        """Return the request to send in place of *request*."""
        return request

    def after(self, request: Any, reply: Any) -> Any:  # noqa: ARG002 - the form of an override
        """Return the reply to hand on."""
        return reply

    delay = 0.0
    start = 0.0

    @classmethod
    def around(cls, opened: Any) -> Any:
        """Return *opened* with the layer around the adapter and its ports."""
        layer, port, aport = cls(opened.adapter), opened.port, opened.aport
        return replace(
            opened, adapter=layer, port=lambda: _Port(port(), layer), aport=lambda: _AsyncPort(aport(), layer)
        )


class _Port:
    def __init__(self, port: Any, layer: Ported) -> None:
        time.sleep(layer.start)
        self.inner = port
        self.layer = layer
        self.parallel = layer.parallel or port.parallel

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        if self.layer.delay:
            time.sleep(self.layer.delay)
        return self.layer.after(request, self.inner.execute(self.layer.before(request), timeout))

    def close(self) -> None:
        """Close."""
        self.inner.close()


class _AsyncPort:
    def __init__(self, port: Any, layer: Ported) -> None:
        time.sleep(layer.start)
        self.inner = port
        self.layer = layer
        self.parallel = layer.parallel or port.parallel

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        if self.layer.delay:
            await asyncio.sleep(self.layer.delay)
        return self.layer.after(request, await self.inner.execute(self.layer.before(request), timeout))

    async def close(self) -> None:
        """Close."""
        await self.inner.close()


class Slow(Ported):
    """Takes a while for each request."""

    delay = 0.002


class SlowStart(Ported):
    """Takes a while to open."""

    start = 0.4


class SideBySide(Ported):
    """Performs several requests of a call at the same time."""

    parallel = 4
    delay = 0.0005
    declares: ClassVar = {"parallel": 4}


@dataclass(frozen=True, slots=True)
class Envelope(Request[Any]):
    """A request with more around it than the store needs."""

    partition: str | None
    request: Any
    version: str = "2026-01"

    @property
    def writes(self) -> bool:
        """Whether the request changes rows."""
        return bool(self.request.writes)


class Enveloped(Ported):
    """Puts each request into one with further keys."""

    def anything(self, operation: Any) -> Any:
        """Perform *operation*."""
        flow = self.do(operation)
        value: Any = None
        error: Exception | None = None
        while True:
            try:
                step = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value
            value, error = None, None
            try:
                if isinstance(step, tuple):
                    value = yield tuple(Envelope(one.partition, one) for one in step)
                else:
                    value = yield Envelope(step.partition, step)
            except Exception as caught:  # noqa: BLE001 - handed to the flow, whose error it is
                error = caught

    def before(self, request: Any) -> Any:
        """Take the request out."""
        return request.request if isinstance(request, Envelope) else request


class Talkative(Ported):
    """Warns about each request on its own logger, without any content."""

    def before(self, request: Any) -> Any:
        """Warn."""
        _log.warning("a request of the kind %s", type(request).__name__)
        return request


class ByWords(Ported):
    """Ranks by the number of the query's words in a text, so that scores of several tenants are comparable."""

    declares: ClassVar = {"lexical_scores": "comparable"}

    def search(self, operation: Search) -> Any:
        """Rank."""
        if not isinstance(operation.query, Lexical):
            return (yield from self.inner.search(operation))
        hits: list[Hit] = yield Wording(operation.partition, operation)
        return Found(hits)

    @classmethod
    def around(cls, opened: Any) -> Any:
        """Return *opened* with a port that ranks by words."""
        layer, port, aport = cls(opened.adapter), opened.port, opened.aport
        return replace(
            opened, adapter=layer, port=lambda: _WordPort(port(), layer), aport=lambda: _AsyncWordPort(aport(), layer)
        )


@dataclass(frozen=True, slots=True)
class Wording(Request[Any]):
    """Rank by words."""

    partition: str | None
    operation: Any


def _worded(operation: Search, rows: list[Hit]) -> list[Hit]:
    from vectoracl.text.sparse_words import words

    query = operation.query
    asked = set(words(query.text)) if isinstance(query, Lexical) else set[str]()
    scored = [(float(len(asked & set(words(row.text or "")))), row) for row in rows]
    floor = operation.min_score if operation.min_score is not None else 1.0
    kept = [row._replace(score=score) for score, row in scored if score >= max(floor, 1.0)]
    kept.sort(key=lambda hit: (-hit.score, hit.document, hit.id))
    if operation.group_by is None:
        return [_included(hit, operation.include) for hit in kept[: operation.k]]
    groups: dict[str, list[Hit]] = {}
    for hit in kept:
        groups.setdefault(hit.document, []).append(hit)
    chosen = {id(hit) for group in list(groups.values())[: operation.k] for hit in group[: operation.per_group]}
    return [_included(hit, operation.include) for hit in kept if id(hit) in chosen]


def _included(hit: Hit, include: Any) -> Hit:
    absent: dict[str, Any] = {part: None for part in ALL if part not in include}
    return hit._replace(**absent)


class _WordPort(_Port):
    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        if not isinstance(request, Wording):
            return super().execute(request, timeout)
        asked = request.operation
        flow = self.layer.inner.scan(Scan(asked.partition, asked.scope, asked.where, 1 << 30, None, ALL))
        try:
            step = next(flow)
            while True:
                step = flow.send(super().execute(step, timeout))
        except StopIteration as stop:
            return _worded(asked, stop.value.hits)


class _AsyncWordPort(_AsyncPort):
    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        if not isinstance(request, Wording):
            return await super().execute(request, timeout)
        asked = request.operation
        flow = self.layer.inner.scan(Scan(asked.partition, asked.scope, asked.where, 1 << 30, None, ALL))
        try:
            step = next(flow)
            while True:
                step = flow.send(await super().execute(step, timeout))
        except StopIteration as stop:
            return _worded(asked, stop.value.hits)


class NoUnscoped(Layer):
    """Has no unscoped search."""

    def unscoped(self, query: Any, k: int) -> Any:  # noqa: ARG002 - the contract's
        """Refuse."""
        raise RefusedError("There is no search over all tenants.")


def restored(row: Any) -> Any:
    """Return a stored row in the form in which it was written."""
    if ExtraFields in LAYERS:
        row = _unmarked(row)
    return _own_id(row) if RenamedIds in LAYERS else row


def dress(opened: Any) -> Any:
    """Return *opened* in all of its layers, the last one outside."""
    for layer in LAYERS:
        opened = layer.around(opened)
    return opened
