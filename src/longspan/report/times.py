"""Whether the times in a table may be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.results import WAYS

if TYPE_CHECKING:
    from longspan.report.groups import Group


def warning(group: Group) -> str | None:
    """What the runs that took a time had not in common; None where it is nothing."""
    timed = [row.entry for row in group.rows if row.entry.number("latency.ms_per_token")]
    facts: dict[str, set[Any]] = {
        "one machine and number of threads": {entry.hardware for entry in timed},
        "one number of sequences decoded together": {
            entry.number("latency.rows") for entry in timed
        },
        "one way of taking steps (latency.steps_by)": {
            str(way) for entry in timed if (way := entry.facts.get(WAYS)) is not None
        },
    }
    apart = [name for name, values in facts.items() if len(values) > 1]
    if not apart:
        return None
    return f"These runs did not share {' or '.join(apart)}: compare no times."
