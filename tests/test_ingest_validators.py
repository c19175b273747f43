"""Every way to write asks the list of pipelines and all validators first."""

from __future__ import annotations

import inspect
import sys
import threading
import types
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import vectoracl as v
from vectoracl import Chunk, ConfigError, ContentRefusedError, F, RefusedError, SourceRefusedError, Verdict, hazmat
from vectoracl.adapter_api.contract import Operator, ShareAdopter
from vectoracl.audit.sinks import MemorySink
from vectoracl.cli import app
from vectoracl.client.registry_setup import provision_registry
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.copying.copy import Copy, Side
from vectoracl.copying.switch import Switch
from vectoracl.engine.recorded_operator import check_import, checked_operator, recorded_operator, under_registry
from vectoracl.ingestion.outliers import OutlierOptions, Outliers, _medians_of_the_rest
from vectoracl.ingestion.size import Size, SizeOptions
from vectoracl.registry.sql_registry import Registry
from vectoracl.sharding import AdoptJob, AsyncLoadJob, CopyJob, LoadJob
from vectoracl.testing import principal

ANN = principal("ann", "acme", groups=["hr"])
BOSS = principal("boss", "acme", roles=["records"])
V = (1.0, 0.0, 0.0)
REASON = "a test of validators"


class Scripted:
    """A validator that answers what it is told, and keeps what it has accepted."""

    def __init__(self, answers="accept"):
        self.answers = answers
        self.seen = []
        self.accepted = []

    def validate(self, ingestion):
        self.seen.append(ingestion)
        answer = self.answers(ingestion) if callable(self.answers) else self.answers
        if answer == "accept":
            self.accepted.append(ingestion)
        return given_answer(answer)


def given_answer(answer):
    """Return, or raise, what the word *answer* stands for."""
    match answer:
        case "accept":
            return Verdict.accept()
        case "refuse" | "quarantine":
            return Verdict(answer, f"told to {answer}")
        case "raise":
            raise ValueError("canary: a line of the text")
        case "none":
            return None
        case "true":
            return True
        case "word":
            return "accept"
        case "coroutine":
            return later()
        case "subclass":
            return Other("accept")
        case "changed":
            verdict = Verdict.accept()
            object.__setattr__(verdict, "answer", "yes")
            return verdict
    raise AssertionError(answer)


async def later():
    return Verdict.accept()


class Other(Verdict):
    """A verdict of a class that vectoracl does not know."""


WRONG = ("raise", "none", "true", "word", "coroutine", "subclass", "changed")


@pytest.fixture
def scripts(monkeypatch):
    """Two validators, as the configuration names them: `told:first` and `told:second`."""
    module = types.ModuleType("told")
    module.first, module.second = Scripted(), Scripted()
    monkeypatch.setitem(sys.modules, "told", module)
    return [module.first, module.second]


def config(scripts=(), registry=None, **ingest):
    """A memory store with the validators of *scripts*."""
    named = [{"use": f"told:{one}", "allow_import": True} for one in ("first", "second")[: len(scripts)]]
    made = {
        "version": 1,
        "stores": {"main": {"adapter": "memory", "dimension": 3, "metadata": {"lang": "keyword"}}},
        "embedder": None,
    }
    if named or ingest:
        made["ingest"] = {"validators": named, **ingest}
    if registry is not None:
        made["registry"] = registry
    return made


def chunk(name="c1", document="doc", vector=V, **metadata):
    return Chunk(name, document, f"text of {name}", vector, metadata=metadata)


# --- the ways to write ------------------------------------------------------------------------------------------------


def by_upsert(docs, documents):
    return docs.upsert([chunk(document=one) for one in documents])


def by_replace(docs, documents):
    return docs.replace(documents[0], [chunk(document=documents[0])])


def by_replace_with_nothing(docs, documents):
    return docs.replace(documents[0], [])


def by_load(docs, documents):
    return docs.load([chunk(document=one) for one in documents])


def by_update(docs, documents):
    return docs.update_metadata(documents[0], {"lang": "de"})


WRITES = {
    "upsert": [by_upsert],
    "replace": [by_replace, by_replace_with_nothing],
    "load": [by_load],
    "update_metadata": [by_update],
}
"""The ways to bring something into the store by a handle, each as called with some documents."""
READS = {"search", "search_many", "fetch", "count", "facets", "page", "scan"}
REMOVES = {"delete"}
"""Writes that bring in nothing: a list of pipelines applies to them, validators have nothing to see."""
NEITHER = {"narrow", "with_driver"}


def public(owner):
    return {name for name in dir(owner) if not name.startswith("_")}


def test_every_method_of_a_handle_is_known_here():
    """A new one is put into one of the lists: whoever adds a write, adds it to the tests below."""
    for handle in (v.ScopedRetriever, v.AsyncScopedRetriever):
        assert public(handle) == {*WRITES, *READS, *REMOVES, *NEITHER}


def test_every_way_to_write_without_a_handle_is_known_here():
    """What writes rows past a handle is tested below; a new one has to be put here, and into docs/governance.md."""
    import vectoracl.sharding as sharding

    assert {name for name in sharding.__all__ if name.endswith("Job")} == {
        "LoadJob", "AsyncLoadJob",  # a handle's load
        "CopyJob",  # hazmat.Operated.write
        "AdoptJob",  # refused
        "CheckJob",  # reads
    }  # fmt: skip
    assert public(hazmat.Operated) - {"store", "reached", "embedder"} == {
        "write",  # validated
        "read", "keys", "count", "embed",  # reads
        "clear", "delete", "sweep",  # remove
    }  # fmt: skip
    functions = {
        name for name, one in vars(hazmat).items() if inspect.isfunction(one) and one.__module__ == hazmat.__name__
    }
    assert {one for one in functions if not one.startswith("_")} == {
        "operator_principal", "govern", "unscoped",
        "operate",  # Operated
        "on_tenant", "on_tenants",  # an operator whose imports are refused
        "on_route",  # a step of a switch
        "adopt", "adopt_share",  # refused
    }  # fmt: skip
    methods = public(Operator) | public(ShareAdopter)
    assert {one for one in methods if "adopt" in one or one in ("survey", "provision")} == {
        "provision", "survey", "adopt_share", "adopt_end",
    }  # fmt: skip


def answer_of(table, index, ingestion):
    return table[index, ingestion.document]


ANSWERS = st.sampled_from(("accept", "accept", "refuse", "quarantine", *WRONG))


@pytest.mark.parametrize("kind", ["sync", "async"])
@given(data=st.data())
@settings(max_examples=40)
def test_no_write_reaches_the_port_unless_every_validator_has_accepted_it(make_api, kind, data):
    """Whatever validators answer: a request that writes was accepted by all, document by document."""
    module = types.ModuleType("told")
    module.first, module.second = validators = [Scripted(), Scripted()]
    sys.modules["told"] = module
    api = make_api(kind)
    try:
        face = api.connect(config(validators))
        docs = face.scoped(ANN)
        documents = data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True))
        docs.upsert([chunk("old", one, lang="en") for one in documents])
        tap, before = face.tap(), None
        for _ in range(data.draw(st.integers(1, 3))):
            name = data.draw(st.sampled_from(sorted(WRITES)))
            write = data.draw(st.sampled_from(WRITES[name]))
            table = {
                (index, document): data.draw(ANSWERS) for index, _ in enumerate(validators) for document in documents
            }
            for index, one in enumerate(validators):
                one.answers = partial(answer_of, table, index)
                one.seen, one.accepted = [], []
            tap.requests.clear()
            before = len(face.outcomes)
            named = documents if write in (by_upsert, by_load) else documents[:1]
            good = all(table[index, document] == "accept" for index in range(2) for document in named)
            if good:
                write(docs, documents)
            else:
                with pytest.raises(ContentRefusedError) as caught:
                    write(docs, documents)
                assert caught.value.code == "content_refused"
                assert "canary" not in str(caught.value)
            written = [one for one in tap.requests if one.writes]
            assert bool(written) == good
            if not good:
                assert tap.requests == []  # nothing was read, either
            for one in written if good else ():
                assert one.port == "store"
                for script in validators:
                    assert {ingestion.document for ingestion in script.accepted} == set(named)
            outcome = face.outcomes[before]
            assert outcome["outcome"] == ("ok" if good else "error:content_refused")
            assert sum(entry["documents"] for entry in outcome["validators"]) <= 2 * len(named)
            assert all(entry["verdict"] == "accept" for entry in outcome["validators"]) == good
            assert "canary" not in repr(outcome)
    finally:
        api.close()
        sys.modules.pop("told", None)


@pytest.mark.parametrize("how", WRONG)
def test_what_is_no_verdict_refuses(api, scripts, how):
    face = api.connect(config(scripts))
    docs = face.scoped(ANN)
    scripts[1].answers = how
    with pytest.raises(ContentRefusedError) as caught:
        docs.upsert([chunk()])
    assert caught.value.validator == "told:second"
    assert caught.value.document == "doc"
    assert caught.value.decision_id == face.records[-1]["id"]
    assert docs.count() == 0


def test_they_are_asked_in_their_order_up_to_the_first_refusal(api, scripts):
    face = api.connect(config(scripts))
    scripts[0].answers = "refuse"
    with pytest.raises(ContentRefusedError, match="told to refuse"):
        face.scoped(ANN).upsert([chunk()])
    assert (len(scripts[0].seen), len(scripts[1].seen)) == (1, 0)


def test_one_document_that_is_refused_refuses_the_whole_call(api, scripts):
    docs = api.connect(config(scripts)).scoped(ANN)
    scripts[1].answers = lambda ingestion: "refuse" if ingestion.document == "bad" else "accept"
    with pytest.raises(ContentRefusedError):
        docs.upsert([chunk(document="good"), chunk(document="bad")])
    assert docs.count() == 0


def test_what_a_validator_sees(api, scripts):
    face = api.connect(
        {**config(scripts), "embedder": {"use": "hashed:8"}, "stores": {"main": {"adapter": "memory", "dimension": 8}}}
    )
    docs = face.scoped(ANN, source="nightly")
    docs.upsert([Chunk("c1", "doc", "embedded", metadata={"n": [1]}), Chunk("c2", "doc", "too", position=3)])
    (seen,) = scripts[1].seen
    assert (seen.principal, seen.document, seen.operation) == (ANN, "doc", "upsert")
    assert (seen.source, seen.changes) == ("nightly", None)
    assert [(one.id, one.text, one.position, dict(one.metadata)) for one in seen.chunks] == [
        ("c1", "embedded", 0, {"n": [1]}),
        ("c2", "too", 3, {}),
    ]
    assert all(one.vector.dtype == np.float32 and one.vector.shape == (8,) for one in seen.chunks)
    assert "embedded" not in repr(seen)
    docs.load([Chunk("c1", "other", "text")])
    docs.replace("doc", [])
    docs.update_metadata("other", {"a": 1, "b": None})
    assert [(one.operation, len(one.chunks), one.changes) for one in scripts[0].seen[1:]] == [
        ("load", 1, None),
        ("replace", 0, None),
        ("update_metadata", 0, {"a": 1, "b": None}),
    ]


def test_a_validator_changes_neither_what_is_written_nor_what_others_see(api, scripts):
    def change(ingestion):
        (one,) = ingestion.chunks
        one.metadata["list"].append("poison")
        one.metadata["lang"] = "xx"
        with pytest.raises(ValueError, match="read-only"):
            one.vector[0] = 9.0
        one.vector.flags.writeable = True
        one.vector[0] = 9.0
        return "accept"

    docs = api.connect(config(scripts)).scoped(ANN)
    scripts[0].answers = change
    docs.upsert([chunk(lang="en", list=["a"])])
    (seen,) = scripts[1].seen
    (hit,) = docs.search(V, include=["metadata", "vector"])
    for metadata, vector in ((seen.chunks[0].metadata, seen.chunks[0].vector), (hit.metadata, hit.vector)):
        assert dict(metadata) == {"lang": "en", "list": ["a"]}
        assert list(vector) == list(V)


def test_one_that_does_not_answer_in_time_refuses(api, scripts):
    wait = threading.Event()
    scripts[0].answers = lambda _: wait.wait(30) or "accept"
    face = api.connect(config(scripts, timeout=0.05))
    docs = face.scoped(ANN)
    try:
        with pytest.raises(ContentRefusedError, match="did not answer in time"):
            docs.upsert([chunk()])
    finally:
        wait.set()
    assert docs.count() == 0


def test_the_time_of_validators_is_not_that_of_the_store(api, scripts):
    given_config = config(scripts)
    given_config["stores"]["main"]["timeout"] = 0.2
    scripts[0].answers = lambda _: threading.Event().wait(0.4) or "accept"
    docs = api.connect(given_config).scoped(ANN)
    assert docs.upsert([chunk()]).count == 1
    with pytest.raises(v.VectorACLError) as caught:
        docs.upsert([chunk()], timeout=0.1)  # that of a call is for everything
    assert caught.value.code in ("content_refused", "timeout")


def test_every_verdict_is_in_the_outcome_without_content(api, scripts):
    face = api.connect(config(scripts))
    docs = face.scoped(ANN)
    docs.upsert([chunk(document="a"), chunk(document="b")])
    assert face.outcomes[-1]["validators"] == [
        {"validator": "told:first", "verdict": "accept", "reason": "", "documents": 2},
        {"validator": "told:second", "verdict": "accept", "reason": "", "documents": 2},
    ]
    scripts[1].answers = "quarantine"
    with pytest.raises(ContentRefusedError, match="Without a registry"):
        docs.upsert([chunk()])
    assert face.outcomes[-1]["validators"][1] == {
        "validator": "told:second", "verdict": "quarantine", "reason": "told to quarantine", "documents": 1,
    }  # fmt: skip
    assert face.outcomes[-1]["outcome"] == "error:content_refused"
    docs.count()
    assert "validators" not in face.outcomes[-1]
    assert face.real.pipeline._verdicts == {}


def test_an_outcome_lists_at_most_a_hundred_verdicts_and_the_refusal(api, scripts):
    class Each(Scripted):
        def validate(self, ingestion):
            if ingestion.document == "d299":
                return Verdict.refuse("the last one")
            return Verdict("accept", ingestion.document)

    sys.modules["told"].first = Each()
    face = api.connect(config(scripts))
    with pytest.raises(ContentRefusedError, match="the last one"):
        face.scoped(ANN).upsert([chunk(document=f"d{number}") for number in range(300)])
    listed = face.outcomes[-1]["validators"]
    assert len(listed) == 101
    assert listed[-2]["reason"] == "the last one"
    assert listed[-1] == {"more": 200}


def test_a_cause_is_chained_for_debugging_only(scripts):
    scripts[0].answers = "raise"
    for debug in (False, True):
        with v.connect({**config(scripts), "debug_errors": debug}) as acl:
            with pytest.raises(ContentRefusedError) as caught:
                acl.scoped(ANN).upsert([chunk()])
            assert isinstance(caught.value.__cause__, ValueError) == debug
            assert caught.value.__context__ is None or debug


def test_without_the_section_nothing_is_asked_or_recorded(api):
    face = api.connect(config())
    assert not face.real.pipeline.validated
    face.scoped(ANN).upsert([chunk()])
    assert set(face.outcomes[-1]) == {"decision", "outcome", "returned", "ms"}
    assert "source" not in face.records[-1]


# --- the list of pipelines --------------------------------------------------------------------------------------------


def by_delete(docs, documents):
    return docs.delete(document=documents[0])


@pytest.mark.parametrize("write", [by_delete, *(one for many in WRITES.values() for one in many)])
@pytest.mark.parametrize("source", [None, "crawler", "Nightly", "load-nightly"])
def test_a_handle_of_another_pipeline_writes_nothing(api, write, source):
    face = api.connect(config(sources=["nightly", "uploads"]))
    face.scoped(ANN, source="uploads").upsert([chunk(lang="en")])
    before = face.scoped(ANN).fetch(["c1"])
    tap, records = face.tap(), len(face.records)
    with pytest.raises(SourceRefusedError) as caught:
        write(face.scoped(ANN, source=source).narrow(F.lang == "en"), ["doc"])
    assert caught.value.code == "source_refused"
    assert caught.value.source == source
    assert (tap.requests, face.records[records:]) == ([], [])
    assert face.scoped(ANN, source=source).fetch(["c1"]) == before  # and it reads


@pytest.mark.parametrize("write", [by_delete, *(one for many in WRITES.values() for one in many)])
def test_a_handle_of_a_listed_pipeline_writes(api, write):
    face = api.connect(config(sources=["nightly"]))
    docs = face.scoped(ANN, source="nightly")
    docs.upsert([chunk(lang="en")])
    write(docs.narrow(F["@document"] == "doc"), ["doc"])
    assert face.records[-1]["source"] == "nightly"


def test_an_empty_list_permits_none(api):
    docs = api.connect(config(sources=[])).scoped(ANN, source="nightly")
    with pytest.raises(SourceRefusedError):
        docs.upsert([chunk()])


def test_a_load_is_refused_before_its_stream_is_read(api):
    def stream():
        raise AssertionError("the stream was read")
        yield

    face = api.connect(config(sources=["nightly"]))
    with pytest.raises(SourceRefusedError):
        face.scoped(ANN).load(stream())


@pytest.mark.parametrize("source", ["upsert", "load", "", 3])
def test_a_list_holds_names_of_pipelines(source):
    with pytest.raises(ConfigError, match="sources"):
        v.connect(config(sources=[source]))


def test_a_job_in_shards_names_its_pipeline(scripts):
    with v.connect(config(scripts, sources=["nightly"])) as acl:
        stream = lambda: [chunk(document=f"d{number}") for number in range(6)]  # noqa: E731 - a stream is a function
        refused = LoadJob(acl, ANN, stream)
        plan = refused.plan_shards(2)
        with pytest.raises(SourceRefusedError):
            refused.run_shard(plan.shards[0])
        job = LoadJob(acl, ANN, stream, source="nightly")
        plan = job.plan_shards(2)
        for shard in plan.shards:
            job.run_shard(shard)
        assert acl.scoped(ANN).count() == len(scripts[1].accepted) == 6
        assert {one.source for one in scripts[1].seen} == {"nightly"}
        scripts[1].answers = "refuse"
        with pytest.raises(ContentRefusedError):
            job.run_shard(plan.shards[0])
    assert "source" in inspect.signature(AsyncLoadJob).parameters


def test_the_command_line_names_the_pipeline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.md").write_text("# Holidays\n\nThirty days.", encoding="utf-8")
    (tmp_path / "vectoracl.toml").write_text(
        """
version = 1
[stores.main]
adapter = "memory"
dimension = 32
name = "validated by the command line"
[embedder]
use = "hashed:32"
[ingest]
sources = ["nightly"]
[[ingest.validators]]
use = "size"
options = { text_bytes = 100 }
"""
    )
    runner = CliRunner()
    who = ["--as", "ann@acme"]
    with v.connect("vectoracl.toml") as acl:
        for refused in (["ingest", "a.md", *who], ["ingest", "a.md", *who, "--source", "crawler"]):
            done = runner.invoke(app, refused)
            assert done.exit_code == 2
            assert "sources lists" in " ".join(done.output.split())
        assert runner.invoke(app, ["ingest", "a.md", *who, "--source", "nightly"]).exit_code == 0
        (hit,) = acl.scoped(ANN).scan()
        assert hit.tag.path == "replace:nightly"
        (tmp_path / "b.md").write_text("x" * 101, encoding="utf-8")
        done = runner.invoke(app, ["ingest", "b.md", *who, "--source", "nightly"])
        assert done.exit_code == 2
        assert "size" in done.output
        delete = ["documents", "delete", "a.md", *who, "--yes"]
        assert runner.invoke(app, delete).exit_code == 2
        assert runner.invoke(app, [*delete, "--source", "nightly"]).exit_code == 0
        assert acl.scoped(ANN).count() == 0


# --- quarantine under a registry --------------------------------------------------------------------------------------


@pytest.fixture
def governed(api, scripts, tmp_path):
    """A memory store under a registry, with the validators of *scripts*."""
    registry = {
        "url": f"sqlite:///{tmp_path / 'registry.db'}",
        "default_label": "open",
        "governors": {"role": "records"},
        "max_read_seconds": 0,
    }
    given_config = config(scripts, registry)
    given_config["stores"]["main"]["name"] = f"validated {tmp_path}"
    with v.VectorACL(given_config) as acl:
        provision_registry(acl, ["main"])
    face = api.connect(given_config)
    api.wait(face.governance(BOSS).define_label("open", entries=[v.Entry("tenant", write=True)]))
    return face


def seen_documents(docs):
    """Return the documents that each kind of read shows; all kinds have to agree."""
    found = {hit.document for hit in docs.search(V, k=100)}
    assert {hit.document for hit in docs.fetch(["c1", "c2", "old"])} == found
    assert {hit.document for hit in docs.scan()} == found
    assert docs.count() == len(list(docs.scan()))
    assert {one.value for one in docs.facets("@document")} == found
    return found


def rules_of(face):
    return face.api.wait(face.governance(BOSS).rules())


GOVERNED = [by_upsert, by_replace, by_load, by_update]


@pytest.mark.parametrize("write", GOVERNED)
def test_a_generation_under_quarantine_is_not_retrieved(governed, scripts, write):
    docs = governed.scoped(ANN)
    docs.upsert([chunk("old", "good", lang="en"), chunk("old", "bad", lang="en")])
    scripts[0].answers = "quarantine"
    result = write(docs, ["bad"])
    assert result.quarantined == (True if write is by_update else ("bad",))
    assert seen_documents(docs) == {"good"}
    (rule,) = rules_of(governed)
    assert (rule.document, rule.producer, rule.source) == ("bad", None, None)
    assert rule.name.startswith("ingest:")
    assert governed.outcomes[-1]["decision"]
    written = [
        one for one in governed.outcomes if any(e.get("verdict") == "quarantine" for e in one.get("validators", ()))
    ]
    assert len(written) == 1
    assert written[0]["outcome"] == "ok"
    # It stays out while chunks get their labels, and comes back when the rule is lifted.
    governor = governed.governance(BOSS)
    governed.api.wait(governor.reconcile())
    assert seen_documents(docs) == {"good"}
    governed.api.wait(governor.lift(rule.name, reason="a false alarm"))
    assert seen_documents(docs) == {"good", "bad"}


def test_a_replacement_that_is_accepted_is_retrieved_again(governed, scripts):
    docs = governed.scoped(ANN)
    scripts[1].answers = "quarantine"
    docs.upsert([chunk(document="bad")])
    assert seen_documents(docs) == set()
    scripts[1].answers = "accept"
    with pytest.raises(RefusedError, match="Replace the document as a whole"):
        docs.upsert([chunk("c2", "bad")])
    docs.replace("bad", [chunk(document="bad")])
    assert seen_documents(docs) == {"bad"}


def test_of_several_documents_only_those_under_quarantine_are_hidden(governed, scripts):
    docs = governed.scoped(ANN)
    scripts[0].answers = lambda ingestion: "quarantine" if ingestion.document in "bc" else "accept"
    written = docs.upsert([chunk(document=one) for one in "abcd"])
    assert set(written.quarantined) == {"b", "c"}
    assert seen_documents(docs) == {"a", "d"}
    assert len(rules_of(governed)) == 2


def test_a_later_refusal_wins_over_quarantine(governed, scripts):
    docs = governed.scoped(ANN)
    scripts[0].answers, scripts[1].answers = "quarantine", "refuse"
    with pytest.raises(ContentRefusedError, match="told to refuse"):
        docs.upsert([chunk()])
    assert (rules_of(governed), docs.count()) == ((), 0)


def test_beyond_the_rules_of_a_tenant_quarantine_refuses(governed, scripts):
    docs = governed.scoped(ANN)
    governor = governed.governance(BOSS)
    for number in range(31):
        governed.api.wait(governor.quarantine(f"r{number}", document=f"other {number}", reason="a full list"))
    scripts[0].answers = "quarantine"
    tap = governed.tap()
    with pytest.raises(ContentRefusedError, match="more than 32"):
        docs.upsert([chunk(document="a"), chunk(document="b")])
    assert not any(one.writes for one in tap.requests)
    assert len(rules_of(governed)) == 31
    assert docs.upsert([chunk(document="a")]).quarantined == ("a",)
    with pytest.raises(ContentRefusedError, match="more than 32"):
        docs.replace("b", [chunk(document="b")])
    assert seen_documents(docs) == set()
    scripts[0].answers = "accept"
    docs.replace("b", [chunk(document="b")])
    assert seen_documents(docs) == {"b"}


def test_rules_that_fill_up_during_a_write_leave_nothing_visible(governed, scripts, monkeypatch):
    """The room is looked for again in the transaction that publishes."""
    docs = governed.scoped(ANN)
    scripts[0].answers = "quarantine"
    publish = Registry.publish

    def late(self, who, tenant, given_tickets, rules=()):
        for number in range(32):
            self.quarantine(tenant, v.Quarantine(f"r{number}", document=f"other {number}"), "boss", "a full list")
        return publish(self, who, tenant, given_tickets, rules)

    monkeypatch.setattr(Registry, "publish", late)
    with pytest.raises(ContentRefusedError, match="more than 32"):
        docs.upsert([chunk()])
    monkeypatch.undo()
    assert len(rules_of(governed)) == 32
    assert seen_documents(docs) == set()


# --- what goes past a handle ------------------------------------------------------------------------------------------


def named(store, scripts=(), **ingest):
    made = config(scripts, **ingest)
    made["stores"]["main"]["name"] = store
    return made


@pytest.fixture
def copied(scripts, tmp_path):
    """A source without validators that holds two documents, and a target with them."""
    with v.connect(named(f"from {tmp_path}")) as source, v.connect(named(f"to {tmp_path}", scripts)) as target:
        source.scoped(ANN).upsert([chunk(document="a"), chunk("c2", "a"), chunk(document="b")])
        yield source, target


def test_a_copy_is_seen_by_the_validators_of_the_target(copied, scripts, tmp_path):
    source, target = copied
    scripts[1].answers = lambda ingestion: "refuse" if ingestion.document == "b" else "accept"
    copy = Copy(Side(source), Side(target), reason=REASON, checkpoint=Checkpoint(tmp_path / "copy", ["a", "b"]))
    with pytest.raises(ContentRefusedError):
        copy.run(copy.plan())
    assert target.scoped(ANN).count() == 0
    scripts[1].answers = "accept"
    report = copy.run(copy.plan())
    assert not report.different
    assert {(one.document, len(one.chunks)) for one in scripts[1].accepted} >= {("a", 2), ("b", 1)}
    assert {(one.operation, one.principal.kind) for one in scripts[0].seen} == {("copy", "operator")}
    assert any("validators" in one for one in target.sink.outcomes)


def test_a_copy_in_shards_is_seen_by_them(copied, scripts):
    source, target = copied
    job = CopyJob(Side(source), Side(target), reason=REASON)
    plan = job.plan_shards(1)
    scripts[0].answers = "quarantine"  # a copy is refused under a registry, so it has nowhere to go
    with pytest.raises(ContentRefusedError):
        job.run_shard(plan.shards[0])
    assert target.scoped(ANN).count() == 0


def test_an_import_that_the_store_makes_by_itself_is_refused(scripts):
    with v.connect(config(scripts), sink=MemorySink()) as acl:
        with pytest.raises(RefusedError, match="validators"):
            hazmat.adopt(acl, "table", operator=Importing(), reason=REASON)
        with pytest.raises(RefusedError, match="validators"):
            hazmat.adopt_share(acl, "table", None, operator=Importing(), reason=REASON)
        recorded = recorded_operator(Importing(), acl.pipeline, acl._named("main").store, acl.core_port, REASON)
        for doors in (recorded, checked_operator(Importing(), partial(check_import, acl.pipeline))):
            for call in (
                lambda one: one.provision(adopt="table"),
                lambda one: one.provision("table"),
                lambda one: one.survey("table", []),
                lambda one: one.adopt_share("table", None),
                lambda one: one.adopt_end("table", {}),
            ):
                with pytest.raises(RefusedError, match="validators"):
                    call(doors)
            assert doors.provision() == ["provisioned"]
            assert doors.promote("acme") == ["promoted"]
            assert isinstance(doors, ShareAdopter)
    assert AdoptJob.kind == "adopt"  # by hazmat.adopt_share


def test_an_import_is_noticed_however_its_table_is_passed():
    raw = Importing()
    door = checked_operator(raw, under_registry(raw))
    for call in (lambda: door.provision("table"), lambda: door.provision(adopt="table"), lambda: door.promote("acme")):
        with pytest.raises(RefusedError) as refused:
            call()
        assert refused.value.field == "registry"
    assert door.provision() == ["provisioned"]


class Importing:
    """An operator that would import rows."""

    def provision(self, adopt=None, progress=None, adopted=None):
        assert adopt is None
        return ["provisioned"]

    def survey(self, source, parts, *, progress=None):
        raise AssertionError("it was called")

    adopt_share = adopt_end = survey

    def promote(self, tenant, *, progress=None):
        return ["promoted"]

    def close(self):
        pass


def test_a_switch_within_the_configuration_goes_past_them(scripts, tmp_path):
    """The rows are retrievable already, and a refusal would stop the tenant half-way; new writes are seen as ever."""
    given_config = config(scripts)
    stores = {one: {**given_config["stores"]["main"], "name": f"{one} {tmp_path}"} for one in ("main", "other")}
    given_config |= {"stores": stores, "default_store": "main", "tenants": {"routes": str(tmp_path / "routes")}}
    with v.connect(given_config) as acl:
        acl.routes.create()
        docs = acl.scoped(ANN)
        docs.upsert([chunk(document="a")])
        scripts[0].answers = "refuse"
        Switch(acl, "acme", "other", reason=REASON).run()
        assert acl.store_of("acme") == "other"
        assert docs.count() == 1
        with pytest.raises(ContentRefusedError):
            docs.upsert([chunk(document="b")])


# --- the configuration ------------------------------------------------------------------------------------------------


def opened_with(*validators, **more):
    return v.connect({**config(), "ingest": {"validators": list(validators)}, **more})


@pytest.mark.parametrize(
    ("validator", "message"),
    [
        ({"use": "sise"}, r"ingest.validators\[0\].use is one of outliers, size"),
        ({"use": "size"}, "size needs text_bytes"),
        ({"use": "size", "options": {"chunks": -1}}, "at least 0"),
        ({"use": "size", "options": {"chunk": 1}}, "chunk: is not a known option"),
        ({"use": "size", "options": {"chunks": 1, "answer": "accept"}}, "answer"),
        ({"use": "outliers", "options": {"norm_ratio": False, "max_distance": False}}, "outliers needs"),
        ({"use": "outliers", "options": {"min_norm": 2, "max_norm": 1}}, "greater"),
        ({"use": "outliers", "options": {"max_distance": 3}}, "max_distance"),
        ({"use": "told:first"}, "allow_import = true"),
        ({"use": "told:nothing", "allow_import": True}, "cannot be imported"),
        ({"use": "told:first", "allow_import": True, "options": {"a": 1}}, "takes no options"),
        ({"use": "builtins:len", "allow_import": True}, "creating the validator failed"),
        ({"use": "builtins:dict", "allow_import": True}, "must name a Validator"),
        ({"use": "string:digits", "allow_import": True}, "must name a Validator"),
        ({"use": "size", "limits": 3}, "limits"),
    ],
)
def test_a_validator_that_cannot_be_used_is_an_error_at_the_start(scripts, validator, message):
    with pytest.raises(ConfigError, match=message):
        opened_with(validator)


def test_two_validators_of_one_name_are_refused(scripts):
    size = {"use": "size", "options": {"chunks": 1}}
    with pytest.raises(ConfigError, match="same name"):
        opened_with(size, size)
    with opened_with(size, {**size, "name": "another"}) as acl:
        assert acl.pipeline.validated


def test_a_class_is_made_with_its_options(scripts):
    class Longest:
        def __init__(self, characters):
            self.characters = characters

        def validate(self, ingestion):
            long = any(len(one.text) > self.characters for one in ingestion.chunks)
            return Verdict.refuse("a text is too long") if long else Verdict.accept()

    sys.modules["told"].Longest = Longest
    use = {"use": "told:Longest", "allow_import": True, "name": "longest", "options": {"characters": 10}}
    with opened_with(use) as acl:
        docs = acl.scoped(ANN)
        docs.upsert([chunk("c1")])
        with pytest.raises(ContentRefusedError) as caught:
            docs.upsert([chunk("a name that is longer")])
        assert caught.value.validator == "longest"


@pytest.mark.parametrize(
    ("answer", "reason", "good"),
    [
        ("accept", "", True),
        ("refuse", "why", True),
        ("refuse", "", False),
        ("quarantine", " ", False),
        ("refuse", "two\nlines", False),
        ("refuse", "x" * 201, False),
        ("ok", "why", False),
        (None, "", False),
        ("refuse", None, False),
    ],
)
def test_a_verdict_has_a_reason_on_one_line(answer, reason, good):
    if good:
        assert Verdict(answer, reason).reason == reason
    else:
        with pytest.raises(v.InvalidInputError):
            Verdict(answer, reason)


# --- the shipped validators -------------------------------------------------------------------------------------------


def size(**options):
    return Size(SizeOptions(**options))


def outliers(**options):
    return Outliers(OutlierOptions(**options))


def document(*vectors, text="text", **metadata):
    chunks = [
        Chunk(f"c{n}", "doc", text, np.asarray(one, np.float32), metadata=metadata) for n, one in enumerate(vectors)
    ]
    return v.Ingestion(ANN, "doc", "upsert", tuple(chunks))


@pytest.mark.parametrize(
    ("options", "text", "chunks", "good"),
    [
        ({"text_bytes": 4}, "four", 1, True),
        ({"text_bytes": 3}, "four", 1, False),
        ({"text_bytes": 4}, "fünf", 1, False),  # in UTF-8
        ({"document_bytes": 8}, "four", 2, True),
        ({"document_bytes": 7}, "four", 2, False),
        ({"chunks": 2}, "four", 2, True),
        ({"chunks": 2}, "four", 3, False),
        ({"metadata_bytes": 13}, "four", 1, True),
        ({"metadata_bytes": 12}, "four", 1, False),
        ({"chunks": 0}, "four", 0, True),
    ],
)
def test_size(options, text, chunks, good):
    verdict = size(**options).validate(document(*[V] * chunks, text=text, lang="en"))
    assert verdict.answer == ("accept" if good else "refuse")
    assert good or verdict.reason


def test_size_looks_at_changes():
    given_changes = v.Ingestion(ANN, "doc", "update_metadata", changes={"lang": "en", "gone": None})
    assert size(metadata_bytes=30).validate(given_changes).answer == "accept"
    assert size(metadata_bytes=20, answer="quarantine").validate(given_changes).answer == "quarantine"


RAYS = [(1, 0, 0), (1, 0.1, 0), (1, 0, 0.1), (1, 0.1, 0.1), (1, -0.1, 0)]


@pytest.mark.parametrize(
    ("vectors", "options", "odd"),
    [
        (RAYS, {}, None),
        ([*RAYS, (-1, 0, 0)], {}, 6),
        ([(-1, 0, 0), *RAYS], {}, 1),
        ([*RAYS, (0, 0, 1)], {}, None),  # across: a distance of about 1
        ([*RAYS, (0, 0, 1)], {"max_distance": 0.5}, 6),
        ([*RAYS, (100, 0, 0)], {}, 6),
        ([*RAYS, (0.001, 0, 0)], {}, 6),
        ([*RAYS, (100, 0, 0)], {"norm_ratio": False}, None),
        ([*RAYS, (-1, 0, 0)], {"max_distance": False}, None),
        ([(1, 0, 0), (-1, 0, 0), (1, 0, 0)], {}, None),  # fewer than min_chunks
        ([(1, 0, 0), (-1, 0, 0), (1, 0, 0)], {"min_chunks": 3}, 2),
        ([(5, 0, 0)], {"max_norm": 2}, 1),
        ([(0.1, 0, 0)], {"min_norm": 0.5}, 1),
        ([(0, 0, 0)] * 5, {}, None),
        ([(0, 0, 0), *RAYS], {}, 1),
        ([(1e30, 0, 0)] * 5, {}, None),
        ([(1e-30, 0, 0)] * 5, {}, None),
        ([], {}, None),
    ],
)
def test_outliers(vectors, options, odd):
    verdict = outliers(**options).validate(document(*vectors))
    assert verdict.answer == ("accept" if odd is None else "refuse"), verdict
    if odd is not None:
        assert f"the vector of chunk {odd} has" in verdict.reason


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=12))
def test_the_median_of_the_rest(numbers):
    expected = [np.median([*numbers[:n], *numbers[n + 1 :]]) for n in range(len(numbers))]
    assert np.allclose(_medians_of_the_rest(np.asarray(numbers)), expected)


@given(st.lists(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=1, max_size=8))
def test_outliers_is_the_definition(vectors):
    verdict = outliers(norm_ratio=False, max_distance=0.7, min_chunks=3).validate(document(*vectors))
    rows = [np.asarray(one, np.float64) for one in vectors]
    units = [one / np.linalg.norm(one) if one.any() else one for one in rows]
    odd = []
    for number, unit in enumerate(units):
        rest = np.sum([*units[:number], *units[number + 1 :], np.zeros(3)], axis=0)
        length = np.linalg.norm(rest)
        distance = 1 - (unit @ rest / length if length > 1e-9 else 0)
        if abs(distance - 0.7) < 1e-6 or 1e-10 < length < 1e-8:
            return
        odd.append(distance > 0.7)
    assert (verdict.answer == "accept") == (len(rows) < 3 or not any(odd))
