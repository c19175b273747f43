"""Where a store is: one text for one place, however it is spelled, and never one for two."""

from __future__ import annotations

import pytest

from vectoracl.adapter_api.store_identity import address, original, replica, shared


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:6333", "http://LOCALHOST.:6333/", "https://127.0.0.1:6333", "http://[::]:6333",
        "http://[::1]:6333", "http://[::ffff:127.0.0.1]:6333", "http://0.0.0.0:6333", "localhost",
        "http://localhost/?query", "//localhost", "user:secret@localhost",
    ],
)  # fmt: skip
def test_this_machine_is_one_host(url):
    assert address(url, 6333) == "loopback:6333"


def test_other_addresses_and_names_of_the_loopback_are_hosts_of_their_own():
    """A forwarder gives each service an address or a name of its own there, all with one port."""
    hosts = ["127.0.0.1", "127.0.0.2", "127.1.2.3", "[::ffff:127.0.0.2]", "green.localhost", "blue.localhost"]
    found = [address(f"http://{host}:6333", 1) for host in hosts]
    assert len(set(found)) == 5
    assert found[1] == found[3] == "127.0.0.2:6333"
    assert found[4] == "green.localhost:6333"


def test_a_path_is_part_of_the_place():
    """A proxy may serve a store under each path."""
    assert len({address(f"https://proxy{path}", 443) for path in ("", "/green", "/Green", "/blue", "/blue/x")}) == 5
    assert address("https://proxy/green/", 443) == address("https://PROXY:443/green", 1) == "proxy:443/green"
    assert address("proxy/green", 443) == "proxy:443/green"


def test_a_name_and_an_address_are_each_themselves():
    assert address("https://A.example.com.:6333", 1) == address("a.example.com:6333", 2) == "a.example.com:6333"
    # One address may serve many names, and tell their servers apart by the name.
    assert len({address(f"https://{one}:6333", 1) for one in ("a.example.com", "b.example.com", "10.0.0.7")}) == 3
    assert address("http://a", {"http": 80, "https": 443}) != address("https://a", {"http": 80, "https": 443})
    assert address("[2001:DB8:0::1]:5", 1) == address("http://[2001:db8::1]:5", 1)


def test_a_name_is_never_looked_up(monkeypatch):
    """Names that all lead to this machine may be told apart by a proxy on it."""
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up"))
    assert address("http://my-laptop:6333", 1) == "my-laptop:6333"


def test_a_replica_is_its_original_and_two_originals_are_two():
    """A server that was made from a backup says of its data what the one says that the backup was made of."""
    live, restored = (frozenset({f"x: started {at}", original("x: system 1")}) for at in (1, 2))
    standby, other = (frozenset({f"x: started {at}", replica("x: system 1")}) for at in (3, 4))
    assert not shared(live, restored)
    assert shared(live, live) == ["x: started 1"]
    for one in (live, restored, other):
        assert shared(one, standby)
        assert shared(standby, one)
    elsewhere = frozenset({"x: started 5", original("x: system 2")})
    assert not shared(standby, elsewhere)
    assert not shared(elsewhere, standby)
    assert shared(frozenset({"a", "b"}), frozenset({"b", "c"})) == ["b"]
    assert not shared(frozenset(), frozenset())
