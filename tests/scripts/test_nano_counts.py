"""The trainer's counting sequences: right answers, lengths, and the shape of the evaluation."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from nano_counts import CWE_EXACT, FWE_EXACT, cwe_sequence, fwe_sequence
from nano_lists import DOTS, frequent_list
from nano_sequence import END, NO_ANSWER, PARTS, Material, Sequence
from nano_templates import Templates

from longspan.tasks.matching import substring_score
from longspan.tasks.ruler import Ruler
from longspan.tasks.ruler_generate import generate

if TYPE_CHECKING:
    from collections.abc import Callable

    from longspan.tasks.ruler_job import Row

MODEL = Path(__file__).parents[2] / "src/longspan/models/nano"
WRITERS = {"cwe": cwe_sequence, "fwe": fwe_sequence}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def material(tokenizer: Tokenizer) -> Material:
    from lm_eval.tasks.ruler import cwe_utils, fwe_utils

    cwe, fwe = (module.TEMPLATE.split("{context}") for module in (cwe_utils, fwe_utils))
    templates = Templates(
        needle="",
        noise="",
        headers={},
        questions={},
        vt_header="",
        vt_question="",
        cwe_header=cwe[0],
        cwe_question=cwe[1],
        fwe_header=fwe[0],
        fwe_question=fwe[1],
        cwe_words=tuple(sorted(cwe_utils.WORDS)),
    )
    eos = tokenizer.token_to_id("<eos>")
    return Material(lambda text: tokenizer.encode(text).ids, templates, ["End."], ([], []), eos, -5)


def answers(sequence: Sequence, decode: Callable[[list[int]], str]) -> dict[int, list[str]]:
    """Words by question, in order."""
    ids: dict[int, list[int]] = {}
    for token, answer in zip(sequence.ids, sequence.answers, strict=True):
        if answer != NO_ANSWER and answer % PARTS < END:
            ids.setdefault(answer, []).append(token)
    words: dict[int, list[str]] = {}
    for answer in sorted(ids):
        words.setdefault(answer // PARTS, []).append(decode(ids[answer]).strip())
    return words


def counted(task: str, text: str) -> Counter[str]:
    """Words of the text of one list."""
    pattern = r"\d+\. (\S+(?: (?!\d+\.)\S+)*)" if task == "cwe" else r"\S+"
    return Counter(re.findall(pattern, text))


def evaluation(task: str, ctx: int, tokenizer: Tokenizer) -> tuple[str, Row, Ruler]:
    ruler = Ruler(name=task)  # type: ignore[arg-type]
    job = ruler._job(ctx, 1, 3, 0)
    (row,) = generate(job, lambda text: len(tokenizer.encode(text).ids), lambda _done: None)
    return f"{row['input']} {row['prefix']}", row, ruler


def parts(task: str, prompt: str, material: Material) -> list[str]:
    """Texts of the lists; the wording around them must be the benchmark's."""
    wording = material.templates
    header, question = wording.cwe_header, wording.cwe_question
    if task == "fwe":
        header, question = wording.fwe_header, wording.fwe_question
    frame = re.escape(header) + r"((?:(?!\n).)+)" + re.escape(question)
    pattern = frame + r"1\. (?:(?!\n).)+ 10\. [^\n]+\n" + frame if task == "cwe" else frame
    match = re.fullmatch(pattern, prompt)
    assert match is not None, prompt
    return list(match.groups())


@pytest.mark.parametrize("ctx", [1024, 4096])
@pytest.mark.parametrize("task", ["cwe", "fwe"])
def test_the_exact_form_is_that_of_the_evaluation(
    task: str, ctx: int, material: Material, tokenizer: Tokenizer
) -> None:
    prompt, row, ruler = evaluation(task, ctx, tokenizer)
    sequence = WRITERS[task](material, ctx, exact=True)
    cut = next(n for n, answer in enumerate(sequence.answers) if answer != NO_ANSWER)
    written = tokenizer.decode(sequence.ids[:cut])
    theirs, ours = parts(task, prompt, material), parts(task, written, material)
    assert len(tokenizer.encode(prompt).ids) == pytest.approx(cut, rel=0.1)
    assert tokenizer.encode(written).ids == sequence.ids[:cut]
    for their, our in zip(theirs, ours, strict=True):
        assert their[: their.index(" ")] == "1." or task == "fwe"
        their_counts, our_counts = counted(task, their), counted(task, our)
        assert len(our_counts) == pytest.approx(len(their_counts), rel=0.15, abs=2)
        # The last rank that is asked for, the first that is not.
        for rank in (0, 2, 3, 9, 10) if task == "cwe" else (0, 1, 2, 3, 4):
            high, low = (sorted(each.values())[-1 - rank] for each in (their_counts, our_counts))
            assert low == (high if task == "cwe" else pytest.approx(high, rel=0.25, abs=1))
    (named,) = answers(sequence, tokenizer.decode).values()
    assert len(named) == len(row["outputs"])
    assert sequence.ids[-1] == material.eos
    assert not any(sequence.haystack)
    example = replace(ruler.example(row, 0, ctx), references=tuple(named))
    assert ruler.score(example, tokenizer.decode(sequence.ids[cut:])) == 100
    top = [word for word, _ in counted(task, ours[-1]).most_common(11) if word != DOTS]
    assert set(named) == set(top[: len(named)])


@pytest.mark.parametrize("length", [160, 600, 2000])
@pytest.mark.parametrize("task", ["cwe", "fwe"])
def test_easy_answers_are_the_most_frequent_words_of_their_list(
    task: str, length: int, material: Material, tokenizer: Tokenizer
) -> None:
    questions, asked = [], set()
    for _ in range(40):
        sequence = WRITERS[task](material, length, exact=False)
        assert 0.5 * length < len(sequence.ids) < 1.25 * length + 40
        found = answers(sequence, tokenizer.decode)
        pieces = tokenizer.decode(sequence.ids, skip_special_tokens=False).split("<eos>")
        assert len(pieces) == len(found) + 1
        questions.append(len(found))
        for number, named in found.items():
            header = getattr(material.templates, f"{task}_header").rstrip()
            listed = pieces[number].removeprefix(header)
            counts = counted(task, listed.strip("\n").split("\n")[0])
            del counts[DOTS]
            order = [word for word, _ in counts.most_common()]
            assert set(order[: len(named)]) == set(named)
            rest = counts[order[len(named)]]
            assert min(counts[word] for word in named) > rest
            if task == "fwe":
                values = [counts[word] for word in named]
                assert values == sorted(set(values), reverse=True)
            else:
                assert named == [word for word in counts if word in named]
            assert substring_score(" ".join(named), tuple(named), "all") == 100
            asked.add(len(named))
    assert len(asked) > 2
    assert max(questions) > 2 or length < 600


@pytest.mark.parametrize(("task", "smallest"), [("cwe", CWE_EXACT), ("fwe", FWE_EXACT)])
def test_the_smallest_exact_form_keeps_to_its_length(
    task: str, smallest: int, material: Material
) -> None:
    for _ in range(50):
        assert len(WRITERS[task](material, smallest, exact=True).ids) <= smallest
        first = frequent_list(material, FWE_EXACT - 50).counts[:4]
        assert first == sorted(set(first), reverse=True)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("task", ["cwe", "fwe"])
def test_writing_is_faster_than_training(task: str, exact: bool, material: Material) -> None:
    WRITERS[task](material, 4096, exact)
    begun, tokens = time.process_time(), 0
    while tokens < 40_000:
        tokens += len(WRITERS[task](material, 4096, exact).ids)
    assert tokens / (time.process_time() - begun) > 50_000
