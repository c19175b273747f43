"""Reads a worker's output with bounded time and memory, whatever the code in the worker does."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator

from vectoracl_conformance.context.assertions import Abstain

LONGEST = 1 << 20
LARGEST = 256 << 20
AFTER = 2.0
MOST = 20


def say(process: subprocess.Popen[str], word: str) -> None:
    """Say one word to a worker; one that has ended is noticed elsewhere."""
    assert process.stdin is not None
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(json.dumps(word) + "\n")
        process.stdin.flush()


class Lines:
    """The lines of *process* until it ends, or until nothing was heard for *quiet* seconds: `late`, and it is killed.

    A line that is not an event does not count as heard, and `MOST` times *quiet* is the end of any run. A child that
    the process leaves behind may hold its output open for ever: with the process the lines end, a moment later.
    """

    def __init__(self, process: subprocess.Popen[str], quiet: float) -> None:
        self._process = process
        self._quiet = quiet
        self._last = time.monotonic() + MOST * quiet
        self._deadline = time.monotonic() + quiet
        self._lines: queue.Queue[str | None] = queue.Queue(1000)
        self.late = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            while line := self._process.stdout.readline(LONGEST):
                self._lines.put(line)
        self._lines.put(None)

    def __iter__(self) -> Iterator[str]:
        while (line := self.take()) is not None:
            yield line

    def heard(self) -> None:
        """Note that an event came."""
        self._deadline = min(self._last, time.monotonic() + self._quiet)

    def take(self) -> str | None:
        """Return the next line, None after the last."""
        ended = 0.0
        while True:
            now = time.monotonic()
            if now > self._deadline:  # also where it never stops talking
                self.late = True
                self.stop()
                return None
            try:
                return self._lines.get(timeout=0.2)
            except queue.Empty:
                if self._process.poll() is not None:
                    ended = ended or now
                    if now - ended > AFTER:
                        return None

    def ended(self) -> int:
        """Wait for the process and return its exit code; it has until the deadline."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            return self._process.wait(max(1.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.late = True
            self.stop()
            return self._process.wait()

    def stop(self, grace: float = 0.0) -> None:
        """End the process: let it end by itself for *grace* seconds, then kill it."""
        try:
            if grace:
                self._process.wait(grace)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            self._process.kill()
            self._process.wait()


class StoreExchange:
    """Asks a worker about the stores of its harness: one line, and the answer in parts. Raises: Abstain without one."""

    def __init__(self, process: subprocess.Popen[str], lines: Lines, token: str) -> None:
        self._process = process
        self._lines = lines
        self._token = token

    def __call__(self, line: str) -> str:
        """Ask, and return the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        parts: list[str] = []
        size = 0
        for answer in self._lines:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                event = json.loads(answer)
                if event["event"] == "answer" and event["token"] == self._token:
                    self._lines.heard()
                    parts.append(str(event["part"]))
                    size += len(parts[-1])
                    if size > LARGEST:
                        raise Abstain(f"the harness answered with more than {LARGEST} characters")
                    if not event["more"]:
                        return "".join(parts)
        raise Abstain("the process of the harness did not answer")

    def heard(self) -> None:
        """Note that the run goes on, although the process says nothing."""
        self._lines.heard()


def parts_of(answer: str) -> Iterator[tuple[str, bool]]:
    """Yield *answer* in parts that fit into a line, and whether more follow."""
    for start in range(0, max(1, len(answer)), LONGEST // 2):
        yield answer[start : start + LONGEST // 2], start + LONGEST // 2 < len(answer)
