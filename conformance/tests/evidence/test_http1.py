"""The HTTP/1.1 decoder, on bytes of a real client and a real server, and on bytes that nobody should send."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectoracl_conformance.evidence import (
    Mark,
    Recording,
    ScopedCall,
    Session,
    Tap,
    Window,
    by_carries,
    grade_canaries,
    grade_structure,
)
from vectoracl_conformance.evidence.protocols.http1 import HttpRequest, HttpResponse, decoder
from vectoracl_conformance.evidence.sessions import Piece, mark_of

OWN, FOREIGN = "cnry-own-é", "cnry-foreign"


def rows(_: HttpRequest, response: HttpResponse) -> int | None:
    return len(response.json()["result"])


decode = decoder(rows)


class Store(BaseHTTPRequestHandler):
    """Answers with what the query asks for: ?leak returns the foreign row, ?coding the content coding."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        result = [{"text": OWN}] + [{"text": FOREIGN}] * ("leak" in self.path)
        body = json.dumps({"result": result}).encode()
        coding = self.path.partition("coding=")[2]
        make = {"gzip": gzip.compress, "deflate": zlib.compress, "br": lambda data: b"\x1b" + data[::-1]}
        body = make.get(coding, bytes)(body)
        self.send_response(200)
        if coding:
            self.send_header("Content-Encoding", coding)
        if "chunked" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 7):
                part = body[start : start + 7]
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\nX-Trailer: t\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


@contextmanager
def store() -> Iterator[tuple[str, int]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield ("127.0.0.1", server.server_port)
    server.shutdown()
    server.server_close()
    thread.join(5)


def record(*targets: str) -> Session:
    with store() as (host, port), Tap.tcp(host, port) as tap:
        client = http.client.HTTPConnection(*tap.address)
        for target in targets:
            client.request("POST", target, json.dumps({"tenant": "a"}), {"content-type": "application/json"})
            client.getresponse().read()
        client.close()
        assert tap.settle()
        (session,) = tap.sessions()
    return session


def question(session: Session) -> ScopedCall:
    window = Window(Mark(), mark_of([session]))
    return ScopedCall("a", window, 1, frozenset({OWN}), frozenset({FOREIGN}))


def graded(session: Session) -> str:
    return grade_canaries(Recording((session,), 1), [decode(session)], [question(session)], constant=0).outcome


@pytest.fixture(scope="module")
def session() -> Session:
    return record("/search", "/search?chunked&coding=gzip", "/search?coding=deflate", "/search?leak&chunked")


def test_requests_and_responses(session: Session) -> None:
    decoded = decode(session)
    assert decoded.doubts == ()
    assert [one.name for one in decoded.exchanges] == ["POST /search"] * 4
    assert [one.rows for one in decoded.exchanges] == [1, 1, 1, 2]
    assert all(one.request.json() == {"tenant": "a"} for one in decoded.exchanges)
    assert all(any(OWN.encode() in value for value in one.values) for one in decoded.exchanges)  # unescaped too
    starts = [one.start for one in decoded.exchanges]
    assert starts == sorted(set(starts))


@pytest.mark.parametrize(
    ("target", "outcome"),
    [
        ("/search", "passed"),
        ("/search?coding=gzip", "passed"),
        ("/search?chunked&coding=deflate", "passed"),
        ("/search?leak", "failed"),
        ("/search?leak&chunked&coding=gzip", "failed"),
        ("/search?coding=br", "abstained"),
        ("/search?leak&coding=br", "abstained"),
        ("/search?coding=zstd", "abstained"),
    ],
)
def test_canaries(target: str, outcome: str) -> None:
    assert graded(record(target)) == outcome


def test_a_blind_tap_sees_neither_canary_and_abstains() -> None:
    """What compression does to a tap that does not undo it: no foreign canary, and no own one."""
    session = record("/search?leak&coding=gzip")
    (exchange,) = decode(session).exchanges
    blind = replace(exchange, values=(gzip.compress(exchange.values[-2]),))
    recording = Recording((session,), 1)
    made = grade_canaries(recording, [replace(decode(session), exchanges=(blind,))], [question(session)], constant=5)
    assert made.outcome == "abstained"
    assert any("no own canary" in reason for reason in made.reasons)


def test_structure(session: Session) -> None:
    judge = by_carries(lambda request, tenant: request.json()["tenant"] == tenant)
    decoded = [decode(session)]
    one = question(session)
    assert grade_structure(Recording((session,), 1), decoded, [one], judge).outcome == "passed"
    other = replace(one, tenant="b")
    assert grade_structure(Recording((session,), 1), decoded, [other], judge).outcome == "failed"


def made(client: bytes, server: bytes = b"") -> Session:
    return Session(1, 0.0, 1.0, (Piece(0.0, "client", client), Piece(0.0, "server", server)))


ASK = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("client", "server", "doubt"),
    [
        (b"\x16\x03\x01\x02", b"", "encrypted"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"", "HTTP/2"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", b"", "changed"),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", b"", "changed"),
        (ASK[:20], b"", "HTTP/1.1"),
        (ASK[:-1], b"", "HTTP/1.1"),
        (ASK, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "HTTP/1.1"),
        (ASK, b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n{}", "HTTP/1.1"),
        (ASK, b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", "cannot be read"),
        (ASK, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n", "nothing asked"),
        (b"", b"HTTP/1.1 200 OK\r\n\r\n", "nothing asked"),
        (b"garbage\r\n\r\n", b"", "HTTP/1.1"),
    ],
)
def test_what_is_not_read_is_a_doubt(client: bytes, server: bytes, doubt: str) -> None:
    doubts = decode(made(client, server)).doubts
    assert any(doubt in one for one in doubts), doubts


def test_a_gzip_of_several_members_and_one_that_is_cut_off() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n"
    body = gzip.compress(b'{"result":') + gzip.compress(b"[]}")
    assert decode(made(ASK, head + body)).exchanges[0].rows == 0
    assert decode(made(ASK, head + body[:-4])).doubts


def test_pipelined_requests() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n" + b'{"result":[]}'
    decoded = decode(made(ASK * 3, b"HTTP/1.1 100 Continue\r\n\r\n" + answer * 2))
    assert [one.complete for one in decoded.exchanges] == [True, True, False]
    assert decoded.doubts == ()


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 10**6), max_size=20))
def test_how_bytes_travel_changes_nothing(session: Session, cuts: list[int]) -> None:
    pieces = []
    for side in ("server", "client"):
        data = session.stream(side)  # type: ignore[arg-type]
        places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        pieces += [Piece(0.0, side, data[a:b]) for a, b in pairwise(places)]  # type: ignore[arg-type]
    assert decode(replace(session, pieces=tuple(pieces))) == decode(session)


@settings(max_examples=150, deadline=None)
@given(
    side=st.sampled_from(["client", "server"]), at=st.integers(0, 10**6), junk=st.binary(max_size=30), cut=st.booleans()
)
def test_garbage_and_truncation_never_raise(session: Session, side: Any, at: int, junk: bytes, cut: bool) -> None:
    data = session.stream(side)
    at %= len(data)
    data = data[:at] if cut else data[:at] + junk + data[at + len(junk) :]
    rest = tuple(piece for piece in session.pieces if piece.side != side)
    decoded = decode(replace(session, pieces=(*rest, Piece(0.0, side, data))))
    if cut:
        whole = decode(session)
        assert decoded.doubts or decoded != whole
