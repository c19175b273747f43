"""Loads with several batches in flight on a real adapter, of which one request fails, and their resumption."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

import vectoracl
from vectoracl.errors import StoreError
from vectoracl.model.records import Chunk

BATCH: Final = 4
CHUNKS: Final = 16
WIDTH: Final = 3
FAILURES: Final[list[Any]] = [("no", False), ("unknown", False), ("unknown", True)]
"""The value of `sent` of the error of a request, and whether the request was nevertheless performed."""


def stream(dimension: int = 8) -> Iterator[Chunk]:
    """Yield the chunks of the load; consecutive batches share documents."""
    for number in range(CHUNKS):
        vector = np.random.default_rng(number).normal(size=dimension).astype(np.float32)
        yield Chunk(f"c{number:02}", f"d{number // 5}", f"text {number}", vector, number)


class _Failing:
    """A port whose request number `at` fails; None: no request."""

    def __init__(self, port: Any, at: int | None, sent: Any, *, performed: bool) -> None:
        self._port = port
        self._at = at
        self._sent = sent
        self._performed = performed
        self._numbers = itertools.count()
        self.parallel = port.parallel

    def _fails(self, number: int, request: Any) -> StoreError | None:
        if number != self._at:
            return None
        # A read is never applied, whatever became of it.
        return StoreError("The connection was lost.", sent=self._sent if request.writes else "no")

    def execute(self, request: Any, timeout: float | None) -> Any:
        failure = self._fails(next(self._numbers), request)
        if failure is None or self._performed:
            reply = self._port.execute(request, timeout)
            if failure is None:
                return reply
        raise failure

    @property
    def requests(self) -> int:
        """The number of requests until now."""
        return next(self._numbers)


class _AsyncFailing(_Failing):
    async def execute(self, request: Any, timeout: float | None) -> Any:
        failure = self._fails(next(self._numbers), request)
        if failure is None or self._performed:
            reply = await self._port.execute(request, timeout)
            if failure is None:
                return reply
        raise failure


def check_failed_load(
    config: Mapping[str, Any], path: Path, at: int | None, sent: str, *, performed: bool, is_async: bool
) -> int:
    """Load, with request number *at* failing, check what the error promises, and resume from the journal at *path*.

    The store must be empty; it is empty again at the end. Returns the number of requests until the load ended.
    """
    work = _AsyncLoad if is_async else _Load
    return work(config, path).check(at, sent, performed=performed)


class _Load:
    def __init__(self, config: Mapping[str, Any], path: Path) -> None:
        self._config = config
        self._path = path

    def check(self, at: int | None, sent: str, *, performed: bool) -> int:
        """See `check_failed_load`."""
        with vectoracl.connect(dict(self._config)) as acl:
            named = acl._named("main")  # noqa: SLF001 - the port of the store is wrapped
            _pipelined(named)
            failing: Any = _Failing(named.port, at, sent, performed=performed)
            named.ports["store"] = failing
            docs = acl.scoped(vectoracl.testing.principal("ann", "acme"))
            error = None
            try:
                docs.load(stream(), batch=BATCH, resume=self._path)
            except StoreError as failed:
                error = failed
            requests: int = failing.requests
            assert named.port is not None
            named.ports["store"] = named.port
            there = sorted(hit.id for hit in docs.scan())
            if error is not None:
                _check_promise(error, there)
                report = docs.load(stream(), batch=BATCH, resume=self._path)
                assert (report.skipped, report.written) == (error.written, CHUNKS - error.written)
            _check_whole(sorted(hit.id for hit in docs.scan()), self._path, failed=error is not None, at=at)
            docs.delete(where=vectoracl.ALWAYS)
        return requests


class _AsyncLoad(_Load):
    def check(self, at: int | None, sent: str, *, performed: bool) -> int:
        return asyncio.run(self._acheck(at, sent, performed=performed))

    async def _acheck(self, at: int | None, sent: str, *, performed: bool) -> int:
        async with vectoracl.aconnect(dict(self._config)) as acl:
            await acl.open()
            named = acl._named("main")  # noqa: SLF001 - the port of the store is wrapped
            _pipelined(named)
            failing: Any = _AsyncFailing(named.aport, at, sent, performed=performed)
            named.aports["store"] = failing
            docs = acl.scoped(vectoracl.testing.principal("ann", "acme"))
            error = None
            try:
                await docs.load(stream(), batch=BATCH, resume=self._path)
            except StoreError as failed:
                error = failed
            requests: int = failing.requests
            assert named.aport is not None
            named.aports["store"] = named.aport
            there = sorted([hit.id async for hit in docs.scan()])
            if error is not None:
                _check_promise(error, there)
                report = await docs.load(stream(), batch=BATCH, resume=self._path)
                assert (report.skipped, report.written) == (error.written, CHUNKS - error.written)
            _check_whole(sorted([hit.id async for hit in docs.scan()]), self._path, failed=error is not None, at=at)
            await docs.delete(where=vectoracl.ALWAYS)
        return requests


def _pipelined(named: Any) -> None:
    adapter = named.store.adapter
    adapter._capabilities = replace(adapter.capabilities, writes_in_flight=WIDTH)  # noqa: SLF001 - also in local mode


def _check_promise(error: StoreError, there: list[str]) -> None:
    ids = [one.id for one in stream()]
    assert error.written % BATCH == 0
    assert there[: error.written] == ids[: error.written]
    assert error.sent == "unknown" or len(there) == error.written
    assert any(f"load: {error.written} chunks were written" in note for note in error.__notes__)


def _check_whole(there: list[str], path: Path, *, failed: bool, at: int | None) -> None:
    assert there == [one.id for one in stream()]
    assert not path.exists()
    assert failed or at is None, "the request that should have failed was not made"
