"""A prefill goes with any method, is part of what a run is, and is compared with full attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan import results

if TYPE_CHECKING:
    from tests.runner.conftest import Cli


def test_a_sparse_prefill_is_another_run_on_the_same_questions(cli: Cli) -> None:
    assert cli("prefill=full").code == 0
    done = cli("prefill=xattention", "prefill.threshold=0.8", "measure=all",
               "measure.recall.steps=2", "measure.latency.steps=2")  # fmt: skip
    assert done.code == 0, done.err
    plain, sparse = (done.json("summary.json", name) for name in ("full-", "full+xattention-"))
    assert (plain["prefill"], sparse["prefill"]) == ("full", "xattention")
    assert sparse["method"] == "full+xattention"
    assert sparse["pairing"] == plain["pairing"]
    assert sparse["fingerprint"] != plain["fingerprint"]
    assert sparse["baseline_delta"]["n"] == 4
    assert "full+xattention" in done.out
    assert "prefill" not in done.json("fingerprint.json", "full-")
    rows = results.read(done.results).set_index("method")
    assert rows.loc["full+xattention", "set.prefill.threshold"] == 0.8


def test_static_tokens_are_attended_while_a_thread_searches(cli: Cli) -> None:
    done = cli("method=retrieval_attention", "method.static=device", "method.sink_tokens=4",
               "method.local_tokens=8", "method.update_tokens=8", "method.top_tokens=4",
               "measure=all", "measure.recall.steps=2", "measure.latency.steps=2")  # fmt: skip
    assert done.code == 0, done.err
    ledger = done.json("summary.json")["latency"]["ledger"]
    for name in ("search_ms", "attend_ms", "gather_attend_ms"):
        assert ledger[name] > 0
    assert ledger["overlap_ms"] < sum(ledger[name] for name in ("search_ms", "gather_attend_ms"))


def test_a_wrong_prefill_is_one_line(cli: Cli) -> None:
    done = cli("prefill=xattention", "prefill.threshold=2")
    assert done.code == 2
    assert "prefill.threshold = 2" in done.err
