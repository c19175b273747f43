"""`vectoracl explain`: the decision of the policy for a principal, and the number of visible chunks."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from vectoracl.cli.common import (
    DEFAULT_CONFIG,
    AsOption,
    ConfigOption,
    JsonOption,
    StoreOption,
    opened_for,
    operator,
    out,
    plain,
    print_json,
)
from vectoracl.model.actions import ALL_ACTIONS


def explain(
    who: AsOption,
    document: Annotated[
        str | None, typer.Option("--document", metavar="NAME", help="Also show whether this document is visible.")
    ] = None,
    action: Annotated[
        str, typer.Option("--action", help=f"The action to explain: {', '.join(sorted(ALL_ACTIONS))}.")
    ] = "search",
    config: ConfigOption = DEFAULT_CONFIG,
    store: StoreOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Explain what a principal may see: the decision, its reasons, and the number of visible chunks.

    Use it when a result is unexpectedly empty. For a document it shows only whether this principal sees it: another
    tenant's document reads like one that does not exist.
    """
    principal = operator(who, "explain")
    with opened_for(principal, config, store) as acl:
        explanation = acl.explain(principal, action, document=document)  # type: ignore[arg-type]  # explain() checks it
    if as_json:
        print_json(
            {
                "principal": who,
                "action": action,
                "permit": explanation.permit,
                "reasons": list(explanation.reasons),
                "policy": explanation.policy_version,
                "scope": [{"partition": partition, "filter": where} for partition, where in explanation.grants],
                "visible": explanation.visible,
                "document": explanation.document,
                "document_visible": explanation.document_visible,
                "ranking": dict(explanation.ranking),
                "words": dict(explanation.words),
                "summary": explanation.summary(),
            }
        )
        return
    out().print(Text.assemble((f"{plain(who)}, {action}: ", "bold"), plain(explanation.summary())))
    out().print(Text(f"Policy: {plain(explanation.policy_version or 'without a version')}", "dim"))
