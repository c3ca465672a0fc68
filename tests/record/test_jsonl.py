"""The samples file survives whatever happens to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.record.base import Busy
from longspan.record.files import plain, write_json
from longspan.record.jsonl import RunFolder, read_samples
from longspan.types import Record


def record(number: int, sample: int = 0) -> Record:
    return Record(
        id=f"é-{number}",
        sample=sample,
        prediction='two\nlines, a "quote" and ünïcode \u2028',
        references=("a", "b"),
        score=number * 10.0,
        prompt_tokens=5,
        new_tokens=2,
        finish="eos",
        seed=0,
        work={"exact_tokens": 3.0},
        meta={"depth": 0.5},
    )


def fill(path: Path, count: int) -> bytes:
    with RunFolder(path, "f") as folder:
        for number in range(count):
            folder.append(record(number))
    return (path / "samples.jsonl").read_bytes()


def test_records_come_back_as_they_went(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    with RunFolder(tmp_path, "f") as folder:
        assert folder.records == [record(0), record(1), record(2)]
        assert folder.done == {("é-0", 0), ("é-1", 0), ("é-2", 0)}


@given(cut=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_file_cut_anywhere_keeps_every_whole_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut")
    whole = fill(path, 4)
    cut %= len(whole) + 1
    (path / "samples.jsonl").write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n") + (whole[cut : cut + 1] == b"\n")  # only its end is missing
    with RunFolder(path, "f") as folder:
        assert len(folder.records) == kept
        for number in range(4):
            if (f"é-{number}", 0) not in folder.done:
                folder.append(record(number))
    assert (path / "samples.jsonl").read_bytes() == whole


def test_doubled_samples_count_once(tmp_path: Path) -> None:
    whole = fill(tmp_path, 2)
    (tmp_path / "samples.jsonl").write_bytes(whole + whole)
    with RunFolder(tmp_path, "f") as folder:
        assert len(folder.records) == 2
    assert (tmp_path / "samples.jsonl").read_bytes() == whole


def test_samples_of_another_fingerprint_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with pytest.raises(ValueError, match="holds samples of fingerprint 'f', this run is 'g'"):
        RunFolder(tmp_path, "g").__enter__()


def test_lines_that_are_no_sample_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b"{}\n" + fill(tmp_path, 1) + b'[1]\n"text"\n\xff\xfe\n')
    found = read_samples(path)
    assert (len(found.records), found.corrupt) == (1, [1, 3, 4, 5])


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, "f"),
        pytest.raises(Busy, match=f"process {os.getpid()} on .* is working here"),
    ):
        RunFolder(tmp_path, "f").__enter__()
    with RunFolder(tmp_path, "f"):
        pass


def test_the_hold_of_a_killed_process_is_void(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from longspan.record.jsonl import RunFolder; "
        "RunFolder(Path(sys.argv[1]), 'f').__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / "run.lock").read_text().startswith("process ")
    with RunFolder(tmp_path, "f") as folder:
        assert folder.records == []


WRONG = {
    "id": [[1], 5, None], "sample": ["0", True, 0.5], "score": [None, "high", float("nan"), [1]],
    "work": [[], {"exact_tokens": "x"}, {"exact_tokens": None}], "meta": ["x"], "references": ["a"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(n, each) for n in WRONG for each in WRONG[n]])
def test_a_line_with_a_value_that_no_sample_has_is_no_sample(
    tmp_path: Path, name: str, value: object
) -> None:
    path, whole = tmp_path / "samples.jsonl", fill(tmp_path, 3)
    row = {**json.loads(whole.splitlines()[0]), name: value}
    damaged = b"\n".join([json.dumps(row).encode(), *whole.splitlines()[1:], b""])
    for count in (1, 2):
        path.write_bytes(damaged)
        with RunFolder(tmp_path, "f") as folder:
            assert (folder.corrupt, len(folder.records)) == ([1], 2)
        assert (tmp_path / "samples.damaged.jsonl").read_bytes() == count * damaged
    assert path.read_bytes() == whole[whole.index(b"\n") + 1 :]


def test_numbers_that_json_cannot_write_become_null() -> None:
    import torch

    value = {"a": float("nan"), 1: [float("inf"), torch.tensor(2.0)], "t": (1, "x", None, True)}
    assert plain(value) == {"a": None, "1": [None, 2.0], "t": [1, "x", None, True]}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"n": 1})
    with pytest.raises(TypeError):
        write_json(path, {"n": object()})
    assert json.loads(path.read_text()) == {"n": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_error_and_not_a_lost_line(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with RunFolder(tmp_path, "f") as folder:
        assert folder._samples is not None
        real = folder._samples
        with open("/dev/full", "ab", buffering=0) as full:
            folder._samples = full
            with pytest.raises(OSError, match="No space left"):
                folder.append(record(1))
        folder._samples = real
        assert len(folder.records) == 1
