"""`acl.operator()`: whatever is done with the operator's credentials is recorded before it is done."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import vectoracl
from vectoracl import InvalidInputError, InvalidTenantError, StoreError, hazmat
from vectoracl.adapter_api.contract import Adopted, Operator, TenantInfo, TenantKeeper, TenantRemover
from vectoracl.audit.sinks import MemorySink

CONFIG = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3}}}


def protocol_methods():
    """Every public method of every protocol that an operator may have."""
    found = set()
    for protocol in (Operator, TenantRemover, TenantKeeper):
        for name, member in inspect.getmembers(protocol, inspect.isfunction):
            if not name.startswith("_"):
                found.add((name, "tenant" in inspect.signature(member).parameters))
    return sorted(found)


class Keeper:
    """An operator with all the methods, and one that no protocol has yet."""

    kind = "keeper"

    def __init__(self):
        self.done, self.closed = [], 0
        self.raises = None
        self.later = lambda tenant: self._did("later", tenant)

    def _did(self, *what):
        self.done.append(what)
        if self.raises is not None:
            raise self.raises
        return ["done"]

    def plan(self, *, adopt=None):
        return self._did("plan")

    def provision(self, *, adopt=None, progress=None, adopted=None):
        if adopted is not None:
            adopted.copied = 7
        return self._did("provision", adopt)

    def tenants(self):
        self._did("tenants")
        return [TenantInfo("acme", 3, "shared")]

    def promote(self, tenant, *, progress=None):
        return self._did("promote", tenant)

    def demote(self, tenant, *, progress=None):
        return self._did("demote", tenant)

    def create(self, tenant):
        return self._did("create", tenant)

    def activate(self, tenant):
        return self._did("activate", tenant)

    def deactivate(self, tenant):
        return self._did("deactivate", tenant)

    def offload(self, tenant):
        return self._did("offload", tenant)

    def remove(self, tenant):
        return self._did("remove", tenant)

    def vacuum(self, tenant="acme"):
        return self._did("vacuum", tenant)

    def close(self):
        self.closed += 1


class Plain:
    """An operator without tenants of their own."""

    plan = provision = tenants = promote = demote = close = lambda self, *_: []


@pytest.fixture
def keeper():
    return Keeper()


@pytest.fixture
def acl(keeper):
    with vectoracl.connect(CONFIG) as made:
        named = made._named("main")
        named.opened = dataclasses.replace(named.opened, operator=lambda: keeper)
        yield made


METHODS = [one for one in protocol_methods() if one[0] != "close"] + [("vacuum", True), ("later", True)]


def call(operator, name, takes):
    return getattr(operator, name)("globex") if takes else getattr(operator, name)()


def test_the_protocols_are_seen():
    assert {name for name, _ in protocol_methods()} >= {"plan", "provision", "remove", "create", "offload", "close"}


@pytest.mark.parametrize(("name", "takes"), METHODS)
def test_every_method_is_recorded_before_it_acts(acl, keeper, name, takes):
    order = []
    write = acl.sink.write

    def writing(record):
        order.append(("record", len(keeper.done)))
        write(record)

    acl.sink.write = writing
    call(acl.operator(reason="the yearly audit"), name, takes)
    assert order == [("record", 0)]
    assert len(keeper.done) == 1
    (record,), (outcome,) = acl.sink.records, acl.sink.outcomes
    assert (record["action"], record["permit"]) == (f"operator.{name}", True)
    assert (record["store"], record["reasons"]) == ("main", ["the yearly audit"])
    assert record["partitions"] == (["globex"] if takes else ["*"])
    assert (outcome["decision"], outcome["outcome"]) == (record["id"], "ok")


@pytest.mark.parametrize(("name", "takes"), METHODS)
def test_what_cannot_be_recorded_is_not_done(acl, keeper, name, takes):
    def broken(record):
        raise OSError

    acl.sink.write = broken
    with pytest.raises(StoreError) as caught:
        call(acl.operator(), name, takes)
    assert (caught.value.code, keeper.done) == ("audit", [])


@pytest.mark.parametrize(("name", "takes"), METHODS)
@pytest.mark.parametrize(
    ("error", "outcome", "seen"),
    [
        (vectoracl.RefusedError("no"), "error:refused", vectoracl.RefusedError),
        (StoreError("no", code="unavailable"), "error:unavailable", StoreError),
        (ValueError("canary"), "error:internal", StoreError),
        (KeyboardInterrupt(), "cancelled", KeyboardInterrupt),
    ],
)
def test_a_failure_is_an_outcome(acl, keeper, name, takes, error, outcome, seen):
    keeper.raises = error
    with pytest.raises(seen) as caught:
        call(acl.operator(), name, takes)
    assert [one["outcome"] for one in acl.sink.outcomes] == [outcome]
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


def test_it_is_what_it_was(acl, keeper):
    operator = acl.operator()
    assert isinstance(operator, TenantKeeper)
    assert isinstance(operator, TenantRemover)
    assert operator.kind == "keeper"
    assert operator.tenants() == [TenantInfo("acme", 3, "shared")]
    assert "adopted" in inspect.signature(operator.provision).parameters
    with pytest.raises(AttributeError):
        _ = operator.nothing
    with pytest.raises(AttributeError):
        _ = operator._did
    operator.close()
    assert keeper.closed == 1
    assert len(acl.sink.records) == 1
    named = acl._named("main")
    named.opened = dataclasses.replace(named.opened, operator=Plain)
    assert not isinstance(acl.operator(), TenantKeeper)


@pytest.mark.parametrize("tenant", ["", "a*", " a", "\u200b", 7])
def test_a_tenant_that_is_none_is_refused_before_anything(acl, keeper, tenant):
    for act in ("create", "promote", "offload"):
        with pytest.raises(InvalidTenantError):
            getattr(acl.operator(), act)(tenant)
    assert (keeper.done, len(acl.sink.records)) == ([], 0)


@pytest.mark.parametrize("tenant", ["", "a*", " a", "\u200b"])
def test_one_that_is_no_tenant_id_is_removed_only_if_it_is_listed(acl, keeper, tenant):
    """A former version may have taken it. That it was looked for is recorded like any look at the tenants."""
    with pytest.raises(InvalidTenantError):
        acl.operator().remove(tenant)
    assert ([name for name, *_ in keeper.done], [one["action"] for one in acl.sink.records]) == (
        ["tenants"],
        ["operator.tenants"],
    )


@pytest.mark.parametrize("reason", ["", " ", None, 7, "\ud800"])
def test_a_reason_is_a_text(acl, reason):
    with pytest.raises(InvalidInputError):
        acl.operator(reason=reason)


def test_hazmat_records_once(acl, keeper):
    reason = "a test of the records"
    hazmat.on_tenant(acl, lambda one: one.remove("acme"), action="remove", tenant="acme", reason=reason)
    hazmat.adopt(acl, "old", operator=acl.operator(), reason=reason)
    assert [one["action"] for one in acl.sink.records] == ["hazmat.tenants.remove", "hazmat.adopt"]
    assert acl.sink.outcomes[-1]["returned"] == 7
    assert [one[0] for one in keeper.done] == ["remove", "provision"]
    assert isinstance(acl.sink, MemorySink)
    assert Adopted().copied == 0
