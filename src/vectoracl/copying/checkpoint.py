"""The checkpoint of a copy: a small file of lines that records the progress of each tenant."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from vectoracl._util.file_lock import FileLock
from vectoracl._util.private_files import open_private, read_private, replace_atomically
from vectoracl.adapter_api.operations import Position
from vectoracl.errors import ConfigError, InvalidInputError, RefusedError, without_context

State = Literal["begun", "copied", "verified"]


@dataclass(slots=True)
class Reached:
    """The progress of one tenant: the number of written rows, the last of them, and the state."""

    rows: int = 0
    after: Position | None = None
    state: State = "begun"


class Checkpoint:
    """The checkpoint file. The last line of a tenant counts. It is created at the first row and removed at the end.

    A line is written after the rows that it describes, so the store may be one batch ahead of the file, never behind.
    The head is written whole or not at all, so a file without a head is not a checkpoint and is left alone. The writer
    holds a lock on the file PATH.lock next to it (`held`): two copies never share a checkpoint.
    """

    def __init__(self, path: Path, parts: Sequence[str]) -> None:
        self.path = path
        self._binding = hashlib.blake2b(orjson.dumps(list(parts)), digest_size=16).hexdigest()
        self._reached: dict[str, Reached] = {}
        self._torn: list[bytes] | None = None  # the complete lines of a file whose last line was cut off
        self._content = hashlib.blake2b(
            digest_size=16
        )  # digest of the content that the file must still have when it is locked
        content = self._bytes()
        self.exists = content is not None
        if content is not None:
            self._read(content)

    @without_context
    def _read(self, found: bytes) -> None:
        """Parse the file. Raises: InvalidInputError if it is not a checkpoint, or belongs to another copy."""
        lines = found.split(b"\n")
        whole, rest = lines[:-1], lines[-1]  # a line without a line break was cut off by a crash
        try:
            head, *read = [orjson.loads(line) for line in whole]
            if head["copy"] != 1:
                raise ValueError("another version")
            bound = head["binding"]
            for line in read:
                self._reached[_tenant(line)] = _reached(line)
        except (ValueError, KeyError, TypeError):
            raise InvalidInputError(
                f"{self.path} is not a checkpoint of a copy. Pass another file with --checkpoint.", field="checkpoint"
            ) from None
        if bound != self._binding:
            raise InvalidInputError(
                f"The checkpoint {self.path} belongs to a copy between other stores. Finish that copy, pass another "
                "file with --checkpoint, or remove the file to abandon that copy.",
                field="checkpoint",
            )
        self._content.update(b"\n".join(lines))
        self._torn = whole if rest else None

    @without_context
    def _bytes(self) -> bytes | None:
        try:
            return read_private(self.path)
        except OSError as error:
            raise ConfigError(f"The checkpoint {self.path} cannot be read: {error.strerror}.") from None

    @without_context
    def _locked(self) -> FileLock:
        try:
            return FileLock(f"{self.path}.lock")
        except OSError as error:
            raise self._unwritable(error) from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, and check that the file still has the content that was read.

        Raises: RefusedError if another copy holds the lock or has changed the file; ConfigError.
        """
        lock = self._locked()
        if not lock.held:
            raise RefusedError(
                f"Another copy is using the checkpoint {self.path}. Wait until it ends, or pass another file with "
                "--checkpoint.",
                field="checkpoint",
            )
        try:
            content = self._bytes() or b""
            if hashlib.blake2b(content, digest_size=16).digest() != self._content.digest():
                raise RefusedError(
                    f"Another copy changed the checkpoint {self.path} after this one was planned. Run the same command "
                    "again.",
                    field="checkpoint",
                )
            if self._torn is not None:
                self._replace(b"\n".join([*self._torn, b""]))
                self._torn = None
            yield
        finally:
            lock.release()

    def reached(self, tenant: str) -> Reached:
        """Return the progress of *tenant*."""
        return self._reached.get(tenant, Reached())

    def knows(self, tenant: str) -> bool:
        """Return whether a copy of *tenant* was begun."""
        return tenant in self._reached

    def note(self, tenant: str, rows: int, after: Position | None, state: State = "begun") -> None:
        """Save the progress of *tenant*. Raises: ConfigError if the file cannot be written."""
        self._reached[tenant] = Reached(rows, after, state)
        line = orjson.dumps({"tenant": tenant, "rows": rows, "after": after and list(after), "state": state}) + b"\n"
        if self.exists:
            self._append(line)
        else:
            self._replace(orjson.dumps({"copy": 1, "binding": self._binding}) + b"\n" + line)

    @without_context
    def _append(self, data: bytes) -> None:
        try:
            with os.fdopen(open_private(self.path, os.O_WRONLY | os.O_APPEND), "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from None
        self._content.update(data)

    @without_context
    def _replace(self, data: bytes) -> None:
        """Replace the file's whole content by *data*, atomically."""
        try:
            replace_atomically(self.path, data)
        except OSError as error:
            raise self._unwritable(error) from None
        self._content = hashlib.blake2b(data, digest_size=16)
        self.exists = True

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"The checkpoint {self.path} cannot be written ({error.strerror}), so the copy stopped. Pass another file "
            "with --checkpoint."
        )

    def finish(self) -> None:
        """Remove the file after everything was verified."""
        self.path.unlink(missing_ok=True)
        self._content = hashlib.blake2b(digest_size=16)
        self.exists = False


def _tenant(line: Any) -> str:
    if not isinstance(line["tenant"], str):
        raise TypeError("tenant")
    return line["tenant"]


def _reached(line: Any) -> Reached:
    """Parse *line*. Raises: KeyError, TypeError, ValueError if `note` would not write it."""
    rows, after, state = line["rows"], line["after"], line["state"]
    if type(rows) is not int or rows < 0 or state not in get_args(State):
        raise ValueError("rows")
    if after is None:
        return Reached(rows, None, state)
    if not isinstance(after, list) or [type(part) for part in after] != [str, int, str]:
        raise TypeError("after")
    return Reached(rows, Position(*after), state)
