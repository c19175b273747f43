"""A server's process: begun under its own id, and ended by the process it is."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from vectoracl_pgvector.embedded.identity import Identity


def begin(command: Sequence[str], folder: Path, identity: Identity) -> subprocess.Popen[bytes]:
    """Start *command* in *folder* under *identity*, silent, and out of reach of Ctrl-C at this terminal."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, cwd=folder, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True, **identity.arguments()
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End *process*, by force after 30 s."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
