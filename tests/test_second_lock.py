"""The second lock: a store that answers outside of the scope is caught, and nothing of its reply gets through."""

from __future__ import annotations

import pytest

from vectoracl import F, Like, ScopeViolationError
from vectoracl.adapter_api.operations import Found, Rows
from vectoracl.model.records import Hit, Tag

V = [1.0, 0.0, 0.0]


def row(metadata=None, *, tenant="acme", document="doc", name="c1", **changes):
    tag = changes.pop("tag", Tag(tenant, document, name, 0))
    hit = Hit(name, document, 0.9, tenant, 0, "canary", metadata, None, tag)
    return hit._replace(**changes)


GOOD = row({"lang": "en"})
WRONG = {
    "another tenant": row({"lang": "en"}, tenant="globex"),
    "another tenant's tag": row({"lang": "en"}, tag=Tag("globex", "doc", "c1")),
    "another tenant, own tag": row({"lang": "en"}, tag=Tag("acme", "doc", "c1"))._replace(tenant="globex"),
    "another document's tag": row({"lang": "en"}, tag=Tag("acme", "other", "c1")),
    "another chunk's tag": row({"lang": "en"}, tag=Tag("acme", "doc", "c2")),
    "a look-alike tenant": row({"lang": "en"}, tenant="Acme"),
    "outside of the predicate": row({"lang": "de"}),
    "without the field": row({}),
    "without metadata": row(None),
}


def reads(docs):
    return {
        "search": lambda: docs.search(V),
        "search_many": lambda: docs.search_many([V, V]),
        "fetch": lambda: docs.fetch(["c1"]),
        "page": docs.page,
        "scan": lambda: list(docs.scan()),
        "like": lambda: docs.search(Like("c1")),
    }


def lying(acl, hits):
    port = acl.tap()

    def answer(request, go):
        kind = type(request.operation).__name__
        return Found(list(hits)) if kind == "Search" else Rows(list(hits))

    port.answer = answer
    return port


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("read", ["search", "search_many", "fetch", "page", "scan", "like"])
def test_one_wrong_row_drops_the_reply(api, who, config, case, read, caplog):
    del config["tenants"]
    acl = api.connect(config)
    docs = acl.scoped(who("acme")).narrow(F.lang == "en")
    port = lying(acl, [GOOD])
    reads(docs)[read]()  # the control: a reply inside of the scope passes
    assert len(port.requests) >= 1
    lying(acl, [GOOD, WRONG[case], GOOD])
    with pytest.raises(ScopeViolationError) as caught:
        reads(docs)[read]()
    assert caught.value.rows >= 1
    assert "canary" not in str(caught.value) + caplog.text
    assert "scope violation" in caplog.text
    assert acl.outcomes[-1]["outcome"] == "violation"
    assert acl.outcomes[-1]["decision"] == acl.records[-1]["id"] == caught.value.decision_id


@pytest.mark.parametrize("include", [set(), {"text"}, {"vector"}])
def test_what_the_lock_needs_is_asked_for_and_taken_away_again(acl, who, chunk, include):
    docs = acl.scoped(who()).narrow(F.lang == "en")
    acl.scoped(who()).upsert([chunk("c1", lang="en"), chunk("c2", lang="de")])
    port = acl.tap()
    for hits in (
        docs.search(V, include=include),
        docs.fetch(["c1", "c2"], include=include),
        docs.page(include=include).hits,
    ):
        assert [(hit.id, hit.metadata, hit.text is None) for hit in hits] == [("c1", None, "text" not in include)]
    assert all("metadata" in one.include for one in port.operations)


@pytest.mark.parametrize("where", [~(F.lang == "en"), F.lang.is_missing(), ~F.lang.in_(["en"])])
def test_a_negative_scope_is_not_satisfied_by_what_was_left_out(api, who, config, where):
    del config["tenants"]
    acl = api.connect(config)
    docs = acl.scoped(who()).narrow(where)
    lying(acl, [row(None)])
    with pytest.raises(ScopeViolationError):
        docs.search(V)
    lying(acl, [row({})])
    assert len(docs.search(V)) == 1


def test_a_lock_per_partition(acl, who):
    """A row of a tenant that is in the scope, in the reply of another partition, is foreign there."""
    docs = acl.scoped(who("acme"))
    port = acl.tap()
    port.answer = lambda request, go: Found([row(tenant="commons")]) if request.partition == "acme" else go()
    with pytest.raises(ScopeViolationError):
        docs.search(V)
    port.answer = lambda request, go: Found([row(tenant=request.partition)])
    assert {hit.tenant for hit in docs.search(V)} == {"acme", "commons"}


@pytest.mark.parametrize(
    "reply", [None, [], Found(None), Found([None]), Found([()]), Found([row({}, tag=None)]), "rows"]
)
def test_a_malformed_reply_is_an_error_without_rows(acl, who, reply):
    docs = acl.scoped(who())
    port = acl.tap()
    port.answer = lambda request, go: reply
    with pytest.raises(Exception) as caught:
        docs.search(V)
    assert "canary" not in str(caught.value)
    assert acl.outcomes[-1]["outcome"] != "ok"
