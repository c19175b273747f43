"""What the kit, the demo and the tests start is reached from loopback only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from vectoracl.adapter_api.local_servers import network, start
from vectoracl.adapter_api.local_servers.start import Place, ServerSpec
from vectoracl_conformance.evidence import Tap
from vectoracl_conformance.servers.listening import Listening, listening, processes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

SERVER = textwrap.dedent(
    """
    import http.server, socket, sys, threading
    host, port, other = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    loud = socket.create_server(("0.0.0.0", other))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("0.0.0.0", other))
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"served")
    http.server.ThreadingHTTPServer((host, port), Handler).serve_forever()
    """
)


def spec(tmp_path, **more):
    program = tmp_path / "loud-server"
    program.write_text(f"#!{sys.executable}\n{SERVER}")
    program.chmod(0o700)
    return ServerSpec(
        "loud",
        "1",
        "",
        ("http", "open"),
        binary="loud-server",
        arguments=lambda place: ["127.0.0.1", str(place.ports["http"]), str(place.ports.get("open", 0))],
        ready="/",
        **more,
    )


def test_what_listens_is_read_from_the_kernel():
    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        socket.create_server(("0.0.0.0", 0)) as loud,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        found = listening(os.getpid())
        assert Listening("tcp", "127.0.0.1", own.getsockname()[1], True) in found
        assert Listening("tcp", "::1", six.getsockname()[1], True) in found
        outside = [one for one in found if one.outside]
        assert Listening("tcp", "0.0.0.0", loud.getsockname()[1], True) in outside
        assert not any(one.port in (own.getsockname()[1], six.getsockname()[1]) for one in outside)


def test_children_are_read_too():
    code = (
        "import socket, sys; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        port = int(child.stdout.readline())
        assert child.pid in processes(os.getpid())
        assert any(one.outside and one.port == port for one in listening(os.getpid()))
        child.communicate("\n")


def test_a_server_with_a_port_that_asks_for_no_key_is_alone_in_its_network(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if not network.possible():
        pytest.skip("not run: this machine gives no process a network of its own")
    with start.start(spec(tmp_path, loud=True, unguarded=("open",)), unguarded=True) as running:
        found = listening(running.guard.pid)
        assert any(not one.shared and one.address == "0.0.0.0" for one in found), "it does listen everywhere"
        assert not [one for one in found if one.outside]
        assert {one.port for one in found if one.shared} == {running.ports["http"], running.ports["open"]}


def test_without_a_network_of_its_own_such_a_port_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    asked = []
    made = spec(tmp_path, loud=True, unguarded=("open",), environment=lambda place: asked.append(place) or {})
    monkeypatch.setattr(network, "possible", lambda: False)
    for wanted in (True, False):
        with start.start(made, unguarded=wanted) as running:
            assert "open" not in running.ports
            assert "open" not in asked[-1].ports


def test_each_server_gets_a_key_that_only_its_starter_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    places: list[Place] = []
    made = spec(tmp_path, environment=lambda place: places.append(place) or {})
    keys = []
    for _ in range(2):
        with start.start(made) as running:
            assert running.key == places[-1].key
            keys.append(running.key)
    assert len(set(keys)) == 2
    assert all(len(one) >= 32 for one in keys)


def test_containers_publish_on_loopback_only(tmp_path, monkeypatch):
    """Docker's own default is every address."""
    commands = []

    def guarded(spec, found, command, *rest, **more):
        commands.append(command)
        raise start.MissingServerError("not started")

    monkeypatch.setattr(start, "_guarded", guarded)
    monkeypatch.setattr(start, "find", lambda _: start.Found("docker", "an image"))
    with pytest.raises(start.MissingServerError):
        start.start(spec(tmp_path, image="an image", published={"http": 80}))
    published = [one for before, one in zip(commands[0], commands[0][1:], strict=False) if before == "--publish"]
    assert published
    assert all(one.startswith("127.0.0.1:") for one in published)


def test_the_recording_tap_is_on_loopback():
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        before = {one for one in listening(os.getpid()) if one.outside}
        tap = Tap.tcp("127.0.0.1", upstream.getsockname()[1])
        with tap:
            found = listening(os.getpid())
            assert any(one.port == tap.address[1] for one in found)
            assert not {one for one in found if one.outside} - before


def test_needledb_is_on_loopback():
    needle = pytest.importorskip("vectoracl_pinecone.conformance.needledb_server")
    demo = pytest.importorskip("vectoracl_pinecone.demo_server")
    ways = (
        (needle.Needle, lambda server: server.port),
        (lambda: start.start(demo.SPEC, own=True), lambda server: server.ports["http"]),
    )
    for launch, port in ways:
        try:
            server = launch()
        except start.MissingServerError as error:
            start.missing(error, pytest.skip, pytest.fail)
            raise
        try:
            found = listening(os.getpid())
            assert any(one.port == port(server) for one in found)
            assert not [one for one in found if one.outside]
        finally:
            server.close()


def test_the_embedded_postgresql_is_on_loopback(tmp_path):
    embedded = pytest.importorskip("vectoracl_pgvector.embedded.server")
    server = embedded.start(tmp_path / "pg", tcp=True)
    try:
        found = listening(int(next(server.data.rglob("postmaster.pid")).read_text().splitlines()[0]))
        assert any(one.port == server.port for one in found)
        assert not [one for one in found if one.outside]
    finally:
        embedded.stop(server.data)
