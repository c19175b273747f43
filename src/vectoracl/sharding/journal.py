"""The journal of a job that is run in shards: a folder that all of its workers can reach.

It holds the plan (`plan.json`), the result of each shard that is finished (`shard-3.json`), and while a shard is
running its lock; a load also keeps its position in the stream there. A result is written after the shard's work,
atomically, so the store may be ahead of the journal and never behind. A shard without a result is repeated, which
doubles nothing.

The folder is trusted: only its user can write to it, and a shard that is not in its plan is refused. Workers on several
machines need a file system whose locks all of them see.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from vectoracl._util.file_lock import FileLock
from vectoracl._util.private_files import read_private, replace_atomically, take_folder
from vectoracl.errors import BusyError, ConfigError, InvalidInputError, RefusedError, without_context
from vectoracl.sharding.results import Result
from vectoracl.sharding.shards import Plan, Shard

_NAME = re.compile(r"\.?(plan\.json|plan\.lock|shard-\d+\.(json|lock|load|load\.lock))(-\w+\.new)?")
_PATIENCE = 60.0
_PAUSE = 0.1


class Journal:
    """The journal in *folder*, which is created if it does not exist."""

    @without_context
    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            take_folder(self.folder, lambda name: _NAME.fullmatch(name) is not None)
        except OSError as error:
            raise self._unfit(error) from None

    def __repr__(self) -> str:
        return f"<Journal in {str(self.folder)!r}>"

    def _unfit(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"The journal {str(self.folder)!r} cannot be used: {error.strerror or type(error).__name__}. Pass a folder "
            "that every worker can write to, on a file system that supports locks."
        )

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Hold the lock of the plan; wait for another worker for a while. Raises: BusyError, ConfigError."""
        lock = self._plan_lock()
        try:
            yield
        finally:
            lock.release()

    def _plan_lock(self) -> FileLock:
        until = time.monotonic() + _PATIENCE
        while not (lock := self._lock("plan.lock")).held:
            if time.monotonic() > until:
                raise BusyError(
                    f"Another worker is still planning in {str(self.folder)!r}. Run the same shard again when it is "
                    "done.",
                    code="busy",
                    sent="no",
                )
            time.sleep(_PAUSE)
        return lock

    def plan(self) -> Plan | None:
        """Return the plan, None if there is none yet. Raises: ConfigError, InvalidInputError."""
        content = self._read("plan.json")
        return None if content is None else Plan.parse(content)

    def keep(self, plan: Plan) -> None:
        """Save *plan*. Raises: RefusedError if the journal holds another one; ConfigError."""
        present = self.plan()
        if present is None:
            self._write("plan.json", orjson.dumps(plan.data()))
        elif present.digest != plan.digest:
            raise self._foreign()

    def _foreign(self) -> RefusedError:
        return RefusedError(
            f"The journal {str(self.folder)!r} belongs to another plan. Finish that job, or pass another folder.",
            field="journal",
        )

    def admit(self, shard: Shard) -> None:
        """Refuse a shard that is not in the plan. Raises: RefusedError."""
        plan = self.plan()
        if plan is None:
            raise RefusedError(
                f"The journal {str(self.folder)!r} holds no plan. Pass it to plan_shards(journal=…) first.",
                field="journal",
            )
        if shard.index >= len(plan) or plan.parts[shard.index] != shard:
            raise self._foreign()

    @contextmanager
    def claimed(self, shard: Shard) -> Iterator[None]:
        """Hold the lock of *shard*. Raises: BusyError if another worker is running it."""
        lock = self._lock(f"shard-{shard.index + 1}.lock")
        if not lock.held:
            raise BusyError(
                f"Another worker is running the shard {shard.name}. Nothing was done. If that worker is lost, its lock "
                "ends with its process; then run this shard again.",
                code="busy",
                sent="no",
            )
        try:
            yield
        finally:
            lock.release()

    def result(self, shard: Shard) -> Result | None:
        """Return the last result of *shard*, None if there is none. Raises: ConfigError, InvalidInputError."""
        content = self._read(f"shard-{shard.index + 1}.json")
        if content is None:
            return None
        result = Result.parse(content)
        if (result.shard, result.index, result.job) != (shard.digest, shard.index, shard.job):
            raise self._foreign()
        return result

    def kept(self, shard: Shard) -> Result | None:
        """Return the result of an earlier call, marked as kept; None if *shard* has to be run.

        A result with differences or faults is not kept: what was wrong may have been fixed since.
        """
        result = self.result(shard)
        return None if result is None or not result.good else result.model_copy(update={"kept": True})

    def finish(self, shard: Shard, result: Result) -> None:
        """Save the result of *shard*. Raises: ConfigError."""
        self._write(f"shard-{shard.index + 1}.json", orjson.dumps(result.data()))

    def results(self) -> list[Result]:
        """Return the last results of the shards that have one. Raises: ConfigError, InvalidInputError."""
        plan = self.plan()
        found = [] if plan is None else [self.result(shard) for shard in plan.parts]
        return [one for one in found if one is not None]

    def load_path(self, shard: Shard) -> Path:
        """Return the path of the position of *shard*, which is a load."""
        return self.folder / f"shard-{shard.index + 1}.load"

    @without_context
    def _lock(self, name: str) -> FileLock:
        try:
            return FileLock(str(self.folder / name))
        except OSError as error:
            raise self._unfit(error) from None

    @without_context
    def _read(self, name: str) -> bytes | None:
        try:
            return read_private(self.folder / name)
        except OSError as error:
            raise self._unfit(error) from None

    @without_context
    def _write(self, name: str, data: bytes) -> None:
        try:
            replace_atomically(self.folder / name, data)
        except OSError as error:
            raise self._unfit(error) from None


def opened(given: Journal | str | Path | None) -> Journal | None:
    """Return *given* as a journal. Raises: ConfigError, InvalidInputError."""
    if given is None or isinstance(given, Journal):
        return given
    if not isinstance(given, str | Path) or not str(given):
        raise InvalidInputError("journal must be the path of a folder.", field="journal")
    return Journal(given)
