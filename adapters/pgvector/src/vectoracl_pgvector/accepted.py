"""Findings that an operator accepts, with a reason: `accept = [{ rule, object, reason }]` in the configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vectoracl.adapter_api.posture import Finding

# Rules about something that could not be proved, or about a bypass whose risk only the operator can judge. Facts about
# the table, its policies or the runtime role itself have to be fixed, not accepted.
ACCEPTABLE: Final = frozenset({
    "PG009", "PG037", "PG052", "PG070", "PG071", "PG072", "PG073", "PG074", "PG080", "PG081", "PG083", "PG085",
    *(f"PG13{n}" for n in range(9)), "PG141",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Accept:
    """One entry: a rule's id, the finding's subject (`*` and `?` are wildcards), and the reason."""

    rule: str
    object: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Return whether this entry accepts *finding*."""
        pattern = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in self.object)
        return finding.rule.id == self.rule and re.fullmatch(pattern, finding.subject, re.DOTALL) is not None


def split_accepted(
    findings: Sequence[Finding], entries: Sequence[Accept]
) -> tuple[list[Finding], list[tuple[Finding, Accept]], list[Accept]]:
    """Return the remaining findings, the accepted ones with their entry, and entries that accept nothing."""
    remaining: list[Finding] = []
    accepted: list[tuple[Finding, Accept]] = []
    for finding in findings:
        entry = next((one for one in entries if one.covers(finding)), None)
        if entry is None:
            remaining.append(finding)
        else:
            accepted.append((finding, entry))
    used = {id(entry) for _, entry in accepted}
    return remaining, accepted, [entry for entry in entries if id(entry) not in used]
