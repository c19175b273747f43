"""A kept posture is used only if nothing has changed, and only from a place that no other user can write to."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, ClassVar

import pytest

import vectoracl as v
from vectoracl import testing
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.posture import Finding, Posture, Rules
from vectoracl.client import kept_postures
from vectoracl.errors import PostureError, StoreError
from vectoracl.memory.adapter import MemoryAdapter

CONFIG: dict[str, Any] = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3}}}
RULES = Rules()
WARNING = RULES.add("XX001", "A warning", "warning", "It is one.", lowers=False)
HOLE = RULES.add("XX002", "A hole", "error", "It is one.", lowers=True)
GOOD = Posture(
    "partition",
    (Finding(WARNING, "here", "a warning — “quoted”", "SELECT 1;"),),
    (("server", "1"),),
    (("title", "script"),),
    "embedder",
    ((Finding(WARNING, "there", "m", "f"), "a reason"),),
)
BAD = Posture("none", (Finding(HOLE, "here", "a hole", "SELECT 2;"),))

pytestmark = pytest.mark.skipif(os.name != "posix", reason="not run: only POSIX keeps postures")


class Measured(MemoryAdapter):
    """Counts what it is asked for; the state is what the test sets."""

    state: str | None = "one"
    result: Posture = GOOD
    asked: ClassVar[list[str]] = []
    refuses: str = ""

    def posture(self) -> Flow[Posture]:
        yield from ()
        type(self).asked.append("posture")
        return self.result

    def fingerprint(self) -> Flow[str | None]:
        yield from ()
        type(self).asked.append("fingerprint")
        if self.refuses:
            raise StoreError("refused", code=self.refuses, adapter="memory", sent="no")
        return self.state

    def fingerprinted_posture(self) -> Flow[tuple[Posture, str | None]]:
        yield from ()
        type(self).asked.append("both")
        return self.result, self.state


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Measured]:
    """A fresh class; every store of the test is opened with it."""
    flows = {name: vars(Measured)[name] for name in ("posture", "fingerprint", "fingerprinted_posture")}
    fresh = type("Fresh", (Measured,), {"asked": [], **flows})
    monkeypatch.setattr("vectoracl.memory.plugin.MemoryAdapter", fresh)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return fresh


def started(kind: type[Measured]) -> list[str]:
    """Connect and read; return what the adapter was asked for."""
    kind.asked.clear()
    with v.connect(CONFIG) as acl:
        acl.scoped(testing.principal("ann", "acme")).count()
    return list(kind.asked)


def files() -> list[Path]:
    return sorted(kept_postures.folder().glob("*"))


def test_nothing_is_measured_again_until_something_changes(kind: type[Measured]) -> None:
    assert started(kind) == ["both"]
    assert started(kind) == ["fingerprint"]
    kind.state = "two"
    assert started(kind) == ["fingerprint", "both"]
    kind.state = "one"  # kept from before: exactly this state was measured
    assert started(kind) == ["fingerprint"]


def test_async_is_the_same(kind: type[Measured]) -> None:
    async def start() -> None:
        async with v.aconnect(CONFIG) as acl:
            await acl.scoped(testing.principal("ann", "acme")).count()

    for asked in (["both"], ["fingerprint"]):
        kind.asked.clear()
        asyncio.run(start())
        assert kind.asked == asked


def test_a_change_to_the_worse_is_refused(kind: type[Measured]) -> None:
    started(kind)
    kind.state, kind.result = "two", BAD
    for _ in range(2):
        with pytest.raises(PostureError):
            started(kind)
        assert kind.asked == ["fingerprint", "both"], "a posture that is refused is never kept"


def test_check_always_measures(kind: type[Measured]) -> None:
    started(kind)
    kind.asked.clear()
    with v.connect(CONFIG) as acl:
        acl.open()
        assert acl.check()["main"] == GOOD
    assert kind.asked == ["fingerprint", "posture"]


def test_it_can_be_switched_off(kind: type[Measured]) -> None:
    with v.connect({"version": 1, "stores": {"main": {**CONFIG["stores"]["main"], "keep_posture": False}}}) as acl:
        acl.open()
    assert kind.asked == ["posture"]
    assert not kept_postures.folder().exists()


def test_what_changes_while_it_is_read_is_measured_again(kind: type[Measured], monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Measured) -> Flow[tuple[Posture, str | None]]:
        before = self.state
        kind.state = f"{before}, changed"
        return (yield from Measured.fingerprinted_posture(self))[0], before

    monkeypatch.setattr(kind, "fingerprinted_posture", read)
    assert started(kind) == ["both"]
    assert started(kind) == ["fingerprint", "both"]


@pytest.mark.parametrize("state", [None, ""])
def test_without_a_fingerprint_it_is_measured(kind: type[Measured], state: str | None) -> None:
    kind.state = state
    asked = [started(kind) for _ in range(2)]
    assert asked == [["both"], ["both"] if state is None else ["fingerprint"]]


@pytest.mark.parametrize(("code", "asked"), [("store", ["fingerprint", "posture"]), ("unavailable", ["fingerprint"])])
def test_a_store_that_refuses_it_is_measured_without(kind: type[Measured], code: str, asked: list[str]) -> None:
    started(kind)
    kind.refuses = code
    if code == "store":
        assert started(kind) == asked
    else:
        with pytest.raises(StoreError):
            started(kind)
        assert kind.asked == asked


def test_the_whole_posture_comes_back_but_its_script(kind: type[Measured]) -> None:
    adapter = object.__new__(kind)
    assert kept_postures.find("main", adapter, "f") is None
    kept_postures.keep("main", adapter, "f", GOOD)
    found = kept_postures.find("main", adapter, "f")
    assert found == GOOD
    assert found.script == ()
    assert kept_postures.find("other", adapter, "f") is None
    assert kept_postures.find("main", adapter, "g") is None


def test_another_class_has_another_place(kind: type[Measured]) -> None:
    started(kind)

    class Weaker(kind):  # type: ignore[misc, valid-type]  # a class that is a parameter
        def posture(self) -> Flow[Posture]:
            yield from ()
            return BAD

    assert kept_postures.fingerprinted(object.__new__(Weaker)) is None
    assert kept_postures.fingerprinted(object.__new__(MemoryAdapter)) is None
    adapter = object.__new__(kind)
    assert kept_postures.fingerprinted(adapter) is adapter
    adapter.__dict__["posture"] = lambda: None
    assert kept_postures.fingerprinted(adapter) is None

    class Forwarding:
        def __getattr__(self, name: str) -> Any:
            return getattr(object.__new__(kind), name)

    assert kept_postures.fingerprinted(Forwarding()) is None  # type: ignore[arg-type]  # it only looks like an adapter


def spoil_folder_mode(path: Path) -> None:
    path.parent.chmod(0o777)


def spoil_group_mode(path: Path) -> None:
    path.parent.chmod(0o770)


def spoil_file_mode(path: Path) -> None:
    path.chmod(0o666)


def spoil_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def spoil_by_folder_link(path: Path) -> None:
    real = path.parent.with_name("real")
    path.parent.rename(real)
    path.parent.symlink_to(real)


def spoil_content(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def spoil_by_another_key(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(path.stem.encode(), b"0" * 64))


def spoil_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [
    spoil_folder_mode, spoil_group_mode, spoil_file_mode, spoil_by_link, spoil_by_folder_link, spoil_content,
    spoil_by_another_key, spoil_by_folder,
])  # fmt: skip
def test_what_another_user_could_have_written_is_not_believed(kind: type[Measured], spoil: Any) -> None:
    started(kind)
    (path,) = files()
    spoil(path)
    assert started(kind) == ["fingerprint", "both"]


def test_another_users_folder_is_not_believed(kind: type[Measured], monkeypatch: pytest.MonkeyPatch) -> None:
    started(kind)
    monkeypatch.setattr(kept_postures.os, "geteuid", lambda: 4242)
    assert started(kind) == ["fingerprint", "both"]


def test_a_place_that_cannot_be_written_only_costs_the_measurement(kind: type[Measured], tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    assert started(kind) == started(kind) == ["both"]


def test_only_the_newest_are_kept(kind: type[Measured], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_postures, "MOST", 3)
    adapter = object.__new__(kind)
    for number in range(6):
        kept_postures.keep("main", adapter, str(number), GOOD)
        os.utime(max(files(), key=lambda one: one.stat().st_mtime_ns), (number, number))
    assert len(files()) == 3
    assert [kept_postures.find("main", adapter, str(number)) is not None for number in range(6)] == [False] * 3 + [
        True
    ] * 3
