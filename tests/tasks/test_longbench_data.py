"""LongBench: where its data is found, averages, and errors that name the row and the field."""

from __future__ import annotations

import json
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from real_world import DATA, CharTokenizer, record

from longspan.tasks.longbench import LongBench
from longspan.tasks.longbench_catalogue import CATEGORIES

if TYPE_CHECKING:
    from pathlib import Path

FILES = DATA / "longbench"
TOKENIZER = CharTokenizer()


def bench(dataset: str = "all", edition: Any = "v1", **more: Any) -> LongBench:
    return LongBench(dataset=dataset, edition=edition, **{"path": str(FILES), **more})


@pytest.mark.parametrize("where", ["folder", "parent", "zip", "zip in a folder", "file"])
def test_data_is_found(tmp_path: Path, where: str) -> None:
    path = {
        "folder": tmp_path / "data",
        "parent": tmp_path,
        "zip": tmp_path / "data.zip",
        "zip in a folder": tmp_path,
        "file": tmp_path / "mine.jsonl",
    }[where]
    if where == "file":
        shutil.copy(FILES / "hotpotqa.jsonl", path)
    elif "zip" in where:
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            archive.write(FILES / "hotpotqa.jsonl", "data/hotpotqa.jsonl")
    else:
        (tmp_path / "data").mkdir()
        shutil.copy(FILES / "hotpotqa.jsonl", tmp_path / "data")
    task = bench("hotpotqa", path=str(path))
    assert [e.prompt for e in task.examples(TOKENIZER, None, None, 0)] == [
        e.prompt for e in bench("hotpotqa").examples(TOKENIZER, None, None, 0)
    ]
    assert task.identity() == bench("hotpotqa").identity()


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(FILES / "hotpotqa.jsonl", "data/hotpotqa.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"?" * 50 + whole[150:])
    with pytest.raises(ValueError, match=r"task.path=.*data.zip: the zip is damaged"):
        bench("hotpotqa", path=str(path)).examples(TOKENIZER, None, None, 0)


def test_count_is_shared_out_and_only_grows() -> None:
    few = bench("mqa").examples(TOKENIZER, None, 6, 0)
    assert [e.meta["dataset"] for e in few] == [
        *("hotpotqa", "hotpotqa", "2wikimqa", "2wikimqa", "musique", "dureader")
    ]
    more = {e.id for e in bench("mqa").examples(TOKENIZER, None, 9, 0)}
    assert {e.id for e in few} < more
    assert len({e.id for e in bench().examples(TOKENIZER, None, None, 7)}) == 63


def test_groups_labels_and_skips() -> None:
    assert bench("sqa").datasets == CATEGORIES["sqa"]
    assert bench("sqa", skip=["multifieldqa_zh"]).datasets == CATEGORIES["sqa"][:3]
    assert bench("sqa", "e").datasets == ("qasper", "multifieldqa_en")
    labels = [bench().label, bench("sqa").label, bench("lcc", "e").label, bench("all", "e").label]
    assert labels == ["longbench", "longbench_sqa", "longbench_e_lcc", "longbench_e"]


def test_averages_are_macro() -> None:
    task = bench("all")
    examples = task.examples(TOKENIZER, None, None, 0)
    wanted = [e for e in examples if e.meta["dataset"] in ("hotpotqa", "musique", "passage_count")]
    records = []
    for example in wanted:
        name = example.meta["dataset"]
        text = {"hotpotqa": example.references[0], "musique": "no", "passage_count": "4"}[name]
        records.append(record(task, example, text))
    metrics = task.aggregate(records)
    assert metrics["dataset/hotpotqa"] == 100
    assert metrics["dataset/musique"] == 0
    assert metrics["category/mqa"] == 50
    assert metrics["category/st"] == 100
    assert metrics["overall"] == 75
    assert "overall_low" not in metrics  # every data set has one score only
    assert "bucket/0-4k" not in metrics
    assert metrics["cut"] == 0


def test_the_interval_is_that_of_stratified_sampling() -> None:
    task = bench("hotpotqa")
    examples = task.examples(TOKENIZER, None, None, 0)
    records = [record(task, e, t) for e, t in zip(examples, ["no", "no", ""], strict=True)]
    records[0] = record(task, examples[0], examples[0].references[0])
    metrics = task.aggregate(records)
    # Scores 100, 0, 0: variance of the mean = (20000/3) / 2 / 3.
    half = 4.3027 * (20000 / 3 / 2 / 3) ** 0.5
    assert metrics["overall"] == pytest.approx(100 / 3)
    assert metrics["overall_low"] == 0
    assert metrics["overall_high"] == min(100, 100 / 3 + half)
    one = task.aggregate(records[:1])
    assert one["overall"] == 100
    assert "overall_low" not in one


def test_e_is_bucketed_by_length() -> None:
    task = bench("all", "e")
    records = []
    for example in task.examples(TOKENIZER, None, None, 0):
        right = example.meta["length"] < 4000
        records.append(record(task, example, example.references[0] if right else ""))
    metrics = task.aggregate(records)
    assert metrics["bucket/0-4k"] == pytest.approx(100)
    assert metrics["bucket/4-8k"] == metrics["bucket/8k+"] == 0
    assert metrics["dataset/lcc/0-4k"] == 100
    assert metrics["overall"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": None}, r"line 2: field context is missing"),
        ({"input": 3}, r"line 2: field input \(or question\) must be text, found 3"),
        ({"answers": "Paragraph 2"}, r"line 2: field answers must be a list of texts"),
        ({"answers": []}, r"line 2: field answers"),
        ({"answers": ["", " "]}, r"line 2: field answers must not be blank, found \['', ' '\]"),
        ({"answers": ["2"]}, r"line 2: field answers must look like Paragraph"),
        ({"length": "many"}, r"line 2: field length must be a whole number"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    lines = (FILES / "passage_retrieval_en.jsonl").read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **change})
    path = tmp_path / "passage_retrieval_en.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        bench("passage_retrieval_en", path=str(path)).examples(TOKENIZER, None, None, 0)


def test_classification_needs_its_labels(tmp_path: Path) -> None:
    row = json.loads((FILES / "trec.jsonl").read_text().splitlines()[0])
    (tmp_path / "trec.jsonl").write_text(json.dumps({**row, "all_classes": None}))
    with pytest.raises(ValueError, match="line 1: field all_classes must be a list"):
        bench("trec", path=str(tmp_path)).examples(TOKENIZER, None, None, 0)


def test_one_file_is_one_data_set(tmp_path: Path) -> None:
    file = str(FILES / "hotpotqa.jsonl")
    message = r"task.path=.*hotpotqa.jsonl: one file for 4 data sets \(hotpotqa, 2wikimqa, "
    with pytest.raises(ValueError, match=message):
        bench("mqa", path=file).examples(TOKENIZER, None, None, 0)
    with pytest.raises(ValueError, match=r"line 1: field dataset is 'hotpotqa', but musique is"):
        bench("musique", path=file).examples(TOKENIZER, None, None, 0)
    row = json.loads((FILES / "hotpotqa.jsonl").read_text().splitlines()[0])
    mine = tmp_path / "mine.jsonl"
    for said in ("hotpotqa_e", None):
        mine.write_text(json.dumps(row | {"dataset": said}))
        assert len(bench("hotpotqa", "e", path=str(mine)).examples(TOKENIZER, None, None, 0)) == 1


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    line = (FILES / "lcc.jsonl").read_text().splitlines()[0]
    (tmp_path / "lcc.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(ValueError, match=r"two rows have the id lcc/[0-9a-f]+"):
        bench("lcc", path=str(tmp_path)).examples(TOKENIZER, None, None, 0)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "no such file or folder. Get data.zip"),
        (".", "has no hotpotqa.jsonl, data/hotpotqa.jsonl or data.zip"),
        ("empty.jsonl", "holds no rows"),
        ("broken.jsonl", r"broken.jsonl, line 2: not valid JSON"),
        ("list.jsonl", "line 1: an object is expected, found list"),
        ("other.txt", "must be a folder, a .zip or a .jsonl file"),
        ("no.zip", "the zip has no hotpotqa.jsonl"),
    ],
)
def test_missing_and_broken_files_are_named(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "broken.jsonl").write_text('{"a": 1}\n{"a": \n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "other.txt").write_text("x")
    zipfile.ZipFile(tmp_path / "no.zip", "w").close()
    with pytest.raises(ValueError, match=message):
        bench("hotpotqa", path=str(tmp_path / path)).examples(TOKENIZER, None, None, 0)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"task.dataset=hotpot: must be one of all, sqa"):
        bench("hotpot").examples(TOKENIZER, None, None, 0)
    with pytest.raises(ValueError, match=r"task.dataset=musique: must be one of"):
        bench("musique", "e").examples(TOKENIZER, None, None, 0)
    with pytest.raises(ValueError, match=r"task.skip=\['nq'\]: no such data set"):
        bench("sqa", skip=["nq"]).examples(TOKENIZER, None, None, 0)
    with pytest.raises(ValueError, match="leaves nothing of lcc"):
        bench("lcc", skip=["lcc"]).examples(TOKENIZER, None, None, 0)
