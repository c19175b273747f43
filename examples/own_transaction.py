"""Scoped writes that commit, or roll back, with the application's own work: on an embedded PostgreSQL."""

import tempfile
from pathlib import Path

import psycopg

import vectoracl
from vectoracl import Chunk, Principal
from vectoracl_pgvector import embedded, join

with tempfile.TemporaryDirectory() as folder:
    config = {
        "version": 1,
        "stores": {"main": {"adapter": "pgvector", "embedded": "pg", "dimension": 384}},
        "embedder": {"use": "hashed"},
    }
    path = Path(folder) / "pg"
    config["stores"]["main"]["embedded"] = str(path)
    operator = vectoracl.VectorACL(config).operator()
    print(*operator.provision(), sep="\n")
    operator.close()

    ann = Principal("ann", "acme", authenticated_by="oidc:https://issuer.example")
    with vectoracl.connect(config) as acl:
        server = embedded.start(path)
        with psycopg.connect(server.dsn("runtime")) as connection:
            docs = join(acl, ann, connection)
            docs.upsert([Chunk("c1", "handbook", "Thirty days of holidays.")])
            print("inside the transaction:", docs.count(), "- outside:", acl.scoped(ann).count())
            connection.rollback()
        print("after the rollback:", acl.scoped(ann).count())
        with psycopg.connect(server.dsn("runtime")) as connection:
            join(acl, ann, connection).upsert([Chunk("c1", "handbook", "Thirty days of holidays.")])
        print("after the commit:", acl.scoped(ann).search("holidays")[0].text)
        embedded.release(server)
    embedded.stop(path)
