"""Every wrong request ends with one line: the field, the value and what would be right."""

from __future__ import annotations

import errno
import json
import re
from typing import TYPE_CHECKING

import pytest
import torch
from tests.runner.conftest import ROOT
from tests.tiny_models import save_tiny

from longspan.cli import main
from longspan.errors import explain
from longspan.models.huggingface import HuggingFace
from longspan.record.files import names
from longspan.request import parse_tokens, tokens_label

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runner.conftest import Cli

WRONG = {
    "method=fool": r"method = 'fool': there is none; right would be one of .*full, ",
    "task=ruler_vv": r"task = 'ruler_vv': there is none; near it are ruler_vt",
    "model=zzz": r"model = 'zzz': there is none; ",
    "measure=foo": r"measure = 'foo': there is none; right would be one of all, ",
    "protocol=x": r"protocol = 'x': there is none; right would be one of question_dense, ",
    "foo=1": r"foo: no such key; python run.py --help lists them",
    "method.budgt=3": r"method.budgt: no such key in the method chosen, or in one of a sweep's, ",
    "task=": r"task = '': no name of an option; right would be aime24, .*, \.\.\.$",
    "task=[ruler_vt,ruler_cwe]": r"task = .*: a run has one; right would be -m task=ruler_vt,ruler",
    "results=/dev/null/x": r"results = '/dev/null/x': /dev/null is a file; right would be a folder",
    "results=/proc/x": r"results = '/proc/x': /(proc)? cannot be written to; name another folder",
    "+method.budgt=3": r"method.budgt: no such setting; its settings are placement",
    "+bar=1": r"bar: no such setting; its settings are batch, ctx, ",
    "ctx=banana": r"ctx = 'banana': not a token count; right would be 131072, 128k, 1m or null",
    "ctx=-4k": r"ctx = '-4k': not a token count",
    "ctx=1.5k": r"ctx = '1.5k': not a token count",
    "ctx=0": r"ctx = 0: not a token count",
    "ctx=1m": r"ctx = 1m: tiny\d+ has 1024 positions; right would be at most 1k",
    "samples=x": r"samples = 'x': input should be a valid integer",
    "samples=0": r"samples = 0: input should be greater than or equal to 1",
    "samples=1000001": r"samples = 1000001: input should be less than or equal to 1000000",
    f"measure.recall.samples={10**20}": r"measure.recall.samples = 10{20}: input should be less ",
    f"measure.latency.steps={10**20}": r"measure.latency.steps = 10{20}: input should be less ",
    f"batch={10**20}": r"batch = 10{20}: input should be less than or equal to 1000000",
    "seed=-1": r"seed = -1: ",
    "seed=2147483648": r"seed = 2147483648: input should be less than 2147483648",
    "batch=0": r"batch = 0: ",
    "generation.top_p=2": r"generation.top_p = 2: input should be less than or equal to 1",
    "generation.temperature=inf": r"generation.temperature = inf: input should be a finite number",
    "partial_seconds=inf": r"partial_seconds = inf: input should be a finite number",
    "model.device_map=foo": r"model.device_map = 'foo': input should be 'auto', 'balanced', ",
    "+model.config={foo:1}": r"model.config.foo: a llama configuration has no such entry",
    "generation.max_new_tokens=0": r"generation.max_new_tokens = 0: right would be a count from 1",
    "generation=3": r"generation = 3: ",
    "measure.recall=3": r"measure.recall = 3: not a group of settings; its settings are at, ",
    "model.path=/nowhere/at/all": r"model.path = '?/nowhere/at/all'?: there is no such folder",
    "model.dtype=int8": r"model.dtype = 'int8': input should be 'auto', ",
    "preset=foo": r"preset = 'foo': there is none; right would be one of .*retroinfer_paper",
    "method=null": r"method = None: no name of an option; right would be faiss_flat, ",
    "measure=true": r"measure = True: no name of an option; right would be all, latency",
    "results=": r"results = '': right would be a folder",
    "results=null": r"results = None: right would be a folder",
    "~method": r"method is missing: ",
    "~generation": r"generation is missing: ",
    "debug=7": r"debug = 7: input should be a valid boolean",
    "threads=1000000": r"threads = 1000000: input should be less than or equal to 1024",
    "--config-name=nope": r"--config-name = 'nope': there is no such configuration",
    "ctx=4k,8k": r"ctx = '4k,8k': several values; right would be -m ctx=4k,8k for a sweep, or ",
    "measure=quality,recall": r"measure = .*values; right would be -m measure=quality,recall$",
    "=1": r"=1: names no key; right would be key=value",
    "~": r"~: names no key; right would be key=value",
    "~ctx": r"~ctx: no such key, or null already; python run.py --help lists them",
    "~method.budgt": r"~method.budgt: no such key, or null already; ",
    "~results": r"~results: runs leave their files there; right is results=FOLDER",
    "~hydra": r"~hydra: cannot be left out",
    "results=${foo}": r"results names \$\{foo\}: no such key; ",
    "threads=${foo}": r"threads names \$\{foo\}: no such key; ",
    "+recorder=local": r"\+recorder = 'local': there is one already; right would be recorder=local",
    "+seed=1": r"\+seed: is there already; right would be seed=",
    "task.path=/d (1)/q": r"task.path = '/d \(1\)/q': .* .task.path='/d \(1\)/q'., with",
    "results=~/x": r"results = '~/x': cannot be read; right would be results=\$HOME/x$",
    "results='~/x'": r"results = '~/x': right would be a folder, and \$HOME where ~ is meant$",
    "ctx=${oc.env:NO_SUCH}": r"ctx cannot be worked out: .*variable 'NO_SUCH' not found",
    "ctx=${ctx}": r"ctx cannot be worked out: Recursive interpolation",
    "ctx=${nope:4}": r"ctx cannot be worked out: Unsupported interpolation type nope",
    "ctx=range(1,3)": r"ctx = 'range\(1,3\)': several values; right would be -m ctx=range\(1,3\)$",
    "recorder.project=a#?%": r"recorder.project = 'a#\?%': cannot be read; ",
    "recorder._target_=longspan.methods.full.Full": r"recorder._target_ = .*; right would be a Rec",
    "prefill._target_=longspan.methods.full.Full": r"prefill._target_ = .*: makes a Full; right ",
    "method._target_=longspan.methods.full": r"method._target_ = .*: a module; right would be ",
    "hydra.job.chdir=true": r"hydra.job.chdir = True: ",
    "generation.temperature=1e-38": r"generation.temperature = 1e-38: right would be 0, which ",
    "--experimental-rerun=x": r"--experimental-rerun = 'x': not taken; right is the same command",
    "--config-path=x": r"--config-path = 'x': not taken; right is --config-dir",
    "ctx=[1": r"malformed override: .*; right would be key=value",
    "ctx": r"malformed override: .*missing EQUAL.*; right would be key=value",
}


@pytest.mark.parametrize("count", [2, 4])
def test_budgets_of_layers_are_one_for_each(cli: Cli, count: int) -> None:
    budgets = ",".join(["0.1"] * count)
    done = cli("method=retroinfer", f"method.layer_budgets=[{budgets}]")
    assert done.code == 2
    assert f"method.layer_budgets has {count} entries; right would be 3, one for each" in done.err


@pytest.mark.parametrize(
    ("method", "wrong", "said"),
    [
        ("h2o", "kept_tokens=1", "input should be greater than or equal to 2"),
        ("h2o", "score=max", "input should be 'sum' or 'mean'"),
        ("infllm", "local_tokens=0", "input should be greater than or equal to 1"),
        ("infllm", "page_tokens=3", "representatives = 4: right would be at most page_tokens, 3"),
        ("infllm", f"local_tokens={10**20}", "input should be less than or equal to 2147483647"),
        ("pqcache", f"kmeans_rounds={10**20}", "input should be less than or equal to 1000000"),
        ("magicpig", f"tables={10**20}", "input should be less than or equal to 1000000"),
        ("snapkv", f"kernel={10**20}", "input should be less than or equal to 1000000"),
    ],
)
def test_what_a_method_cannot_do_is_refused(cli: Cli, method: str, wrong: str, said: str) -> None:
    done = cli(f"method={method}", f"method.{wrong}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "method" in done.err
    assert said in done.err


@pytest.mark.parametrize("method", ["quest", "magicpig", "pqcache", "infllm"])
def test_dense_layers_are_layers_of_the_model(cli: Cli, method: str) -> None:
    done = cli(f"method={method}", "method.dense_layers=[0,3]")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "method.dense_layers = [0, 3]: tiny" in done.err
    assert "has no layer 3; right would be numbers from 0 to 2" in done.err
    assert cli(f"method={method}", "method.dense_layers=[0,2]", "samples=1").code == 0


def test_a_context_beyond_the_positions_fits_where_the_message_says(cli: Cli) -> None:
    done = cli("ctx=2k")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "at most 1k, or a model.config whose rope_parameters reach further, as " in done.err
    rope = "{rope_type:yarn,rope_theta:10000.0,factor:2.0}"
    assert cli("ctx=2k", "samples=1", f"model.config={{rope_parameters:{rope}}}").code == 0


def test_a_default_of_dense_layers_may_go_beyond_a_small_model(cli: Cli, tmp_path: Path) -> None:
    small = save_tiny("llama", tmp_path / "small", num_hidden_layers=1)
    assert cli(f"model.path={small}", "method=quest", "samples=1").code == 0
    done = cli(f"model.path={small}", "method=quest", "method.dense_layers=[1]")
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_no_more_steps_are_clocked_than_the_model_has_positions(cli: Cli) -> None:
    for size in ("steps", "warmup"):
        done = cli("measure=latency", f"measure.latency.{size}=900000")
        assert (done.code, done.err.count("\n")) == (2, 1)
        said = re.search(r"positions; right would be at most (\d+) together", done.err)
        assert said, done.err
    most = ["measure.latency.warmup=1", f"measure.latency.steps={int(said[1]) - 1}"]
    assert cli("measure=latency", *most, "samples=1").code == 0


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_request_is_named(cli: Cli, override: str) -> None:
    done = cli(override)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert re.match(f"error: {WRONG[override]}", line), line
    assert not list(done.results.rglob("samples.jsonl"))


@pytest.mark.parametrize("budget", ["1.5", "0", "-0.1", "abc", "null"])
def test_a_budget_outside_its_range_is_named(cli: Cli, budget: str) -> None:
    done = cli("method=retroinfer", f"method.retrieval_budget={budget}")
    assert done.code == 2
    assert done.err.startswith("error: method.retrieval_budget = "), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("flags", [(), ("-m",)])
def test_a_key_given_twice_is_named(cli: Cli, flags: tuple[str, ...]) -> None:
    done = cli(*flags, "method=full", "method=random_k")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "method is given twice, method=full and method=random_k: right would be once" in done.err
    assert cli("method=full", "method=full").code == 0


def test_a_folder_that_cannot_be_written_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longspan import composition

    def denied(**_: object) -> None:  # root may do anything
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(composition, "TemporaryFile", denied)
    done = cli(f"results={tmp_path / 'locked'}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"locked': {tmp_path} cannot be written to" in done.err


def test_a_papers_protocol_is_its_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protocol=retroinfer_paper", "--cfg", "job"], ROOT / "conf") == 0
    text = capsys.readouterr().out
    assert "protocol: question_dense" in text
    assert "prompt_style: inst" in text
    assert "ignore_eos: true" in text


def test_a_missing_mandatory_value_is_named(cli: Cli) -> None:
    done = cli("model=hf", "model.path=???")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "model.path is missing" in done.err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{not json",
        '[{"no": 1}]',
        '[{"input": "\\ud83d", "outputs": "x"}]',
        "[" * 99_999,
        "9" * 9_999,
    ],
    ids=range(7),
)
def test_a_bad_file_is_named(cli: Cli, tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    done = cli(f"task.path={path}")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "task.path" in done.err
    assert "bad.json" in done.err


def test_a_missing_file_is_named(cli: Cli, tmp_path: Path) -> None:
    done = cli(f"task.path={tmp_path / 'none.jsonl'}")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "none.jsonl" in done.err


def test_a_prompt_longer_than_ctx_is_named(cli: Cli) -> None:
    done = cli("ctx=64")
    assert done.code == 2
    assert "ctx" in done.err
    assert "64" in done.err


def test_debug_shows_the_traceback(cli: Cli) -> None:
    done = cli("ctx=banana", "debug=true")
    assert done.code == 2
    assert "Traceback (most recent call last)" in done.err
    assert done.err.splitlines()[-1].startswith("error: ctx = 'banana'")


def test_a_full_disk_keeps_what_is_recorded(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from longspan.record import jsonl

    fsync, count = os.fsync, [0]

    def full(descriptor: int) -> None:
        count[0] += 1
        if count[0] > 5:  # three descriptions of the run and two samples fit
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(jsonl.os, "fsync", full)
        done = cli()
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert "the disk is full" in line
    assert "samples.jsonl" in line
    assert "what is recorded is kept" in line
    after = cli()
    assert after.code == 0
    ids = [json.loads(x)["id"] for x in (after.folder() / "samples.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 4


def test_a_half_written_line_is_answered_again(cli: Cli) -> None:
    path = cli().folder() / "samples.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-25])
    done = cli()
    assert done.code == 0
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_failure_inside_is_no_wrong_request(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from longspan.tasks.json_file import JsonFile

    def broken(*_: object) -> float:
        raise KeyError("score")

    monkeypatch.setattr(JsonFile, "score", broken)
    done = cli()
    assert done.code == 1
    assert done.err == "error: KeyError: 'score' (debug=true shows where)\n"


def test_an_unknown_flag_is_a_wrong_request(cli: Cli) -> None:
    done = cli("--frobnicate")
    assert done.code == 2
    assert "unrecognized arguments" in done.err


def test_system_errors_name_the_file() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/readonly/results")
    assert explain(error) == ("/readonly/results: permission denied", 2)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ENOSPC])
def test_a_failing_machine_is_no_wrong_request(tmp_path: Path, number: int) -> None:
    with pytest.raises(OSError, match="why") as caught, names(tmp_path / "partials.jsonl"):
        raise OSError(number, "why")
    line, code = explain(caught.value)
    assert code == 1
    assert line.startswith(f"{tmp_path / 'partials.jsonl'}: ")


def test_an_interrupt_is_one_whatever_an_import_makes_of_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ValueError("Could not import module 'LlamaConfig'") from error

    monkeypatch.setattr(HuggingFace, "load", load)
    done = cli("-m", "seed=0,1")
    assert done.code == 130
    assert done.err.count("interrupted") == 1
    assert "error" not in done.err


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("128k", 131072), ("1m", 1048576), (120000, 120000), ("7", 7), (None, None)],
)
def test_a_context_is_a_count_of_tokens(text: object, tokens: int | None) -> None:
    assert parse_tokens("ctx", text) == tokens
    assert parse_tokens("ctx", tokens) == tokens
    if tokens is not None:
        assert parse_tokens("ctx", tokens_label(tokens)) == tokens


@pytest.mark.parametrize("value", ["", "k", "1kk", "1e5", True, 1.5, "16 k", [4]])
def test_nothing_else_is_a_context(value: object) -> None:
    with pytest.raises(ValueError, match=r"ctx = .*: not a token count"):
        parse_tokens("ctx", value)


@pytest.mark.parametrize("measure", ["quality", "recall", "latency"])
def test_data_beyond_the_models_positions_are_named(cli: Cli, tmp_path: Path, measure: str) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"input": "The sky is blue. " * 300, "outputs": ["x"]}))
    done = cli(f"task.path={path}", f"measure={measure}")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert re.match(r"error: ctx: example \S+ has \d+ tokens and may answer with ", done.err)
    assert "1024 positions" in done.err


def test_memory_of_the_host_that_torch_lacks_is_told_as_such() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    line, code = explain(caught.value)
    assert code == 1
    assert line.startswith("out of memory (")
    assert line.endswith("; a shorter ctx, a smaller batch or a method that reads less would fit")
