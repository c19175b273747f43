"""What we write is for this user alone, and no link that was planted leads us to another file.

Each feature is run once in an empty folder, and every path that it opens or leaves there is noted. Then it is run again
for each of these paths with a link in its place: what the link leads to stays as it was.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vectoracl import Chunk, Principal, VectorACL, VectorACLError
from vectoracl._util.file_lock import FileLock
from vectoracl._util.private_files import (
    close_to_others,
    make_private_folder,
    open_private,
    replace_atomically,
    take_folder,
    write_output,
)
from vectoracl.cli import app
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.copying.copy import Copy
from vectoracl.copying.planning import Side

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")
opened: set[str] | None = None


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if opened is not None and event in ("open", "os.mkdir", "sqlite3.connect") and isinstance(arguments[0], str | Path):
        opened.add(str(Path(arguments[0]).absolute()))


sys.addaudithook(_hear)


def who(tenant="acme"):
    return Principal("w", tenant, authenticated_by="test")


def chunks(number=30):
    return [Chunk(f"c{i}", "d", "SECRETTEXT", [1.0, 2.0, float(i)]) for i in range(number)]


def config(**main):
    return {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3, **main}}}


def load_that_stops(here):
    def stream():
        yield from chunks(25)
        raise KeyboardInterrupt

    with VectorACL(config()) as acl:
        try:
            acl.scoped(who()).load(stream(), batch=10, resume=here / "j.json")
        except KeyboardInterrupt:
            return
        raise AssertionError


def load(here):
    with VectorACL(config()) as acl:
        acl.scoped(who()).load(chunks(), batch=10, resume=here / "j.json")


def copy(here, *, stops=False):
    def progress(what, done, total):
        if stops and done > 20:
            raise KeyboardInterrupt

    with VectorACL(config()) as one, VectorACL(config()) as other:
        one.scoped(who()).upsert(chunks())
        kept = Checkpoint(here / "cp.copy", ["x"])
        work = Copy(Side(one), Side(other), reason="a test of files", checkpoint=kept, progress=progress, batch=10)
        try:
            work.run(work.plan(["acme"]))
        except KeyboardInterrupt:
            assert stops


def copy_that_stops(here):
    copy(here, stops=True)


def qdrant(here):
    pytest.importorskip("vectoracl_qdrant")
    with VectorACL(config(adapter="qdrant", path=str(here / "new/qd"), metric="l2")) as acl:
        operator = acl.operator()
        operator.provision()
        operator.close()
        acl.scoped(who()).upsert(chunks())


def tenant_keys(here):
    keys = pytest.importorskip("vectoracl_weaviate.tenant_keys")
    with keys.changing(here / "new" / "keys.json") as changed:
        changed["t_a"] = "SECRETTEXT"


def command(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if isinstance(result.exception, VectorACLError | OSError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output


def init(here):
    command("init", "-c", here / "v.toml")


def init_again(here):
    command("init", "--force", "-c", here / "v.toml")


def output(here):
    write_output(here / "report.json", b"{}")


def lock(here):
    FileLock(str(here / "a.lock")).release()


FEATURES = [load_that_stops, load, copy, copy_that_stops, qdrant, tenant_keys, init, init_again, output, lock]


@pytest.fixture(autouse=True)
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def ran(feature, here):
    """Run *feature* in the new folder *here*; return the paths in it that it opened or left."""
    global opened
    here.mkdir(mode=0o700)
    opened = set()
    try:
        feature(here)
    finally:
        traced, opened = opened, None
    left = {str(path) for path in here.rglob("*")}
    return {os.path.relpath(path, here) for path in traced | left if path.startswith(f"{here}/")}


@pytest.mark.parametrize("feature", FEATURES)
def test_what_is_made_is_for_its_user_alone(feature, tmp_path):
    ran(feature, tmp_path / "a")
    left = list((tmp_path / "a").rglob("*"))
    for path in left:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path} {mode:o}"
    assert left or feature in (load, copy, lock)


@pytest.mark.parametrize("kind", ["file", "dangling", "second name", "folder"])
@pytest.mark.parametrize("feature", FEATURES)
def test_a_planted_link_is_not_followed(feature, kind, tmp_path):
    paths = ran(feature, tmp_path / "a") & ran(feature, tmp_path / "b")  # a random name is not in both
    if kind == "folder":
        paths.discard("new")  # a folder above is the caller's choice, and may be a link
    assert paths
    for number, path in enumerate(sorted(paths)):
        victims = tmp_path / f"victims{number}"
        (victims / "folder").mkdir(parents=True)
        (victims / "file").write_text("precious")
        (victims / "file").chmod(0o644)
        (victims / "folder").chmod(0o755)
        here = tmp_path / f"run{number}"
        planted = here / path

        def plant_and_run(here, planted=planted, victims=victims):
            planted.parent.mkdir(parents=True, exist_ok=True)
            if kind == "second name":
                planted.hardlink_to(victims / "file")
            else:
                planted.symlink_to(victims / ("nothing" if kind == "dangling" else kind))
            try:
                feature(here)
            except VectorACLError:
                pass
            except OSError:
                assert feature in (output, lock)  # they have no callers' errors around them

        ran(plant_and_run, here)
        assert (victims / "file").read_text() == "precious", path
        assert stat.S_IMODE((victims / "file").stat().st_mode) == 0o644, path
        assert stat.S_IMODE((victims / "folder").stat().st_mode) == 0o755, path
        assert sorted(one.name for one in victims.rglob("*")) == ["file", "folder"], path


def test_a_pipe_does_not_make_us_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT):
        with pytest.raises(OSError):
            open_private(tmp_path / "pipe", flags)


def test_a_file_of_another_user_is_not_written(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another user")
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 65534, -1)
    with pytest.raises(PermissionError, match="another user"):
        open_private(tmp_path / "file", os.O_WRONLY)
    os.chown(tmp_path, 65534, -1)  # in his own folder he could replace it anyway: root works for him there
    os.close(open_private(tmp_path / "file", os.O_WRONLY))


def test_an_older_file_is_closed_and_emptied_only_when_it_is_the_right_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    os.close(open_private(path, os.O_WRONLY | os.O_TRUNC))
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("", 0o600)
    path.write_text("old")
    (tmp_path / "second").hardlink_to(path)
    with pytest.raises(PermissionError, match="several names"):
        open_private(path, os.O_WRONLY | os.O_TRUNC)
    assert path.read_text() == "old"


def test_a_replacement_that_fails_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError):
        replace_atomically(tmp_path / "file", b"new")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]


def test_a_folder_of_ours_is_closed_and_one_with_other_things_is_not_touched(tmp_path):
    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    ours, working, shared = (tmp_path / name for name in ("ours", "working", "shared"))
    for folder, name, open_to in ((ours, "mine", 0o755), (working, "other", 0o755), (shared, "other", 0o777)):
        folder.mkdir(open_to)
        (folder / name).write_text("")
    assert take_folder(ours, "mine".__eq__) is False
    take_folder(working, "mine".__eq__)
    with pytest.raises(PermissionError, match="others can write to it"):
        take_folder(shared, "mine".__eq__)
    assert (mode(ours), mode(working), mode(shared)) == (0o700, 0o755, 0o777)
    assert take_folder(tmp_path / "a" / "b", "mine".__eq__)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o700, 0o700)
    (tmp_path / "link").symlink_to(ours)
    for work in (make_private_folder, close_to_others):
        with pytest.raises(OSError, match="link"):
            work(tmp_path / "link")


def test_a_store_that_others_could_have_written_is_not_read(tmp_path):
    """Qdrant's local mode unpickles what it finds."""
    pytest.importorskip("vectoracl_qdrant")
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another user")
    tmp_path.chmod(0o700)
    qdrant(tmp_path)
    (stored,) = tmp_path.rglob("storage.sqlite")
    os.chown(stored, 65534, -1)
    with pytest.raises(VectorACLError, match="user id 65534"):
        qdrant(tmp_path)


def test_what_an_older_version_left_open_is_closed(tmp_path):
    pytest.importorskip("vectoracl_qdrant")
    qdrant(tmp_path)
    for path in (tmp_path / "new").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (tmp_path / "new" / "qd").chmod(0o755)
    with VectorACL(config(adapter="qdrant", path=str(tmp_path / "new/qd"), metric="l2")) as acl:
        assert acl.scoped(who()).count() == 30
    for path in (tmp_path / "new" / "qd", *(tmp_path / "new" / "qd").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
