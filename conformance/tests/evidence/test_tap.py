"""The tap: bytes unchanged, all of them kept or counted, every connection from its first byte to its close."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vectoracl_conformance.evidence.sessions import Mark, Recording, Window
from vectoracl_conformance.evidence.tap import Tap, Taps
from vectoracl_conformance.evidence.volume import traffic


@contextmanager
def echo(path: Path | None = None) -> Iterator[tuple[str, int]]:
    """A server that answers each connection's bytes with themselves, doubled."""
    listener = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
    listener.bind(("127.0.0.1", 0) if path is None else str(path))
    listener.listen()

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data + data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname() if path is None else ("", 0)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def ask(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    back = b""
    while len(back) < 2 * len(data):
        back += connection.recv(65536)
    return back


def test_bytes_pass_unchanged_and_are_kept_from_first_to_last() -> None:
    data = bytes(range(256)) * 3000
    with echo() as (host, port), Tap.tcp(host, port) as tap:
        with socket.create_connection(tap.address) as one:
            sender = threading.Thread(target=one.sendall, args=(data,))
            sender.start()
            back = b""
            while len(back) < 2 * len(data):
                back += one.recv(65536)
            sender.join()
            assert len(back) == 2 * len(data)
        assert tap.settle()
        (session,) = tap.sessions()
    assert session.stream("client") == data
    assert session.stream("server") == back
    assert session.closed is not None
    assert [piece.at for piece in session.pieces] == sorted(piece.at for piece in session.pieces)
    assert Recording((session,), 1).doubts() == ()


def test_marks_tell_calls_apart_and_trips_are_counted() -> None:
    with echo() as (host, port), Tap.tcp(host, port) as tap:
        with socket.create_connection(tap.address) as one, socket.create_connection(tap.address) as two:
            ask(one, b"before")
            since = tap.mark()
            ask(one, b"abc")
            ask(two, b"defg")
            ask(one, b"h")
            until = tap.mark()
            ask(two, b"after")
        assert tap.settle()
        sessions = tap.sessions()
    assert traffic(sessions, Window(since, until)) == (8, 16, 3)
    assert traffic(sessions) == (19, 38, 5)
    window = Window(since, until)
    assert not window.holds(1, 0)
    assert window.holds(1, 6)
    assert window.holds(2, 0)
    assert not window.holds(2, 4)
    assert not Window(Mark(), Mark()).holds(1, 0)


def test_dropped_bytes_are_counted_and_still_carried() -> None:
    with echo() as (host, port), Tap.tcp(host, port, limit=10) as tap:
        with socket.create_connection(tap.address) as one:
            assert ask(one, b"12345678") == b"12345678" * 2
        assert tap.settle()
        recording = Recording(tap.sessions(), 1)
    assert recording.dropped == 16
    assert any("dropped 16 bytes" in doubt for doubt in recording.doubts())


def test_what_a_recording_does_not_prove() -> None:
    with echo() as (host, port), Tap.tcp(host, port) as tap:
        assert "no connection went through the tap" in Recording(tap.sessions(), 0).doubts()
        with socket.create_connection(tap.address) as one:
            ask(one, b"x")
            assert any("still open" in doubt for doubt in Recording(tap.sessions(), 1).doubts())
        assert tap.settle()
        sessions = tap.sessions()
    assert any("served 2 sessions, 1 went" in doubt for doubt in Recording(sessions, 2).doubts())
    assert any("did not say" in doubt for doubt in Recording(sessions).doubts())
    assert Recording(sessions).doubts(uncounted=True) == ()
    assert Recording(sessions, answered=3).doubts(requests=3) == ()
    assert any("answered 4 requests, 3 went" in doubt for doubt in Recording(sessions, answered=4).doubts(requests=3))
    assert any("did not say" in doubt for doubt in Recording(sessions, answered=3).doubts())


def test_several_ports_are_one_recorder() -> None:
    with echo() as (host, port), echo() as (other_host, other_port):
        taps = Taps(Tap.tcp(host, port), Tap.tcp(other_host, other_port))
        taps.start()
        try:
            name, first, second = taps.address
            assert isinstance(first, int)
            assert isinstance(second, int)
            with socket.create_connection((str(name), first)) as one:
                ask(one, b"abc")
                since = taps.mark()
                with socket.create_connection((str(name), second)) as two:
                    ask(two, b"de")
                    ask(one, b"f")
            until = taps.mark()
            while any(session.closed is None for session in taps.sessions()):
                time.sleep(0.01)
            sessions = taps.sessions()
        finally:
            taps.stop()
    assert [session.number for session in sessions] == [1, 2]
    assert [session.stream("client") for session in sessions] == [b"abcf", b"de"]
    assert traffic(sessions, Window(since, until)) == (3, 6, 2)
    assert Recording(sessions, 2).doubts() == ()


def test_a_connection_that_stop_cuts_stays_open_in_the_record() -> None:
    with echo() as (host, port):
        tap = Tap.tcp(host, port)
        tap.start()
        with socket.create_connection(tap.address) as one:
            ask(one, b"x")
            tap.stop()
        assert tap.sessions()[0].closed is None


def test_a_store_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Tap.tcp("127.0.0.1", port) as tap:
        with socket.create_connection(tap.address) as one:
            assert one.recv(1) == b"" or True
        assert tap.settle()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets here")
def test_unix_sockets() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with echo(base / "store"), Tap.unix(base / "store", base / "tap") as tap:
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(tap.address[0])
                assert ask(one, b"abc") == b"abcabc"
            assert tap.settle()
            assert tap.sessions()[0].stream("client") == b"abc"
