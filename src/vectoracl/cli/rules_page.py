"""The page on the rules of `check` in the documentation: `python -m vectoracl.cli.rules_page > docs/rules.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from vectoracl.adapter_api.loading import load
from vectoracl.adapter_api.posture import CORE_RULES, PREFIXES, Rule

_HEAD = """\
# The rules of `vectoracl check`

Each finding names its rule. `vectoracl check --explain PG001` prints the same text in the terminal. An *error* opens or
breaks something, a *warning* is a weakness, a *note* describes something that is so by design. If a rule *lowers the
grade*, isolation is not proved as long as the finding exists, and `connect` refuses to open the store.
"""
_TITLES = {"vectoracl": "All stores", "pgvector": "pgvector", "qdrant": "Qdrant", "weaviate": "Weaviate",
           "pinecone": "Pinecone"}  # fmt: skip


def page() -> str:
    """Return the page, generated from the rules."""
    parts = [_HEAD]
    for owner in PREFIXES.values():
        rules = CORE_RULES.values() if owner == "vectoracl" else load(owner).vectoracl_rules() or ()
        parts.append(f"## {_TITLES[owner]}\n")
        parts += _entries(rules)
    return "\n".join(parts)


def _entries(rules: Iterable[Rule]) -> Iterable[str]:
    for rule in sorted(rules, key=lambda rule: rule.id):
        effect = "lowers the grade to none" if rule.lowers else "does not lower the grade"
        explanation = rule.explanation.replace("<", "&lt;")
        yield f"### {rule.id}\n\n**{rule.title}** ({rule.severity}; {effect})\n"
        yield f"{explanation}\n"


if __name__ == "__main__":
    sys.stdout.write(page())
