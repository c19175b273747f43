"""The configuration: what is refused, and that no secret of it is ever shown."""

from __future__ import annotations

import copy
import logging
import sys
import textwrap
import traceback

import pytest

import vectoracl
from vectoracl import AdapterNotFoundError, Config, ConfigError, PostureError, RefusedError, VectorACLError
from vectoracl.adapter_api.loading import installed, load
from vectoracl.adapter_api.settings import Secret
from vectoracl.config import read

CANARY = "canary-pa55word"
MEMORY = {"adapter": "memory", "dimension": 3}
GOOD = {"version": 1, "stores": {"main": MEMORY}}


def test_the_control_is_good():
    with vectoracl.connect(GOOD) as acl:
        assert acl.config.default == "main"


def changed(path, value):
    data = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    place = data
    for one in parents:
        place = place.setdefault(one, {})
    place[last] = value
    return data


BAD = {
    "unknown key": changed("defualt_store", "main"),
    "unknown key of tenants": changed("tenants.sharde", []),
    "unknown key of the adapter": changed("stores.main.dsn", "x"),
    "no version": {"stores": {"main": MEMORY}},
    "version 2": changed("version", 2),
    "version text": changed("version", "1"),
    "version True": changed("version", True),
    "no stores": {"version": 1},
    "no store in stores": {"version": 1, "stores": {}},
    "stores a list": {"version": 1, "stores": [MEMORY]},
    "no adapter": {"version": 1, "stores": {"main": {"dimension": 3}}},
    "adapter empty": changed("stores.main.adapter", ""),
    "dimension 0": changed("stores.main.dimension", 0),
    "dimension text": changed("stores.main.dimension", "many"),
    "metric unknown": changed("stores.main.metric", "hamming"),
    "timeout 0": changed("stores.main.timeout", 0),
    "timeout infinite": changed("stores.main.timeout", float("inf")),
    "timeout NaN": changed("stores.main.timeout", float("nan")),
    "metadata type unknown": changed("stores.main.metadata", {"x": "text"}),
    "metadata name reserved": changed("stores.main.metadata", {"tenant_id": "keyword"}),
    "metadata name of a tag": changed("stores.main.metadata", {"@label": "keyword"}),
    "metadata name with a quote": changed("stores.main.metadata", {'x"; DROP TABLE y; --': "keyword"}),
    "metadata name twice": changed("stores.main.metadata", {"Lang": "keyword", "lang": "keyword"}),
    "metadata a list": changed("stores.main.metadata", ["lang"]),
    "default store missing": changed("default_store", "other"),
    "two stores, no default": {"version": 1, "stores": {"a": MEMORY, "b": MEMORY}},
    "route to a missing store": changed("tenants.store", {"acme": "eu"}),
    "route of a bad tenant": changed("tenants.store", {"*": "main"}),
    "shared bad tenant": changed("tenants.shared", ["*"]),
    "shared a text": changed("tenants.shared", "commons"),
    "grade unknown": changed("minimum_grade", "strong"),
    "debug_errors text": changed("debug_errors", "yes"),
    "debug_errors number": changed("debug_errors", 1),
    "allow_import text": changed("policy", {"use": "os:getcwd", "allow_import": "true"}),
    "policy import": changed("policy", {"use": "os:getcwd"}),
    "policy unknown": changed("policy", {"use": "open"}),
    "policy no policy": changed("policy", {"use": "os:getcwd", "allow_import": True}),
    "policy missing module": changed("policy", {"use": "nowhere.at.all:x", "allow_import": True}),
    "policy missing attribute": changed("policy", {"use": "os:nothing", "allow_import": True}),
    "embedder import": changed("embedder", {"use": "os:getcwd"}),
    "embedder unknown": changed("embedder", {"use": "magic"}),
    "embedder of another dimension": changed("embedder", {"use": "hashed:256"}),
    "audit without path": changed("audit", {"sink": "jsonl"}),
    "audit path without sink": changed("audit", {"path": "x"}),
    "audit unknown": changed("audit", {"sink": "none"}),
    "a list": [],
    "None": None,
    "a number": 7,
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case):
    with pytest.raises(ConfigError):
        vectoracl.connect(BAD[case])


def test_the_error_names_the_key():
    with pytest.raises(ConfigError, match=r"defualt_store: is not a known key"):
        vectoracl.connect(BAD["unknown key"])
    with pytest.raises(ConfigError, match=r"\[stores\.main\]: dsn: is not a known key"):
        vectoracl.connect(BAD["unknown key of the adapter"])


def test_a_missing_adapter_carries_the_line_to_type():
    with pytest.raises(AdapterNotFoundError) as caught:
        vectoracl.connect(changed("stores.main.adapter", "acme-db"))
    assert caught.value.install == ""  # no name is made up that somebody else may have registered
    assert "pip install" not in str(caught.value)
    assert caught.value.adapter == "acme-db"
    pinned = changed("stores.main.adapter", "acme-db")
    pinned["stores"]["main"]["distribution"] = "acme-vectors"
    with pytest.raises(AdapterNotFoundError) as caught:
        vectoracl.connect(pinned)
    assert caught.value.install == 'pip install "acme-vectors"'
    assert caught.value.install in str(caught.value)


def distribution(folder, name, adapter, module="vectoracl.memory.plugin"):
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vectoracl]\n{adapter} = {module}\n")


def test_two_distributions_that_claim_one_adapter(tmp_path, monkeypatch):
    distribution(tmp_path, "honest-db", "dual")
    distribution(tmp_path, "evil-db", "dual", "evil_module_that_must_not_be_imported")
    monkeypatch.syspath_prepend(tmp_path)
    config = changed("stores.main.adapter", "dual")
    with pytest.raises(AdapterNotFoundError, match="evil-db and honest-db"):
        vectoracl.connect(config)
    config["stores"]["main"]["distribution"] = "Honest_DB"
    with vectoracl.connect(config) as acl:
        assert acl.config.stores["main"].adapter == "dual"
    assert {(one.adapter, one.distribution) for one in installed()} >= {("dual", "evil-db"), ("dual", "honest-db")}
    assert "evil_module_that_must_not_be_imported" not in sys.modules


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("raise ImportError('canary-pa55word')", "cannot be imported"),
        ("import a_module_that_is_missing", "cannot be imported"),
        ("x = 1", "does not implement"),
        (
            "from vectoracl.adapter_api.hookspecs import hookimpl\n@hookimpl\ndef vectoracl_nothing(): pass",
            "is not compatible",
        ),
    ],
)
def test_a_plugin_that_is_none(tmp_path, monkeypatch, source, match):
    module = f"plugin_{abs(hash(source))}"
    (tmp_path / f"{module}.py").write_text(source)
    distribution(tmp_path, "broken-db", "broken", module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AdapterNotFoundError, match=match) as caught:
        load("broken")
    assert CANARY not in str(caught.value)


LEAKY = """
from pydantic import BaseModel, ConfigDict
from vectoracl.adapter_api.contract import Opened
from vectoracl.adapter_api.settings import Model, Secret
from vectoracl.adapter_api.hookspecs import hookimpl
from vectoracl.memory.adapter import MemoryAdapter, capabilities
from vectoracl.memory.config import MemoryConfig
from vectoracl.memory import plugin as memory

class C(Model):
    dimension: int = 3
    dsn: Secret | None = None
    nested: dict[str, Secret] = {}

@hookimpl
def vectoracl_config_model(): return C

@hookimpl
def vectoracl_describe(): return capabilities(MemoryConfig(dimension=1))

@hookimpl
def vectoracl_open(config, context):
    if config.nested:
        raise ValueError("cannot parse " + config.dsn.reveal())
    opened = memory.vectoracl_open(MemoryConfig(dimension=config.dimension), context)
    if config.dimension == 7:
        class Posture(type(opened.adapter)):
            def posture(self):
                raise ValueError("cannot reach " + config.dsn.reveal())
                yield
        opened.adapter.__class__ = Posture
    return opened
"""


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    """An adapter with secrets, which it quotes in what it raises."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "leaky_plugin.py").write_text(LEAKY)
    distribution(folder, "leaky-db", "leaky", "leaky_plugin")
    monkeypatch.syspath_prepend(folder)
    yield {"adapter": "leaky", "dimension": 3, "dsn": f"postgresql://u:{CANARY}@h/db"}
    sys.modules.pop("leaky_plugin", None)


def shown(error):
    """Everything that a logger prints of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error) + repr(error.args)


SECRETS = {
    "a key too many": {"dns": CANARY},
    "a table of secrets": {"dsn": {"text": CANARY, "env": CANARY}},
    "an unknown source": {"dsn": {"vault": CANARY}},
    "a list": {"dsn": [CANARY]},
    "nested": {"nested": {"a": {"x": CANARY}}},
    "dimension": {"dimension": CANARY},
    "metadata": {"metadata": {"x": CANARY}},
    "timeout": {"timeout": CANARY},
    "the adapter fails to open": {"nested": {"a": "x"}},
    "the adapter fails in its posture": {"dimension": 7},
}


@pytest.mark.parametrize("case", SECRETS)
def test_no_error_shows_a_secret(leaky, case, caplog):
    caplog.set_level(logging.DEBUG)
    config = {"version": 1, "stores": {"main": leaky | SECRETS[case]}}
    with pytest.raises(VectorACLError) as caught:
        vectoracl.connect(config)
    assert not isinstance(caught.value, AdapterNotFoundError)
    assert CANARY not in shown(caught.value) + caplog.text
    if case.startswith("the adapter fails"):
        with pytest.raises(VectorACLError) as caught:
            vectoracl.connect(config | {"debug_errors": True})
        assert CANARY in shown(caught.value)  # the control: the adapter does quote it


@pytest.mark.parametrize(
    "path", ["version", "policy.use", "embedder.use", "audit.sink", "debug_errors", "stores.main", "stores", "tenants"]
)
def test_no_error_shows_a_value_of_the_core(path):
    with pytest.raises(ConfigError) as caught:
        vectoracl.connect(changed(path, CANARY))
    assert CANARY not in shown(caught.value).replace("policy.use", "")


def test_no_repr_shows_a_secret(leaky, caplog):
    caplog.set_level(logging.DEBUG)
    config = {"version": 1, "stores": {"main": leaky}}
    with vectoracl.connect(config) as acl:
        for one in (acl, acl.config, acl.config.stores, acl.config.stores["main"], acl.scoped, acl._stores):
            assert CANARY not in repr(one) + str(one) + f"{one}"
        parsed, _ = read(config)
        assert CANARY not in repr(parsed) + str(list(parsed.stores.items()))
        assert CANARY not in repr(list(acl.config.__rich_repr__()))
        assert "dsn" in repr(acl.config)
    assert CANARY not in repr(Secret.model_validate(CANARY)) + caplog.text


def test_toml_errors_quote_nothing(tmp_path):
    path = tmp_path / "vectoracl.toml"
    for text in (
        f'version = 1\ndsn = "{CANARY}',
        f"version = 1\n{CANARY} = = 2",
        f"[stores.{CANARY}\n",
        f'x = "{CANARY}"\nx = 1',
    ):
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            vectoracl.connect(path)
        assert CANARY not in shown(caught.value)
    path.write_bytes(b"\xff" + CANARY.encode())
    with pytest.raises(ConfigError) as caught:
        vectoracl.connect(path)
    assert CANARY not in str(caught.value)


def test_secrets_by_environment_and_file(tmp_path, monkeypatch):
    assert Secret.model_validate(CANARY).reveal() == CANARY
    by_env = Secret.model_validate({"env": "VECTORACL_TEST_SECRET"})
    with pytest.raises(ConfigError, match="VECTORACL_TEST_SECRET"):
        by_env.reveal()
    monkeypatch.setenv("VECTORACL_TEST_SECRET", CANARY)
    assert by_env.reveal() == CANARY
    by_file = Secret.model_validate({"file": "secret.txt"})
    with pytest.raises(ConfigError, match="cannot be read"):
        by_file.reveal(tmp_path)
    (tmp_path / "secret.txt").write_text(CANARY + "\n")
    assert by_file.reveal(tmp_path) == CANARY
    (tmp_path / "secret.txt").write_text(" \n")
    with pytest.raises(ConfigError, match="empty"):
        by_file.reveal(tmp_path)
    for bad in ({}, {"env": "A", "file": "b"}, {"text": "a", "env": "B"}, {"vault": "x"}, 7, None, ""):
        with pytest.raises(ValueError):
            Secret.model_validate(bad)


def test_the_environment_decides_nothing_about_rights(monkeypatch):
    for name in ("MINIMUM_GRADE", "POLICY", "TENANTS_SHARED", "STORES", "DEBUG_ERRORS"):
        monkeypatch.setenv(f"VECTORACL_{name}", "none")
        monkeypatch.setenv(name, "none")
    parsed, _ = read(GOOD)
    assert parsed == Config.model_validate(GOOD)
    assert (parsed.minimum_grade, parsed.tenants.shared, parsed.debug_errors) == (None, (), False)


def test_a_grade_that_is_not_reached_is_refused():
    for grade in ("none", "predicate", "partition"):
        vectoracl.connect(changed("minimum_grade", grade)).close()
    for grade in ("engine", "credential"):
        with pytest.raises(PostureError, match=f"'{grade}' is required"):
            vectoracl.connect(changed("minimum_grade", grade))


def test_a_second_store_of_a_weak_grade_is_refused_at_its_first_use(api, who, config):
    config["stores"]["eu"] = dict(config["stores"]["main"])
    config |= {"default_store": "main", "tenants": {"store": {"acme": "eu"}}, "minimum_grade": "partition"}
    acl = api.connect(config)
    named = acl.real._named("eu")
    looked = []

    class Weak:
        def __getattr__(self, name):
            return getattr(self_inner, name)

        def posture(self):
            looked.append(1)
            return vectoracl.Posture("predicate", ())
            yield

    self_inner = named.store.adapter
    from dataclasses import replace

    named.store = replace(named.store, adapter=Weak())
    with pytest.raises(PostureError):
        acl.scoped(who("acme")).count()
    assert looked
    assert acl.scoped(who("globex")).count() == 0


def test_relative_paths_start_at_the_files_folder(tmp_path, monkeypatch):
    folder = tmp_path / "conf"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (folder / "vectoracl.toml").write_text(
        textwrap.dedent(
            """
            version = 1
            [stores.main]
            adapter = "memory"
            dimension = 3
            [audit]
            sink = "jsonl"
            path = "audit.jsonl"
            """
        )
    )
    vectoracl.connect("../conf/vectoracl.toml").close()
    assert (folder / "audit.jsonl").exists()
    assert not (tmp_path / "elsewhere" / "audit.jsonl").exists()


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="vectoracl init"):
        vectoracl.connect(tmp_path / "none.toml")


def test_an_override_of_the_store(config):
    config["stores"]["eu"] = dict(config["stores"]["main"])
    config["default_store"] = "main"
    with vectoracl.connect(config, store="eu") as acl:
        assert acl.config.default == "eu"
    with pytest.raises(ConfigError, match="no store 'x'"):
        vectoracl.connect(config, store="x")


def test_what_the_caller_does_with_its_dict_later_has_no_effect(api, who, chunk, config):
    acl = api.connect(config)
    config["tenants"]["shared"].append("acme")
    config["stores"]["main"]["dimension"] = 9
    acl.scoped(who("acme")).upsert([chunk()])
    assert acl.scoped(who("globex")).count() == 0


def test_a_handle_of_a_closed_acl_does_nothing(api, who):
    acl = api.connect()
    docs = acl.scoped(who())
    assert docs.count() == 0
    acl.close()
    acl.close()
    with pytest.raises(RefusedError):
        docs.count()
    with pytest.raises(RefusedError):
        acl.scoped(who()).count()
