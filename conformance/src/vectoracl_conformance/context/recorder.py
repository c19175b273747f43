"""The recorder directly in front of the store: every request to an adapter's ports, and every reply.

It is below the adapter and below every mutant, so neither can hide a request from it. It does not see what an adapter
sends without its ports; the tap on the wire does.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from vectoracl.adapter_api.contract import AsyncPort, Opened, Port


class Event(NamedTuple):
    """One request with its reply, or with the error that came instead."""

    request: Any
    reply: Any
    error: BaseException | None


class Recorder:
    """The recorded events, oldest first; safe for threads."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = Lock()

    def add(self, request: Any, reply: Any, error: BaseException | None) -> None:
        """Keep one event."""
        with self._lock:
            self.events.append(Event(request, reply, error))

    def clear(self) -> None:
        """Forget everything; a check looks at nothing from before it."""
        with self._lock:
            self.events.clear()

    def __len__(self) -> int:
        return len(self.events)

    def since(self, mark: int) -> list[Event]:
        """Return the events after the first *mark*."""
        return self.events[mark:]


class RecordingPort:
    """A sync port that records."""

    def __init__(self, port: Port, recorder: Recorder) -> None:
        self._port = port
        self.recorder = recorder
        self.parallel = port.parallel

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform and record."""
        try:
            reply = self._port.execute(request, timeout)
        except BaseException as error:
            self.recorder.add(request, None, error)
            raise
        self.note(request, reply)
        return reply

    def note(self, request: Any, reply: Any) -> None:
        """Record a request that was performed elsewhere."""
        self.recorder.add(request, reply, None)

    def close(self) -> None:
        """Close the port."""
        self._port.close()


class AsyncRecordingPort:
    """An async port that records."""

    def __init__(self, port: AsyncPort, recorder: Recorder) -> None:
        self._port = port
        self.recorder = recorder
        self.parallel = port.parallel

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform and record."""
        try:
            reply = await self._port.execute(request, timeout)
        except BaseException as error:
            self.recorder.add(request, None, error)
            raise
        self.note(request, reply)
        return reply

    def note(self, request: Any, reply: Any) -> None:
        """Record a request that was performed elsewhere."""
        self.recorder.add(request, reply, None)

    async def close(self) -> None:
        """Close the port."""
        await self._port.close()


def recorded(opened: Opened, recorder: Recorder) -> Opened:
    """Return *opened* with ports that record on *recorder*."""
    port, aport = opened.port, opened.aport
    return replace(
        opened, port=lambda: RecordingPort(port(), recorder), aport=lambda: AsyncRecordingPort(aport(), recorder)
    )


def words(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield every text inside *value*: of collections, mappings, named tuples, dataclasses and plain objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes | bytearray | memoryview):
        yield bytes(value).decode("latin-1")
    elif value is None or isinstance(value, bool | int | float | np.ndarray) or depth > 12:
        return
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from words(name, depth + 1)
            yield from words(one, depth + 1)
    elif hasattr(value, "ListFields"):  # a message of protobuf
        for _, one in value.ListFields():
            yield from words(one, depth + 1)
    elif isinstance(value, Sequence | set | frozenset):  # lists, and protobuf's own
        for one in value:
            yield from words(one, depth + 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for part in dataclasses.fields(value):
            yield from words(getattr(value, part.name, None), depth + 1)
    elif hasattr(value, "__dict__"):
        yield from words(vars(value), depth + 1)
    else:
        yield str(value)


def arrays(value: Any, size: int, depth: int = 0) -> Iterator[np.ndarray[Any, Any]]:
    """Yield every vector of *size* numbers inside *value*: arrays, rows of matrices, lists, and texts that write one.

    Bytes are read as float32 where their length is that of such a vector, with or without PostgreSQL's header.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and value.ndim and value.shape[-1] == size:
            yield from value.reshape(-1, size)
        return
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("[") and text.endswith("]") and text.count(",") == size - 1:
            with contextlib.suppress(ValueError):
                yield np.array([float(one) for one in text[1:-1].split(",")])
        return
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        if len(raw) in (4 * size, 4 * size + 4):
            yield np.frombuffer(raw[-4 * size :], "<f4" if len(raw) == 4 * size else ">f4")
        return
    if value is None or isinstance(value, bool | int | float) or depth > 12:
        return
    if isinstance(value, Mapping):
        inner: Iterable[Any] = value.values()
    elif hasattr(value, "ListFields"):  # a message of protobuf
        inner = [one for _, one in value.ListFields()]
    elif isinstance(value, Sequence | set | frozenset):
        if len(value) == size and all(isinstance(one, float | int | np.floating) for one in value):
            yield np.array([float(one) for one in value])
            return
        inner = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = [getattr(value, part.name, None) for part in dataclasses.fields(value)]
    else:
        inner = vars(value).values() if hasattr(value, "__dict__") else ()
    for one in inner:
        yield from arrays(one, size, depth + 1)
