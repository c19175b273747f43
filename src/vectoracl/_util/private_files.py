"""Files and folders for the current user only: modes 0600 and 0700 regardless of the umask, and never through a link.

If another user planted a link at a path that is about to be written, the write would go to a file of his choice. So
the last component of a path is never followed, neither as a symbolic link nor as a second name of the same file; a file
is truncated only after it was checked; and temporary names are unpredictable. The parent folders are the caller's
choice and may be links.

Every function raises OSError with a `strerror` for people. On Windows the access list of a folder decides who can read
its files, and links are checked before a file is opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

POSIX = os.name == "posix"
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_DEVICES = ("/dev", "/dev/fd", "/proc/self/fd")  # only the system creates links there, such as /dev/stdout


def open_private(path: str | Path, flags: int, *, regular: bool = True) -> int:
    """Open *path* and return its descriptor; a new or existing file gets the mode 0600.

    *flags* are those of `os.open`. With *regular*, a pipe, a device or a folder is refused. A pipe without a reader is
    refused instead of waiting for one.
    """
    if not _SAFE & getattr(os, "O_NOFOLLOW", 0) and os.path.islink(path):  # noqa: PTH114 - a str is enough
        raise _link(path)
    try:
        file = os.open(path, flags & ~os.O_TRUNC | _SAFE | getattr(os, "O_NONBLOCK", 0), 0o600)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "this pipe has no reader", str(path)) from None
        if error.errno == errno.ELOOP or Path(path).is_symlink():
            raise _link(path) from None
        raise
    try:
        _check(file, path, regular=regular, reading=flags & (os.O_WRONLY | os.O_RDWR) == 0)
        if flags & os.O_TRUNC:
            os.ftruncate(file, 0)
        if not regular and POSIX:
            os.set_blocking(file, True)  # so that a write is complete
    except BaseException:
        os.close(file)
        raise
    return file


def _check(file: int, path: str | Path, *, regular: bool, reading: bool) -> None:
    """Refuse an unsafe file, and remove the permissions of others from a safe one. Raises: OSError."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        if regular:
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return
    if not POSIX:
        return
    if status.st_uid not in (os.geteuid(), Path(path).absolute().parent.stat().st_uid):
        raise PermissionError(errno.EPERM, f"it belongs to another user (id {status.st_uid})", str(path))
    if reading:
        return
    if status.st_nlink > 1:
        raise PermissionError(errno.EPERM, "the file has several names (hard links): copy it to a new file", str(path))
    if status.st_mode & 0o077:
        os.fchmod(file, 0o600)


def _link(path: str | Path) -> OSError:
    return OSError(errno.ELOOP, "it is a symbolic link, which is not followed: pass the file itself", str(path))


def read_private(path: str | Path) -> bytes | None:
    """Return the content of the file *path*; None if it does not exist."""
    try:
        file = open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        return opened.read()


def write_new(path: str | Path, data: bytes) -> None:
    """Create the file *path*, which must not exist; a broken link counts as existing."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)
    with os.fdopen(file, "wb") as opened:
        opened.write(data)


def replace_atomically(path: str | Path, data: bytes, *, sync: bool = True) -> None:
    """Replace the whole content of *path* by *data* atomically; with *sync* also if the machine crashes."""
    place = Path(path)
    _replaceable(place)
    half = _write_beside(place, data, sync=sync)
    try:
        half.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            half.unlink()
        raise


def try_replacing(path: str | Path) -> None:
    """Raise the exception that `replace_atomically` would raise now, without leaving a file."""
    place = Path(path)
    _replaceable(place)
    _write_beside(place, b"", sync=False).unlink()


def _replaceable(place: Path) -> None:
    try:
        status = place.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise _link(place)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(place))


def _write_beside(place: Path, data: bytes, *, sync: bool) -> Path:
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name[:80]}-", suffix=".new")  # 0600, exclusive
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    return Path(name)


def write_output(path: str | Path, data: bytes) -> None:
    """Write requested output to *path*, which may be a pipe or a device such as /dev/stdout."""
    if _is_stream(Path(path)):
        with Path(path).open("wb") as file:
            file.write(data)
        return
    replace_atomically(path, data)


def try_output(path: str | Path) -> None:
    """Raise the exception that `write_output` would raise now, without leaving a file."""
    if not _is_stream(Path(path)):
        try_replacing(path)
    elif not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _is_stream(path: Path) -> bool:
    if str(path.absolute().parent) in _DEVICES:
        return True
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def make_private_folder(path: str | Path, mode: int = 0o700) -> bool:
    """Create the folder *path* and its missing parents with *mode*; return False if it existed.

    Raises: OSError if it is a link, or not a folder.
    """
    place = Path(path)
    missing = []
    above = place.parent
    while not above.exists() and above != above.parent:
        missing.append(above)
        above = above.parent
    for one in (*reversed(missing), place):
        is_new = True
        try:
            one.mkdir(mode)
        except FileExistsError:
            is_new = False
            _folder(one)
    return is_new


def _folder(path: Path) -> os.stat_result:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed: pass the folder itself", str(path))
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(path))
    return status


def take_folder(path: str | Path, own: Callable[[str], bool], mode: int = 0o700) -> bool:
    """Make *path* a folder that only this user can write; return False if it existed.

    An existing folder that holds only vectoracl's files (by *own*) is closed to others. A folder with other files, such
    as the working folder, keeps its mode, and is refused if others can write to it.

    Raises: OSError also if it belongs to another user.
    """
    place = Path(path)
    is_new = make_private_folder(place, mode)
    if is_new or not POSIX:
        return is_new
    status = _folder(place)
    if status.st_uid != os.geteuid():
        raise PermissionError(
            errno.EPERM,
            f"it belongs to the user id {status.st_uid} and this process runs as {os.geteuid()}: run as that user, or "
            "pass a folder that does not exist yet",
            str(place),
        )
    if status.st_mode & 0o777 & ~mode:
        others_write = status.st_mode & 0o022
        inside = list(place.iterdir())
        if all(own(one.name) for one in inside) and not (others_write and any(_foreign(one) for one in inside)):
            place.chmod(mode)
        elif others_write:
            raise PermissionError(
                errno.EPERM,
                "others can write to it, and it is not empty: pass a folder that does not exist yet",
                str(place),
            )
    return is_new


def _foreign(path: Path) -> bool:
    return path.lstat().st_uid != os.geteuid()


def close_to_others(path: str | Path) -> None:
    """Set the modes 0700 and 0600 on *path*, and on everything in it if it is a folder.

    It has to be in a folder that only this user can write. Raises: OSError if it contains a link, or a file of another
    user.
    """
    place = Path(path)
    status = place.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "it contains a symbolic link, which is not followed", str(place))
    folder = stat.S_ISDIR(status.st_mode)
    if not folder and not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it contains something that is not a file", str(place))
    if POSIX:
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"a file in it belongs to the user id {status.st_uid}", str(place))
        if status.st_nlink > 1 and not folder:
            raise PermissionError(errno.EPERM, "a file in it has several names (hard links)", str(place))
        if status.st_mode & 0o077:
            place.chmod(0o700 if folder else 0o600)
    if folder:
        for name in os.listdir(place):  # noqa: PTH208 - names are enough
            close_to_others(place / name)
