"""Postures that `connect` measured before, kept in the user's own folder and found again by a fingerprint.

An adapter that has `fingerprint` (`contract.Fingerprinted`) says in one request whether anything that its check reads
has changed. If a posture was kept under the same fingerprint, `connect` uses it instead of measuring again. Only
`connect` does: `check` always measures.

Where a posture is kept decides who can make `connect` accept a store. A place in the store could be written by whoever
can change the store, and would hide what he changed. So it is a folder of this user (`$XDG_STATE_HOME/vectoracl`, by
default `~/.local/state/vectoracl`), and it is trusted only if no other user can write to it: such a user could as well
change the program. Whatever is not as it should be (another owner, a link, a mode, an unreadable file, a full disk)
means that nothing is kept, and the store is measured.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from vectoracl._util.private_files import POSIX, make_private_folder, open_private, replace_atomically
from vectoracl.adapter_api.contract import Adapter, Fingerprinted
from vectoracl.adapter_api.posture import Posture

_FORMAT: Final = 1
_FLOWS: Final = ("fingerprint", "fingerprinted_posture")
MOST: Final = 64
"""The number of postures that are kept; the oldest are removed."""
_NAME = re.compile(r"[0-9a-f]{64}\.json\Z")


def folder() -> Path:
    """Return the folder in which postures are kept."""
    state = os.environ.get("XDG_STATE_HOME")
    return Path(state if state else Path.home() / ".local" / "state") / "vectoracl" / "postures"


def fingerprinted(adapter: Adapter) -> Fingerprinted | None:
    """Return *adapter* if it has a fingerprint of the posture that it returns, else None.

    All flows must come from one class: a wrapper or a subclass that judges otherwise must not be taken for the
    original.
    """
    classes = type(adapter).__mro__
    homes = {next((one for one in classes if name in vars(one)), None) for name in ("posture", *_FLOWS)}
    replaced = getattr(adapter, "__dict__", {}).keys() & {"posture", *_FLOWS}
    if len(homes) != 1 or None in homes or replaced:
        return None
    return adapter if isinstance(adapter, Fingerprinted) else None


def some() -> bool:
    """Return whether any posture is kept, so that looking for one can be worth a fingerprint."""
    try:
        return any(_NAME.match(one.name) for one in folder().iterdir())
    except (OSError, RuntimeError):
        return False


def find(store: str, adapter: Adapter, fingerprint: str | None) -> Posture | None:
    """Return the posture that is kept for the store and the fingerprint; None if there is none that can be trusted."""
    if fingerprint is None:
        return None
    key = _key(store, adapter, fingerprint)
    try:
        path = folder() / f"{key}.json"
        data = _read(path) if _trusted(path.parent) else None
        found, posture = _form().validate_json(data, strict=False) if data is not None else ("", None)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: no home
        return None
    return posture if found == key else None


def keep(store: str, adapter: Adapter, fingerprint: str, posture: Posture) -> None:
    """Keep *posture* for the store and the fingerprint, if the folder can be trusted."""
    key = _key(store, adapter, fingerprint)
    try:
        place = folder()
        if not POSIX:
            return
        make_private_folder(place)
        if _trusted(place):
            replace_atomically(place / f"{key}.json", _form().dump_json((key, replace(posture, script=()))), sync=False)
            _remove_oldest(place)
    except (OSError, RuntimeError):
        return


def _key(store: str, adapter: Adapter, fingerprint: str) -> str:
    kind = type(adapter)
    parts = (str(_FORMAT), version("vectoracl"), store, kind.__module__, kind.__qualname__, fingerprint)
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


@cache
def _form() -> TypeAdapter[Any]:
    return TypeAdapter(tuple[str, Posture])


def _trusted(place: Path) -> bool:
    """Return whether *place* is a folder of this user that no other user can write to."""
    status = place.lstat()
    return POSIX and stat.S_ISDIR(status.st_mode) and _only_ours(status)


def _only_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _read(path: Path) -> bytes | None:
    with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read() if _only_ours(os.fstat(file.fileno())) else None


def _remove_oldest(place: Path) -> None:
    files = [one for one in place.iterdir() if _NAME.match(one.name)]
    if len(files) <= MOST:
        return
    for one in sorted(files, key=lambda one: one.lstat().st_mtime)[: len(files) - MOST]:
        with suppress(FileNotFoundError):
            one.unlink()
