"""A TCP proxy on 127.0.0.1 that delays, cuts and records: what the network does to a client.

    with Proxy(server.host, server.port, round_trip=0.005) as proxy:
        connection = psycopg.connect(proxy.dsn(server.dsn("runtime", tcp=True)))
        proxy.cut_after("server", 0)        # the next byte of the server is never seen

It runs in a thread of its own with its own event loop. Delays do not pile up: each direction takes half of
`round_trip` seconds, and bytes under way travel together, as in a network.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Side = Literal["client", "server"]


@dataclass(slots=True)
class Link:
    """One connection: the bytes that each side sent and that were handed on, and how many TCP reads they took."""

    sent: dict[Side, bytearray] = field(default_factory=lambda: {"client": bytearray(), "server": bytearray()})
    reads: dict[Side, int] = field(default_factory=lambda: {"client": 0, "server": 0})
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    cut: bool = False


class Proxy:
    """Stands between a client and *host*:*port*; `round_trip` is in seconds and may be changed at any time."""

    def __init__(self, host: str, port: int, *, round_trip: float = 0.0, record: bool = True) -> None:
        self.target = (host, port)
        self.round_trip = round_trip
        self.record = record
        self.host = "127.0.0.1"
        self.port = 0
        self.links: list[Link] = []
        self._budgets: dict[Side, tuple[int, bool] | None] = {"client": None, "server": None}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stopped: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._ready.wait(10)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        stopped = self._stopped
        if stopped is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(stopped.set)
        self._thread.join(10)

    def dsn(self, dsn: str) -> str:
        """Return the connection URI *dsn*, which must name host and port, pointed at this proxy."""
        parts = urlsplit(dsn)
        credentials, _, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}@{self.host}:{self.port}", query=""))

    def sent(self, side: Side) -> bytes:
        """Return all bytes that *side* sent so far and that were handed on, connection after connection."""
        return b"".join(bytes(link.sent[side]) for link in self.links)

    def cut(self) -> None:
        """Cut every open connection now, with a reset."""
        self._call(self._cut_all)

    def cut_after(self, side: Side, count: int, *, silently: bool = False) -> None:
        """Hand on *count* more bytes of *side*, counted over all connections, then cut the one that they ran out on.

        With *silently* it stays open and carries nothing more in either direction, like a network that drops packets.
        """
        self._call(self._budgets.__setitem__, side, (count, silently))

    def heal(self) -> None:
        """Take back `cut_after`; connections that were cut stay cut."""
        self._call(self._budgets.update, {"client": None, "server": None})

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        done = threading.Event()

        def run() -> None:
            function(*arguments)
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait(10)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._link(reader, writer)
            finally:
                tasks.discard(task)

        listener = await asyncio.start_server(accept, self.host, 0)
        self.port = listener.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        listener.close()
        self._cut_all()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writers=[writer])
        self.links.append(link)
        try:
            upstream, onward = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        link.writers.append(onward)
        await asyncio.gather(self._pump(link, "client", reader, onward), self._pump(link, "server", upstream, writer))

    async def _pump(self, link: Link, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: deque[tuple[float, bytes]] = deque()
        arrived = asyncio.Event()
        sender = asyncio.create_task(self._send(link, side, queue, arrived, writer))
        try:
            while data := await reader.read(65536):
                queue.append((self._loop.time() + self.round_trip / 2, data))
                arrived.set()
        except OSError:
            pass
        finally:
            queue.append((self._loop.time() + self.round_trip / 2, b""))
            arrived.set()
            await sender

    async def _send(
        self,
        link: Link,
        side: Side,
        queue: deque[tuple[float, bytes]],
        arrived: asyncio.Event,
        writer: asyncio.StreamWriter,
    ) -> None:
        while True:
            while not queue:
                arrived.clear()
                await arrived.wait()
            due, data = queue.popleft()
            if due > self._loop.time():
                await asyncio.sleep(due - self._loop.time())
            if not data:
                writer.close()
                return
            if not link.cut:  # once cut, what still arrives is dropped
                await self._deliver(link, side, data, writer)

    async def _deliver(self, link: Link, side: Side, data: bytes, writer: asyncio.StreamWriter) -> None:
        budget = self._budgets[side]
        rest = data if budget is None else data[: budget[0]]
        if self.record:
            link.sent[side] += rest
        link.reads[side] += 1
        try:
            writer.write(rest)
            await writer.drain()
        except OSError:
            return
        if budget is not None:
            self._budgets[side] = (budget[0] - len(rest), budget[1])
            if len(rest) < len(data):
                link.cut = True
                if not budget[1]:
                    self._abort(link)

    def _cut_all(self) -> None:
        for link in self.links:
            link.cut = True
            self._abort(link)

    @staticmethod
    def _abort(link: Link) -> None:
        for writer in link.writers:
            writer.transport.abort()
