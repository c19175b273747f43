"""A server that turns requests away (429): asked again after the pause that it names, within a bound."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from qdrant_client import models

from vectoracl.access.policy import TenantPolicy
from vectoracl.audit.sinks import MemorySink
from vectoracl.engine.core_ports import CorePort
from vectoracl.engine.drivers import run
from vectoracl.engine.pipeline import LONGEST_PAUSE, retried
from vectoracl.errors import StoreError
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.ports import QdrantPort
from vectoracl_qdrant.requests import Scroll

EMPTY = {"result": {"points": [], "next_page_offset": None}, "status": "ok", "time": 0.0}
SCROLL = Scroll("acme", models.Filter(must=[]), 10)


@contextmanager
def limiting(refusals: int, headers: dict[str, str]) -> Iterator[tuple[QdrantPort, list[float]]]:
    """Serve an empty collection whose first *refusals* requests are turned away; note when each one came."""
    came: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            came.append(time.monotonic())
            limited = len(came) <= refusals
            body = json.dumps({"status": {"error": "secret-acme"}} if limited else EMPTY).encode()
            self.send_response(429 if limited else 200)
            for name, value in (headers if limited else {}).items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = QdrantConfig(url=f"http://127.0.0.1:{server.server_port}", collection="c", dimension=4)
    port = QdrantPort(config, Path(), debug=False)
    try:
        yield port, came
    finally:
        port.close()
        server.shutdown()
        server.server_close()


def ask(port: QdrantPort, timeout: float | None = None) -> object:
    def flow():
        return (yield from SCROLL)

    clock = CorePort(TenantPolicy(), MemorySink(), None)
    return run(retried(flow), {"store": port, "clock": clock}, timeout=timeout)


def test_a_pause_that_the_server_names_is_kept():
    with limiting(1, {"retry-after": "1"}) as (port, came):
        ask(port)
    assert len(came) == 2
    assert came[1] - came[0] >= 1


def test_without_one_the_pauses_are_short_and_few():
    with limiting(9, {}) as (port, came), pytest.raises(StoreError) as caught:
        ask(port)
    assert (caught.value.code, caught.value.sent, caught.value.retryable) == ("rate_limited", "no", True)
    assert len(came) == 3
    assert "secret" not in str(caught.value)


def test_a_long_pause_is_the_callers_at_once():
    with limiting(9, {"retry-after": str(int(LONGEST_PAUSE) + 1)}) as (port, came), pytest.raises(StoreError) as caught:
        ask(port)
    assert (caught.value.code, caught.value.retry_after) == ("rate_limited", LONGEST_PAUSE + 1)
    assert len(came) == 1


def test_a_pause_does_not_outlast_the_call():
    with limiting(9, {"retry-after": "5"}) as (port, came):
        begun = time.monotonic()
        with pytest.raises(StoreError) as caught:
            ask(port, timeout=0.3)
        assert (caught.value.code, caught.value.sent) == ("timeout", "no")
        assert time.monotonic() - begun < 4
    assert len(came) == 1
