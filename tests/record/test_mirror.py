"""The W&B mirror has the same numbers and never gets in the way."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from longspan.record.environment import environment
from longspan.record.local import LocalRecorder
from longspan.record.wandb import WandbRecorder, metrics
from longspan.types import Record

SUMMARY: dict[str, Any] = {
    "task": "ruler_vt",
    "n": 2,
    "score": {"mean": 87.5, "low": 70.0, "high": 95.0},
    "baseline_delta": {"mean": None, "distinguishable": None},
    "recall": {"at_100": 0.93, "worst_5_percent": {"recall": 0.5}},
    "latency": {"ms_per_token": 12.5, "ledger": {"search_ms": 1.5, "build_s": None}},
    "work": {"exact_tokens": 130.0},
    "memory": {"kv_bytes": 1000, "peak_device_bytes": None},
    "seconds": 3.5,
}
RECORD = Record("a", 0, "x", ("x",), 100.0, 9, 2, "eos", 0, {}, {})


def rows(path: Path) -> list[Any]:
    """The records of an offline file: a 7-byte header, LevelDB's log framing, protobuf inside."""
    from wandb.proto import wandb_internal_pb2

    data, at, found, part = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if at + 7 + length > len(data):
            break  # wandb's process is still writing this one
        part = (part if kind in (3, 4) else b"") + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(wandb_internal_pb2.Record.FromString(part))
    return found


def mirrored(path: Path) -> dict[str, Any]:
    """The summary in an offline file; wandb's own process writes it after `finish` has returned."""
    deadline = time.monotonic() + 60
    while not any(row.HasField("exit") for row in rows(path)):
        assert time.monotonic() < deadline, f"{path} is not complete"
        time.sleep(0.05)
    values: dict[str, Any] = {}
    for row in rows(path):
        for item in row.summary.update:
            values["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return values


def test_names_are_stable_and_null_is_left_out() -> None:
    assert dict(metrics(SUMMARY)) == {
        "task/task": "ruler_vt",
        "task/n": 2,
        "task/score/mean": 87.5,
        "task/score/low": 70.0,
        "task/score/high": 95.0,
        "recall/at_100": 0.93,
        "recall/worst_5_percent/recall": 0.5,
        "latency/ms_per_token": 12.5,
        "latency/ledger/search_ms": 1.5,
        "work/exact_tokens": 130.0,
        "memory/kv_bytes": 1000,
        "task/seconds": 3.5,
    }


def test_the_offline_mirror_has_the_summary_and_the_samples(tmp_path: Path) -> None:
    recorder = WandbRecorder(mode="offline")
    recorder.open(tmp_path, {"samples": 2}, "f" * 64)
    recorder.sample(RECORD)
    recorder.curve("recall/by_stretch", [{"stop": 1024, "recall": 0.75, "retrieved_mass": None}])
    recorder.summary(SUMMARY)
    recorder.close()
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    found = mirrored(file)
    expected = dict(metrics(SUMMARY))
    assert {name: found.get(name) for name in expected} == expected
    history = [item for row in rows(file) for item in row.history.item]
    logged = {"/".join(item.nested_key) or item.key: item.value_json for item in history}
    assert float(logged["sample/score"]) == 100.0
    assert float(logged["recall/by_stretch/recall"]) == 0.75
    assert float(logged["recall/by_stretch/stop"]) == 1024


def test_the_offline_mirror_has_table_charts_and_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "retroinfer+minference-0123456789"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    found = {"layers": [0, 3], "by_layer_and_head": {"recovered_mass": [[0.5, 0.7], [1.0, 1.0]]}}
    (folder / "recall.json").write_text(json.dumps({"found": found}))
    recorder = WandbRecorder(mode="offline")
    recorder.open(folder, {"samples": 2}, "f" * 64)
    recorder.sample(RECORD)
    recorder.summary(SUMMARY)
    recorder.close()
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    mirrored(file)
    read = rows(file)
    keys = {item.key or item.nested_key[0] for row in read for item in row.history.item}
    assert {"samples", "latency/ledger_chart_table", "recall/by_layer_chart_table"} <= keys
    media = [path.name for path in file.parent.rglob("*.table.json")]
    assert len(media) == 3
    logged = [row.request.log_artifact.artifact for row in read] + [row.artifact for row in read]
    kept = [each for each in logged if each.type == "summary"]
    assert [each.name for each in kept] == ["retroinfer-minference-0123456789"]
    (entry,) = kept[0].manifest.contents
    assert entry.path == "summary.json"
    staged = [each.local_path for one in logged for each in one.manifest.contents]
    assert all(Path(path).is_relative_to(folder) for path in staged if path), "moves with the run"


def test_the_mean_is_of_all_the_run_and_the_table_of_this_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    history: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **_: SimpleNamespace(log=history.append))
    recorder = WandbRecorder()
    for _ in range(2):
        earlier = [replace(RECORD, id="b", score=0.0), replace(RECORD, id="c", score=50.0)]
        recorder.open(tmp_path, {}, "f" * 64, earlier)
        recorder.sample(RECORD)
        assert history[-1]["sample/mean"] == 50.0
        assert recorder.live.records == [RECORD]


def test_a_server_that_is_not_there_costs_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longspan.record.wandb.server", lambda: "http://127.0.0.1:9")
    recorder = WandbRecorder(mode="online")
    with pytest.warns(UserWarning, match=r"127\.0\.0\.1:9 cannot be reached .* is whole"):
        recorder.open(tmp_path, {}, "a" * 64)
    recorder.sample(RECORD)
    recorder.summary(SUMMARY)
    recorder.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_a_broken_mirror_warns_and_lets_the_run_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def broken(**_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(wandb, "init", broken)
    recorder = WandbRecorder()
    with pytest.warns(UserWarning, match="no route to host; the results folder is whole"):
        recorder.open(tmp_path, {}, "f" * 64)
    recorder.sample(RECORD)
    recorder.summary(SUMMARY)
    recorder.close()


def test_an_unreachable_server_falls_back_to_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    modes = []
    init = wandb.init

    def recording(**options: Any) -> Any:
        modes.append(options["mode"])
        return init(**options)

    def no_login(**_: object) -> bool:
        return False

    monkeypatch.setattr("longspan.record.wandb.reach", lambda _: None)
    monkeypatch.setattr(wandb, "login", no_login)
    monkeypatch.setattr(wandb, "init", recording)
    recorder = WandbRecorder(mode="online", patience=1.0)
    with pytest.warns(UserWarning, match="no login"):
        recorder.open(tmp_path, {}, "f" * 64)
    assert modes == ["offline"]
    recorder.close()


def test_a_server_that_hangs_at_the_end_is_left_behind() -> None:
    class Hanging:
        def finish(self) -> None:
            time.sleep(30)

    recorder = WandbRecorder(patience=0.2)
    recorder.live.run = Hanging()
    begun = time.monotonic()
    recorder.close()
    assert time.monotonic() - begun < 5
    recorder.close()


def test_the_local_recorder_tells_nobody(tmp_path: Path) -> None:
    recorder = LocalRecorder()
    recorder.open(tmp_path, {}, "f")
    recorder.sample(RECORD)
    recorder.summary(SUMMARY)
    recorder.close()
    assert not list(tmp_path.iterdir())


def test_the_environment_is_about_the_machine() -> None:
    facts = environment()
    assert facts["hardware"]["cores"] >= 1
    assert facts["hardware"]["memory_bytes"] > 10**8
    assert facts["threads"]["torch"] >= 1
    assert facts["packages"]["longspan"]
    assert set(facts["kernels"]) >= {"native", "isa"}
    assert len(facts["source"]["commit"]) == 40
