"""The recording tap: a relay on 127.0.0.1, or on a unix socket, that forwards bytes unchanged and keeps a copy.

    with Tap.tcp(host, port) as tap:
        ... a client that connects to tap.address ...
    recording = Recording(tap.sessions(), served=...)

It runs in a thread with a separate event loop. A byte is recorded before it is forwarded, so a reply that the caller
has is in the recording. Memory is bounded: beyond `limit` bytes nothing more is kept, which is counted and makes every
grade abstain; the connection itself continues.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from vectoracl_conformance.evidence.sessions import Mark, Piece, Place, Session, Side

LIMIT = 256 * 1024 * 1024
_READ = 65536


class _Line:
    """One connection as it grows."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.opened = time.monotonic()
        self.closed: float | None = None
        self.pieces: list[Piece] = []
        self.up = 0
        self.down = 0
        self.dropped = 0

    @property
    def place(self) -> Place:
        return Place(len(self.pieces), self.up, self.down)

    def session(self) -> Session:
        return Session(self.number, self.opened, self.closed, tuple(self.pieces), self.dropped)


class Tap:
    """A `WireRecorder`. Made by `tcp` or `unix`; used once."""

    def __init__(self, *, upstream: tuple[str, int] | Path, listen: Path | None = None, limit: int = LIMIT) -> None:
        self._upstream = upstream
        self._listen = listen
        self._limit = limit
        self._kept = 0
        self._lines: list[_Line] = []
        self._lock = threading.Lock()
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._main, name="conformance-tap", daemon=True)

    @classmethod
    def tcp(cls, host: str, port: int, *, limit: int = LIMIT) -> Tap:
        """Stand in front of *host*:*port*."""
        return cls(upstream=(host, port), limit=limit)

    @classmethod
    def unix(cls, path: Path, listen: Path, *, limit: int = LIMIT) -> Tap:
        """Stand in front of the unix socket *path*, as the unix socket *listen*."""
        return cls(upstream=path, listen=listen, limit=limit)

    def start(self) -> None:
        """Begin to listen. Raises: OSError."""
        self._thread.start()
        self._ready.wait(10)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop listening; what is still open is cut, and stays marked as open."""
        if self._loop is not None and self._ended is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # the loop ended in between
                self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    def __enter__(self) -> Tap:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to; with a unix socket its path and 0."""
        return ("127.0.0.1", self._port) if self._listen is None else (str(self._listen), 0)

    def mark(self) -> Mark:
        """Return how far every connection is."""
        with self._lock:
            return Mark({line.number: line.place for line in self._lines})

    def sessions(self) -> tuple[Session, ...]:
        """Return every connection that was seen, oldest first."""
        with self._lock:
            return tuple(line.session() for line in self._lines)

    def settle(self, timeout: float = 5.0) -> bool:
        """Wait until every connection is closed; return whether they are."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            with self._lock:
                if all(line.closed is not None for line in self._lines):
                    return True
            time.sleep(0.005)
        return False

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that called start
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        if self._listen is None:
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self._port = server.sockets[0].getsockname()[1]
        else:
            server = await asyncio.start_unix_server(self._accept, str(self._listen))
        self._ready.set()
        await self._ended.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with self._lock:
            line = _Line(len(self._lines) + 1)
            self._lines.append(line)
        try:
            await self._carry(line, reader, writer)
        except asyncio.CancelledError:
            pass  # stop() cuts it; it was not closed by either side and stays marked as open
        except OSError:
            self._close(line)
        else:
            self._close(line)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    def _close(self, line: _Line) -> None:
        with self._lock:
            line.closed = time.monotonic()

    async def _carry(self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._upstream, Path):
            theirs, onward = await asyncio.open_unix_connection(str(self._upstream))
        else:
            theirs, onward = await asyncio.open_connection(*self._upstream)
        pumps = [
            asyncio.create_task(self._pump(line, "client", reader, onward)),
            asyncio.create_task(self._pump(line, "server", theirs, writer)),
        ]
        try:
            # A half-closed connection still carries the other side's bytes to their end.
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            onward.transport.abort()

    async def _pump(self, line: _Line, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ):
            self._keep(line, side, data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            with suppress(OSError):
                writer.write_eof()

    def _keep(self, line: _Line, side: Side, data: bytes) -> None:
        with self._lock:
            if side == "client":
                line.up += len(data)
            else:
                line.down += len(data)
            if self._kept + len(data) > self._limit or line.dropped:
                line.dropped += len(data)
                return
            self._kept += len(data)
            line.pieces.append(Piece(time.monotonic(), side, data))


class Taps:
    """A `WireRecorder` of a store with several ports: a tap in front of each, connections numbered together."""

    def __init__(self, *taps: Tap) -> None:
        self._taps = taps

    def start(self) -> None:
        """Begin to listen. Raises: OSError."""
        for tap in self._taps:
            tap.start()

    def stop(self) -> None:
        """Stop listening."""
        for tap in self._taps:
            tap.stop()

    @property
    def address(self) -> tuple[str | int, ...]:
        """The host, and the port of each tap in their order."""
        return ("127.0.0.1", *(tap.address[1] for tap in self._taps))

    def mark(self) -> Mark:
        """Return how far every connection is."""
        places: dict[int, Place] = {}
        for which, tap in enumerate(self._taps):
            places |= {self._number(which, number): place for number, place in tap.mark().places.items()}
        return Mark(places)

    def sessions(self) -> tuple[Session, ...]:
        """Return every connection that was seen, oldest first."""
        every = [
            replace(session, number=self._number(which, session.number))
            for which, tap in enumerate(self._taps)
            for session in tap.sessions()
        ]
        return tuple(sorted(every, key=lambda session: session.opened))

    def _number(self, which: int, number: int) -> int:
        return (number - 1) * len(self._taps) + which + 1
