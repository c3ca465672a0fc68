"""The line under the table: a task's own metrics."""

from __future__ import annotations

from longspan.table import headline


def test_counts_rates_intervals_and_errors() -> None:
    metrics = {"problems": 30.0, "avg@4": 25.04, "avg@4_se": 7.96, "unfinished_rate": 3.3333}
    metrics |= {"overall": 39.03, "overall_low": 37.0, "overall_high": 41.0, "category/sqa": 50.0}
    assert headline(metrics) == (
        "problems 30   avg@4 25.0 ± 8.0   unfinished_rate 3.3   overall 39.0 [37.0, 41.0]"
    )
    assert headline({}) == ""


def test_parts_are_shown_where_there_is_nothing_else() -> None:
    parts = {"contexts": 3.0, **{f"turn/{i}": 100.0 - i for i in range(14)}}
    line = headline(parts, most=3)
    assert line == "contexts 3   turn/0 100.0   turn/1 99.0   and 12 more in summary.json"
    assert headline({"length/4k": None, "length/8k": 50.0}) == "length/8k 50.0"
