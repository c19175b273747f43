"""Performs calls on a client that come in on standard input, and answers on what was standard output.

Its text is the program of an application's environment, under other names in each run (`driver`), so that the process
it runs in holds no module but the library's and the adapter's, no argument and no file that says who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import pickle
import signal
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_CLIENTS: dict[int, Any] = {}
_RULES: dict[int, _Rules] = {}
_FAULTS: dict[int, _Faults] = {}
_DRESS: dict[str, Any] = {}
_KEPT: list[Any] = []


class _Rules:
    """A policy from a table: grants by principal, action and tenant. Whoever is not listed has the tenant's rights."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        self.changes = 0

    @property
    def version(self) -> str:
        return f"rules-{self.changes}"

    def decide(self, principal: Any, action: Any) -> Any:
        from vectoracl import Decision, Grant, Scope, TenantPolicy

        own = self.table.get(principal.id)
        if own is None:
            return TenantPolicy().decide(principal, action)
        scope = Scope.of(Grant(tenant, predicate) for tenant, predicate in own.get(action, {}).items())
        if scope.empty:
            return Decision.deny("there is no rule for it", self.version)
        return Decision(permit=True, scope=scope, reasons=("a rule",), policy_version=self.version)


class _Faults:
    """Failures of the network, by the number of the request from now on.

    "before": it was not sent. "after": it was performed, and the reply was lost. "unknown": it was not performed, and
    that is not known.
    """

    def __init__(self) -> None:
        self.plan: dict[int, str] = {}

    def due(self) -> str:
        """Count one request, and return the failure that it has."""
        kind = self.plan.pop(1, "")
        self.plan = {number - 1: one for number, one in self.plan.items() if number > 1}
        return kind

    def error(self, kind: str) -> Exception:
        from vectoracl import StoreError

        sent: Any = "no" if kind == "before" else "unknown"
        return StoreError("The connection was lost.", code="unreachable", sent=sent, retryable=kind == "before")

    def wrapped(self, opened: Any) -> Any:
        """Return *opened* with ports that fail as planned."""
        import dataclasses

        faults, port, aport = self, opened.port, opened.aport

        class Unreliable:
            def __init__(self, inner: Any) -> None:
                self.inner = inner
                self.parallel = inner.parallel

            def execute(self, request: Any, timeout: float | None) -> Any:
                kind = faults.due() if faults.plan else ""
                if kind in ("before", "unknown"):
                    raise faults.error(kind)
                reply = self.inner.execute(request, timeout)
                if kind:
                    raise faults.error(kind)
                return reply

            def close(self) -> None:
                self.inner.close()

        class AsyncUnreliable:
            def __init__(self, inner: Any) -> None:
                self.inner = inner
                self.parallel = inner.parallel

            async def execute(self, request: Any, timeout: float | None) -> Any:
                kind = faults.due() if faults.plan else ""
                if kind in ("before", "unknown"):
                    raise faults.error(kind)
                reply = await self.inner.execute(request, timeout)
                if kind:
                    raise faults.error(kind)
                return reply

            async def close(self) -> None:
                await self.inner.close()

        return dataclasses.replace(opened, port=lambda: Unreliable(port()), aport=lambda: AsyncUnreliable(aport()))


def _client(
    number: int, config: dict[str, Any], mode: str, provision: Any, rules: Any = None, faulty: Any = None
) -> None:
    from vectoracl import AsyncVectorACL, RefusedError, VectorACL

    if provision:
        first = VectorACL(config)
        try:
            operator = first.operator()
        except RefusedError:  # there is nothing to provision
            first.close()
        else:
            operator.provision()
            _KEPT.append((first, operator))  # a store that lives in its client is gone with the last of them
    kind: Any = VectorACL if mode == "sync" else AsyncVectorACL
    given: dict[str, Any] = {}
    if rules is not None:
        given["policy"] = _RULES[number] = _Rules(rules)
    if "dress" in _DRESS or faulty:
        dress = _DRESS.get("dress", lambda opened: opened)
        faults = _FAULTS[number] = _Faults()

        class Dressed(kind):  # type: ignore[misc]
            def _named(self, name: str) -> Any:
                known = name in self._stores
                named = super()._named(name)
                if not known:
                    import dataclasses

                    named.opened = dress(faults.wrapped(named.opened) if faulty else named.opened)
                    named.store = dataclasses.replace(named.store, adapter=named.opened.adapter)
                return named

        kind = Dressed
    made = kind(config, **given)
    _CLIENTS[number] = made
    _done(made.open())


_LOOP: list[asyncio.AbstractEventLoop] = []


def _done(answer: Any) -> Any:
    if not asyncio.iscoroutine(answer):
        return answer
    if not _LOOP:
        _LOOP.append(asyncio.new_event_loop())
    return _LOOP[0].run_until_complete(answer)


async def _listed(hits: Any) -> list[Any]:
    return [hit async for hit in hits]


def _begun(number: int, claims: dict[str, Any], narrows: list[Any], name: str, args: Any, given: Any) -> Any:
    """Return the answer of one call, or what has to be awaited for it."""
    from vectoracl import Principal

    handle = _CLIENTS[number].scoped(Principal(**claims))
    for where, actions in narrows:
        handle = handle.narrow(where, actions)
    answer = getattr(handle, name)(*args, **given)
    if hasattr(answer, "__aiter__"):
        return _listed(answer)
    return list(answer) if hasattr(answer, "__next__") else answer


def _call(number: int, *call: Any) -> Any:
    return _done(_begun(number, *call))


def _outcome(number: int, call: Any) -> Any:
    try:
        return "ok", _call(number, *call)
    except Exception as error:  # noqa: BLE001 - an error is an outcome
        return "error", _told(error)


def _calls(number: int, calls: list[Any]) -> list[Any]:
    """Perform calls one after the other."""
    return [_outcome(number, call) for call in calls]


def _together(number: int, calls: list[Any], width: int) -> list[Any]:
    """Perform calls side by side: in threads, or as tasks."""
    from vectoracl import VectorACL

    if isinstance(_CLIENTS[number], VectorACL):
        with ThreadPoolExecutor(width) as pool:
            return list(pool.map(lambda call: _outcome(number, call), calls))

    async def one(call: Any) -> Any:
        try:
            return "ok", await _begun(number, *call)
        except Exception as error:  # noqa: BLE001 - an error is an outcome
            return "error", _told(error)

    async def every() -> list[Any]:
        return list(await asyncio.gather(*(one(call) for call in calls)))

    return list(_done(every()))


def _cut(number: int, call: Any, after: float) -> Any:
    """Cancel a call after *after* seconds; a sync one has that time limit instead."""
    from vectoracl import VectorACL

    claims, narrows, name, args, given = call
    if isinstance(_CLIENTS[number], VectorACL):
        return _outcome(number, (claims, narrows, name, args, {**given, "timeout": after}))

    async def work() -> Any:
        task = asyncio.ensure_future(_begun(number, *call))
        await asyncio.sleep(after)
        task.cancel()
        try:
            return "ok", await task
        except asyncio.CancelledError:
            return "cut", None
        except Exception as error:  # noqa: BLE001 - an error is an outcome
            return "error", _told(error)

    return _done(work())


def _rows(tenants: Any) -> Iterator[Any]:
    """Yield what `census(client)` of the harness reads: of the named tenants, or of all."""
    for row in _DRESS["census"](next(iter(_CLIENTS.values()))):
        if tenants is None or row.tag.tenant in tenants:
            yield row


def _about(adapter: str) -> Any:
    """Return the distributions that offer *adapter*, with their versions, and the files of all modules."""
    from importlib.metadata import entry_points

    points = [point for point in entry_points(group="vectoracl") if point.name == adapter]
    named = [(str(point.dist.name), str(point.dist.version)) for point in points if point.dist is not None]
    files = {name: str(getattr(module, "__file__", None) or "") for name, module in list(sys.modules.items())}
    return named, files


def _digest(folder: str, names: list[str]) -> str:
    """Return the SHA-256 over the files of packages of *folder*."""
    import hashlib
    from pathlib import Path

    site, whole = Path(folder), hashlib.sha256()
    for name in names:
        for file in sorted((site / name).rglob("*")) if (site / name).is_dir() else [site / name]:
            if file.is_file() and "__pycache__" not in file.parts:
                whole.update(file.relative_to(site).as_posix().encode() + bytes(1))
                whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def _raw(number: int, operation: Any) -> Any:
    from vectoracl.adapter_api.contract import flow_of
    from vectoracl.engine.drivers import arun, confined, run

    client = _CLIENTS[number]
    named = client._named(client.config.default)  # noqa: SLF001 - past the core's own checks is what is asked
    flow = confined(flow_of(named.store.adapter, operation), operation.partition)
    if named.port is not None:
        return run(flow, {"store": named.port}, timeout=30)
    return _done(arun(flow, {"store": named.aport}, timeout=30))


def _perform(what: str, *args: Any) -> Any:
    if what == "source":
        exec(compile(args[0], "<string>", "exec"), _DRESS)  # noqa: S102 - the adapter that is measured
    elif what == "client":
        _client(*args)
    elif what == "call":
        return _call(*args)
    elif what == "calls":
        return _calls(*args)
    elif what == "together":
        return _together(*args)
    elif what == "cut":
        return _cut(*args)
    elif what == "rules":
        _RULES[args[0]].table, _RULES[args[0]].changes = args[1], _RULES[args[0]].changes + 1
    elif what == "faults":
        _FAULTS[args[0]].plan = args[1]
    elif what == "census":
        return list(_rows(*args))
    elif what == "about":
        return _about(*args)
    elif what == "digest":
        return _digest(*args)
    elif what == "raw":
        return _raw(*args)
    elif what == "capabilities":
        client = _CLIENTS[args[0]]
        return client._named(client.config.default).store.adapter.capabilities  # noqa: SLF001 - likewise
    elif what == "close":
        _RULES.pop(args[0], None)
        _FAULTS.pop(args[0], None)
        _done(_CLIENTS.pop(args[0]).close())
    return None


def _told(error: BaseException) -> Any:
    known = next((one.__name__ for one in type(error).__mro__ if one.__module__ == "vectoracl.errors"), "")
    plain = {name: one for name, one in vars(error).items() if isinstance(one, str | int | float | bool)}
    return known, type(error).__name__, str(error), plain


class _Pipe:
    """The pipe to whoever started this. Nothing is read ahead, so a branch continues where its parent stopped."""

    def __init__(self, read: int, write: int) -> None:
        self._from = read
        self._to = write
        self._depth = 0

    def question(self) -> bytes | None:
        """Return the next question; None at the end."""
        head = self._read(4)
        return None if len(head) < 4 else self._read(struct.unpack(">I", head)[0])

    def _read(self, size: int) -> bytes:
        parts, left = [], size
        while left and (part := os.read(self._from, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def answer(self, value: Any) -> None:
        """Answer, after everything that was printed."""
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        try:
            data = pickle.dumps(value, 5)
        except Exception as error:  # noqa: BLE001 - reported instead of what cannot be sent
            data = pickle.dumps(("error", _told(error)), 5)
        rest = memoryview(struct.pack(">I", len(data)) + data)
        while rest:
            rest = rest[os.write(self._to, rest) :]

    def branch(self) -> Any:
        """Fork. The copy answers from now on; this process answers again when the copy has ended, by "end" or not."""
        gc.collect()
        gc.freeze()  # what exists now stays shared
        pid = os.fork()
        if not pid:
            self._depth += 1
            # Clients and loops are bound to the process that made them; they are kept, so that nothing closes them.
            _KEPT.append((dict(_CLIENTS), list(_LOOP)))
            for one in (_CLIENTS, _RULES, _FAULTS, _LOOP):
                one.clear()
            return "ok", os.getpid()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return ("ok", None) if code == 0 else ("error", ("", "EndedError", f"it ended by itself ({code})", {}))

    def end(self) -> Any:
        """End a branch, whose parent then answers."""
        if self._depth:
            os._exit(0)
        return "error", ("", "ValueError", "there is no branch", {})


def _main() -> None:
    if hasattr(os, "fork") and os.fork():
        os._exit(0)  # whoever started this is no longer its parent
    pipe = _Pipe(os.dup(0), os.dup(1))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    # Whoever started this cannot wait for it, so its last words say how it ended.
    faulthandler.enable()
    for name in ("SIGTERM", "SIGHUP", "SIGXCPU"):
        with contextlib.suppress(AttributeError, ValueError, OSError, RuntimeError):
            faulthandler.register(getattr(signal, name), chain=True)
    pipe.answer(("ok", os.getpid()))
    while (question := pipe.question()) is not None:
        try:
            what, *args = pickle.loads(question)  # noqa: S301 - who started this asks
            if what == "branch":
                value = pipe.branch()
            elif what == "end":
                value = pipe.end()
            else:
                value = ("ok", _perform(what, *args))
        except BaseException as error:  # noqa: BLE001 - an error is an answer
            value = ("error", _told(error))
        pipe.answer(value)


if __name__ == "__main__":
    _main()
    os._exit(0)
