"""Performs calls on a client that come in on standard input, and answers on what was standard output.

This file is handed to an interpreter as text, so that the process it runs in holds no module but the library's and the
adapter's, no argument and no file that says who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import pickle
import signal
import struct
import sys
from typing import Any

_CLIENTS: dict[int, Any] = {}
_DRESS: dict[str, Any] = {}
_KEPT: list[Any] = []


def _client(number: int, config: dict[str, Any], mode: str, provision: Any) -> None:
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
    if "dress" in _DRESS:
        dress = _DRESS["dress"]

        class Dressed(kind):  # type: ignore[misc]
            def _named(self, name: str) -> Any:
                known = name in self._stores
                named = super()._named(name)
                if not known:
                    import dataclasses

                    named.opened = dress(named.opened)
                    named.store = dataclasses.replace(named.store, adapter=named.opened.adapter)
                return named

        kind = Dressed
    made = kind(config)
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


def _call(number: int, claims: dict[str, Any], narrows: list[Any], name: str, args: Any, given: Any) -> Any:
    from vectoracl import Principal

    handle = _CLIENTS[number].scoped(Principal(**claims))
    for where, actions in narrows:
        handle = handle.narrow(where, actions)
    answer = getattr(handle, name)(*args, **given)
    if hasattr(answer, "__aiter__"):
        return _done(_listed(answer))
    return list(answer) if hasattr(answer, "__next__") else _done(answer)


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
    if what == "path":
        sys.path.extend(one for one in args if one not in sys.path)
    elif what == "source":
        exec(compile(args[0], "<adapter>", "exec"), _DRESS)  # noqa: S102 - the adapter that is measured
    elif what == "client":
        _client(*args)
    elif what == "call":
        return _call(*args)
    elif what == "raw":
        return _raw(*args)
    elif what == "capabilities":
        client = _CLIENTS[args[0]]
        return client._named(client.config.default).store.adapter.capabilities  # noqa: SLF001 - likewise
    elif what == "close":
        _done(_CLIENTS.pop(args[0]).close())
    return None


def _told(error: BaseException) -> Any:
    known = next((one.__name__ for one in type(error).__mro__ if one.__module__ == "vectoracl.errors"), "")
    plain = {name: one for name, one in vars(error).items() if isinstance(one, str | int | float | bool)}
    return known, type(error).__name__, str(error), plain


def _main() -> None:
    if hasattr(os, "fork") and os.fork():
        os._exit(0)  # whoever started this is no longer its parent
    read, write = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    # Whoever started this cannot wait for it, so its last words say how it ended.
    faulthandler.enable()
    for name in ("SIGTERM", "SIGHUP", "SIGXCPU"):
        with contextlib.suppress(AttributeError, ValueError, OSError, RuntimeError):
            faulthandler.register(getattr(signal, name), chain=True)

    def answer(value: Any) -> None:
        try:
            data = pickle.dumps(value, 5)
        except Exception as error:  # noqa: BLE001 - reported instead of what cannot be sent
            data = pickle.dumps(("error", _told(error)), 5)
        write.write(struct.pack(">I", len(data)) + data)
        write.flush()

    answer(("ok", os.getpid()))
    while len(head := read.read(4)) == 4:
        question = read.read(struct.unpack(">I", head)[0])
        try:
            what, *args = pickle.loads(question)  # noqa: S301 - who started this asks
            value = ("ok", _perform(what, *args))
        except BaseException as error:  # noqa: BLE001 - an error is an answer
            value = ("error", _told(error))
        answer(value)


if __name__ == "__main__":
    _main()
    os._exit(0)
