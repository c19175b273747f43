"""One collection under two addresses of this machine is one store to `vectoracl copy`."""

from __future__ import annotations

from urllib.parse import urlsplit

import vectoracl as v


def test_two_addresses_of_one_server_are_one_place(stores):
    store = stores()
    url = urlsplit(store.config["stores"]["main"]["url"])

    def at(**settings):
        with v.VectorACL(store.with_(**settings)) as acl:
            return acl.store_identity("main")

    names = [at(url=f"http://{host}:{url.port}") for host in ("localhost", "127.0.0.1", "LOCALHOST")]
    assert len(set(names)) == len(names[0]) == 1
    assert not names[0] & at(collection="Another")
    assert not names[0] & at(url=f"http://localhost:{url.port}", collection="Another")
