"""POSIX files as a source of rights, against acl(5) taken literally, the kernel, and what `ingest` reads."""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import random
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.test_access import START, connect
from tests.test_governance import BOSS, Clock, V, config
from vectoracl import Access, Chunk, Entry, InvalidInputError, RefusedError
from vectoracl.registry import posix
from vectoracl.registry.posix import NumericNames, PosixFiles, SystemNames
from vectoracl.registry.posix_permissions import READ, SEARCH, Acl, combine, level, of_mode, parse_acl
from vectoracl.testing import principal
from vectoracl.text.sources import Failed, Skipped, find

if sys.platform != "linux":
    pytest.skip("POSIX permissions are read on Linux only", allow_module_level=True)
ROOT = os.getuid() == 0
ACL = "system.posix_acl_access"
NONE = 0xFFFFFFFF
USERS, GROUPS = range(1000, 1005), range(2000, 2004)


# --- acl(5), literally ---


def permits(acl, owner, group, wanted, uid, gids):
    """Decide as the section ACCESS CHECK ALGORITHM of acl(5) does."""
    mask = 7 if acl.mask is None else acl.mask
    if uid == owner:
        return acl.owner & wanted == wanted
    if uid in acl.users:
        return acl.users[uid] & mask & wanted == wanted
    entries = [acl.group] if group in gids else []
    entries += [permission for gid, permission in acl.groups.items() if gid in gids]
    if entries:
        return any(permission & mask & wanted == wanted for permission in entries)
    return acl.others & wanted == wanted


def reads(chain, uid, gids, *, others=True):
    """Decide for a file, the last of *chain*, below directories; each is a list, an owner and a group."""
    *above, (acl, owner, group) = chain
    last = (acl if others else acl._replace(others=0), owner, group)
    return permits(*last, READ, uid, gids) and all(permits(*one, SEARCH, uid, gids) for one in above)


def people(groups=GROUPS):
    """Return every kind of principal: of each user or another one, in any of the groups."""
    sets = [one for size in range(len(groups) + 1) for one in itertools.combinations(groups, size)]
    return [(uid, gids) for uid in (*USERS, 999) for gids in sets]


def decided(entries, uid, gids):
    subjects = {"tenant", f"user:{uid}", *(f"group:{gid}" for gid in gids)}
    allowed = any(one.allow for one in entries if one.subject in subjects)
    return allowed and all(one.allow for one in entries if one.subject in subjects)


bits = st.integers(0, 7)
plain_modes = st.sampled_from([0o755, 0o750, 0o700, 0o711, 0o705, 0o701, 0o644, 0o640, 0o604, 0o077, 0o600, 0o000])
modes = plain_modes | st.integers(0, 0o777)


@st.composite
def acls(draw):
    users = draw(st.dictionaries(st.sampled_from(USERS), bits, max_size=2))
    groups = draw(st.dictionaries(st.sampled_from(GROUPS), bits, max_size=2))
    masked = users or groups or draw(st.booleans())
    return Acl(draw(bits), users, draw(bits), groups, draw(bits | st.just(7)) if masked else None, draw(bits))


lists = modes.map(of_mode) | acls()
chains = st.lists(st.tuples(lists, st.sampled_from(USERS[:3]), st.sampled_from(GROUPS[:3])), min_size=1, max_size=4)


def levels(chain, names, *, others):
    *above, last = chain
    return [
        *(level(*one, SEARCH, names) for one in above),
        level(*last, READ, names, others=others),
    ]


@settings(max_examples=300, deadline=None)
@given(chain=chains, others=st.booleans())
def test_no_one_reads_more_and_no_one_less_where_entries_can_say_it(chain, others):
    found = combine(levels(chain, NumericNames(), others=others))
    for uid, gids in people():
        right, by_entries = reads(chain, uid, gids, others=others), decided(found.entries, uid, gids)
        assert not by_entries or right, (uid, gids, found)
        assert by_entries == right or not found.exact, (uid, gids, found)


class Gaps(NumericNames):
    """Names of some ids; the others have none."""

    def __init__(self, without):
        self.without = without

    def user(self, uid):
        return None if uid in self.without else super().user(uid)

    def group(self, gid):
        return None if gid in self.without else super().group(gid)


@settings(max_examples=300, deadline=None)
@given(chain=chains, others=st.booleans(), without=st.frozensets(st.sampled_from([*USERS, *GROUPS]), max_size=3))
def test_an_id_without_a_name_permits_no_one_and_its_denial_is_not_lost(chain, others, without):
    """Whoever has such an id may have a name that the index knows for another reason, and belongs to groups unseen."""
    found = combine(levels(chain, Gaps(without), others=others))
    for uid, gids in people():
        named = "nameless" if uid in without else uid
        by_entries = decided(found.entries, named, [gid for gid in gids if gid not in without])
        assert not by_entries or reads(chain, uid, gids, others=others), (uid, gids, found)


usual = st.lists(st.sampled_from([0o755, 0o711, 0o751]), max_size=3)


@settings(max_examples=200, deadline=None)
@given(
    above=usual, shared=st.sampled_from([0o750, 0o710, 0o770, None]), mode=st.sampled_from([0o640, 0o644, 0o600, 0o440])
)
def test_usual_trees_are_exact(above, shared, mode):
    """Directories that all may pass, one of a group, and files of that group."""
    chain = [(of_mode(one), USERS[0], GROUPS[0]) for one in above]
    chain += [] if shared is None else [(of_mode(shared), USERS[1], GROUPS[1])]
    chain.append((of_mode(mode), USERS[1], GROUPS[1]))
    assert combine(levels(chain, NumericNames(), others=True)).exact


def entries_of(*chain, others=True):
    found = combine(levels(chain, NumericNames(), others=others)).entries
    return {("" if one.allow else "not ") + one.subject for one in found}


def test_examples():
    top = (of_mode(0o755), 0, 0)
    assert entries_of(top, (of_mode(0o644), 1, 2)) == {"tenant"}
    assert entries_of(top, (of_mode(0o644), 1, 2), others=False) == {"user:1", "group:2"}
    assert entries_of(top, (of_mode(0o077), 1, 2)) == {"tenant", "not user:1"}
    assert entries_of(top, (of_mode(0o604), 1, 2)) == {"tenant", "not group:2"}
    assert entries_of((of_mode(0o700), 1, 2), (of_mode(0o644), 1, 2)) == {"user:1"}
    assert entries_of((of_mode(0o700), 3, 2), (of_mode(0o644), 1, 2)) == {"user:3"}
    assert (
        entries_of((of_mode(0o700), 3, 2), (of_mode(0o640), 1, 2)) == set()
    )  # user 3, if of group 2: no entry says it
    assert not combine(levels([(of_mode(0o700), 3, 2), (of_mode(0o640), 1, 2)], NumericNames(), others=True)).exact
    masked = Acl(6, {5: 7}, 7, {6: 7}, 3, 0)  # the mask takes the right to read from all but the owner
    assert entries_of(top, (masked, 1, 2)) == {"user:1"}
    assert entries_of(top, (of_mode(0o000), 1, 2)) == set()
    assert entries_of((of_mode(0o701), 1, 2), (of_mode(0o640), 1, 2)) == {"user:1"}  # group 2 does not get there
    named_too = Acl(6, {}, 0, {2: 4}, 7, 0)  # the owning group has an entry by its name, which permits
    assert entries_of(top, (named_too, 1, 2)) == {"user:1", "group:2"}
    assert entries_of(top, (Acl(6, {}, 4, {2: 0}, 7, 0), 1, 2)) == {"user:1", "group:2"}
    assert entries_of(top, (Acl(0, {1: 7}, 0, {}, 7, 0), 1, 2)) == set()  # the owner's own entry decides


def test_writers_read_and_write():
    nothing = combine(levels([(of_mode(0), 1, 2)], NumericNames(), others=False), ["role:ingest"])
    assert nothing.entries == (Entry("role:ingest", write=True),)
    some = combine(levels([(of_mode(0o640), 1, 2)], NumericNames(), others=False), ["group:2"])
    assert set(some.entries) == {Entry("group:2", write=True), Entry("user:1")}


# --- the binary form ---


def raw(acl, *, version=2):
    entries = [
        (1, acl.owner, NONE),
        *((2, permission, uid) for uid, permission in sorted(acl.users.items())),
        (4, acl.group, NONE),
        *((8, permission, gid) for gid, permission in sorted(acl.groups.items())),
        *([] if acl.mask is None else [(16, acl.mask, NONE)]),
        (32, acl.others, NONE),
    ]
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *one) for one in entries)


@settings(max_examples=200, deadline=None)
@given(acl=acls())
def test_a_list_is_read_as_it_was_written(acl):
    assert parse_acl(raw(acl)) == acl


FULL = raw(Acl(7, {1000: 4}, 5, {2000: 4}, 5, 0))
PARTS = [FULL[at : at + 8] for at in range(4, len(FULL), 8)]


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\2\0\0",
        FULL[:4],
        FULL[:-1],
        FULL + b"\0",
        raw(of_mode(0o644), version=1),
        raw(of_mode(0o644), version=3),
        struct.pack(">I", 2) + FULL[4:],
        FULL[:4] + b"".join(reversed(PARTS)),
        *(FULL[:4] + b"".join(PARTS[:at] + PARTS[at + 1 :]) for at in (0, 2, 4, 5)),
        *(FULL[:4] + b"".join(PARTS[: at + 1] + PARTS[at:]) for at in range(6)),
        FULL.replace(struct.pack("<HHI", 2, 4, 1000), struct.pack("<HHI", 2, 8, 1000)),
        FULL.replace(struct.pack("<HHI", 2, 4, 1000), struct.pack("<HHI", 3, 4, 1000)),
        FULL.replace(struct.pack("<HHI", 2, 4, 1000), struct.pack("<HHI", 2, 4, NONE)),
        FULL.replace(struct.pack("<HHI", 8, 4, 2000), struct.pack("<HHI", 8, 4, NONE)),
    ],
)
def test_a_list_that_is_malformed_is_refused(given):
    with pytest.raises(InvalidInputError, match="malformed"):
        parse_acl(given)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acl=acls(), at=st.integers(0, 200), byte=st.integers(0, 255), size=st.integers(0, 300))
def test_what_the_kernel_does_not_take_is_not_read(tmp_path, acl, at, byte, size):
    """One byte is another one, or the end is missing."""
    changed = bytearray(raw(acl))
    changed[at % len(changed)] = byte
    given = bytes(changed)[: max(size, 4)]
    file = tmp_path / "file"
    file.touch()
    try:
        understood = parse_acl(given)
    except InvalidInputError:
        return
    kept(file, given)
    assert (file.stat().st_mode & 0o777) == understood.mode()
    if understood.mask is not None:
        assert parse_acl(os.getxattr(file, ACL)) == understood


def kept(file, given):
    """Store a list; skip where the file system has none."""
    try:
        os.setxattr(file, ACL, given)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            pytest.skip("the file system has no access control lists")
        raise


# --- the kernel as the judge ---


def drawn(r):
    """Return a list, mostly a mode."""
    if r.random() < 0.5:
        return of_mode(r.choice([0o755, 0o750, 0o711, 0o705, 0o644, 0o640, 0o604, 0o077, r.randrange(512)]))
    users = {uid: r.randrange(8) for uid in r.sample(USERS, r.randrange(3))}
    groups = {gid: r.randrange(8) for gid in r.sample(GROUPS, r.randrange(3))}
    mask = r.choice([7, 5, r.randrange(8)]) if users or groups else None
    return Acl(r.randrange(8), users, r.randrange(8), groups, mask, r.choice([5, r.randrange(8)]))


def give(path, acl, owner, group):
    os.chown(path, owner, group)
    if acl.mask is None:
        path.chmod(acl.mode())
    else:
        kept(path, raw(acl))


def planted(where, r, number):
    """Make a tree of directories and files with drawn rights; return the chain of each file by its document."""
    folders = {where / "docs": ()}
    (where / "docs").mkdir()
    chains = {}
    for one in range(number):
        path = r.choice(list(folders)) / f"{one}.md"
        above = folders[path.parent]
        mine = drawn(r), r.choice(USERS[:3]), r.choice(GROUPS[:3])
        if one % 3 == 0:
            path = path.with_suffix("")
            path.mkdir()
            folders[path] = (*above, mine)
        else:
            path.write_text("x")
            chains[path.relative_to(where).as_posix()] = (*above, mine)
        give(path, *mine)
    top = of_mode(r.choice([0o755, 0o750, 0o705])), r.choice(USERS[:3]), r.choice(GROUPS[:3])
    give(where / "docs", *top)
    return {name: (top, *chain) for name, chain in chains.items()}


needs_root = pytest.mark.skipif(not ROOT, reason="only root gives files to others, and becomes others")

CHILD = """
import json, os, sys
top, uid, gids = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
os.setgroups(gids), os.setresgid(99, 99, 99), os.setresuid(uid, uid, uid)
found = []
for name in json.load(sys.stdin):
    try:
        os.close(os.open(name, os.O_RDONLY, dir_fd=top))
    except PermissionError:
        continue
    found.append(name)
print(json.dumps(found))
"""


@needs_root
@pytest.mark.parametrize("seed", range(3))
def test_the_judge_of_these_tests_agrees_with_the_kernel(tmp_path, seed):
    r = random.Random(seed)
    chains = planted(tmp_path, r, 120)
    top = os.open(tmp_path / "docs", os.O_PATH)
    names = [name.removeprefix("docs/") for name in chains]
    try:
        for uid, gids in r.sample(people(), 12):
            done = subprocess.run(
                [sys.executable, "-S", "-c", CHILD, str(top), str(uid), json.dumps(gids)],
                input=json.dumps(names), capture_output=True, text=True, check=True, pass_fds=[top], cwd="/",
            )  # fmt: skip
            kernel = set(json.loads(done.stdout))
            for name, chain in chains.items():
                right = reads(chain, uid, gids)
                # Under a mask of nothing Linux looks at no list, and takes who is named for one of the others.
                if not any(acl.mask == 0 for acl, _, _ in chain):
                    assert (name.removeprefix("docs/") in kernel) == right, (name, chain, uid, gids)
                else:
                    assert name.removeprefix("docs/") in kernel or not right, (name, chain, uid, gids)
    finally:
        os.close(top)


def entries_by_document(records):
    """Return what records say of each document, with the entries of the sets of readers put in their places."""
    said = {one.document: one for one in records if one.document is not None}
    whole = {}
    for name, one in said.items():
        if one.inherits_from is not None:
            assert one.entries is None
            whole[name] = said[one.inherits_from].entries
    return whole


@needs_root
@pytest.mark.parametrize("others", [False, True])
def test_a_walk_says_what_the_rights_of_the_tree_are(tmp_path, others):
    chains = planted(tmp_path, random.Random(7), 400)
    files = PosixFiles(tmp_path / "docs", others=others, names=NumericNames())
    found = entries_by_document(files.records(()))
    assert found == {
        name: combine(levels(chain, NumericNames(), others=others)).entries for name, chain in chains.items()
    }
    counts = {one.entries: one.files for one in files.sets}
    assert counts == {entries: list(found.values()).count(entries) for entries in found.values()}
    assert len(files.sets) < len(found)


@needs_root
def test_files_of_one_directory_that_differ_in_one_part(tree):
    given = {"b": (1, 2, 0o640), "c": (1, 3, 0o640), "d": (4, 2, 0o640), "e": (1, 2, 0o600), "f": (1, 2, 0o644)}
    for name, (owner, group, mode) in given.items():
        (tree / name).touch()
        give(tree / name, of_mode(mode), owner, group)
    found = entries_by_document(PosixFiles(tree, names=NumericNames(), others=True).records(()))
    readers = {name: {one.subject for one in found[f"docs/{name}"]} for name in given}
    assert readers == {
        "b": {"user:1", "group:2"},
        "c": {"user:1", "group:3"},
        "d": {"user:4", "group:2"},
        "e": {"user:1"},
        "f": {"tenant"},
    }


# --- through the registry ---


@pytest.fixture
def clock():
    one = Clock()
    one.now = START
    return one


@pytest.fixture
def acl(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(posix.time, "time", lambda: clock.now)
    folder = tmp_path / "registry"
    folder.mkdir()
    with connect(config(folder, sources={"files": {"max_age_seconds": 1000}}), clock) as one:
        one.governance(BOSS).define_label("open", entries=[Entry("tenant", write=True)])
        yield one


@pytest.fixture
def govern(acl):
    return acl.governance(BOSS)


def write(acl, *documents):
    acl.scoped(principal("ann", "acme")).upsert([Chunk(id="1", document=one, text=one, vector=V) for one in documents])


def seen(acl, uid=0, gids=(), *, name=None):
    who = principal(name or str(uid), "acme", groups=[str(gid) for gid in gids])
    found = {hit.document for hit in acl.scoped(who).search(V, 1000)}
    assert found == {hit.document for hit in acl.scoped(who).scan()}
    return found


def judged(acl, govern, clock, chains, others):
    """Compare what each of *chains* lets read, as a document, with what searches show and the registry says."""
    clock.now += 1
    names = [f"d{number}" for number in range(len(chains))]
    rights = [combine(levels(chain, NumericNames(), others=others)) for chain in chains]
    records = [Access(clock.now, name, entries=one.entries) for name, one in zip(names, rights, strict=True)]
    govern.apply_access([*records, Access(clock.now)], source="files")
    for name, one in zip(names, rights, strict=True):
        said = govern.who(name)
        assert said["hidden"] == []
        assert {(entry["subject"], entry["allow"]) for entry in said["entries"]} == {
            (entry.subject, entry.allow) for entry in one.entries
        }
    for uid, gids in people(GROUPS[:2]):
        found = seen(acl, uid, gids)
        for name, chain, one in zip(names, chains, rights, strict=True):
            right = reads(chain, uid, gids, others=others)
            assert right or name not in found, (chain, uid, gids)
            assert (name in found) == right or not one.exact, (chain, uid, gids)


def searched(acl, govern, clock, rounds):
    write(acl, *(f"d{number}" for number in range(20)))
    r = random.Random(rounds)
    for number in range(rounds):
        chains = [
            [(drawn(r), r.choice(USERS[:3]), r.choice(GROUPS[:3])) for _ in range(r.randrange(1, 4))] for _ in range(20)
        ]
        judged(acl, govern, clock, chains, others=number % 2 == 0)


def test_searches_show_what_the_permissions_let_read(acl, govern, clock):
    searched(acl, govern, clock, 2)


def test_many_searches_show_what_the_permissions_let_read(acl, govern, clock):
    searched(acl, govern, clock, 20)


def apply(govern, clock, tree, **options):
    """Walk *tree* a second later, and apply it; returns the result and what was reported."""
    clock.now += 1
    reported = []
    files = PosixFiles(tree, names=NumericNames(), report=reported.append, **options)
    found = govern.apply_access(files.records(govern.access_records("files")), source="files")
    return found, files, [(one.name, type(one)) for one in reported]


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "docs"
    (tree / "team").mkdir(parents=True)
    for name in ("a.md", "team/b.md"):
        (tree / name).write_text("x")
        (tree / name).chmod(0o644)
    for one in (tree, tree / "team"):
        one.chmod(0o755)
    return tree


ME, MINE = os.getuid(), os.getgid()


def test_a_later_walk_is_in_force_and_can_be_repeated(acl, govern, clock, tree):
    write(acl, "docs/a.md", "docs/team/b.md")
    found, _, _ = apply(govern, clock, tree)
    assert (found.unplaced, found.as_of) == ((), clock.now)
    everything = {"docs/a.md", "docs/team/b.md"}
    assert seen(acl, ME) == seen(acl, 5, [MINE]) == everything
    assert seen(acl, 5) == set()  # one of all others, who are not the tenant
    assert apply(govern, clock, tree)[0].changed == ()
    (tree / "team").chmod(0o700)
    assert set(apply(govern, clock, tree)[0].changed) >= {"docs/team/b.md"}
    assert (seen(acl, ME), seen(acl, 5, [MINE])) == (everything, {"docs/a.md"})
    assert govern.reconcile().left == 0
    assert (seen(acl, ME), seen(acl, 5, [MINE])) == (everything, {"docs/a.md"})
    apply(govern, clock, tree, others=True)
    assert seen(acl, 5) == {"docs/a.md"}
    clock.now += 1000
    assert seen(acl, ME) == set()  # stale
    apply(govern, clock, tree)
    assert seen(acl, ME) == everything


def test_an_older_walk_undoes_nothing(acl, govern, clock, tree):
    write(acl, "docs/a.md")
    older = list(PosixFiles(tree, others=True).records(()))
    (tree / "a.md").chmod(0o600)
    apply(govern, clock, tree, others=True)
    assert seen(acl, 5) == set()
    assert govern.apply_access(older, source="files").changed == ()
    assert seen(acl, 5) == set()


def test_a_file_that_is_not_there_any_more_is_read_by_no_one(acl, govern, clock, tree):
    write(acl, "docs/a.md", "docs/team/b.md")
    apply(govern, clock, tree)
    (tree / "a.md").unlink()
    _, files, _ = apply(govern, clock, tree)
    assert (files.ended, seen(acl, ME)) == (1, {"docs/team/b.md"})
    again = list(PosixFiles(tree, names=NumericNames()).records(govern.access_records("files")))
    assert not any(one.document == "docs/a.md" for one in again)  # it has ended
    (tree / "team").rename(tree.parent / "away")
    _, files, _ = apply(govern, clock, tree)
    assert (files.ended, seen(acl, ME)) == (1, set())
    (tree.parent / "away").rename(tree / "team")
    (tree / "a.md").write_text("x")
    (tree / "a.md").chmod(0o644)
    _, files, _ = apply(govern, clock, tree)
    assert (files.ended, seen(acl, ME)) == (0, {"docs/a.md", "docs/team/b.md"})


def test_a_directory_without_files_counts_as_read(acl, govern, clock, tmp_path):
    (tmp_path / "docs").mkdir()
    found, files, _ = apply(govern, clock, tmp_path / "docs")
    assert (found.as_of, files.sets) == (clock.now, [])


def test_what_was_said_at_the_same_time_or_later_is_left_alone(clock, tree, monkeypatch):
    monkeypatch.setattr(posix.time, "time", lambda: clock.now)
    known = [Access(clock.now + one, f"docs/{one}.md", entries=(Entry("user:1"),)) for one in (-1, 0, 1)]
    files = PosixFiles(tree)
    found = entries_by_document(files.records(known))
    assert files.ended == 1
    assert {one for one, entries in found.items() if entries == ()} == {"docs/-1.md"}


def test_labels_are_of_sets_of_readers_and_end_with_them(acl, govern, clock, tree):
    for number in range(30):
        (tree / f"{number}.md").write_text("x")
        (tree / f"{number}.md").chmod(0o644 if number % 2 else 0o600)
    apply(govern, clock, tree)
    made = [one for one in govern.labels() if one.name.startswith("@")]
    assert len(made) == 4  # two sets, and the label of the files of each
    for one in tree.glob("*.md"):
        one.chmod(0o600)
    apply(govern, clock, tree)
    (tree / "team/b.md").chmod(0o600)
    apply(govern, clock, tree)
    assert sum(bool(one.entries) for one in govern.labels() if one.name.startswith("@")) == 1


def test_a_walk_that_breaks_off_applies_nothing(acl, govern, clock, tree, monkeypatch):
    write(acl, "docs/a.md", "docs/team/b.md")
    apply(govern, clock, tree)
    before = govern.sources()
    (tree / "a.md").chmod(0o000)
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *more, **named: real(path, *more, **named) if path != "b.md" else full()
    )

    def full():
        raise OSError(errno.EMFILE, "too many open files")

    with pytest.raises(RefusedError, match="descriptors"):
        apply(govern, clock, tree)
    assert govern.sources() == before
    assert seen(acl, ME) == {"docs/a.md", "docs/team/b.md"}


def test_a_governor_and_a_later_walk(acl, govern, clock, tree):
    write(acl, "docs/a.md")
    apply(govern, clock, tree)
    clock.now += 1
    govern.move("docs/a.md", "open")
    assert seen(acl, 5) == {"docs/a.md"}
    apply(govern, clock, tree)
    assert seen(acl, 5) == set()


def test_writers_may_read_what_no_one_else_may(acl, govern, clock, tree):
    write(acl, "docs/a.md", "docs/team/b.md")
    (tree / "a.md").chmod(0o000)
    apply(govern, clock, tree, writers=["user:loader"])
    (tree / "team/b.md").unlink()
    apply(govern, clock, tree, writers=["user:loader"])
    docs = acl.scoped(principal("loader", "acme"))
    assert seen(acl, name="loader") == {"docs/a.md", "docs/team/b.md"}
    docs.upsert([Chunk(id="2", document="docs/a.md", text="x", vector=V)])
    docs.delete(document="docs/team/b.md")
    assert seen(acl, name="loader") == {"docs/a.md"}
    assert seen(acl, ME) == set()


# --- documents are those of ingest ---


@pytest.mark.parametrize("under", ["", "more", "more/", "/more", "m/n"])
def test_documents_have_the_names_that_ingest_gives(tmp_path, under):
    from vectoracl.cli.ingest import _under

    tree = tmp_path / unicodedata.normalize("NFD", "dócs é")
    names = ["a.md", "B C.TXT", "x/y/z.rst", unicodedata.normalize("NFD", "ü/é.md"), ".hidden/a.md", ".a.md", "no.bin"]
    for one in names:
        (tree / one).parent.mkdir(parents=True, exist_ok=True)
        (tree / one).write_text("x")
    ingested = [one.name for one in _under(find([tree], lambda _: None, distinct=True), under)]
    found = set(entries_by_document(PosixFiles(tree, under).records(())))
    assert found == {*ingested, next(one for one in found if one.endswith("no.bin"))}
    assert len(ingested) == 4


def test_a_link_to_the_directory_is_the_directory(tmp_path, tree):
    (tmp_path / "link").symlink_to(tree)
    (ingested,) = {one.name.partition("/")[0] for one in find([tmp_path / "link"], lambda _: None)}
    assert {one.partition("/")[0] for one in entries_by_document(PosixFiles(tmp_path / "link").records(()))} == {
        ingested
    }


# --- what is not an ordinary file ---


def walked(tree, **options):
    reported = {}
    files = PosixFiles(
        tree, names=NumericNames(), others=True, report=lambda one: reported.setdefault(one.name, one), **options
    )
    found = entries_by_document(files.records(()))
    return {name: [one.subject for one in entries] for name, entries in found.items()}, reported


def test_the_directory_itself_is_one_that_has_to_be_passed(tree):
    assert walked(tree)[0] == {"docs/a.md": ["tenant"], "docs/team/b.md": ["tenant"]}
    tree.chmod(0o700)
    assert walked(tree)[0] == {"docs/a.md": [f"user:{ME}"], "docs/team/b.md": [f"user:{ME}"]}


def test_links_are_not_followed_and_read_by_no_one(tree):
    (tree / "0.md").symlink_to("a.md")
    (tree / "broken.md").symlink_to("none")
    (tree / "loop.md").symlink_to("loop.md")
    (tree / "out.md").symlink_to("/etc/passwd")
    (tree / "folder").symlink_to("team")
    found, reported = walked(tree)
    links = {f"docs/{one}" for one in ("0.md", "broken.md", "loop.md", "out.md", "folder")}
    assert {name for name, subjects in found.items() if not subjects} == links
    assert {name for name, one in reported.items() if type(one) is Skipped} == links
    assert {one.name for one in find([tree], lambda _: None)} == {"docs/0.md", "docs/team/b.md"}  # it reads through it


def test_each_name_of_a_file_has_the_rights_of_its_path(tree):
    os.link(tree / "team/b.md", tree / "c.md")
    (tree / "team").chmod(0o700)
    found, _ = walked(tree)
    assert found["docs/c.md"] == ["tenant"]
    assert found["docs/team/b.md"] == [f"user:{ME}"]


def test_pipes_and_sockets_are_no_documents(tree):
    os.mkfifo(tree / "pipe.md")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tree / "socket.md"))
        if ROOT:
            os.mknod(tree / "device.md", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        found, reported = walked(tree)
    assert set(found) == {"docs/a.md", "docs/team/b.md"}
    assert len(reported) == 3 if ROOT else 2
    assert all("regular" in one.reason for one in reported.values())


@pytest.mark.parametrize("name", [b"\xff.md", b"a\nb.md", b"x" * 250 + b".md", "a\u200bb.md".encode()])
def test_a_name_that_cannot_be_an_id_is_reported(tmp_path, name):
    tree = tmp_path / "docs"
    folder = tree / ("d" * 250) / "sub"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(name)).write_text("x")
    (folder / "a.md").write_text("x")
    failures = []
    ingested = [one.name for one in find([tree], failures.append)]
    found, reported = walked(tree)
    assert set(found) == set(ingested) == {f"docs/{'d' * 250}/sub/a.md"}
    assert len(reported) == len(failures) == 1
    assert all(isinstance(one, Failed) for one in reported.values())


@pytest.mark.parametrize("name", [b"\xff", b"a\nb"])
def test_a_directory_whose_name_cannot_be_part_of_an_id_is_reported(tree, name):
    (tree / os.fsdecode(name)).mkdir()
    (tree / os.fsdecode(name) / "a.md").write_text("x")
    found, reported = walked(tree)
    assert set(found) == {"docs/a.md", "docs/team/b.md"}
    assert len(reported) == 1
    assert {one.name for one in find([tree], lambda _: None)} == set(found)


def test_a_directory_whose_name_ends_with_a_blank_is_read(tree):
    (tree / "sub ").mkdir()
    (tree / "sub " / "a.md").write_text("x")
    found, _ = walked(tree)
    assert set(found) == {one.name for one in find([tree], lambda _: None)}


def test_two_files_that_would_be_one_document_are_read_by_no_one(tree):
    for form in ("NFC", "NFD"):
        (tree / unicodedata.normalize(form, "é.md")).write_text("x")
        (tree / unicodedata.normalize(form, "ö")).mkdir()
        (tree / unicodedata.normalize(form, "ö") / f"{form}.md").write_text("x")
        (tree / unicodedata.normalize(form, "ö") / "same.md").write_text("x")
    (tree / unicodedata.normalize("NFD", "ö") / "same.md").chmod(0o600)
    found, reported = walked(tree)
    hidden = {f"docs/{one}" for one in ("é.md", "ö/NFC.md", "ö/NFD.md", "ö/same.md")}
    assert {name for name, subjects in found.items() if not subjects} == hidden
    assert {"docs/é.md", "docs/ö"} <= set(reported)


@pytest.mark.parametrize("directory", ["none", "a.md", "", "loop"])
def test_a_directory_that_is_not_one_is_refused(tree, monkeypatch, directory):
    monkeypatch.chdir(tree)
    (tree / "loop").symlink_to("loop")
    with pytest.raises(InvalidInputError, match="not a directory"):
        list(PosixFiles(tree / directory if directory else "\0").records(()))


def test_a_file_that_vanishes_is_not_there(tree, monkeypatch):
    real = os.open

    def removing(path, *more, **named):
        if path in ("a.md", "team"):
            (tree / "a.md").unlink(missing_ok=True)
        if path == "." and (tree / "team/b.md").exists():
            (tree / "team/b.md").unlink()
            (tree / "team").rmdir()
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", removing)
    found, reported = walked(tree)
    assert (found, reported) == ({}, {})


def test_a_directory_that_becomes_a_link_is_not_entered(tree, tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "s.md").write_text("x")
    real = os.listdir

    def swapping(folder):
        names = real(folder)
        if "team" in names:
            (tree / "team").rename(tmp_path / "gone")
            (tree / "team").symlink_to(tmp_path / "secret")
        return names

    monkeypatch.setattr(os, "listdir", swapping)
    found, _ = walked(tree)
    assert found == {"docs/a.md": ["tenant"], "docs/team": []}


def test_a_directory_that_is_moved_while_it_is_read_is_the_one_that_was_looked_at(tree, tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "b.md").write_text("x")
    (tmp_path / "secret").chmod(0o777)
    (tree / "team").chmod(0o700)
    real = os.listdir

    def swapping(folder):
        names = real(folder)
        if names == ["b.md"]:
            (tree / "team").rename(tmp_path / "gone")
            (tmp_path / "secret").rename(tree / "team")
        return names

    monkeypatch.setattr(os, "listdir", swapping)
    found, _ = walked(tree)
    assert found["docs/team/b.md"] == [f"user:{ME}"]


def test_permissions_that_change_while_they_are_read(tree, monkeypatch):
    real, left = os.getxattr, [0]

    def changing(path, name, **named):
        file = Path(path).readlink()
        if file.suffix == ".md" and left[0] > 0:
            left[0] -= 1
            file.chmod(0o600 + left[0] % 2 * 0o44)
        return real(path, name, **named)

    monkeypatch.setattr(os, "getxattr", changing)
    (tree / "team/b.md").unlink()
    left[0] = 1
    assert walked(tree)[0] == {"docs/a.md": [f"user:{ME}"]}  # looked at once more
    left[0] = 1000
    found, reported = walked(tree)
    assert found == {"docs/a.md": []}
    assert "changes" in reported["docs/a.md"].reason


def failing(monkeypatch, ending, errors, result=b""):
    """Let the lists of files whose name ends so fail, by the name of the attribute."""
    real = os.getxattr

    def get(path, name, **named):
        if not str(Path(path).readlink()).endswith(ending):
            return real(path, name, **named)
        if name not in errors:
            return result
        raise OSError(errors[name], "a test")

    monkeypatch.setattr(os, "getxattr", get)


OTHERS = ("system.nfs4_acl", "system.richacl", "system.cifs_acl", "system.smb3_acl")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ERANGE, errno.ENOENT, errno.EPERM])
def test_a_list_that_cannot_be_read_gives_the_file_to_no_one(tree, monkeypatch, number):
    failing(monkeypatch, "a.md", {**dict.fromkeys(OTHERS, errno.ENOTSUP), ACL: number})
    found, reported = walked(tree)
    assert found == {"docs/a.md": [], "docs/team/b.md": ["tenant"]}
    assert isinstance(reported["docs/a.md"], Failed)
    failing(monkeypatch, "team", {**dict.fromkeys(OTHERS, errno.ENOTSUP), ACL: number})
    found, reported = walked(tree)
    assert found["docs/team/b.md"] == []
    assert isinstance(reported["docs/team"], Failed)


def test_a_file_system_without_lists_has_modes_only(tree, monkeypatch):
    failing(monkeypatch, "", {ACL: errno.ENOTSUP, **dict.fromkeys(OTHERS, errno.ENOTSUP)})
    found, reported = walked(tree)
    assert (found, reported) == ({"docs/a.md": ["tenant"], "docs/team/b.md": ["tenant"]}, {})


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs", "9p", "cifs", "unknown"])
def test_where_a_server_may_decide_a_file_without_a_list_is_read_by_no_one(tree, monkeypatch, kind):
    failing(monkeypatch, "", {ACL: errno.ENOTSUP, **dict.fromkeys(OTHERS, errno.ENOTSUP)})
    looked_up = functools.cache(lambda _: kind)  # the walk forgets what it knew before
    monkeypatch.setattr(posix, "_file_system", looked_up)
    found, reported = walked(tree)
    assert found == {"docs/a.md": [], "docs/team/b.md": []}
    assert kind in reported["docs/a.md"].reason
    failing(monkeypatch, "", dict.fromkeys((ACL, *OTHERS), errno.ENODATA))
    assert walked(tree) == ({"docs/a.md": ["tenant"], "docs/team/b.md": ["tenant"]}, {})


def test_the_kind_of_a_file_system_is_that_of_its_mount(tmp_path):
    assert posix._file_system(Path("/proc").stat().st_dev) == "proc"
    assert posix._file_system(os.makedev(4095, 77)) == "unknown"
    assert posix._file_system(tmp_path.stat().st_dev) in posix._BY_MODE


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("number", [None, errno.EACCES])
def test_lists_of_another_kind_are_not_read(tree, monkeypatch, kind, number):
    errors = {ACL: errno.ENOTSUP, **dict.fromkeys(OTHERS, errno.ENOTSUP), kind: number}
    failing(monkeypatch, "a.md", {name: one for name, one in errors.items() if one is not None})
    found, reported = walked(tree)
    assert found["docs/a.md"] == []
    assert kind in reported["docs/a.md"].reason


@pytest.mark.parametrize("given", [b"", b"x" * 28, FULL[:-8], raw(of_mode(0o777))])
def test_a_list_that_is_malformed_or_contradicts_the_mode_gives_the_file_to_no_one(tree, monkeypatch, given):
    failing(monkeypatch, "a.md", {}, given)
    found, reported = walked(tree)
    assert found == {"docs/a.md": [], "docs/team/b.md": ["tenant"]}
    assert isinstance(reported["docs/a.md"], Failed)


def test_a_directory_that_cannot_be_listed_is_reported(tree, monkeypatch):
    real = os.open

    def refusing(path, *more, **named):
        if path == "." and refused[0] in str(Path(f"/proc/self/fd/{named['dir_fd']}").readlink()):
            raise PermissionError(errno.EACCES, "a test")
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", refusing)
    refused = ["team"]
    found, reported = walked(tree)
    assert set(found) == {"docs/a.md"}
    assert isinstance(reported["docs/team"], Failed)
    refused = ["docs"]
    with pytest.raises(RefusedError, match="cannot be listed"):
        walked(tree)


def test_a_file_that_cannot_be_looked_at_is_read_by_no_one(tree, monkeypatch):
    real = os.open

    def refusing(path, *more, **named):
        if path == "a.md":
            raise PermissionError(errno.EACCES, "a test")
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", refusing)
    found, reported = walked(tree)
    assert found["docs/a.md"] == []
    assert isinstance(reported["docs/a.md"], Failed)


def test_another_file_system_is_read_by_no_one(tree, monkeypatch):
    real = os.fstat

    def elsewhere(found):
        status = real(found)
        if "team" not in str(Path(f"/proc/self/fd/{found}").readlink()):
            return status
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:10]))

    monkeypatch.setattr(os, "fstat", elsewhere)
    found, reported = walked(tree)
    assert found == {"docs/a.md": ["tenant"], "docs/team/b.md": []}
    assert "file system" in reported["docs/team"].reason


def test_a_file_on_another_file_system_is_read_by_no_one(tree, monkeypatch):
    real = os.fstat

    def elsewhere(found):
        status = real(found)
        if not str(Path(f"/proc/self/fd/{found}").readlink()).endswith("b.md"):
            return status
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:10]))

    monkeypatch.setattr(os, "fstat", elsewhere)
    found, reported = walked(tree)
    assert found == {"docs/a.md": ["tenant"], "docs/team/b.md": []}
    assert "file system" in reported["docs/team/b.md"].reason


def test_a_directory_that_contains_itself_is_not_entered(tree, monkeypatch):
    real = os.fstat

    def same(found):
        status = real(found)
        if not str(Path(f"/proc/self/fd/{found}").readlink()).endswith("team"):
            return status
        return os.stat_result((status.st_mode, tree.stat().st_ino, tree.stat().st_dev, *status[3:10]))

    monkeypatch.setattr(os, "fstat", same)
    found, reported = walked(tree)
    assert found == {"docs/a.md": ["tenant"]}
    assert "itself" in reported["docs/team"].reason


@needs_root
def test_a_mount_point_is_read_by_no_one_and_a_loop_ends(tree):
    inside = tree / "team"
    for arguments, reason in ((["-t", "tmpfs", "none"], "file system"), (["--bind", tree], "contains itself")):
        if subprocess.run(["mount", *arguments, inside], capture_output=True, check=False).returncode:
            pytest.skip("nothing may be mounted here")
        try:
            (inside / "c.md").write_text("x")
            (inside / "c.md").chmod(0o644)
            found, reported = walked(tree)
        finally:
            subprocess.run(["umount", inside], check=True)
        assert found.get("docs/team/c.md", []) == []
        assert reason in reported["docs/team"].reason


def test_more_readers_than_a_record_has_are_none(tree, monkeypatch):
    monkeypatch.setattr(posix, "MAX_ENTRIES", 1)
    (tree / "a.md").chmod(0o640)
    found, reported = walked(tree)
    assert found == {"docs/a.md": [], "docs/team/b.md": ["tenant"]}
    assert "readers" in reported["docs/a.md"].reason


def test_a_directory_is_read_one_file_after_the_other(tree):
    records = PosixFiles(tree).records(())
    first = next(records)
    (tree / "team/b.md").unlink()
    assert [one.document for one in (first, *records) if one.document and "//" not in one.document] == ["docs/a.md"]
    records.close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    records = PosixFiles(tree).records(())
    next(records)
    records.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- names ---


def test_names_are_those_of_the_system(monkeypatch):
    names = SystemNames()
    assert (names.user(0), names.group(0)) == ("user:root", "group:root")
    assert names.user(4_000_000_123) is names.group(4_000_000_123) is None


@needs_root
def test_ids_without_a_name_are_collected(tree):
    """The last one is what the kernel shows for all that have no number here; its name means no one."""
    os.chown(tree / "a.md", 4_000_000_123, 4_000_000_124)
    os.chown(tree / "team/b.md", 65534, 65534)
    files = PosixFiles(tree)
    found = entries_by_document(files.records(()))
    assert found == {"docs/a.md": (), "docs/team/b.md": ()}
    assert files.unknown == {"uid 4000000123", "gid 4000000124", "uid 65534", "gid 65534"}
    (tree / "team/b.md").chmod(0o644)
    (tree / "a.md").chmod(0o044)
    found = entries_by_document(PosixFiles(tree, others=True, names=NumericNames()).records(()))
    assert [one.subject for one in found["docs/team/b.md"]] == ["tenant"]
    assert [(one.subject, one.allow) for one in found["docs/a.md"]] == [("tenant", True), ("user:4000000123", False)]
    (tree / "team/b.md").chmod(0o044)
    found = entries_by_document(PosixFiles(tree, others=True, names=NumericNames()).records(()))
    assert found["docs/team/b.md"] == ()  # the denial could not be said


def test_a_name_that_is_no_subject_is_none(tree):
    class Odd(NumericNames):
        def user(self, uid):
            return "everyone"

        def group(self, gid):
            return "group:" + "x" * 2000

    files = PosixFiles(tree, names=Odd())
    assert entries_by_document(files.records(()))["docs/a.md"] == ()
    assert files.unknown == {f"uid {ME}", f"gid {MINE}"}


WALK = """
import json, os, sys
from vectoracl.registry.posix import NumericNames, PosixFiles
import vectoracl.registry.access, vectoracl.text.sources
os.setgroups([]), os.setresgid(1, 1, 1), os.setresuid(1, 1, 1)
failed = []
files = PosixFiles(sys.argv[1], names=NumericNames(), report=lambda one: failed.append(one.name))
said = {one.document: one for one in files.records(())}
found = {name: sorted(e.subject for e in said[one.inherits_from].entries) for name, one in said.items() if name and one.inherits_from}
print(json.dumps([found, sorted(failed)]))
"""  # noqa: E501 - a line of a program


@needs_root
def test_who_walks_need_not_be_able_to_read_the_files():
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "docs"
        for folder, mode in (("open", 0o755), ("closed", 0o700), ("listed", 0o744), ("passed", 0o711)):
            (tree / folder).mkdir(parents=True)
            (tree / folder / "a.md").write_text("x")
            kept(tree / folder / "a.md", raw(Acl(6, {5: 4}, 0, {}, 4, 0)))
            (tree / folder).chmod(mode)
        for one in (tree, tree.parent):
            one.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", WALK, str(tree)], capture_output=True, text=True, check=True, cwd="/"
        )
        found, failed = json.loads(done.stdout)
    assert found == {"docs/open/a.md": ["user:0", "user:5"]}
    assert failed == ["docs/closed", "docs/listed", "docs/passed"]


def test_a_name_of_two_ids_is_that_of_the_one_it_stands_for(monkeypatch):
    """A second line of root's name in the database would make its user root."""
    real = posix.pwd.getpwuid
    monkeypatch.setattr(posix.pwd, "getpwuid", lambda uid: real(0))
    assert SystemNames().user(0) == "user:root"
    assert SystemNames().user(1234) is None


@pytest.mark.parametrize("others", [False, True])
def test_root_is_one_of_the_users(tree, others):
    records = list(PosixFiles(tree, names=Gaps({ME, MINE}), others=others).records(()))
    found = entries_by_document(records)
    assert {one.subject for one in found["docs/a.md"]} == ({"tenant"} if others else set())


def test_writers_are_subjects(tree):
    with pytest.raises(InvalidInputError, match="subject"):
        PosixFiles(tree, writers=["loader"])


def test_elsewhere_it_is_refused_and_can_be_imported(tree, monkeypatch):
    monkeypatch.setattr(posix.sys, "platform", "darwin")
    with pytest.raises(RefusedError, match="Linux"):
        list(PosixFiles(tree).records(()))
    code = "import sys; sys.modules['pwd'] = sys.modules['grp'] = None; import vectoracl.registry.posix"
    subprocess.run([sys.executable, "-c", code], check=True)
