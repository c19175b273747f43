"""What the guide says of read replicas, with a streaming replica of the server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import vectoracl as v
from vectoracl import Chunk, Hybrid, Lexical, testing
from vectoracl.adapter_api.store_identity import shared
from vectoracl_pgvector.embedded.folder import Folder
from vectoracl_pgvector.embedded.identity import identity_for
from vectoracl_pgvector.embedded.programs import installed, programs_for

ANN = testing.principal("ann", "acme")
BOB = testing.principal("bob", "beta")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="started by hand, as on a Unix")


@pytest.fixture
def replica(server: Any) -> Iterator[int]:
    """Start a streaming replica of the whole server; give its port."""
    identity = identity_for(Folder(server.data).cluster)
    programs = programs_for(18, identity)
    folder = Path(tempfile.mkdtemp(prefix="vectoracl-replica-", dir="/tmp"))
    data = folder / "data"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    try:
        source = make_conninfo(server.dsn("bootstrap", "postgres", tcp=True))
        subprocess.run(
            [installed(18) / "pg_basebackup", "-d", source, "-D", data, "-R", "-X", "stream", "-c", "fast"],
            check=True,
            capture_output=True,
            timeout=120,
            env={**os.environ, "LC_ALL": "C"},
        )
        for parent, folders, files in os.walk(folder):
            for entry in (*folders, *files):
                identity.give(Path(parent) / entry)
        identity.give(folder)
        where = identity.folder(data)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c hot_standby=on"
        programs.run("pg_ctl", "-D", where, "-w", "-l", f"{where}/log", "-o", options, "start", cwd=data, timeout=60)
        try:
            yield port
        finally:
            programs.run("pg_ctl", "-D", where, "-m", "immediate", "-w", "stop", cwd=data, timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_replica_has_the_policies_and_serves_reads(store: Any, server: Any, replica: int) -> None:
    name = str(conninfo_to_dict(store.runtime)["dbname"])
    there = {role: make_conninfo(server.dsn(role, name, tcp=True), port=replica) for role in ("runtime", "bootstrap")}
    with v.connect(store.config) as acl:
        for who in (ANN, BOB):
            text = f"canary of {who.tenant}"
            acl.scoped(who).upsert([Chunk(f"c{i}", "d", text, np.eye(8)[i]) for i in range(5)])
    with psycopg.connect(there["bootstrap"], autocommit=True) as superuser:
        until = time.monotonic() + 30
        while superuser.execute("SELECT count(*) FROM vectoracl.chunks").fetchone() != (10,):
            assert time.monotonic() < until, "the replica did not catch up"
            time.sleep(0.05)
    with v.connect(store.changed(dsn=there["runtime"])) as acl:  # the posture is read, and has to be the same
        assert {one.grade for one in acl.check().values()} == {"engine"}
        for who in (ANN, BOB):
            docs = acl.scoped(who)
            for query in (np.eye(8)[0], Lexical("canary"), Hybrid("canary", np.eye(8)[0])):
                hits = docs.search(query, 20)
                assert len(hits) == 5
                assert {hit.text for hit in hits} == {f"canary of {who.tenant}"}
            assert docs.count() == len(list(docs.scan())) == 5
            with pytest.raises(v.StoreError) as failed:
                docs.upsert([Chunk("new", "new", "", np.eye(8)[0])])
            assert failed.value.sent == "no"
            assert docs.count() == 5
    with psycopg.connect(there["runtime"]) as connection:
        assert connection.execute("SELECT count(*) FROM vectoracl.chunks").fetchone() == (0,), "no scope, no rows"
    # It started at another time, and is the primary's own place: a copy from it or to it is one of a store onto itself.
    with v.VectorACL(store.config) as primary, v.VectorACL(store.changed(dsn=there["runtime"])) as follower:
        named = primary.store_identity("main"), follower.store_identity("main")
    assert not named[0] & named[1]
    assert shared(*named)
