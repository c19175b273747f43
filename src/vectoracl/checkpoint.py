"""How far a copy came: one small file of lines, each true when it was written, so that a crash loses nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from vectoracl.errors import ConfigError, InvalidInputError
from vectoracl.operations import Position

State = Literal["begun", "copied", "verified"]


@dataclass(slots=True)
class Reached:
    """How far one tenant is: rows that were written, the last of them, and whether it was copied whole."""

    rows: int = 0
    after: Position | None = None
    state: State = "begun"


class Checkpoint:
    """The file; the last line of a tenant counts. It is made at the first row and removed when all is verified.

    A line is written after the rows that it speaks of, so the store may be one batch ahead of it, never behind.
    """

    def __init__(self, path: Path, parts: Sequence[str]) -> None:
        self.path = path
        self._binding = hashlib.blake2b(orjson.dumps(list(parts)), digest_size=16).hexdigest()
        self._reached: dict[str, Reached] = {}
        self.exists = path.exists()
        if self.exists:
            self._read()

    def _read(self) -> None:
        """Raises: InvalidInputError if the file is no checkpoint, or that of another copy."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise ConfigError(f"The checkpoint {self.path} cannot be read: {error.strerror}.") from None
        whole, rest = lines[:-1], lines[-1]  # what has no end of line was cut off by a crash
        try:
            read: list[Any] = [orjson.loads(line) for line in whole]
            if not read and not rest:
                raise ValueError("empty")
            if read and read[0]["copy"] != 1:
                raise ValueError("another version")
            bound = read[0]["binding"] if read else self._binding
            for line in read[1:]:
                after = None if line["after"] is None else Position(*line["after"])
                self._reached[str(line["tenant"])] = Reached(int(line["rows"]), after, line["state"])
        except (ValueError, KeyError, TypeError):
            raise InvalidInputError(
                f"{self.path} is no checkpoint of a copy. Name another file with --checkpoint.", field="checkpoint"
            ) from None
        if bound != self._binding:
            raise InvalidInputError(
                f"The checkpoint {self.path} belongs to a copy between other stores. Finish that one, name another "
                "file with --checkpoint, or remove it if that copy is given up.",
                field="checkpoint",
            )
        if rest:
            spare = self.path.with_name(self.path.name + ".new")
            spare.write_bytes(b"\n".join([*whole, b""]))
            spare.replace(self.path)

    def reached(self, tenant: str) -> Reached:
        """Return how far *tenant* is."""
        return self._reached.get(tenant, Reached())

    def knows(self, tenant: str) -> bool:
        """Whether a copy of *tenant* was begun."""
        return tenant in self._reached

    def note(self, tenant: str, rows: int, after: Position | None, state: State = "begun") -> None:
        """Keep how far *tenant* is. Raises: ConfigError if the file cannot be written."""
        self._reached[tenant] = Reached(rows, after, state)
        head = b"" if self.exists else orjson.dumps({"copy": 1, "binding": self._binding}) + b"\n"
        line = orjson.dumps({"tenant": tenant, "rows": rows, "after": after and list(after), "state": state})
        self._write(head + line + b"\n", fresh=not self.exists)

    def _write(self, data: bytes, *, fresh: bool) -> None:
        try:
            with self.path.open("wb" if fresh else "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"The checkpoint {self.path} cannot be written ({error.strerror}), so nothing more is copied. Name "
                "another file with --checkpoint."
            ) from None
        self.exists = True

    def finish(self) -> None:
        """Remove the file: all of it was verified."""
        self.path.unlink(missing_ok=True)
        self.exists = False
