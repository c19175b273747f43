"""Performs calls on a client that come in on standard input, and answers on what was standard output.

Its text is the program of an application's environment, under other names in each run (`driver`), so that the process
it runs in holds no module but the library's and the adapter's, no argument and no file that says who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import io
import operator
import os
import pickle
import signal
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_CLIENTS: dict[int, Any] = {}
_RULES: dict[int, _Rules] = {}
_FAULTS: dict[int, _Faults] = {}
_DRESS: dict[str, Any] = {}
_KEPT: list[Any] = []
_THINGS: dict[int, Any] = {}
_HEARD: list[Any] = []
_LOGGED: list[Any] = []
_REPORTS = [0]
_MARK: list[Any] = ["", None]


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
        if action not in own:
            return Decision.deny("there is no rule for it", self.version)
        scope = Scope.of(Grant(tenant, predicate) for tenant, predicate in own[action].items())
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


class _Notes:
    """A port whose requests are kept with what came back."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.parallel = inner.parallel

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform a request."""
        try:
            reply = self.inner.execute(request, timeout)
        except BaseException as error:
            _HEARD.append((request, None, f"{type(error).__name__}: {error}"))
            raise
        _HEARD.append((request, reply, None))
        return reply

    def note(self, request: Any, reply: Any) -> None:
        """Keep a request that was performed elsewhere."""
        _HEARD.append((request, reply, None))

    def close(self) -> None:
        """Close the port."""
        self.inner.close()


class _AsyncNotes:
    """The same for asyncio."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.parallel = inner.parallel

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform a request."""
        try:
            reply = await self.inner.execute(request, timeout)
        except BaseException as error:
            _HEARD.append((request, None, f"{type(error).__name__}: {error}"))
            raise
        _HEARD.append((request, reply, None))
        return reply

    def note(self, request: Any, reply: Any) -> None:
        """Keep a request that was performed elsewhere."""
        _HEARD.append((request, reply, None))

    async def close(self) -> None:
        """Close the port."""
        await self.inner.close()


def _noting(opened: Any) -> Any:
    import dataclasses

    port, aport = opened.port, opened.aport
    return dataclasses.replace(opened, port=lambda: _Notes(port()), aport=lambda: _AsyncNotes(aport()))


class _Carrying(pickle.Pickler):
    """Carries also messages of protobuf, whose modules cannot always be imported by their names."""

    def persistent_id(self, obj: Any) -> Any:
        """Return what a message is made from."""
        if hasattr(obj, "SerializeToString") and hasattr(obj, "DESCRIPTOR") and not isinstance(obj, type):
            return obj.DESCRIPTOR.full_name, obj.SerializeToString()
        return None

    def reducer_override(self, obj: Any) -> Any:
        """Carry the lists and maps of messages as lists and dictionaries."""
        if type(obj).__module__.startswith("google.") and hasattr(obj, "__len__"):
            return (dict, (dict(obj),)) if hasattr(obj, "items") else (list, (list(obj),))
        return NotImplemented


class _Answering(pickle.Pickler):
    """Writes answers. A mapping of any kind becomes a dictionary: a read-only view cannot be pickled."""

    def reducer_override(self, obj: Any) -> Any:
        """Write a mapping as a dictionary, and everything else as it is."""
        return (dict, (dict(obj),)) if isinstance(obj, Mapping) else NotImplemented


def _answered(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Answering(buffer, 5).dump(value)
    return buffer.getvalue()


def _carried(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Carrying(buffer, 5).dump(value)
    return buffer.getvalue()


def _heard(since: int) -> list[bytes]:
    """Return what was kept, from *since* on, each as it can be carried."""
    carried = []
    for request, reply, error in _HEARD[since:]:
        try:
            carried.append(_carried((request, reply, error)))
        except Exception as problem:  # noqa: BLE001 - reported instead of what cannot be carried
            carried.append(_carried((None, None, f"{type(request).__name__} cannot be carried: {problem}")))
    return carried


def _client(
    number: int, config: dict[str, Any], mode: str, provision: Any, rules: Any = None, faulty: Any = None
) -> None:
    _make(number, config, mode, provision, rules, faulty)
    _done(_CLIENTS[number].open())


def _make(
    number: int,
    config: dict[str, Any],
    mode: str,
    provision: Any,
    rules: Any = None,
    faulty: Any = None,
    noted: Any = None,
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
    if "dress" in _DRESS or faulty or noted:
        dress = _DRESS.get("dress", lambda opened: opened)
        faults = _FAULTS[number] = _Faults()

        class Dressed(kind):  # type: ignore[misc]
            def _named(self, name: str) -> Any:
                known = name in self._stores
                named = super()._named(name)
                if not known:
                    import dataclasses

                    named.opened = _noting(named.opened) if noted else named.opened
                    named.opened = dress(faults.wrapped(named.opened) if faulty else named.opened)
                    named.store = dataclasses.replace(named.store, adapter=named.opened.adapter)
                return named

        Dressed.__name__ = Dressed.__qualname__ = kind.__name__
        kind = Dressed
    _CLIENTS[number] = kind(config, **given)


_LOOP: list[asyncio.AbstractEventLoop] = []


def _loop() -> asyncio.AbstractEventLoop:
    if not _LOOP:
        _LOOP.append(asyncio.new_event_loop())
    return _LOOP[0]


def _dropped(answer: Any) -> Any:
    """Return nothing, when *answer* has been waited for."""

    async def work() -> None:
        await answer

    return work() if hasattr(answer, "__await__") else None


async def _awaited(answer: Any) -> Any:
    return await answer


def _done(answer: Any) -> Any:
    if not hasattr(answer, "__await__"):
        return answer
    if _loop().is_running():  # in a separate thread, for what is performed at the same time
        return asyncio.run_coroutine_threadsafe(_awaited(answer), _loop()).result()
    return _loop().run_until_complete(_awaited(answer))


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


def _used(value: Any, depth: int = 8) -> None:
    """Change what the caller of a handle was given, as its owner may: vectors, mappings and lists, from the inside."""
    if isinstance(value, tuple | list) and depth:
        for one in value:
            _used(one, depth - 1)
    elif isinstance(value, dict) and depth:
        for one in value.values():
            _used(one, depth - 1)
    elif hasattr(value, "hits"):
        _used(value.hits, depth)
    with contextlib.suppress(Exception):  # what cannot be changed is not
        if isinstance(value, dict | list):
            value.clear()
        elif type(value).__module__ == "numpy":
            value.fill(9)


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


def _changes(since: Any, identical: Any = None) -> Any:
    """Return what `changed_since` of the rows of the store does."""
    return changed_since(list(_rows(None)), since, _MARK, identical)


def changed_since(rows: list[Any], since: Any, state: list[Any], identical: Any = None) -> Any:
    """Return a new mark, and what changed since the census with the mark *since*: gone keys, and `_packed` rows.

    *state* holds the last mark and what the rows were then, and gets those of now.

    Where that is not known, the keys are None and the rows are all. With *identical*, a row is the same if its parts
    are the same objects, which no store may rely on that could change them in place.
    """
    seen: Any = {}
    try:
        for row in rows:
            tag, vector = row.tag, row.vector
            content: Any = (tag, row.text, vector, row.metadata)
            if not identical:
                plain = (tag, row.text, row.metadata, vector.dtype.str, vector.shape)
                content = hash(pickle.dumps(plain, 5) + vector.tobytes())
            seen[tag.tenant, tag.document, tag.chunk] = content
    except Exception:  # noqa: BLE001 - rows of another form are sent whole
        seen = None
    last, known = state
    if seen is not None and len(seen) < len(rows):
        seen = None
    mark = os.urandom(8).hex()
    state[:] = [mark, seen]
    if known is None or seen is None or since != last:
        return mark, None, _packed(rows)
    changed = []
    for row in rows:
        place = (row.tag.tenant, row.tag.document, row.tag.chunk)
        old, new = known.get(place), seen[place]
        if old is None or (any(map(operator.is_not, old, new)) if identical else old != new):
            changed.append(row)
    return mark, [place for place in known if place not in seen], _packed(changed)


def _packed(rows: list[Any]) -> Any:
    """Return *rows*, with all vectors in one array if they have one form: thousands of small ones take long to send."""
    try:
        vectors = [row.vector for row in rows]
        if len({(type(one), one.dtype.str, one.shape) for one in vectors}) == 1 and len(vectors[0].shape) == 1:
            import numpy as np

            tags = [tuple(row.tag) for row in rows]
            return tags, [row.text for row in rows], np.stack(vectors), [row.metadata for row in rows]
    except Exception:  # noqa: BLE001, S110 - rows of another form are sent as they are
        pass
    return rows


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


def _thing(number: int) -> Any:
    return _CLIENTS[number] if number in _CLIENTS else _THINGS[number]


def _do(number: int, name: str, args: Any, given: Any, keep: int) -> Any:
    """Call a method of a client, a handle or an iterator.

    Its answer is kept under the number *keep*, for more calls; with 0 it is returned, with -1 dropped.
    """
    answer = getattr(_thing(number), name)(*args, **given)
    if keep < 0:
        return _dropped(answer)
    if keep:
        _THINGS[keep] = answer
        return None
    return answer


def _scoped(number: int, keep: int, claims: Any, args: Any, given: Any) -> None:
    """Keep the handle of the principal of *claims*, or of whatever else is in *args*."""
    from vectoracl import Principal

    _THINGS[keep] = _CLIENTS[number].scoped(*args if claims is None else [Principal(**claims)], **given)


def _step(number: int) -> Any:
    """Return (True, the next hit), or (False, None) at the end."""
    rows = _thing(number)
    if hasattr(rows, "__anext__"):

        async def one() -> Any:
            try:
                return True, await anext(rows)
            except StopAsyncIteration:
                return False, None

        return one()
    try:
        return True, next(rows)
    except StopIteration:
        return False, None


def _drain(number: int, name: str, args: Any, given: Any) -> Any:
    """Return everything that a method yields."""
    rows = getattr(_thing(number), name)(*args, **given)
    return _listed(rows) if hasattr(rows, "__aiter__") else list(rows)


def _run(number: int, text: str, args: Any, keep: int) -> Any:
    """Call `work` of *text* with a client or a handle."""
    names: dict[str, Any] = {}
    exec(compile(text, "<string>", "exec"), names)  # noqa: S102 - a part of the program, given later
    answer = names["work"](_thing(number), *args)
    if keep:
        _THINGS[keep] = answer
        return None
    return answer


def _log(on: int) -> None:
    """Write everything that is logged to standard error, at every level; or as it was before."""
    import logging

    root = logging.getLogger()
    if on:
        everyone = [
            root,
            *(one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)),
        ]
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(1)
        _LOGGED.append((handler, [(one, one.level) for one in everyone]))
        for one in everyone:
            one.setLevel(1)
        root.addHandler(handler)
        return
    handler, levels = _LOGGED.pop()
    root.removeHandler(handler)
    for one, level in levels:
        one.setLevel(level)


def _report(error: BaseException | None) -> str:
    """Return everything that a report of *error* would show: text, repr, notes, data, causes and contexts."""
    import traceback

    if error is None:
        return ""
    text = "".join(traceback.format_exception_only(type(error), error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{text} {error!r} {vars(error)!r} {_report(cause)}"


def _raw(number: int, operation: Any) -> Any:
    from vectoracl.adapter_api.contract import flow_of
    from vectoracl.engine.drivers import arun, confined, run

    client = _CLIENTS[number]
    named = client._named(client.config.default)  # noqa: SLF001 - past the core's own checks is what is asked
    flow = confined(flow_of(named.store.adapter, operation), operation.partition)
    if named.port is not None:
        return run(flow, {"store": named.port}, timeout=30)
    return arun(flow, {"store": named.aport}, timeout=30)


def _perform(what: str, *args: Any) -> Any:
    return _done(_started(what, *args))


def _started(what: str, *args: Any) -> Any:
    """Perform a request, or return what has to be awaited for it."""
    if what == "do":
        return _do(*args)
    if what == "scoped":
        return _scoped(*args)
    if what == "step":
        return _step(*args)
    if what == "drain":
        return _drain(*args)
    if what == "run":
        return _run(*args)
    if what == "make":
        _make(*args)
    elif what == "show":
        thing = _thing(args[0])
        return [repr(thing), *(map(str, [repr(thing.config), thing.config]) if args[0] in _CLIENTS else ())]
    elif what == "heard":
        return _heard(*args)
    elif what == "count":
        return len(_HEARD)
    elif what == "forget":
        _HEARD.clear()
        _THINGS.clear()
    elif what == "log":
        _log(*args)
    elif what == "reports":
        _REPORTS[0] = args[0]
    elif what == "parts":
        return _DRESS["parts"](next(iter(_CLIENTS.values()))) if "parts" in _DRESS else None
    elif what == "source":
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
    elif what == "changes":
        return _changes(*args)
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
    plain: dict[str, Any] = {
        name: one for name, one in vars(error).items() if isinstance(one, str | int | float | bool)
    }
    if _REPORTS[0]:
        plain["report"] = _report(error)
    if findings := getattr(error, "findings", None):
        plain["findings"] = [str(one) for one in findings]
    return known, type(error).__name__, str(error), plain


class _Pipe:
    """The pipe to whoever started this. Nothing is read ahead, so a branch continues where its parent stopped."""

    def __init__(self, read: int, write: int) -> None:
        self._from = read
        self._to = write
        self._depth = 0
        self._writing = threading.Lock()
        self._tasks: dict[int, Any] = {}
        self._pool: ThreadPoolExecutor | None = None

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
            data = _answered(value)
        except Exception as error:  # noqa: BLE001 - reported instead of what cannot be sent
            data = _answered(("error", _told(error)))
        with self._writing:
            rest = memoryview(struct.pack(">I", len(data)) + data)
            while rest:
                rest = rest[os.write(self._to, rest) :]

    def later(self, ticket: int, at_once: bool, question: Any) -> Any:  # noqa: FBT001 - a switch
        """Perform a request along with others: in a thread, or *at_once* as a task. Its answer names the ticket."""
        if not at_once:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(64)
            self._pool.submit(self._finish, ticket, question)
            return "ok", None
        if not _loop().is_running():
            threading.Thread(target=_loop().run_forever, daemon=True).start()
        _loop().call_soon_threadsafe(self._task, ticket, question)
        return "ok", None

    def _finish(self, ticket: int, question: Any) -> None:
        try:
            outcome = ("ok", _perform(*question))
        except BaseException as error:  # noqa: BLE001 - an error is an answer
            outcome = ("error", _told(error))
        self.answer(("later", (ticket, *outcome)))

    def _task(self, ticket: int, question: Any) -> None:
        async def work() -> Any:
            answer = _started(*question)
            return await answer if hasattr(answer, "__await__") else answer

        def ended(task: Any) -> None:  # also of one that was cancelled before it began
            self._tasks.pop(ticket, None)
            error = None if task.cancelled() else task.exception()
            if task.cancelled():
                outcome: Any = ("cut", None)
            else:
                outcome = ("error", _told(error)) if error is not None else ("ok", task.result())
            self.answer(("later", (ticket, *outcome)))

        task = self._tasks[ticket] = asyncio.ensure_future(work())
        task.add_done_callback(ended)

    def cancel(self, ticket: int) -> Any:
        """Cancel a task."""

        def now() -> None:
            if ticket in self._tasks:
                self._tasks[ticket].cancel()

        _loop().call_soon_threadsafe(now)
        return "ok", None

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
        given: list[Any] = []
        try:
            what, *args = pickle.loads(question)  # noqa: S301 - who started this asks
            if what == "branch":
                value = pipe.branch()
            elif what == "end":
                value = pipe.end()
            elif what == "later":
                value = pipe.later(args[0], args[1], args[2:])
            elif what == "cancel":
                value = pipe.cancel(*args)
            else:
                value = ("ok", _perform(what, *args))
                if what == "calls":
                    given = [answer for _, answer in value[1]]
        except BaseException as error:  # noqa: BLE001 - an error is an answer
            value = ("error", _told(error))
        pipe.answer(value)
        _used(given)


if __name__ == "__main__":
    _main()
    os._exit(0)
