"""The user id that an embedded server runs under: the caller's, or, for root, one that no other service uses."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vectoracl.errors import ConfigError

PRIVATE_ID = 61_097
"""In the range 60,706 to 61,183, which systemd's "Users, Groups, UIDs and GIDs" lists as unused by everyone, and
below 65,536, so that it also exists in a container whose id range was narrowed to 16 bits."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The numeric id that a program runs under; None for the caller's own."""

    uid: int | None = None
    gid: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Return what `subprocess` needs to run under this id."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Change the owner of *path*, which we created, to this id; links are not followed."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    @staticmethod
    def folder(path: Path) -> str:
        """Return the name of *path* for a program that was started in it.

        `/proc/self/cwd` needs no access to the parent folders, is short enough for a socket, and contains no character
        that the shell, through which `pg_ctl` starts the server, would interpret.

        Raises:
            ConfigError: The path has such a character and there is no /proc.
        """
        if sys.platform == "linux" and Path("/proc/self/cwd").exists():
            return "/proc/self/cwd"
        if sys.platform != "win32" and set(str(path)) & set('"$`\\\n'):
            raise ConfigError("The path of the embedded server's folder has a character that a shell interprets.")
        return str(path)


def identity_for(cluster: Path) -> Identity:
    """Return the id that the server of *cluster* runs under: its owner's, or the private id for a new cluster."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return Identity()
    try:
        status = cluster.stat()
    except FileNotFoundError:
        return Identity(_private_id(), _private_id())
    if status.st_uid == 0:
        raise ConfigError(
            "The cluster of the embedded PostgreSQL belongs to root, as which PostgreSQL refuses to run. "
            "Its folder was changed by something else; give it back to the id that owned it."
        )
    return Identity(status.st_uid, status.st_gid)


def _private_id() -> int:
    import pwd

    used_ids = {account.pw_uid for account in pwd.getpwall()}
    return next(uid for uid in range(PRIVATE_ID, PRIVATE_ID + 80) if uid not in used_ids)


def idle_account() -> Identity:
    """Return an account for `initdb` without other processes that could interfere (if `/proc` shows them)."""
    import pwd

    busy = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            busy.add(entry.stat().st_uid)
    accounts = sorted(
        (account for account in pwd.getpwall() if 0 < account.pw_uid < 1000 or account.pw_name == "nobody"),
        key=lambda account: (account.pw_uid in busy, account.pw_name != "nobody", account.pw_uid),
    )
    if not accounts:
        raise ConfigError("initdb needs an account other than root in the account database; there is none.")
    return Identity(accounts[0].pw_uid, accounts[0].pw_gid)
