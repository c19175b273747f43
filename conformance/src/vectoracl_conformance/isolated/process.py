"""This side of the pipe to a process that runs only the adapter.

Replies are data of an untrusted adapter: they are read with a list of the few permitted classes, in frames of a limited
size, within a limited time.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import re
import secrets
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from vectoracl import errors
from vectoracl.errors import VectorACLError
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.isolated.driver import Driver
from vectoracl_conformance.isolated.interpreter import PlainEnvironment, plain

_PROGRAMS = ("main", "app", "server", "service", "run", "jobs", "worker", "search")
LIMIT = 60.0
MOST = 256 << 20
_LAST = 4_000
KIT = b"vectoracl_conformance"
# Tests, their runners, coverage, this kit and its harnesses leave their names in the environment.
_TELLING = re.compile(
    r"PYTEST|CONFORMANCE|_KIT\b|TOX|NOX|COVERAGE|^COV_|^CI$|GITHUB|HYPOTHESIS|^UV|^VIRTUAL_ENV|^PYTHON|^_$|^(OLD)?PWD$"
    r"|^VECTORACL_"
)
_TELLING_VALUE = re.compile(r"conformance|pytest|\bnox\b|\.nox|\.tox|hypothesis", re.IGNORECASE)
_MODULES = {
    "vectoracl.model.records": {"Facet", "Hit", "Tag", "Result", "Page", "Written", "Updated", "Record", "Chunk"},
    "vectoracl.client.bulk_load": {"LoadReport"},
    "vectoracl.engine.explain": {"Explanation"},
    "vectoracl.adapter_api.operations": {"Found", "Rows"},
    "vectoracl.adapter_api.contract": {"Capabilities"},
    "vectoracl.adapter_api.posture": {"Posture", "Finding", "Rule"},
    "vectoracl.filters.predicate": None,
    "datetime": {"datetime", "timezone", "timedelta"},
    "builtins": {"set", "frozenset", "dict"},
    "collections": {"OrderedDict"},
    "numpy": {"ndarray", "dtype"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
}


class PoisonError(Exception):
    """The adapter's process sent something that no answer is made of."""


def found_in_answers(module: str, name: str) -> bool:
    """Return whether answers are made of *name* of *module*."""
    if module not in _MODULES:
        return False
    known = _MODULES[module]
    return (known is None and "." not in name and name[:1].isupper()) or (known is not None and name in known)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Find only what answers are made of."""
        if found_in_answers(module, name):
            return super().find_class(module, name)
        raise PoisonError(f"its answer holds {module}.{name}")


def safe_loads(data: bytes) -> Any:
    """Read *data* of an untrusted process. Raises: PoisonError, and whatever a broken pickle raises."""
    return _Reader(io.BytesIO(data)).load()


class OtherError(Exception):
    """An error of the adapter's process that is not of the library's tree."""


def raised(known: str, name: str, text: str, data: Mapping[str, Any]) -> Exception:
    """Return the error that was reported: of the library's own class, or an `OtherError`."""
    kind = getattr(errors, known, None) if known.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, VectorACLError)):
        return {"TypeError": TypeError, "ValueError": ValueError}.get(name, OtherError)(f"{name}: {text}")
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    error.message = text
    for field, value in data.items():
        setattr(error, field, value)
    return error


def _opened(word: str, value: Any) -> Any:
    """Return an answer. Raises: the error that it is."""
    if word == "ok":
        return value
    if word != "error":
        raise Abstain(f"the adapter's process answered {word[:20]!r}")
    known, name, text, more = value
    raise raised(str(known), str(name), str(text), dict(more))


def _settle(future: Future[Any], word: str, value: Any) -> None:
    if word == "cut":
        future.cancel()
        return
    try:
        future.set_result(_opened(word, value))
    except Exception as error:  # noqa: BLE001 - an error is an outcome
        future.set_exception(error)


class Far:
    """One process, started and ended here."""

    def __init__(
        self,
        python: str = "",
        paths: Sequence[str] = (),
        limit: float = LIMIT,
        environment: PlainEnvironment | None = None,
    ) -> None:
        self._limit = limit
        self._killed = _killed_for_memory()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process; a pipe could be full
        self._own = None if environment is not None else plain(python, paths)
        self.environment: PlainEnvironment = environment or self._own  # type: ignore[assignment]
        self.driver = Driver()
        try:
            program = self.environment.write(f"{secrets.choice(_PROGRAMS)}.py", self.driver.text)
            self._process = subprocess.Popen(  # noqa: S603 - our own text
                [self.environment.python, str(program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=variables(os.environ),
                cwd=program.parent,
                start_new_session=True,
                bufsize=0,
            )
        except BaseException:
            self._said.close()
            if self._own is not None:
                self._own.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._out.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self._pid = 0
        self._asking = threading.RLock()
        self._reader: threading.Thread | None = None
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waiting: dict[int, Future[Any]] = {}
        self._ticket = 0
        self._lost: Abstain | None = None
        self.owner = threading.get_ident()
        try:
            pid = _opened(*self._answer())
            self._pid = pid if isinstance(pid, int) else 0
        except BaseException:
            self.close()
            raise

    def ask(self, what: str, *args: Any) -> Any:
        """Ask, and return the answer.

        Raises: what was raised there; Abstain if the process is gone or too slow, and then for every further question,
        since an answer that comes late would be taken for that of the next one.
        """
        data = pickle.dumps((self.driver.words[what], *args), 5)
        if KIT in data and what != "source":  # an adapter that looks for the kit names it
            raise Abstain("the question would have shown the kit")
        with self._asking:
            if self._lost is not None:
                raise self._lost
            self._send(data)
            try:
                answer = self._answer() if self._reader is None else self._answers.get(timeout=self._limit)
            except queue.Empty:
                raise self._silent() from None
        if isinstance(answer, Abstain):
            raise answer
        return _opened(*answer)

    def later(self, what: str, *args: Any, task: bool = False) -> tuple[int, Future[Any]]:
        """Ask for something that is performed along with others: in a thread there, or as a *task*.

        Returns:
            The ticket, for `cancel`, and the future with its outcome. "cut" is one that was cancelled.
        """
        if self._reader is None:
            self._reader = threading.Thread(target=self._read_on, daemon=True)
            self._reader.start()
        self._ticket += 1
        ticket, future = self._ticket, Future[Any]()
        self._waiting[ticket] = future
        words = self.driver.words
        self.ask("later", ticket, task, words[what], *args)
        return ticket, future

    def cancel(self, ticket: int) -> None:
        """Cancel a task."""
        self.ask("cancel", ticket)

    def _read_on(self) -> None:
        """Read answers as they come, until the end."""
        try:
            while True:
                word, value = self._answer(wait=True)
                if word != "later":
                    self._answers.put((word, value))
                    continue
                ticket, kind, inner = value
                future = self._waiting.pop(ticket, None)
                if future is not None:
                    _settle(future, kind, inner)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            problem = error if isinstance(error, Abstain) else Abstain(f"the pipe broke: {type(error).__name__}")
            self._lost = problem
            for future in list(self._waiting.values()):
                future.set_exception(problem)
            self._waiting.clear()
            self._answers.put(problem)  # for the question that waits; `_lost` is for those that follow

    def _send(self, data: bytes) -> None:
        try:
            remainder = memoryview(struct.pack(">I", len(data)) + data)
            while remainder:
                remainder = remainder[self._in.write(remainder) :]
        except OSError:
            raise self._gone() from None

    def _answer(self, *, wait: bool = False) -> tuple[str, Any]:
        deadline = time.monotonic() + (1e6 if wait else self._limit)
        size = struct.unpack(">I", self._read(4, deadline))[0]
        if size > MOST:
            self._lost = Abstain(f"the adapter's process answered with {size} bytes")
            raise self._lost
        data = self._read(size, deadline)
        try:
            word, value = safe_loads(data)
            known, name, text, more = value if word == "error" else ("", "", "", {})
        except PoisonError as error:
            raise Abstain(f"the adapter's process was not answering but {error}") from None
        except Exception as error:  # noqa: BLE001 - a broken pickle raises anything
            raise Abstain(f"the adapter's process answered with what cannot be read ({type(error).__name__})") from None
        return ("ok", value) if word == "ok" else (str(word), (known, name, text, more) if word == "error" else value)

    def _read(self, size: int, deadline: float) -> bytes:
        parts, remainder = [], size
        while remainder:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise self._silent()
            part = self._out.read(remainder)
            if part == b"":
                raise self._gone()
            if part:
                parts.append(part)
                remainder -= len(part)
        return b"".join(parts)

    def _silent(self) -> Abstain:
        self._lost = Abstain(f"the adapter's process did not answer within {self._limit:g} s")
        return self._lost

    def _gone(self) -> Abstain:
        """Return that the process ended by itself, with what can be known of how: this process is not its parent."""
        how = []
        code = _exit_code(self._pid)
        if code is not None:
            how.append(f"signal {-code}" if code < 0 else f"exit code {code}")
        if _killed_for_memory() > self._killed:
            how.append("the system killed a process for want of memory in the meantime")
        with contextlib.suppress(OSError, ValueError):
            self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - _LAST))
            lines = self._said.read(_LAST).decode(errors="replace").split("\n")
            last = [line.strip() for line in lines if line.strip()]
            if last:
                how.append(f"its last words: {ascii(' / '.join(last[:1] + last[1:][-2:]))[:500]}")
        how = how or ["it wrote nothing, so it was killed from outside or ended on purpose"]
        self._lost = Abstain(f"the adapter's process ended by itself ({'; '.join(how)})")
        return self._lost

    def said(self) -> str:
        """Return the process's output: what the adapter, its client and their loggers wrote, also warnings."""
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), min(size, MOST), 0).decode(errors="replace")

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._in.close()
        if self._reader is not None:
            self._reader.join(5)
        if not self._ended(time.monotonic() + 5) and self._pid > 1:  # it ends when its input does
            with contextlib.suppress(OSError):
                if os.getpgid(self._pid) == self._process.pid:
                    os.killpg(self._process.pid, signal.SIGKILL)  # with its branches
                os.kill(self._pid, signal.SIGKILL)
        self._selector.close()
        self._out.close()
        self._process.wait()
        self._said.close()
        if self._own is not None:
            self._own.close()

    def _ended(self, deadline: float) -> bool:
        """Wait for the end of what the process has to say, until *deadline*."""
        while self._selector.select(max(0.0, deadline - time.monotonic())):
            if self._out.read(1 << 20) == b"":
                return True
        return False


def _exit_code(pid: int) -> int | None:
    """Return how the process *pid* ended, negative for a signal; None where the system does not say (any more)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return os.waitstatus_to_exitcode(int(fields[49])) if fields[0] == "Z" else None
    except (OSError, ValueError, IndexError):
        return None


def _killed_for_memory() -> int:
    """Return how many processes the system has killed for want of memory; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of *given* that an application would have."""
    kept = {}
    for name, value in given.items():
        if _TELLING.search(name):
            continue
        if name == "PATH":
            own = Path(sys.prefix).resolve()
            parts = [one for one in value.split(os.pathsep) if one and not Path(one).resolve().is_relative_to(own)]
            kept[name] = os.pathsep.join(one for one in parts if not _TELLING_VALUE.search(one))
        elif not _TELLING_VALUE.search(value):
            kept[name] = value
    return kept
