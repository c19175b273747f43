"""Where a server comes from, in which order, and that none is left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from vectoracl.adapter_api.local_servers import start as servers
from vectoracl.adapter_api.local_servers.start import MissingServerError, ServerSpec, find, missing, start

TINY = ServerSpec(
    "tiny",
    "1.0",
    "VECTORACL_TINY_URL",
    ("http",),
    binary="tiny-server",
    arguments=lambda place: ["-m", "http.server", "--bind", "127.0.0.1", str(place.ports["http"])],
    ready="/",
)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No program, no cache, no address."""
    monkeypatch.setenv(servers.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv(TINY.address, raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(folder: Path, name: str = "tiny-server") -> Path:
    """Write a program that stands for the server: this Python, with what it is given."""
    made = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    made.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    made.chmod(made.stat().st_mode | stat.S_IXUSR)
    return made


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def gone(pid: int, seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_nothing_at_hand_says_what_would_change_it(empty):
    spec = replace(TINY, go="example.org/tiny", image="tiny:1.0", wheel="tiny==1.0")
    assert find(spec) is None
    with pytest.raises(MissingServerError) as caught:
        start(spec)
    for way in ("VECTORACL_TINY_URL", "tiny-server on the PATH", "Docker", "go install example.org/tiny@v1.0", "uv"):
        assert way in str(caught.value)


def test_the_order(empty, monkeypatch):
    spec = replace(TINY, go="example.org/tiny")
    program(empty / "bin", "go")
    assert find(spec) == servers.Found("go", "")
    kept = program(servers.kept(spec).parent)
    assert find(spec) == servers.Found("program", str(kept)), "nobody knows where it is from"
    there = program(empty / "bin")
    assert find(spec) == servers.Found("program", str(there))
    monkeypatch.setenv(TINY.address, "http://127.0.0.1:1/")
    assert find(spec) == servers.Found("address", "http://127.0.0.1:1/")
    assert start(spec).used == "tiny, at the address of VECTORACL_TINY_URL"
    assert not start(spec).started_here
    with pytest.raises(MissingServerError):
        start(spec, own=True)


def test_it_serves_and_it_ends(empty):
    program(empty / "bin")
    with start(TINY) as running:
        assert urllib.request.urlopen(running.url, timeout=5).status == 200
        assert running.pid is not None
        assert alive(running.pid)
        assert running.used == "tiny, an available program"
        folder, pid = running.folder, running.pid
    assert gone(pid)
    assert folder is not None
    assert not folder.exists()


def test_what_the_server_said_last_is_in_the_error(empty):
    program(empty / "bin")
    broken = replace(TINY, arguments=lambda _: ["-c", "raise SystemExit('no room for me')"])
    with pytest.raises(MissingServerError, match="no room for me"):
        start(broken)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_server_does_not_outlive_who_started_it(empty, how):
    program(empty / "bin")
    script = textwrap.dedent(
        """
        import signal, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from vectoracl.adapter_api.local_servers.start import ServerSpec, start
        spec = ServerSpec("tiny", "1.0", "VECTORACL_TINY_URL", ("http",), binary="tiny-server", ready="/",
            arguments=lambda p: ["-m", "http.server", "--bind", "127.0.0.1", str(p.ports["http"])])
        running = start(spec)
        print(running.pid, flush=True)
        time.sleep(60)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(how)
    parent.wait(10)
    parent.stdout.close()
    assert gone(pid)


def test_only_what_was_installed_is_said_to_be(empty):
    made = program(empty / "made")
    installer = program(empty / "bin", "go")
    installer.write_text(f'#!/bin/sh\n/bin/cp {made} "$GOBIN/tiny-server"\n')
    spec = replace(TINY, go="example.org/tiny")
    for _ in range(2):  # installed, then found
        with start(spec, say=lambda _: None) as running:
            assert running.used == "tiny 1.0, installed from its Go module"
    kept = servers.kept(spec)
    kept.unlink()
    program(kept.parent).write_text(f'#!/bin/sh\n# another one\nexec {sys.executable} "$@"\n')
    with start(spec) as running:
        assert running.used == "tiny, an available program"


def test_an_installer_that_fails_is_quoted(empty):
    program(empty / "bin", "go").write_text("#!/bin/sh\necho 'no such module' >&2\nexit 1\n")
    said: list[str] = []
    with pytest.raises(MissingServerError, match="no such module"):
        start(replace(TINY, go="example.org/tiny"), say=said.append)
    assert "go install example.org/tiny@v1.0" in said[0]


def test_missing_is_an_error_only_where_servers_are_required(monkeypatch):
    told: list[tuple[str, str]] = []
    for value, expected in (("", "skip"), ("1", "fail")):
        monkeypatch.setenv(servers.REQUIRE, value)
        missing(
            MissingServerError("none"), lambda text: told.append(("skip", text)), lambda t: told.append(("fail", t))
        )
        assert told[-1] == (expected, "not run: none")
