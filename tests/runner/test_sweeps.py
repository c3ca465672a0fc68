"""Several jobs of one command: one table, one model, no job that stops another."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from tests.runner.conftest import ROOT

from longspan.sweep import Sweep
from longspan.workbench import Workbench

if TYPE_CHECKING:
    from tests.runner.conftest import Cli


def test_a_sweep_ends_with_one_table_and_the_comparison(cli: Cli) -> None:
    done = cli("-m", "method=streaming_llm,full,oracle_topk", "seed=0,1")
    assert done.code == 0, done.err
    assert done.out.count("recall@100") == 1
    assert "6 of 6 jobs done" in done.out
    begun = [line for line in done.err.splitlines() if line.startswith("job ")]
    assert begun == [
        f"job {2 * row + seed + 1} of 6: method={method} seed={seed}"
        for row, method in enumerate(("streaming_llm", "full", "oracle_topk"))
        for seed in (0, 1)
    ]
    rows = [line for line in done.out.splitlines() if line.startswith("json_file")]
    assert len(rows) == 6
    # streaming_llm ran before its baseline and still is compared with it
    for row in (row for row in rows if "streaming_llm" in row):
        assert re.search(r"[+-]\d+\.\d \[[+-]", row), row


def test_a_sweep_takes_a_setting_that_the_default_lacks(cli: Cli) -> None:
    done = cli("-m", "method=oracle_topk,random_k", "method.budget=0.5", "seed=0,1")
    assert done.code == 0, done.err
    assert "4 of 4 jobs done" in done.out
    for folder in (path.parent for path in done.results.rglob("fingerprint.json")):
        assert json.loads((folder / "fingerprint.json").read_text())["method"]["budget"] == 0.5
    wrong = cli("-m", "method=oracle_topk,random_k", "method.budgt=0.5")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "method.budgt: no such key in the method chosen" in wrong.err


@pytest.mark.parametrize("text", ["'a, b'", "'ü'", '"it\'s"', "'#&<a>'", "'1'", "[2,4]", "null"])
def test_a_value_of_a_sweep_stays_as_it_is_written(text: str) -> None:
    """Also for a setting that the default of its group does not have."""
    from longspan import composition

    hydra = composition.opened(composition.parser().parse_args([]), ROOT / "conf")
    try:
        asked = ["task=choice(json_file)", f"task.prefix={text}", "+task.more=x", "seed=0,1"]
        whole = hydra.compose_config(
            "config", asked, RunMode.MULTIRUN, with_log_configuration=False
        )
        assert whole.hydra.overrides.task == asked
        own = ["task=json_file", *asked[1:3]]
        alone = hydra.compose_config("config", own, RunMode.RUN, with_log_configuration=False)
        for seed, job in enumerate(composition.jobs_of(tuple(asked))):
            made = hydra.config_loader.load_sweep_config(whole, list(job))
            assert (made.seed, made.task) == (seed, alone.task)
    finally:
        GlobalHydra.instance().clear()


def test_jobs_that_share_a_folder_are_told_of_and_keep_their_own_numbers(cli: Cli) -> None:
    done = cli("-m", "method=streaming_llm,full", "samples=2,4", "batch=1,2")
    assert done.err.startswith("jobs that differ in samples and batch alone share a folder: ")
    found = re.findall(r"streaming_llm +(\d) +\d +(\d) .* ([+-]\S+) \[", done.out)
    assert [each[:2] for each in found] == [("2", "2"), ("2", "2"), ("4", "4"), ("4", "4")]
    summary = done.json("summary.json", "streaming_llm")
    assert (summary["n"], summary["baseline_delta"]["n"]) == (4, 4)
    assert "share a folder" not in cli("-m", "seed=0,1").err


@pytest.mark.parametrize("key", ["model.overlap_index=true,false", "model.device_map=null,auto"])
def test_settings_of_the_model_that_are_in_no_fingerprint_share_one(key: str) -> None:
    assert begun_with(key) == [f"jobs that differ in {key.partition('=')[0]} alone share a folder"]


def test_chunks_share_a_folder_unless_the_prefill_chooses_by_them() -> None:
    chunks = "model.prefill_chunk_tokens=256,512"
    assert begun_with(chunks) == [
        "jobs that differ in model.prefill_chunk_tokens alone share a folder"
    ]
    assert begun_with(chunks, "prefill=xattention") == []


def begun_with(*overrides: str) -> list[str]:
    """What is said of shared folders before the first job, to the colon."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        swept, *plain = overrides
        first = swept.partition(",")[0]
        given = [first, *plain, "hydra.job.num=0"]
        composed = compose("config", given, return_hydra_config=True).hydra
        lines = Sweep("name", overrides).begins(composed)
        return [line.partition(":")[0] for line in lines if "share a folder" in line]


def test_no_number_of_threads_is_as_many_as_before() -> None:
    workbench, before = Workbench(), torch.get_num_threads()
    for threads, there in ((before + 1, before + 1), (None, before)):
        workbench.use_threads(threads)
        assert torch.get_num_threads() == there


def test_what_a_sweep_cannot_go_through_is_named(cli: Cli) -> None:
    for wrong in ("method=glob(zz*)", "seed=glob(*)"):
        done = cli("-m", wrong)
        assert (done.code, done.out) == (2, "")
        assert f"error: {wrong.replace('=', ' = ')}: matches nothing; right would be" in done.err
    done = cli("-m", "seed=interval(0,1)")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "seed = interval(0,1): cannot be swept; right would be seed=range(0,3)" in done.err
    assert "recorder is missing" in cli("-m", "~recorder", "seed=0,1").err


def test_a_wrong_job_does_not_stop_the_others(cli: Cli) -> None:
    done = cli("-m", "samples=2,3", "generation.top_p=1.0,7")
    assert done.code == 1
    assert "2 of 4 jobs done, 2 not" in done.out
    assert done.out.count("not done: ") == 2
    assert "generation.top_p = 7" in done.out
    assert done.err.count("error: ") == 2


def test_only_wrong_jobs_are_a_wrong_request(cli: Cli) -> None:
    assert cli("-m", "ctx=banana,apple").code == 2


def test_a_sweep_of_one_job_says_its_error_once(cli: Cli) -> None:
    done = cli("-m", "generation.top_p=7")
    assert done.code == 2
    assert (done.out + done.err).count("generation.top_p = 7: ") == 1
    assert "0 of 1 jobs done, 1 not" in done.out


def test_a_job_that_breaks_is_reported_and_the_next_runs(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longspan.measures.quality import Quality

    batch, count = Quality._answer_all, [0]

    def breaks_once(self: Quality, *given: object) -> object:
        count[0] += 1
        if count[0] == 1:
            raise RuntimeError("the machine is on fire")
        return batch(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Quality, "_answer_all", breaks_once)
    done = cli("-m", "seed=0,1")
    assert done.code == 1
    assert "RuntimeError: the machine is on fire" in done.out
    assert "1 of 2 jobs done, 1 not" in done.out


def test_a_sweep_loads_its_model_and_makes_its_data_once(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longspan.models.huggingface import HuggingFace
    from longspan.tasks.json_file import JsonFile

    calls = {"load": 0, "examples": 0}
    load, examples = HuggingFace.load, JsonFile.examples

    def counted_load(self: HuggingFace) -> object:
        calls["load"] += 1
        return load(self)

    def counted_examples(self: JsonFile, *given: object) -> object:
        calls["examples"] += 1
        return examples(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(HuggingFace, "load", counted_load)
    monkeypatch.setattr(JsonFile, "examples", counted_examples)
    done = cli("-m", "method=full,streaming_llm", "batch=1,2")
    assert done.code == 0, done.err
    assert calls == {"load": 1, "examples": 1}


def test_a_sweep_run_again_answers_nothing_again(cli: Cli) -> None:
    command = ("-m", "method=full,streaming_llm", "seed=0,1")
    cli(*command)
    results = cli(*command).results
    for path in results.rglob("samples.jsonl"):
        ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
        assert len(ids) == len(set(ids)) == 4


def test_nothing_is_left_outside_the_results(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    here = cli("samples=1").results.parent
    monkeypatch.chdir(here)
    before = {path.name for path in here.iterdir()}
    assert cli("samples=1").code == 0
    assert cli("-m", "samples=1", "seed=0,1").code == 0
    assert {path.name for path in here.iterdir()} == before


@pytest.mark.slow
def test_joblib_runs_the_jobs_and_refuses_a_latency(cli: Cli) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="no sweeps extra")
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = cli("-m", *launcher, "seed=0,1", "measure=all", "measure.recall.enabled=false")
    assert done.code == 0, done.err
    assert "2 of 2 jobs done" in done.out
    summaries = [json.loads(p.read_text()) for p in done.results.rglob("summary.json")]
    assert [each["n"] for each in summaries] == [4, 4]
    assert [each["latency"]["ms_per_token"] for each in summaries] == [None, None]
    assert sorted(re.findall(r"job . of 2: seed=.", done.err)) == [
        "job 1 of 2: seed=0", "job 2 of 2: seed=1"
    ]  # fmt: skip
    assert "latency is not measured: jobs that run side by side disturb" in done.err


def test_a_parallel_latency_alone_is_refused(cli: Cli) -> None:
    done = cli("hydra/launcher=joblib", "measure=latency")
    assert done.code == 2
    assert "right would be hydra/launcher=basic" in done.err
