"""The embedded server's folder: for its user alone whatever the umask, and no planted link is followed."""

from __future__ import annotations

import contextlib
import os
import stat

import pytest

from vectoracl import VectorACLError
from vectoracl_pgvector.embedded import server
from vectoracl_pgvector.embedded.folder import Folder, Run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")
FAST = {"fsync": "off", "shared_buffers": "8MB", "max_connections": "10"}


@pytest.fixture(autouse=True)
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def used(path):
    """What is done to the folder around a start, without a server: everything but the cluster itself."""
    folder = Folder(path)
    folder.prepare()
    with folder.locked():
        lock = folder.enter()
        folder.server_lock().drop()
        folder.sweep()
        for role in ("bootstrap", "owner", "runtime"):
            folder.password(role, make=True)
        folder.record(Run("18", "", 5432, None))
        folder.set_provisioned()
        lock.drop()


def modes(path):
    found = {one: stat.S_IMODE(one.lstat().st_mode) for one in (path, *path.rglob("*"))}
    return {str(one): f"{mode:o}" for one, mode in found.items() if mode & 0o077}


@pytest.mark.parametrize("exists", [None, 0o755, 0o775])
def test_a_server_and_its_folder_are_for_one_user(tmp_path, exists):
    data = tmp_path / "new" / "pg"
    if exists is not None:
        data.mkdir(exists, parents=True)
        data.parent.chmod(0o700)
    try:
        server.start(data, settings=FAST)
        assert modes(data.parent) == {}
    finally:
        server.stop(data, mode="immediate")
    assert modes(data.parent) == {}


@pytest.mark.parametrize("kind", ["file", "nothing", "folder"])
def test_a_planted_link_is_not_followed(tmp_path, kind):
    used(tmp_path / "a" / "pg")
    names = sorted(str(one.relative_to(tmp_path / "a")) for one in (tmp_path / "a").rglob("*"))
    assert len(names) >= 8
    for number, name in enumerate([*names, "pg/cluster", "pg/run.json.tmp"]):
        victims = tmp_path / f"victims{number}"
        (victims / "folder").mkdir(parents=True, mode=0o755)
        (victims / "file").write_text("precious")
        before = {one: (one.lstat().st_mode, one.is_file() and one.read_text()) for one in victims.rglob("*")}
        planted = tmp_path / f"run{number}" / name
        planted.parent.mkdir(parents=True, mode=0o700)
        planted.symlink_to(victims / kind)
        with contextlib.suppress(VectorACLError):
            used(tmp_path / f"run{number}" / "pg")
        assert {one: (one.lstat().st_mode, one.is_file() and one.read_text()) for one in victims.rglob("*")} == before


def test_what_others_may_have_put_there_is_not_used(tmp_path):
    data = tmp_path / "pg"
    data.mkdir(0o770)
    (data / "password.bootstrap").write_text("known")
    data.chmod(0o770)
    if os.geteuid() == 0:
        os.chown(data / "password.bootstrap", 65534, -1)
        with pytest.raises(VectorACLError, match="others can write to it"):
            used(data)
    (data / "password.bootstrap").unlink()
    (data / "notes.md").write_text("somebody's")
    with pytest.raises(VectorACLError, match="others can write to it"):
        used(data)
