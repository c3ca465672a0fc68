"""RULER's 13 tasks equal lm-eval's functions, and the digests that both had when compared first."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from fake_questions import write_hotpot, write_squad
from stub_tokenizer import tokens

from longspan.tasks.ruler_generate import generate
from longspan.tasks.ruler_job import Job
from longspan.tasks.ruler_specs import SPECS, RulerName
from longspan.tasks.ruler_words import SortedPairs

CTX, SEED, COUNT = 4096, 42, 5
NAMES = get_args(RulerName)
GOLDEN: dict[RulerName, str] = {
    "niah_single_1": "987c6a9f8ff4f739",
    "niah_single_2": "f3cb22c2a0a45046",
    "niah_single_3": "214b05d350a3efd9",
    "niah_multikey_1": "7285ac930b4b8714",
    "niah_multikey_2": "202068ae0ccc63de",
    "niah_multikey_3": "8dc010050818fe78",
    "niah_multivalue": "d8e90aceb4fee8a1",
    "niah_multiquery": "fec633b39f30bf39",
    "vt": "7641a9688a40fb65",
    "cwe": "15cb70d77eb1a7cd",
    "fwe": "1970a1217074c907",
    "qa_1": "a8b34370a497afa7",
    "qa_2": "7f189e3ca182a769",
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    write_squad(folder / "squad.json")
    write_hotpot(folder / "hotpot.json")
    return folder


@pytest.fixture(scope="session")
def plain(folder: Path) -> Any:
    """What lm-eval makes by itself: in one child process, as its import costs 15 s and 1 GB."""
    request = {"ctx": CTX, "seed": SEED, "count": COUNT}
    request |= {name: str(folder / f"{name}.json") for name in ("squad", "hotpot")}
    script = Path(__file__).with_name("plain_lm_eval.py")
    done = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(request), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def rows(name: RulerName, folder: Path, count: int = COUNT, seed: int = SEED) -> list[Any]:
    spec = SPECS[name]
    job = Job(
        task=name,
        context_tokens=CTX,
        overhead_tokens=0,
        max_new_tokens=spec.max_new_tokens,
        count=count,
        seed=seed,
        haystack="synthetic" if spec.needs_essay else None,
        path=str(folder / f"{spec.kind}.json") if spec.needs_questions else None,
    )
    return generate(job, tokens, lambda _done: None)


def digest(made: list[Any]) -> str:
    text = json.dumps([[row["input"], row["outputs"], row["prefix"]] for row in made])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", NAMES)
def test_equals_lm_eval(name: RulerName, folder: Path, plain: Any) -> None:
    ours, theirs = rows(name, folder), plain["rows"][name]
    assert len(theirs) == COUNT
    for row, other in zip(ours, theirs, strict=True):
        assert row["input"] == other["input"]
        assert row["outputs"] == other["outputs"]
        assert row["prefix"] == other["gen_prefix"]


@pytest.mark.parametrize("name", NAMES)
def test_digest(name: RulerName, folder: Path) -> None:
    assert digest(rows(name, folder)) == GOLDEN[name]


def test_all_needle_keys_without_building_them(plain: Any) -> None:
    import wonderwords

    words = wonderwords.RandomWord()._categories
    pairs = SortedPairs(words["adjectives"], words["nouns"])
    assert hashlib.sha256("\n".join(pairs).encode()).hexdigest() == plain["words"]
