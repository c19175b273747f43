"""Runs one server as its only child and ends it when the process that asked for it is gone, however it went.

Started by `start` as `python -m vectoracl.adapter_api.local_servers.guard LOG PORTS PROGRAM ARGUMENT …`. PORTS is "-",
or "40123,40124": then the server gets a separate network, of which these ports alone are carried to the loopback of
this machine (see `network`). The parent holds the other end of standard input: when that closes (the parent closed it,
crashed or was killed), the server is terminated. The guard is in a separate session: Ctrl-C reaches the parent alone.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading

from vectoracl.adapter_api.local_servers import network

PATIENCE = 10.0
"""Seconds that a server has between being asked to end and being killed."""


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()


def main() -> int:
    """Run the server; print its process id, or why it could not be started."""
    log, ports, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    carried: list[socket.socket] = []
    try:
        if ports != "-":
            carried = network.listeners([int(one) for one in ports.split(",")])
            network.enter()
        with open(log, "ab") as out:  # noqa: PTH123 - one call, no path arithmetic
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)  # noqa: S603 - the caller's program
    except OSError as error:
        sys.stdout.write(f"error {type(error).__name__}\n")
        return 1
    network.relay(carried)
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda _number, _frame: threading.Thread(target=_end, args=(child,)).start())

    def watch() -> None:
        sys.stdin.buffer.read()
        _end(child)

    threading.Thread(target=watch, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
