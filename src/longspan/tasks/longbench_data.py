"""Where LongBench's rows come from: a folder, a zip, one .jsonl file, or a mirror on the hub."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from longspan.tasks.groups import check_data_set
from longspan.tasks.longbench_catalogue import METRIC
from longspan.tasks.matching import clean_answer
from longspan.tasks.rows import field, hub_rows, parse_rows, text_field

if TYPE_CHECKING:
    from longspan.tasks.rows import Row

HOW_TO_GET: Final = (
    "Get data.zip with `python scripts/get_data.py longbench --to DIR`, or by hand from "
    "huggingface.co/datasets/THUDM/LongBench, and set task.path=DIR/data.zip (or the folder it "
    "unpacks to)"
)
_HUB: Final = "Xnhyacinth/LongBench"
_RETRIEVED: Final = {"retrieval": r"Paragraph \d+", "retrieval_zh": r"段落\d+"}


@dataclass(frozen=True, slots=True)
class LongBenchRow:
    """One row, checked."""

    id: str
    document: str
    question: str
    answers: tuple[str, ...]
    length: int
    """In words (characters in Chinese), as LongBench counted; its buckets go by it."""
    classes: tuple[str, ...]


def read_dataset(path: str | None, name: str, dataset: str) -> list[LongBenchRow]:
    """The rows of one data set. `name` is the file's stem: `dataset`, or with `_e`.

    ValueError names what is missing, or the row and the field that are wrong.
    """
    if path is None:
        raw, where = hub_rows(_HUB, name, "test", HOW_TO_GET + "."), f"hub:{_HUB}"
    else:
        file, member = _locate(Path(path).expanduser(), name)
        where = f"task.path={file}" + (f":{member}" if member else "")
        try:
            raw = parse_rows(_content(file, member).decode("utf-8"), "jsonl", where)
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: not UTF-8 text ({error.reason})") from None
        if member is None and file.stem != name:
            check_data_set(raw, dataset)
    if not raw:
        raise ValueError(f"{where}: holds no rows")
    return [_checked(row, dataset, place) for place, row in raw]


def dataset_sha256(path: str | None, name: str) -> str:
    """What identifies the rows of one data set: its file's hash, in a zip or not."""
    if path is None:
        return f"hub:{_HUB}"
    file, member = _locate(Path(path).expanduser(), name)
    stat = file.stat()
    return _sha256(file, member, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _sha256(file: Path, member: str | None, changed_ns: int, size: int) -> str:
    return hashlib.sha256(_content(file, member)).hexdigest()


def _content(file: Path, member: str | None) -> bytes:
    if member is None:
        return file.read_bytes()
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"task.path={file}: the zip is damaged ({error}); download it again"
        ) from None


def _locate(path: Path, name: str) -> tuple[Path, str | None]:
    """The file, and where that is a zip the member of it."""
    wanted = f"{name}.jsonl"
    if path.is_dir():
        for found in (path / wanted, path / "data" / wanted):
            if found.is_file():
                return found, None
        if (path / "data.zip").is_file():
            return _locate(path / "data.zip", name)
        raise ValueError(
            f"task.path={path}: has no {wanted}, data/{wanted} or data.zip. {HOW_TO_GET}"
        )
    if not path.is_file():
        raise ValueError(f"task.path={path}: no such file or folder. {HOW_TO_GET}")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if Path(member).name == wanted]
        if not members:
            raise ValueError(f"task.path={path}: the zip has no {wanted}. {HOW_TO_GET}")
        return path, members[0]
    if path.suffix != ".jsonl":
        raise ValueError(
            f"task.path={path}: must be a folder, a .zip or a .jsonl file. {HOW_TO_GET}"
        )
    return path, None


def _checked(row: Row, dataset: str, where: str) -> LongBenchRow:
    answers = _answers(row, where)
    metric = METRIC[dataset]
    pattern = _RETRIEVED.get(metric)
    if pattern and not all(re.search(pattern, each) for each in answers):
        raise ValueError(f"{where}: field answers must look like {pattern}, found {answers!r:.60}")
    classes: Any = row.get("all_classes")
    if metric == "classification" and not (isinstance(classes, list) and classes):
        raise ValueError(f"{where}: field all_classes must be a list of labels for {dataset}")
    document = text_field(row, ["context"], where)
    # Some data sets have no question (summaries, lcc): an empty one, but the field is there.
    question = row.get("input", row.get("question"))
    if not isinstance(question, str):
        raise ValueError(f"{where}: field input (or question) must be text, found {question!r:.60}")
    identifier = row.get("_id") or hashlib.sha256((document + question).encode()).hexdigest()[:16]
    length = row.get("length")
    if not isinstance(length, int) or isinstance(length, bool):
        raise ValueError(f"{where}: field length must be a whole number, found {length!r:.60}")
    return LongBenchRow(
        str(identifier), document, question, tuple(answers), length, tuple(classes or ())
    )


def _answers(row: Row, where: str) -> list[str]:
    answers = field(row, ["answers"], where)
    if not isinstance(answers, list) or any(not isinstance(each, str) for each in answers):
        raise ValueError(f"{where}: field answers must be a list of texts, found {answers!r:.60}")
    if not any(map(clean_answer, answers)):  # a blank one beside others is never the best
        raise ValueError(f"{where}: field answers must not be blank, found {answers!r:.60}")
    return answers
