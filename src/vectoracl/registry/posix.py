"""POSIX files as a source of rights: the records of access of the files below a directory.

Each file is looked at through a descriptor that follows no link, so that mode, owner and access control list are of one
file, and directories are entered by the descriptor that was looked at. Whatever cannot be read, changes while it is
read or has no POSIX permissions is given to no one.

Files with the same readers share one record: it is of a name that no file can have (`docs//…`), and they inherit from
it. So labels grow with the different sets of readers and not with files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from vectoracl.errors import InvalidInputError, RefusedError, without_context
from vectoracl.model.identifiers import check_id
from vectoracl.registry.access import Access
from vectoracl.registry.posix_permissions import (
    NO_ONE,
    READ,
    SEARCH,
    Acl,
    Level,
    Names,
    Rights,
    combine,
    level,
    of_mode,
    parse_acl,
)
from vectoracl.registry.settings import check_subject
from vectoracl.registry.values import MAX_ENTRIES, Entry
from vectoracl.text.sources import Failed, Report, Skipped, document_name

grp: Any
pwd: Any
try:
    import grp
    import pwd
except ImportError:  # Windows, where `records` refuses
    grp = pwd = None

_ACL = "system.posix_acl_access"
_OTHER_ACLS = ("system.nfs4_acl", "system.richacl", "system.cifs_acl", "system.smb3_acl")
"""Lists of other kinds, of file systems that have no POSIX ones: their modes do not say who may read."""
_BY_MODE = frozenset(
    "bcachefs btrfs erofs ext2 ext3 ext4 f2fs jfs overlay ramfs reiserfs squashfs tmpfs xfs zfs".split()  # noqa: SIM905
)
"""Local file systems, whose modes decide alone where they have no lists. Elsewhere a server decides, by what it has."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_TRIES = 3


class SystemNames:
    """The names of users and groups, as the system's databases have them."""

    def user(self, uid: int) -> str | None:
        """Return the subject of a user."""
        try:
            name = pwd.getpwuid(uid).pw_name
            return f"user:{name}" if pwd.getpwnam(name).pw_uid == uid else None
        except KeyError:
            return None

    def group(self, gid: int) -> str | None:
        """Return the subject of a group."""
        try:
            name = grp.getgrgid(gid).gr_name
            return f"group:{name}" if grp.getgrnam(name).gr_gid == gid else None
        except KeyError:
            return None


class NumericNames:
    """The ids of users and groups in place of names: `user:1000`."""

    def user(self, uid: int) -> str:
        """Return the subject of a user."""
        return f"user:{uid}"

    def group(self, gid: int) -> str:
        """Return the subject of a group."""
        return f"group:{gid}"


class _Known:
    """Names that are subjects, each looked up once; `unknown` collects the ids without one.

    One id has none whatever a database says: the one that the kernel shows for all that have no number here, as in a
    container or over NFS.
    """

    def __init__(self, names: Names, unknown: set[str]) -> None:
        self._unknown = unknown
        self.user = cache(partial(self._subject, "uid", names.user, _overflow("uid")))
        self.group = cache(partial(self._subject, "gid", names.group, _overflow("gid")))

    def _subject(self, kind: str, name: Callable[[int], str | None], overflow: int, number: int) -> str | None:
        subject = None if number == overflow else name(number)
        try:
            return check_subject(subject)
        except InvalidInputError:
            self._unknown.add(f"{kind} {number}")
            return None


def _overflow(kind: str) -> int:
    try:
        return int(Path(f"/proc/sys/kernel/overflow{kind}").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 65534


class _Unreadable(Exception):  # noqa: N818 - a reason, which is reported
    """The reason why the permissions of a file are not known."""


@dataclass
class ReaderSet:
    """One set of readers: its entries, its number of files, and whether they say exactly what the permissions say."""

    entries: tuple[Entry, ...]
    files: int = 0
    exact: bool = True


@dataclass
class PosixFiles:
    """The files below *directory* as a source of rights. Each call of `records` walks it again.

    The names of documents are those that `vectoracl ingest` gives the same files.

    Attributes:
        directory: The directory; what is above it is not looked at.
        under: A name to put in front of the names of documents, as of `vectoracl ingest --under`.
        others: Whether what all others may read is read by the whole tenant; else by no one whom no entry names.
        writers: Subjects that may read and write every document, such as "user:loader".
        names: The subjects of users and groups; by default the system's names.
        report: Called with each file or directory that is left out or that no one reads, and the reason.
        as_of: The moment at which the last walk began, in POSIX seconds.
        sets: The sets of readers of the last walk.
        unknown: The ids without a name that the last walk has met, such as "uid 1000".
        ended: The number of documents of the last walk that were known and are not there any more.
    """

    directory: str | os.PathLike[str]
    under: str = ""
    others: bool = False
    writers: Sequence[str] = ()
    names: Names = field(default_factory=SystemNames)
    report: Report = lambda _: None
    as_of: float = field(default=0.0, init=False)
    sets: list[ReaderSet] = field(default_factory=list, init=False)
    unknown: set[str] = field(default_factory=set, init=False)
    ended: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for one in self.writers:
            check_subject(one)

    def records(self, known: Iterable[Access]) -> Iterator[Access]:
        """Walk the directory and yield what it says, each record when it is needed.

        Args:
            known: The records that the registry has of this source, as `Governance.access_records` returns them: the
                rights of those that are not there any more, or cannot be looked at, end.

        Yields:
            A record for each regular file and symbolic link, before its first use one for each set of readers, and a
            heartbeat at the end.

        Raises:
            InvalidInputError: The directory does not exist or has a name that cannot be a part of a document's id.
            RefusedError: It cannot be listed, the process has no descriptors or memory left, or this is not Linux.
        """
        if sys.platform != "linux":
            raise RefusedError("POSIX permissions are read on Linux only: other systems have other lists.")
        walk = _Walk(self)
        self.as_of, self.sets, self.unknown, self.ended = time.time(), walk.sets, walk.unknown, 0
        seen = set()
        for record in walk.records():
            seen.add(record.document)
            yield record
        for one in known:
            if one.document is None or one.document in seen or one.as_of >= self.as_of:
                continue
            for record in walk.end(one):
                self.ended += record.document == one.document and "//" not in one.document
                yield record
        yield Access(self.as_of)


class _Walk:
    """One walk: the sets of readers that it has met."""

    def __init__(self, files: PosixFiles) -> None:
        _file_system.cache_clear()
        self.files = files
        self.sets: list[ReaderSet] = []
        self.unknown: set[str] = set()
        self._names = _Known(files.names, self.unknown)
        self._keys: dict[tuple[Entry, ...], tuple[str, ReaderSet]] = {}
        self._nothing = combine([NO_ONE], files.writers)
        self._prefix = f"{files.under.rstrip('/')}/" if files.under else ""
        try:
            self._path = Path(files.directory).resolve(strict=True)
            there = self._path.is_dir()
        except (OSError, RuntimeError, ValueError):  # RuntimeError: a loop of links; ValueError: a NUL
            there = False
        if not there:
            raise InvalidInputError(f"{str(files.directory)!a} is not a directory that exists.", field="directory")
        self._name = document_name(self._path.name, ())
        for one in (self._child(self._name), self._key(())):
            check_id(one, "document")

    def records(self) -> Iterator[Access]:
        """Yield the records of everything below the directory."""
        root = self._open()
        try:
            known, names = os.fstat(root), self._list(root)
            mine = self._level(root, self._name or "/", SEARCH)
            yield from self._folder(root, names, self._name, (mine,), ((known.st_dev, known.st_ino),))
        finally:
            os.close(root)

    @without_context
    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise self._refused(error) from None

    @without_context
    def _list(self, root: int) -> list[str]:
        try:
            return _listed(root)
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> RefusedError:
        return RefusedError(
            f"The directory {str(self._path)!a} cannot be listed ({type(error).__name__}); nothing was read."
        )

    def end(self, known: Access) -> Iterator[Access]:
        """Yield what ends the rights of a document, unless they have ended."""
        assert known.document is not None
        if "//" in known.document:  # a set of readers that no file has any more
            if known.entries != ():
                yield Access(self.files.as_of, known.document, entries=())
            return
        key = self._key(self._nothing.entries)
        if known.inherits_from != key or known.entries is not None or known.valid_until is not None:
            yield from self._readers(self._nothing.entries)
            yield Access(self.files.as_of, known.document, inherits_from=key)

    def _folder(
        self, here: int, names: list[str], name: str, levels: tuple[Level, ...], above: tuple[tuple[int, int], ...]
    ) -> Iterator[Access]:
        """Yield the records of a directory that is open as *here*; *above* are it and those above, by device and file.

        Two names that are equal in normal form C would be one document, so neither is read by anyone.
        """
        known: dict[tuple[object, ...], Rights] = {}
        twins = Counter(document_name("", (one,)) for one in names)
        for one in names:
            document = document_name(name, (one,))
            try:
                found = os.open(one, os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
            except FileNotFoundError:
                continue  # it has gone in the meantime
            except OSError as error:
                yield from self._hidden(document, f"cannot be looked at ({_kind(error)})")
                continue
            try:
                inside = levels
                if twins[document_name("", (one,))] > 1:
                    self._report(Failed, document, "has the name of another one, if letters are composed")
                    inside = (NO_ONE,)
                yield from self._entry(found, document, inside, above, known)
            finally:
                os.close(found)

    def _entry(
        self,
        found: int,
        document: str,
        levels: tuple[Level, ...],
        above: tuple[tuple[int, int], ...],
        known: dict[tuple[object, ...], Rights],
    ) -> Iterator[Access]:
        try:
            status = os.fstat(found)
        except OSError as error:
            yield from self._hidden(document, f"cannot be looked at ({_kind(error)})")
            return
        if stat.S_ISDIR(status.st_mode):
            yield from self._below(found, document, levels, (*above, (status.st_dev, status.st_ino)))
        elif stat.S_ISREG(status.st_mode):
            if status.st_dev != above[0][0] and above[-1][0] == above[0][0]:
                yield from self._hidden(document, "is on another file system")
            else:
                yield from self._file(found, document, levels, known)
        elif stat.S_ISLNK(status.st_mode):
            yield from self._hidden(document, "is a symbolic link, which is not followed", Skipped)
        else:
            self._report(Skipped, document, "is not a regular file")

    def _below(
        self, found: int, name: str, levels: tuple[Level, ...], above: tuple[tuple[int, int], ...]
    ) -> Iterator[Access]:
        """Yield the records of a directory in another one, unless it is on another device or contains itself."""
        try:
            check_id(self._child(name), "document")
        except InvalidInputError as error:
            self._report(Failed, name, f"has a name that cannot be a part of a document id: {error.message}")
            return
        if above[-1] in above[:-1]:
            self._report(Failed, name, "contains itself")
            return
        if above[-1][0] != above[0][0]:
            self._report(Failed, name, "is on another file system, so no one reads what is in it")
            levels = (NO_ONE,)
        try:
            names = _listed(found)
        except FileNotFoundError:
            return  # it was removed in the meantime
        except OSError as error:
            self._report(Failed, name, f"cannot be listed ({_kind(error)})")
            return
        mine = self._level(found, name, SEARCH)
        yield from self._folder(found, names, name, tuple(dict.fromkeys((*levels, mine))), above)

    def _file(
        self, found: int, document: str, levels: tuple[Level, ...], known: dict[tuple[object, ...], Rights]
    ) -> Iterator[Access]:
        """Yield the records of a regular file; *known* has the rights of other files of the directory."""
        try:
            status, acl = _permissions(found)
        except _Unreadable as error:
            yield from self._hidden(document, str(error))
            return
        parts = (levels, status.st_uid, status.st_gid, repr(acl))
        rights = known.get(parts)
        if rights is None:
            mine = level(acl, status.st_uid, status.st_gid, READ, self._names, others=self.files.others)
            rights = known[parts] = combine((*levels, mine), self.files.writers)
        if len(rights.entries) > MAX_ENTRIES:
            yield from self._hidden(document, f"has more than {MAX_ENTRIES:,} readers")
            return
        yield from self._record(document, rights)

    def _level(self, found: int, name: str, wanted: int) -> Level:
        try:
            status, acl = _permissions(found)
        except _Unreadable as error:
            self._report(Failed, name, f"{error}, so no one reads what is in it")
            return NO_ONE
        return level(acl, status.st_uid, status.st_gid, wanted, self._names)

    def _hidden(self, document: str, reason: str, how: type[Skipped] = Failed) -> Iterator[Access]:
        """Report a document, and yield the records by which no one reads it."""
        self._report(how, document, reason)
        yield from self._record(document, self._nothing)

    def _report(self, how: type[Skipped], name: str, reason: str) -> None:
        self.files.report(how(f"{self._prefix}{name}", reason))

    def _record(self, name: str, rights: Rights) -> Iterator[Access]:
        """Yield the record of a document, after that of its readers if it is the first one with them."""
        try:
            document = check_id(f"{self._prefix}{name}", "document")
        except InvalidInputError as error:
            self._report(Failed, ascii(name), f"has a name that cannot be a document id: {error.message}")
            return
        yield from self._readers(rights.entries)
        key, readers = self._keys[rights.entries]
        if not readers.files:
            self.sets.append(readers)
        readers.files += 1
        readers.exact &= rights.exact
        yield Access(self.files.as_of, document, inherits_from=key)

    def _readers(self, entries: tuple[Entry, ...]) -> Iterator[Access]:
        """Yield the record of a set of readers if it is a new one."""
        if entries not in self._keys:
            key = self._key(entries)
            self._keys[entries] = (key, ReaderSet(entries))
            yield Access(self.files.as_of, key, entries=entries)

    def _key(self, entries: tuple[Entry, ...]) -> str:
        """Return the name of a set of readers: no file has it, since it has an empty part."""
        text = "\n".join(f"{one.subject}\0{one.allow:d}{one.write:d}" for one in entries)
        return f"{self._prefix}{self._name}//{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _child(self, name: str) -> str:
        """Return the id that a file in the directory *name* could have."""
        return f"{self._prefix}{document_name(name, ('x',))}"


def _kind(error: OSError) -> str:
    if error.errno in _EXHAUSTED:
        raise RefusedError(
            "The process has no file descriptors or memory left, so the files were not read as a whole.",
        ) from None
    return type(error).__name__


def _listed(folder: int) -> list[str]:
    """Return the names in a directory that is open, without hidden ones, sorted."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        return sorted(one for one in os.listdir(readable) if not one.startswith("."))  # noqa: PTH208 - a descriptor
    finally:
        os.close(readable)


@without_context
def _permissions(found: int) -> tuple[os.stat_result, Acl]:
    """Return owner, group and permissions of a file of one moment. Raises: _Unreadable."""
    for _ in range(_TRIES):
        try:
            before = os.fstat(found)
            acl = _acl(found, before.st_mode)
            after = os.fstat(found)
        except OSError as error:
            raise _Unreadable(f"cannot be looked at ({_kind(error)})") from None
        if _marks(before) != _marks(after):
            continue
        if acl.mode() != after.st_mode & 0o777:
            raise _Unreadable("has an access control list that contradicts its mode")
        return after, acl
    raise _Unreadable("changes while it is read")


def _marks(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mode, status.st_uid, status.st_gid, status.st_ctime_ns


@without_context
def _acl(found: int, mode: int) -> Acl:
    try:
        return parse_acl(_attribute(found, _ACL))
    except InvalidInputError as error:
        raise _Unreadable(error.message) from None
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise _Unreadable(f"has an access control list that cannot be read ({_kind(error)})") from None
        missing = error.errno == errno.ENODATA
    if not missing:
        _check_no_other(found)
        kind = _file_system(os.fstat(found).st_dev)
        if kind not in _BY_MODE:
            raise _Unreadable(f"is on a file system without access control lists ({kind}), where a server may decide")
    return of_mode(mode)


@cache
def _file_system(device: int) -> str:
    """Return the kind of file system of *device*, or "unknown"."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return "unknown"
    kinds = {line.split(" - ", 1)[1].split(" ", 1)[0] for line in lines if line.split(" ", 3)[2] == number}
    return kinds.pop() if len(kinds) == 1 else "unknown"


def _check_no_other(found: int) -> None:
    """Refuse a file of a file system that decides by other lists. Raises: _Unreadable."""
    for name in _OTHER_ACLS:
        try:
            _attribute(found, name)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                continue
        raise _Unreadable(f"has rights of another kind ({name}), which are not read")


def _attribute(found: int, name: str) -> bytes:
    # The descriptor is opened without reading, and such a one takes no fgetxattr.
    return os.getxattr(f"/proc/self/fd/{found}", name)
