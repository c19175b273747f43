"""Backups under a registry, with the server's own pg_dump and pg_restore, and a verification that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, Entry, StoppedTenantError
from vectoracl.client.registry_setup import provision_registry, read_tags
from vectoracl.testing import principal
from vectoracl_pgvector.embedded.programs import installed

BOSS = principal("boss", "acme", roles=["records"])
ANN = principal("ann", "acme", groups=["hr"])
BOB = principal("bob", "acme")
REASON = "a test of restored backups"


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(installed(18) / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def vector(i: int = 0) -> list[float]:
    return [1.0, float(i), *([0.0] * 6)]


def chunks(document: str, number: int = 3) -> list[Chunk]:
    return [Chunk(f"c{i}", document, f"word {i}", vector(i), metadata={"lang": "en"}) for i in range(number)]


class Site:
    """A store on a server and a registry in a file, with a journal beside it."""

    def __init__(self, store: Any, folder: Path) -> None:
        self.store, self.folder = store, folder
        registry = {
            "url": f"sqlite:///{folder / 'registry.db'}",
            "journal": f"sqlite:///{folder / 'journal.db'}",
            "single_host": True,
            "default_label": "open",
            "governors": {"role": "records"},
            "max_read_seconds": 0,
        }
        self.config = {**store.config, "registry": registry}
        with v.VectorACL(self.config) as setting_up:
            provision_registry(setting_up, ["main"])
        with v.connect(self.config) as acl:
            govern = acl.governance(BOSS)
            govern.define_label("open", entries=[Entry("tenant", write=True)])
            govern.define_label("hr", entries=[Entry("group:hr", write=True)])
            for name in ("a", "b", "c"):
                acl.scoped(ANN).upsert(chunks(name))
            assert govern.reconcile().left == 0

    def dump(self) -> Path:
        archive = self.folder / "store.dump"
        parts = ("--format", "custom", "--schema", "vectoracl", "--file", str(archive))
        ended = run("pg_dump", "--dbname", self.store.bootstrap, *parts)
        assert ended.returncode == 0, ended.stderr
        return archive

    def restore(self, archive: Path) -> None:
        with psycopg.connect(self.store.bootstrap, autocommit=True) as connection:
            connection.execute("DROP SCHEMA vectoracl CASCADE")
        parts = ("--single-transaction", "--exit-on-error")
        ended = run("pg_restore", "--dbname", self.store.bootstrap, *parts, str(archive))
        assert ended.returncode == 0, ended.stderr

    def registry_backup(self) -> Path:
        with sqlite3.connect(self.folder / "registry.db") as source, sqlite3.connect(self.folder / "old.db") as copy:
            source.backup(copy)
        source.close()
        copy.close()
        return self.folder / "old.db"

    def restore_registry(self, backup: Path) -> None:
        for end in ("", "-wal", "-shm"):
            (self.folder / f"registry.db{end}").unlink(missing_ok=True)
        shutil.copy(backup, self.folder / "registry.db")


@pytest.fixture
def site(store: Any, tmp_path: Path) -> Site:
    return Site(store, tmp_path)


def seen(acl: Any, who: Any = BOB) -> list[str]:
    docs = acl.scoped(who)
    found = [hit.document for hit in docs.search(vector(), k=100)]
    assert docs.count() == len(found) == len(list(docs.scan()))
    return sorted(set(found))


def test_a_store_that_was_restored(site: Site) -> None:
    archive = site.dump()
    with v.connect(site.config) as acl:
        govern = acl.governance(BOSS)
        govern.move("a", "hr")
        govern.erase("b", reason=REASON)
        acl.scoped(ANN).replace("c", chunks("c", 1))
        assert govern.reconcile().left == 0
    site.restore(archive)
    with v.connect(site.config) as acl:
        with pytest.raises(StoppedTenantError, match="registry verify"):
            acl.scoped(BOB).search(vector())
        with pytest.raises(StoppedTenantError):
            acl.scoped(BOB).count()
        report = acl.governance(BOSS).verify()
        assert sorted(report.deleted) == ["b", "c"]
        assert report.corrected == ("a",)
        assert report.incomplete == ("c",)
        assert seen(acl) == []
        acl.scoped(ANN).replace("c", chunks("c", 1))
        assert acl.governance(BOSS).reconcile().left == 0
        assert seen(acl) == ["c"]
        assert seen(acl, ANN) == ["a", "c"]
        assert {tag.document for tag in read_tags(acl, "main", "acme")} == {"a", "c"}


def test_a_registry_that_was_restored(site: Site) -> None:
    backup = site.registry_backup()
    with v.connect(site.config) as acl:
        govern = acl.governance(BOSS)
        govern.move("a", "hr")
        govern.erase("b", reason=REASON)
        assert govern.reconcile().left == 0
    site.restore_registry(backup)
    with v.connect(site.config) as acl:
        with pytest.raises(StoppedTenantError):
            acl.scoped(BOB).search(vector())
        report = acl.governance(BOSS).verify()
        assert report.replayed > 1
        assert report.corrected == report.deleted == report.incomplete == ()
        assert seen(acl) == ["c"]
        assert seen(acl, ANN) == ["a", "c"]


KILLED = """
import json, os, signal, sys
import vectoracl as v
from vectoracl.engine.drivers import run
from vectoracl.testing import principal
config, stop = json.loads(sys.argv[1]), int(sys.argv[2])
with v.connect(config) as acl:
    named, number = acl._stores["main"], 0
    port = named.ports["registry"]
    perform = port.execute
    def execute(request, timeout):
        global number
        if number == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        number += 1
        answer = perform(request, timeout)
        return answer
    port.execute = execute
    acl.governance(principal("boss", "acme", roles=["records"])).verify()
"""


def test_a_verification_that_is_killed_is_run_again(site: Site) -> None:
    """Each time it gets one transaction of the registry further; the tenant stays stopped until one has ended."""
    archive = site.dump()
    with v.connect(site.config) as acl:
        acl.governance(BOSS).move("a", "hr")
        acl.governance(BOSS).erase("b", reason=REASON)
        assert acl.governance(BOSS).reconcile().left == 0
    site.restore(archive)
    for stop in range(20):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, json.dumps(site.config), str(stop)],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            env={**os.environ, "VECTORACL_QUIET": "1"},
        )
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        with v.connect(site.config) as acl, pytest.raises(StoppedTenantError):
            acl.scoped(BOB).count()
    assert 4 < stop < 19
    with v.connect(site.config) as acl:
        assert seen(acl) == ["c"]
        assert seen(acl, ANN) == ["a", "c"]
