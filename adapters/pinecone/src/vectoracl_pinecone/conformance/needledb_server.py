"""`needledb`, an independent engine behind Pinecone's data-plane API, for tests and for the conformance kit.

It is not Pinecone and is never called so. `Needle` starts it in a separate process on loopback, with a generated key,
an empty folder and the counters of `needledb_counters`. The program is that of `demo_server.SPEC`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import httpx

from vectoracl.adapter_api.local_servers.start import MissingServerError, program
from vectoracl_conformance.harness import HarnessError
from vectoracl_pinecone.demo_server import SPEC

_START = 120.0  # seconds; a busy machine needs more than thirty
_TRIES = 3
_PROGRAM = Path(__file__).with_name("needledb_counters.py")


class Needle:
    """A running engine; `http` speaks to it with the key and is not counted. Raises: MissingServerError."""

    def __init__(self) -> None:
        # The Python next to the program is the one that has needledb.
        python = Path(program(SPEC).what).with_name("python.exe" if os.name == "nt" else "python")
        self.key = secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="vectoracl-needle-"))
        for tries_left in reversed(range(_TRIES)):
            self.port = _free_port()
            # Its standard input is a pipe from here: when this process is gone, it ends by itself.
            # A file: a pipe without a reader is full after 64 KB of tracebacks, and the engine then hangs.
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `_end`
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [str(python), "-P", str(_PROGRAM), str(self._folder), str(self.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                env={**os.environ, "NEEDLEDB_API_KEY": self.key},
            )
            self.http = httpx.Client(
                base_url=f"http://127.0.0.1:{self.port}",
                headers={"api-key": self.key, "x-kit": self.key},
                timeout=30,
                trust_env=False,
            )
            if self._ready():
                return
            output = self._end()
            if not tries_left:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise MissingServerError(f"needledb did not start: {output[-500:]}")

    def _ready(self) -> bool:
        until = time.monotonic() + _START
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if self.http.get("/health").status_code == 200:
                    return True
            except httpx.TransportError:
                time.sleep(0.05)
        return False

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def host(self, index: str, port: int | None = None) -> str:
        """Return the data-plane address of an index, through another *port* if one is given."""
        return f"http://127.0.0.1:{port or self.port}/indexes/{index}"

    def create(self, index: str, dimension: int, metric: str = "cosine") -> None:
        """Create an index; the client cannot, since it asks in a newer form."""
        body = {"name": index, "dimension": dimension, "metric": metric}
        self.http.post("/indexes", json=body).raise_for_status()

    def drop(self, index: str) -> None:
        """Delete an index. Raises: HarnessError where the engine hangs."""
        try:
            self.http.delete(f"/indexes/{index}")
        except httpx.TimeoutException:
            hung = True
        else:
            hung = False
        if hung:
            raise HarnessError("needledb does not answer any more: the engine itself hangs. Run it again.")

    def make_key(self, role: str) -> str:
        """Return a new API key of a role: read, write or admin."""
        key: str = self.http.post("/keys", json={"name": "test", "role": role}).json()["key"]
        return key

    def counts(self) -> dict[str, int]:
        """Return how many vectors were scored and how many requests were answered so far."""
        counters: dict[str, int] = self.http.get("/_counts").json()
        return counters

    def _end(self) -> str:
        self.http.close()
        self._process.terminate()
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        with self._said as file:
            file.seek(0)
            log = file.read()
        return log.decode(errors="replace")

    def close(self) -> None:
        """End the process and remove its folder."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
