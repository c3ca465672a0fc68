"""One run, all of it: what it leaves, what it prints, what it does not do twice."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
import torch

from longspan import results, summary
from longspan.passes import _slow_dtype
from longspan.types import Record
from longspan_kernels import dispatch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runner.conftest import Cli

SMALL = (
    "measure=all", "measure.recall.steps=3", "measure.recall.samples=1",
    "measure.latency.steps=4", "measure.latency.warmup=1",
)  # fmt: skip


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_files_and_prints_its_table(cli: Cli) -> None:
    done = cli(*SMALL)
    assert done.code == 0, done.err
    names = {path.name for path in done.folder().iterdir()}
    assert names >= {
        "config.yaml", "environment.json", "fingerprint.json", "samples.jsonl", "summary.json",
        "recall.json", "latency.json",
    }  # fmt: skip
    assert "recall@100" in done.out
    assert "ms/token" in done.out
    assert str(done.folder()) in done.out


def test_the_summary_has_its_stable_keys(cli: Cli) -> None:
    summary = cli(*SMALL).json("summary.json")
    assert set(summary) == {
        "task", "ctx", "model", "method", "prefill", "protocol", "fingerprint", "pairing", "n",
        "answers", "score",
        "metrics", "baseline_delta", "recall", "work", "latency", "memory", "finish",
        "corrupt_lines", "seconds",
    }  # fmt: skip
    assert summary["n"] == 4
    assert summary["recall"]["recovered_mass"] == pytest.approx(1.0, abs=1e-5)
    assert summary["recall"]["output_error"] < 1e-4
    assert summary["recall"]["at_100"] is None  # nothing is left to retrieve
    assert summary["latency"]["ms_per_token"] > 0
    assert summary["work"]["read_fraction"] == pytest.approx(1.0)
    assert summary["memory"]["kv_bytes"] > 0
    assert summary["memory"]["peak_device_bytes"] is None


def test_what_is_not_measured_is_null_and_there(cli: Cli) -> None:
    summary = cli().json("summary.json")
    assert summary["recall"]["at_100"] is None
    assert summary["latency"]["ledger"]["build_s"] is None


def test_every_line_names_the_fingerprint_and_the_folder_begins_with_it(cli: Cli) -> None:
    done = cli()
    digest = done.json("summary.json")["fingerprint"]
    assert {line["fingerprint"] for line in lines(done.folder())} == {digest}
    assert done.folder().name == f"full-{digest[:10]}"


def test_a_second_run_answers_only_what_is_missing(cli: Cli) -> None:
    first = cli()
    before = lines(first.folder())
    second = cli("samples=6")
    after = lines(second.folder())
    assert after[:4] == before
    assert [line["id"] for line in after] == sorted({line["id"] for line in after})
    assert len(after) == 6
    assert "4 of 6 samples are already in" in second.err
    assert f"all 6 samples are already in {second.folder()}\n" in cli("samples=6").err


def test_the_batch_changes_neither_answers_nor_fingerprint(cli: Cli, tmp_path: Path) -> None:
    one = lines(cli("samples=7").folder())
    (tmp_path / "results").rename(tmp_path / "first")
    three = lines(cli("samples=7", "batch=3").folder())
    assert {line["id"]: line for line in one} == {line["id"]: line for line in three}


def test_the_protocols_are_different_runs(cli: Cli) -> None:
    cli()
    done = cli("protocol=question_sparse", "batch=2")
    assert done.code == 0
    folders = list(done.results.rglob("fingerprint.json"))
    assert len(folders) == 2
    answers = [{line["id"]: line["prediction"] for line in lines(f.parent)} for f in folders]
    assert answers[0] == answers[1]  # full attention reads a question alike in both


def test_a_damaged_line_is_named_and_answered_again(cli: Cli) -> None:
    path = cli().folder() / "samples.jsonl"
    text = path.read_text().splitlines(keepends=True)
    path.write_text(text[0] + "{broken\n" + "".join(text[2:]))
    done = cli()
    assert "line 2 is no sample" in done.err
    assert sorted(line["id"] for line in lines(path.parent)) == sorted(
        json.loads(line)["id"] for line in text
    )
    assert done.json("summary.json")["corrupt_lines"] == 1
    assert (path.parent / "samples.damaged.jsonl").read_text().count("{broken") == 1


def test_a_folder_that_somebody_edited_ends_no_run(cli: Cli) -> None:
    folder = cli().folder()
    path = folder / "samples.jsonl"
    first, *rest = lines(folder)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [{**first, "score": None}, *rest]))
    (folder / "environment.json").write_text('{"source": "mine"}')
    (folder / "recall.json").write_text('{"sizes": 1, "found": 5}')
    (folder / "latency.json").write_text('{"latency": "x", "memory": []}')
    done = cli("method=streaming_llm")
    assert done.code == 0, done.err
    assert done.json("summary.json", "streaming_llm")["baseline_delta"]["n"] == 3
    done = cli()
    assert done.code == 0, done.err
    assert "line 1 is no sample" in done.err
    assert done.json("summary.json", "full")["score"]["mean"] is not None


def test_a_number_that_somebody_edited_is_null(cli: Cli) -> None:
    folder = cli(*SMALL).folder()
    for value in ("x", {}, [1], True, 10**400):
        for name, group in {"recall.json": "found", "latency.json": "memory"}.items():
            kept = json.loads((folder / name).read_text())
            numbers = kept[group].get("mean", kept[group])
            numbers.update(dict.fromkeys(numbers, value))
            (folder / name).write_text(json.dumps(kept))
        done = cli(*SMALL)
        assert done.code == 0, done.err
        run = results.read_run(folder)
        assert run["recall.recovered_mass"] is run["memory.kv_bytes"] is None


def test_the_order_of_the_samples_changes_no_number() -> None:
    """A batch, shards and a line answered again have other orders, and resamples know places."""
    scores = [0.0, 40.0, 60.0, 100.0, 80.0, 25.0, 33.0, 0.0]
    records = [
        Record(str(number), 0, "", ("x",), score, 1, 1, "eos", 0, {})
        for number, score in enumerate(scores)
    ]
    for order in (records[::-1], records[3:] + records[:3]):
        assert summary.score(order) == summary.score(records)


def test_the_environment_names_no_place_and_no_person(cli: Cli) -> None:
    done = cli()
    text = (done.folder() / "environment.json").read_text()
    facts = json.loads(text)
    assert facts["threads"]["torch"] == 1
    assert facts["packages"]["torch"]
    assert "/home" not in text
    assert "/root" not in text
    assert "PATH" not in text


def test_answers_longer_than_the_task_has_room_for_are_told(cli: Cli) -> None:
    long = ["generation.max_new_tokens=130", "samples=1"]
    assert (
        "generation.max_new_tokens = 130: beyond the 128 of the task, for which prompts leave "
        "room: answers may end beyond ctx\n"
    ) in cli(*long, "ctx=512").err
    assert "beyond the" not in cli(*long).err
    assert "beyond the" not in cli("samples=1", "ctx=512").err


def test_prompts_too_short_for_an_index_are_told_of(cli: Cli) -> None:
    said = "1 of 1 answers read all of their context, as full attention does: method.update_tokens"
    few = ["samples=1", "measure=quality", "method.local_tokens=8"]
    assert said in cli("method=retroinfer", *few).err
    told = cli("method=retroinfer", "method.update_tokens=1", "method.retrieval_budget=1", *few).err
    assert "read all of their context" in told
    assert "method.update_tokens" not in told
    sparse = cli("method=streaming_llm", *few[:2])
    assert "read all of" not in sparse.err
    path = sparse.folder("streaming_llm") / "samples.jsonl"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "work": {"exact_tokens": 1}}) + "\n"
    )
    assert cli("method=streaming_llm", "samples=2", "measure=quality").code == 0
    assert "read all of" not in cli("method=full", "samples=1", "measure=quality").err


def test_an_interrupt_leaves_a_state_to_go_on_from(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longspan.record.jsonl import RunFolder

    append, count = RunFolder.append, [0]

    def interrupted(self: RunFolder, record: object) -> None:
        append(self, record)
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", interrupted)
        stopped = cli()
    assert stopped.code == 130
    assert "the same command goes on" in stopped.err
    assert len(lines(stopped.folder())) == stopped.json("summary.json")["n"] == 2
    assert len(lines(cli().folder())) == 4


def test_another_process_in_the_folder_is_refused(cli: Cli) -> None:
    from longspan.record.jsonl import RunFolder

    done = cli()
    with RunFolder(done.folder(), done.json("summary.json")["fingerprint"]):
        busy = cli("samples=5")
    assert busy.code == 1
    assert "is working here" in busy.err
    assert cli("samples=5").code == 0


def test_samples_of_other_source_are_told_of(cli: Cli) -> None:
    path = cli().folder() / "environment.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "source": {**facts["source"], "digest": "0123456789"}}))
    assert "4 samples were recorded by other source (0123456789, now " in cli().err
    assert "other source" not in cli().err


def test_times_of_other_source_are_taken_again_and_recall_is_told_of(cli: Cli) -> None:
    folder = cli(*SMALL, "measure.quality=false").folder()
    before = json.loads((folder / "latency.json").read_text())
    assert "other source" not in cli(*SMALL, "measure.quality=false").err
    path = folder / "environment.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "source": {**facts["source"], "digest": "0123456789"}}))
    (folder / "latency.json").write_text(json.dumps({**before, "source": "0123456789"}))
    assert "recall.json were recorded by other source (0123456789" in cli(*SMALL).err
    after = json.loads((folder / "latency.json").read_text())
    assert after["source"] == before["source"]
    assert after["latency"]["ttft_s"] != before["latency"]["ttft_s"]


def test_recall_is_of_as_many_examples_as_there_are_now(cli: Cli) -> None:
    wanted = ("measure=recall", "measure.recall.steps=3", "measure.recall.samples=2")

    def examples(samples: int) -> int:
        return cli(*wanted, f"samples={samples}").json("recall.json")["found"]["examples"]

    assert [examples(samples) for samples in (1, 4, 1)] == [1, 2, 2]  # more are not lost for fewer


def test_the_baseline_is_the_run_that_shares_most(cli: Cli) -> None:
    cli("samples=1")
    more = ("model.dtype=float32", "method.placement=gpu")
    cli(*more, "samples=3")
    found = cli("method=streaming_llm").json("summary.json", "streaming_llm")
    assert found["baseline_delta"]["n"] == 3


def test_further_metrics_of_a_task_are_printed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from longspan.tasks.json_file import JsonFile

    monkeypatch.setattr(JsonFile, "aggregate", lambda *_: {f"m@{n}": 10.0 * n for n in range(14)})
    done = cli()
    assert "full: m@0 0.0   m@1 10.0   " in done.out
    assert "m@11 110.0   and 2 more in summary.json" in done.out
    assert done.json("summary.json")["metrics"]["m@13"] == 130.0


def test_recall_and_latency_are_taken_again_only_for_what_changes_them(cli: Cli) -> None:
    def stamps() -> list[int]:
        folder = cli(*SMALL, *more).folder()
        return [(folder / n).stat().st_mtime_ns for n in ("recall.json", "latency.json")]

    more: tuple[str, ...] = ()
    first = stamps()
    assert stamps() == first
    more = ("measure.latency.rows=2",)
    recall, latency = stamps()
    assert recall == first[0]
    assert latency > first[1]
    more = ("measure.latency.rows=2", "model.graphs=eager")
    assert stamps()[0] == first[0]
    assert stamps()[1] > latency
    latency = stamps()[1]
    more = (*more, "samples=1")  # the second row is the first example's as well
    recall, other = stamps()
    assert recall == first[0]
    assert other > latency


def test_the_mirror_has_the_numbers_of_the_summary(cli: Cli) -> None:
    from tests.record.test_mirror import mirrored

    from longspan.record.wandb import metrics

    done = cli("recorder=wandb_offline", *SMALL)
    (file,) = done.results.rglob("*.wandb")
    found, summary = mirrored(file), done.json("summary.json")
    assert {name: found.get(name) for name, _ in metrics(summary)} == dict(metrics(summary))


def test_the_mirrors_mean_goes_on_where_a_run_is_resumed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    from longspan.tasks.json_file import JsonFile

    mirror = Mock()
    monkeypatch.setattr(wandb, "init", lambda **_: mirror)
    monkeypatch.setattr(JsonFile, "score", lambda *given: 20.0 * int(given[1].references[0]))
    cli("recorder=wandb_offline", "samples=2")
    done = cli("recorder=wandb_offline")
    rows = [call.args[0] for call in mirror.log.call_args_list]
    means = [row["sample/mean"] for row in rows if "sample/mean" in row]
    assert means == pytest.approx([0.0, 10.0, 20.0, 30.0])
    assert means[-1] == pytest.approx(done.json("summary.json")["score"]["mean"])


@pytest.mark.parametrize(
    ("device", "dtype", "ctx", "isas", "said"),
    [
        ("cpu", torch.float32, 16_384, ["portable", "amx"], True),
        ("cpu", torch.float32, 8_192, ["portable", "amx"], False),
        ("cpu", torch.float32, 16_384, ["portable", "avx512_bf16"], True),
        ("cpu", torch.float32, 16_384, ["portable", "avx2"], False),
        ("cpu", torch.bfloat16, 131_072, ["portable", "amx"], False),
        ("cuda", torch.float32, 131_072, ["portable", "amx"], False),
        ("cpu", torch.float32, None, ["portable", "amx"], False),
    ],
)
def test_idle_products_of_bfloat16_are_told_of(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    dtype: torch.dtype,
    ctx: int | None,
    isas: list[str],
    said: bool,
) -> None:
    monkeypatch.setattr(dispatch, "build_info", lambda: {"isas": isas})
    model = SimpleNamespace(device=torch.device(device), dtype=dtype)
    run: Any = SimpleNamespace(model=model, request=SimpleNamespace(ctx=ctx))
    assert bool(_slow_dtype(run)) == said


@pytest.mark.parametrize(("count", "which"), [(1, "line 4"), (2, "lines 3, 4")])
def test_a_damaged_baseline_is_named(cli: Cli, count: int, which: str) -> None:
    path = cli().folder() / "samples.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*whole[:-count], *["{half\n"] * count]))
    sparse = cli("method=streaming_llm")
    assert sparse.json("summary.json", "streaming_llm")["baseline_delta"]["n"] == 4 - count
    (line,) = (each for each in sparse.err.splitlines() if "no sample" in each)
    assert line.startswith(f"{path}: no sample in {which}; the comparison is without, until ")
    cli()
    assert "no sample" not in cli("method=streaming_llm").err
