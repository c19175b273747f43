"""Who may read a file by its POSIX permissions, as access entries; nothing here reads a file.

A file is read by whom its own permissions let read it and those of every directory above let pass. Each of them is
decided as acl(5) says: the owner's permissions decide alone for the owner, those of a named user for that user; then
any group entry that permits; then, for whom no group entry matches, the others.

Access entries know no "and": a denial wins over every permission, and names of groups are not resolved to members. So
`combine` is exact for most trees, and lets fewer read where entries cannot say it: members of one group by the file
and of another by a directory, or the owner who belongs to a group that is denied where others are permitted. `Rights`
says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from vectoracl.errors import InvalidInputError
from vectoracl.registry.settings import TENANT_WIDE
from vectoracl.registry.values import Entry

READ, SEARCH = 4, 1
"""The permission that lets read a file, and the one that lets pass a directory."""

_VERSION = 2
_HEADER, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHERS = 1, 2, 4, 8, 16, 32
_ORDER = (_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHERS)
_NO_ID = 0xFFFFFFFF


class Acl(NamedTuple):
    """The permissions of a file, each a number from 0 to 7; `users` and `groups` are the named ones, by id."""

    owner: int
    users: Mapping[int, int]
    group: int
    groups: Mapping[int, int]
    mask: int | None
    others: int

    def mode(self) -> int:
        """Return the nine bits of the mode that belong to it."""
        return self.owner << 6 | (self.group if self.mask is None else self.mask) << 3 | self.others


def of_mode(mode: int) -> Acl:
    """Return the permissions of a file without an access control list."""
    return Acl(mode >> 6 & 7, {}, mode >> 3 & 7, {}, None, mode & 7)


def parse_acl(raw: bytes) -> Acl:
    """Return the access control list in *raw*, the value of `system.posix_acl_access` in version 2, little-endian.

    Raises: InvalidInputError for anything that Linux would not store: another version, an unknown tag, a permission
    above 7, entries that are missing, that occur twice or are out of order, and named ones without a mask.
    """
    size = len(raw) - _HEADER.size
    if size < 0 or size % _ENTRY.size or _HEADER.unpack_from(raw)[0] != _VERSION:
        raise _malformed()
    entries = [_ENTRY.unpack_from(raw, at) for at in range(_HEADER.size, len(raw), _ENTRY.size)]
    tags = [tag for tag, _, _ in entries]
    if not set(tags) <= set(_ORDER) or any(permission > 7 for _, permission, _ in entries):
        raise _malformed()
    named = {tag: [(one, permission) for t, permission, one in entries if t == tag] for tag in _ORDER}
    users, groups = dict(named[_USER]), dict(named[_GROUP])
    single = [len(named[tag]) == 1 for tag in (_OWNER, _GROUP_OWNER, _OTHERS)]
    twice = len(users) + len(groups) < len(named[_USER]) + len(named[_GROUP])
    masks = len(named[_MASK])
    if (
        tags != sorted(tags)
        or not all(single)
        or twice
        or _NO_ID in users
        or _NO_ID in groups
        or masks > 1
        or ((users or groups) and not masks)
    ):
        raise _malformed()
    mask = named[_MASK][0][1] if masks else None
    return Acl(named[_OWNER][0][1], users, named[_GROUP_OWNER][0][1], groups, mask, named[_OTHERS][0][1])


def _malformed() -> InvalidInputError:
    return InvalidInputError("has an access control list that is malformed", field="acl")


class Names(Protocol):
    """The subjects of users and groups by their numeric ids; None for an id without a name."""

    def user(self, uid: int) -> str | None:
        """Return the subject of a user."""

    def group(self, gid: int) -> str | None:
        """Return the subject of a group."""


class Level(NamedTuple):
    """Who passes one file or directory, in subjects of access entries.

    Attributes:
        users: The users whom an entry names, and whether it lets them pass.
        permitted: The groups whose members pass; of no use where all others pass without exception.
        refused: The groups that do not pass although `others` do.
        others: Whether those pass whom no entry names.
        exact: Whether it says what the permissions say: an id without a name may not be expressible.
    """

    users: frozenset[tuple[str, bool]]
    permitted: frozenset[str]
    refused: frozenset[str]
    others: bool
    exact: bool = True


NO_ONE = Level(frozenset(), frozenset(), frozenset(), others=False)


def level(acl: Acl, owner: int, group: int, wanted: int, names: Names, *, others: bool = True) -> Level:
    """Return who has the permission *wanted* (`READ` or `SEARCH`), by the list and the ids of owner and group.

    Without *others* those whom no entry names have it never. What an id without a name permits, no one gets; where it
    refuses what others would get, those do not get it either.
    """
    mask = 7 if acl.mask is None else acl.mask
    users = {uid: bool(permission & mask & wanted) for uid, permission in acl.users.items()}
    users[owner] = bool(acl.owner & wanted)  # the owner's entry comes first and decides alone
    groups = {group: bool(acl.group & mask & wanted)}
    for gid, permission in acl.groups.items():
        groups[gid] = groups.get(gid, False) or bool(permission & mask & wanted)
    open_ = others and bool(acl.others & wanted)
    named: dict[str | None, bool] = {}
    for uid, passes in users.items():
        subject = names.user(uid)
        named[subject] = named.get(subject, True) and passes
    permitted = frozenset(one for gid, passes in groups.items() if passes and (one := names.group(gid)) is not None)
    refused = {names.group(gid) for gid, passes in groups.items() if not passes}
    exact = True
    if open_ and None in refused:
        open_ = exact = False
    if not named.get(None, True) and (open_ or permitted):
        open_, permitted, exact = False, frozenset(), False
    denied = frozenset(one for one in refused if one is not None) if open_ else frozenset()
    return Level(
        frozenset((one, passes) for one, passes in named.items() if one is not None),
        permitted if denied or not open_ else frozenset(),
        denied,
        open_,
        exact,
    )


class Rights(NamedTuple):
    """Who may read: the entries, and whether they say exactly what the permissions say; else fewer may read by them."""

    entries: tuple[Entry, ...]
    exact: bool


def combine(levels: Iterable[Level], writers: Sequence[str] = ()) -> Rights:
    """Return who passes every one of *levels*; *writers* may also read and write, unless a denial names them.

    Members of groups pass if one group lets them pass everywhere. A group that one level refuses although it lets
    others pass is denied as a whole.
    """
    whole = list(dict.fromkeys(levels))
    closed = [one.permitted for one in whole if not one.others]
    common = frozenset.intersection(*closed) if closed else None
    denied = _refused(whole)
    wide = common is None or not common <= denied  # whether others than named users pass
    exact = all(one.exact and not (one.others and one.permitted) for one in whole)
    exact &= common is None or common in closed
    refused, allowed, apart = set[str](), set[str](), []
    for user, left in _by_user(whole).items():
        if left is None:
            refused.add(user)
        elif all(one.others for one in left):
            allowed.add(user)
            apart.append(_refused(left))
        else:  # by a group only
            exact &= any(one.permitted == common for one in left if not one.others) and _refused(left) == denied
    if not wide:
        denied = frozenset[str]().union(*apart)
    exact &= all(one == denied for one in apart)
    permissions = {TENANT_WIDE} if common is None else (common - denied if wide else frozenset()) | allowed
    denials = (denied if permissions else frozenset()) | (refused if wide else frozenset())
    entries = [Entry(one, write=one in writers) for one in sorted(permissions.union(writers))]
    return Rights((*entries, *(Entry(one, allow=False) for one in sorted(denials))), exact)


def _refused(levels: Iterable[Level]) -> frozenset[str]:
    return frozenset[str]().union(*(one.refused for one in levels))


def _by_user(levels: Sequence[Level]) -> dict[str, list[Level] | None]:
    """Return for each user the levels at which groups and others decide; None for one whom a level refuses by name."""
    named = [dict(one.users) for one in levels]
    found: dict[str, list[Level] | None] = {}
    for user in sorted({user for one in named for user in one}):
        passes = all(one.get(user, True) for one in named)
        found[user] = [one for one, users in zip(levels, named, strict=True) if user not in users] if passes else None
    return found
