"""Where a store is: one text for one place, however it is spelled, and never one for two."""

from __future__ import annotations

import socket

import pytest

from vectoracl.places import address


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:6333", "http://LOCALHOST.:6333/", "https://127.0.0.1:6333", "http://127.1.2.3:6333",
        "http://[::1]:6333", "http://[::ffff:127.0.0.1]:6333", "http://0.0.0.0:6333", "db.localhost:6333", "localhost",
        "http://localhost/path?query", "//localhost", "user:secret@localhost",
    ],
)  # fmt: skip
def test_this_machine_is_one_host(url):
    assert address(url, 6333) == "loopback:6333"


def test_a_name_and_an_address_are_each_themselves(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("10.0.0.7", 0))])
    assert address("https://A.example.com.:6333", 1) == address("a.example.com:6333", 2) == "a.example.com:6333"
    # One address may serve many names, and tell their servers apart by the name.
    assert len({address(f"https://{one}:6333", 1) for one in ("a.example.com", "b.example.com", "10.0.0.7")}) == 3
    assert address("http://a", {"http": 80, "https": 443}) != address("https://a", {"http": 80, "https": 443})
    assert address("[2001:DB8:0::1]:5", 1) == address("http://[2001:db8::1]:5", 1)


def test_a_name_of_this_machine_s_loopback_is_found_out(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (ip, 0)) for ip in ("127.0.1.1", "::1")])
    assert address("http://my-laptop:6333", 1) == "loopback:6333"


def test_a_name_that_is_not_known_is_itself(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert address("http://nowhere.invalid", 6333) == "nowhere.invalid:6333"
