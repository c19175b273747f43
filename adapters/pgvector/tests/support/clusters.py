"""A bare PostgreSQL server of any version on this machine, for tests of the posture."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any


def _user() -> dict[str, Any]:
    return {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}


def start_cluster(folder: Path, binaries: Path, *options: str) -> tuple[int, str]:
    """Start a server in *folder*, reached by its socket alone; return its port and connection string."""
    user = _user()
    if user:
        os.chown(folder, 65534, 65534)
    folder.chmod(0o700)
    data = folder / "data"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "check": True, "cwd": folder}
    made = ["-D", data, "-U", "boss", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run([binaries / "initdb", *made], **quiet, **user)
    given = (
        f"-k {folder} -p {port} -c listen_addresses= -c fsync=off -c full_page_writes=off -c shared_buffers=32MB "
        "-c max_connections=30 -c synchronous_commit=off -c autovacuum=off -c jit=off " + " ".join(options)
    )
    subprocess.run([binaries / "pg_ctl", "-D", data, "-w", "-o", given, "-l", folder / "log", "start"], **quiet, **user)
    return port, f"host={folder} port={port}"


def stop_cluster(folder: Path, binaries: Path) -> None:
    """Stop the server of *folder* and remove the folder."""
    stop = [binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"]
    subprocess.run(stop, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, **_user())
    shutil.rmtree(folder, ignore_errors=True)
