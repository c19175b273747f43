"""A loopback proxy that adds a round-trip time, in a process of its own: `python proxy.py TARGET_PORT ROUND_TRIP_MS`.

It listens on 127.0.0.1 only, serves eight connections if no other number follows, and ends with its standard input.
Threads sleep more precisely than an event loop, whose timers have a grain of a millisecond. Where there is a C
compiler, `delay.c` takes its place: it leaves more of the processor to what is measured.
"""

from __future__ import annotations

import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MOST = 8


def _pump(source: socket.socket, sink: socket.socket, delay: float) -> None:
    waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(1000)

    def send() -> None:
        with suppress(OSError):
            while True:
                due, data = waiting.get()
                left = due - time.perf_counter()
                if left > 0:
                    time.sleep(left)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)

    threading.Thread(target=send, daemon=True).start()
    while True:
        try:
            data = source.recv(1 << 16)
        except OSError:
            data = b""
        waiting.put((time.perf_counter() + delay, data))
        if not data:
            return


def main(port: int, round_trip: float, most: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    for _ in range(most):
        client, _address = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=_pump, args=(source, sink, round_trip / 2), daemon=True).start()
    threading.Event().wait()


@contextmanager
def proxy(port: int, round_trip: float, most: int = _MOST) -> Iterator[int]:
    """Run a proxy to *port* that adds *round_trip* seconds and serves *most* connections; give its own port."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__)), str(port), str(round_trip * 1e3), str(most)]
        program = _compiled(Path(folder))
        if program is not None:
            command = [str(program), str(port), str(round(round_trip * 1e6))]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)
            process.stdout.close()


def _compiled(folder: Path) -> Path | None:
    """Compile `delay.c` into *folder*; None where that is not possible."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "delay"
    source = Path(__file__).with_name("delay.c")
    done = subprocess.run([compiler, "-O2", "-o", str(program), str(source)], capture_output=True, check=False)
    return program if done.returncode == 0 else None


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) / 1e3, int(sys.argv[3]) if len(sys.argv) > 3 else _MOST)
