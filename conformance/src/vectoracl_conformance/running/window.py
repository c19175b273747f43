"""The runner in a separate process, for a program that shows its verdict and cannot change it: the pytest plugin.

`main` is that process. Its events come over a pipe, each with a number and a code of authenticity whose key was handed
in over another pipe. So neither the adapter's worker, which can open the runner's output, nor what is printed in the
runner's process can add, leave out or repeat one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, BinaryIO

from vectoracl_conformance.isolated.clean_python import command, environment
from vectoracl_conformance.verdict import Noted

MODULE = "vectoracl_conformance.running.window"
_NOTED = frozenset(one.name for one in fields(Noted))
_LAST = 2_000
_LONGEST = 1 << 24


def _code(key: bytes, number: int, text: str) -> str:
    return hmac.new(key, f"{number} {text}".encode(), hashlib.sha256).hexdigest()


class RunnerProcess:
    """A runner that was started with the options *ask* (see `Ask`)."""

    def __init__(self, ask: dict[str, Any]) -> None:
        self._key = secrets.token_bytes(32)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process; a pipe could be full
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command(MODULE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(),
            process_group=None if os.name == "nt" else 0,
        )
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has already ended, which is noticed when its output is read
            self._process.stdin.write(json.dumps({"key": self._key.hex(), "ask": ask}).encode() + b"\n")
            self._process.stdin.flush()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events: "note" for the outcome of each check, and "report" at the end, unless it ended early."""
        assert self._process.stdout is not None
        number = 0
        while line := self._process.stdout.readline(_LONGEST):
            code, _, text = line.decode(errors="replace").rstrip("\n").partition(" ")
            if not hmac.compare_digest(code.encode(), _code(self._key, number, text).encode()):
                continue  # whoever wrote it, it was not the runner
            number += 1
            event = json.loads(text)
            yield event
            if event["event"] == "report":
                return

    def problem(self) -> str:
        """Return why there is not a report: the last lines of what the runner wrote."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _LAST))
        lines = [one for one in self._errors.read().decode(errors="replace").splitlines() if one.strip()]
        return (
            f"the runner ended early (exit code {self._process.poll()}): {' / '.join(lines[-3:]) or 'it wrote nothing'}"
        )

    def close(self) -> None:
        """End the runner, as Ctrl-C does if it still runs, and what it has started."""
        assert self._process.stdin is not None
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):
                stream.close()


class _Sender:
    def __init__(self, stream: BinaryIO, key: bytes) -> None:
        self._stream, self._key, self._number = stream, key, 0

    def send(self, event: str, **data: Any) -> None:
        text = json.dumps({"event": event, **data}, default=str)
        self._stream.write(f"{_code(self._key, self._number, text)} {text}\n".encode())
        self._stream.flush()
        self._number += 1


def _end_with_input() -> None:
    """Stop this process, and what it has started, when who started it is gone or closes the input."""
    while os.read(0, 4096):
        pass
    if os.name == "nt":
        os._exit(130)
    os.killpg(0, signal.SIGINT)


def main() -> int:
    """Run what standard input asks for, and send the events."""
    from vectoracl_conformance.running.runner import Ask, run

    request = json.loads(sys.stdin.buffer.readline())
    sender = _Sender(os.fdopen(os.dup(1), "wb"), bytes.fromhex(request["key"]))
    os.dup2(2, 1)
    threading.Thread(target=_end_with_input, daemon=True).start()

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "note":
            sender.send("note", **{name: value for name, value in event.items() if name in _NOTED})

    try:
        report = run(Ask(**request["ask"]), watch)
    except KeyboardInterrupt:
        return 130
    sender.send(
        "report",
        report=report.as_json(),
        seed=report.seed,
        problem=report.problem,
        exit_code=report.exit_code,
        notes=[asdict(note) for note in report.judged.checks],
    )
    return 0
