"""The posture check: what the index's isolation really is. A flow that reads, and a pure judgement.

The grade is "partition" where the index can be served from and its default namespace is empty, else "none".
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from vectoracl.adapter import Flow
from vectoracl.errors import StoreError
from vectoracl.findings import Finding, Posture, Rule
from vectoracl_pinecone import rules
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import DEFAULT_NAMESPACE
from vectoracl_pinecone.requests import Describe, MayWrite, Stats
from vectoracl_pinecone.schema import METRICS

_PROVISION = "vectoracl provision"
_HERE: Final = ("localhost", "127.0.0.1", "::1")
_NOBODY = "nobody"


def look(config: PineconeConfig) -> Flow[Posture]:
    """Read the index's own description, and ask whether the key may write; changes nothing."""
    try:
        found = yield from Describe()
    except StoreError as error:
        if error.code not in ("not_provisioned", "unauthorized"):
            raise
        return judge(config, None, refused=error.code == "unauthorized", writes=None)
    writes: bool | None = None
    try:
        # No tenant's namespace: its kind is neither t, x nor h.
        writes = yield from MayWrite(f"{config.namespace_prefix}{_NOBODY}")
    except StoreError as error:
        if error.code == "unauthorized":
            writes = False
        elif error.code == "not_provisioned":
            writes = True  # the namespace is not there, and the key got as far as being told so
        elif error.code != "rejected":
            raise
    return judge(config, found, refused=False, writes=writes)


def judge(config: PineconeConfig, found: Stats | None, *, refused: bool, writes: bool | None) -> Posture:
    """Judge what was *found* (None: no index, or a *refused* key); *writes* is whether the key may write."""
    findings = tuple(_findings(config, found, refused=refused, writes=writes))
    grade = "none" if any(one.rule.lowers for one in findings) else "partition"
    facts = [("index", config.index or config.host or ""), ("client", f"pinecone {version('pinecone')}")]
    if found is not None:
        ours = [name for name in found.namespaces if name.startswith(config.namespace_prefix)]
        facts += [("records", str(found.total)), ("namespaces", str(len(ours)))]
    return Posture(grade, findings, tuple(facts))


def _findings(config: PineconeConfig, found: Stats | None, *, refused: bool, writes: bool | None) -> Iterator[Finding]:
    name = config.index or "index"
    if refused:
        yield _finding(rules.KEY, name, "the API key was refused", "check api_key, and the role of the key")
    elif found is None:
        yield _finding(rules.MISSING, name, "there is no such index", _PROVISION)
    else:
        yield from _index(config, name, found)
        if writes is False:
            yield _finding(rules.READ_ONLY, name, "the key may not write", "use a key with the role DataPlaneEditor")
    if config.host is not None and _plain(config.host):
        yield _finding(rules.PLAIN, name, "the address is http and not of this machine", 'set host = "https://…"')


def _index(config: PineconeConfig, name: str, found: Stats) -> Iterator[Finding]:
    if found.dimension is not None and found.dimension != config.dimension:
        message = f"it holds vectors of {found.dimension} numbers, and dimension is {config.dimension}"
        yield _finding(rules.DIMENSION, name, message, "name another index and provision it")
    wanted = METRICS[config.metric]
    if found.metric is not None and found.metric != wanted:
        message = f"it ranks by {found.metric}, and the configuration says {wanted}"
        yield _finding(rules.METRIC, name, message, "name another index and provision it")
    if found.metric is None or found.dimension is None:
        yield _finding(rules.UNKNOWN_METRIC, name, "it does not say its metric or dimension", "check them by hand")
    stray = found.namespaces.get("", 0) + found.namespaces.get(DEFAULT_NAMESPACE, 0)
    if stray:
        yield _finding(
            rules.DEFAULT,
            f"{name}, default namespace",
            f"there are {stray:,} records in it",
            "move them with `vectoracl provision --adopt`, or delete them",
        )
    others = [one for one in found.namespaces if one and one != DEFAULT_NAMESPACE
              and not one.startswith(config.namespace_prefix)]  # fmt: skip
    if others:
        message = f"{len(others):,} namespaces do not begin with {config.namespace_prefix!r}"
        yield _finding(rules.STRANGERS, name, message, "give them an index of their own")


def _finding(rule: Rule, subject: str, message: str, fix: str) -> Finding:
    return Finding(rule, subject, message, fix)


def _plain(host: str) -> bool:
    parts = urlsplit(host if "://" in host else f"https://{host}")
    return parts.scheme != "https" and parts.hostname not in _HERE
