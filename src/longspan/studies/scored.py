"""Many settings on the same examples, each read once: scores, compared sample by sample, and what a
replay says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.statistics import difference_interval
from longspan.studies.trace import Read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from longspan.methods.base import Method
    from longspan.runner import Run
    from longspan.studies.trace import Trace

Variant = tuple[str, str]
"""Group and value."""


def scored(
    run: Run,
    number: int,
    methods: Mapping[Variant, Method],
    replay: Callable[[Method, Trace], dict[str, float]] | None,
    steps: int,
    *,
    expected: bool = False,
) -> list[dict[str, Any]]:
    """A row a method: its score on an example and, unless None, `replay`'s means over layers, both
    over so many `steps`; where `expected`, what `Read.expectations` says of as many.
    """
    read = Read(run.model, run.examples[number], steps, run.request.max_new_tokens)
    traces = read.traces(steps) if replay is not None else []
    known: dict[Method, dict[str, float]] = {}  # one setting may stand in several groups
    for method in methods.values():
        if method in known:
            continue
        known[method] = {"score": run.task.score(read.example, read.answer(method))}
        if expected:
            known[method] |= read.expectations(method, steps)
        if replay is not None:
            found = [replay(method, trace) for trace in traces]
            for key in found[0]:
                known[method][key] = sum(each[key] for each in found) / len(found)
    names = {"task": run.task.label, "example": number}
    return [
        {**names, "group": group, "value": value, **known[method]}
        for (group, value), method in methods.items()
    ]


def compared(frame: pd.DataFrame, baseline: Variant, name: str) -> pd.DataFrame:
    """A row a variant: the mean of every number, and in the column `name` the score's difference to
    the baseline on the same examples, with its 95% interval.
    """
    import pandas as pd

    by_variant = {
        key: each.set_index(["task", "example"])
        for key, each in frame.groupby(["group", "value"], sort=False)
    }
    right = by_variant[baseline]["score"]
    rows = []
    for (group, value), each in by_variant.items():
        delta = difference_interval(each["score"].tolist(), right.loc[each.index].tolist())
        verdict = " ".join(delta.written("+"))
        verdict += "" if delta.excludes_zero else ", not distinguishable"
        means = each.mean(numeric_only=True).to_dict()
        rows.append({"group": group, "value": value, name: verdict, **means})
    return pd.DataFrame(rows)
