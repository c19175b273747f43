"""`needledb`, an independent engine behind Pinecone's data-plane API, for tests and for the conformance kit.

It is not Pinecone and is never called so. `Needle` starts it in a process of its own on loopback, with a generated
key and a folder of its own; run as a program this module is that process. There it also counts, for the kit: the
vectors that its engine scores, and the requests that it answers, which `GET /_counts` tells. Requests that carry the
header `x-kit` with the server's key are not counted.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx

INSTALL = 'pip install "needledb==0.1.0"'
_START = 30.0
_TRIES = 3


class NeedleError(Exception):
    """The engine could not be started; the text says what to do."""


def installed() -> str | None:
    """Return the version of needledb that is installed, or None."""
    try:
        return version("needledb")
    except PackageNotFoundError:
        return None


class Needle:
    """A running engine; `http` speaks to it with the key and is not counted."""

    def __init__(self) -> None:
        if installed() is None:
            raise NeedleError(f"needledb is not installed: {INSTALL}")
        self.key = secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="vectoracl-needle-"))
        for left in reversed(range(_TRIES)):
            self.port = _free_port()
            # Its standard input is a pipe from here: when this process is gone, it ends by itself.
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [sys.executable, "-m", __name__, str(self._folder), str(self.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
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
            said = self._end()
            if not left:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise NeedleError(f"needledb did not start: {said[-500:]}")

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
        """Delete an index."""
        self.http.delete(f"/indexes/{index}")

    def make_key(self, role: str) -> str:
        """Return a new API key of a role: read, write or admin."""
        made: str = self.http.post("/keys", json={"name": "test", "role": role}).json()["key"]
        return made

    def counts(self) -> dict[str, int]:
        """Return how many vectors were scored and how many requests were answered so far."""
        found: dict[str, int] = self.http.get("/_counts").json()
        return found

    def _end(self) -> str:
        self.http.close()
        self._process.terminate()
        try:
            _, said = self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, said = self._process.communicate()
        return said.decode(errors="replace")

    def close(self) -> None:
        """End the process and remove its folder."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Counts:
    """What the engine did; added up under a lock, since it works in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.scored = 0
        self.answered = 0

    def add(self, *, scored: int = 0, answered: int = 0) -> None:
        """Add."""
        with self._lock:
            self.scored += scored
            self.answered += answered


def _watch(collection: Any, counts: Counts) -> None:
    """Count the candidates of both of the engine's ways to rank: the exact one and FAISS's index.

    In a flat index FAISS scores every slot that the mask permits. In a graph it scores fewer, which cannot be seen
    from here: all that the mask permits are counted, so the number is a bound from above.
    """
    exact, ann = collection._exact, collection._ann_search  # noqa: SLF001 - that is where the engine ranks

    def counted_exact(self: Any, query: Any, candidates: Any, k: int) -> Any:
        counts.add(scored=len(candidates))
        return exact(self, query, candidates, k)

    def counted_ann(self: Any, query: Any, k: int, mask: Any, ef: int) -> Any:
        counts.add(scored=int(self.n if mask is None else mask.sum()))
        return ann(self, query, k, mask, ef)

    collection._exact, collection._ann_search = counted_exact, counted_ann  # noqa: SLF001


class _Answered:
    """ASGI middleware that counts what is asked of indexes, but for the kit's own requests."""

    def __init__(self, app: Any, counts: Counts, key: str) -> None:
        self._app, self._counts, self._key = app, counts, key.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"x-kit") != self._key:
            self._counts.add(answered=1)
        await self._app(scope, receive, send)


def _serve(folder: str, port: int) -> None:
    import uvicorn
    from needledb.core.collection import Collection  # type: ignore[import-untyped]
    from needledb.server.app import create_app  # type: ignore[import-untyped]

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(0)

    counts = Counts()
    _watch(Collection, counts)
    key = os.environ["NEEDLEDB_API_KEY"]
    app = create_app(folder, api_keys=[key])

    async def told() -> dict[str, int]:
        return {"scored": counts.scored, "answered": counts.answered}

    app.add_api_route("/_counts", told)
    threading.Thread(target=wait, daemon=True).start()
    uvicorn.run(_Answered(app, counts, key), host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
