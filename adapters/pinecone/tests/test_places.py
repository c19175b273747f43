"""One index under two addresses of this machine is one store to `vectoracl copy`; another prefix or index is
another store."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import vectoracl as v

from pinecone_support.stores import Provisioned


def test_two_addresses_of_one_index_are_one_place(store: Provisioned) -> None:
    def at(**settings: Any) -> frozenset[str]:
        with v.VectorACL(store.with_(**settings)) as acl:
            return acl.store_identity("main")

    url = urlsplit(str(store.config["stores"]["main"]["host"]))  # the stand-in keeps each index under a path
    names = [at(host=f"http://{host}:{url.port}{url.path}") for host in ("localhost", "127.0.0.1")]
    assert names[0] == names[1]
    assert len(names[0]) == 1
    assert names[0] == at()
    assert not names[0] & at(namespace_prefix="other-")
    assert not names[0] & at(host=f"http://localhost:{url.port}/indexes/another")
