"""RULER's aggregation tasks: common words (repaired) and frequent coded words."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from longspan.tasks.lengths import LengthOracle
from longspan.tasks.ruler_words import replaced

if TYPE_CHECKING:
    from longspan.tasks.ruler_job import Job, Row
    from longspan.tasks.ruler_kinds import Count, Report, Source

STEP_WORDS = 10
"""RULER sizes the list in steps of ten words."""
_TRIES = 100


def common_words(job: Job, count: Count) -> Source:
    """The most common words of a numbered list, after one solved example.

    lm-eval leaves the example out of the prompt and out of its length, and lets one shuffle depend
    on the ones before. Here the example is in both and every list is shuffled afresh with the seed,
    as RULER does.
    """
    from lm_eval.tasks.ruler import cwe_utils as module

    def make(limit: int, seed: int, number: int, report: Report) -> list[Row]:
        room = limit - job.max_new_tokens
        words = sorted(module.WORDS)
        random.Random(seed).shuffle(words)
        shuffler = SimpleNamespace(shuffle=lambda items: random.Random(seed).shuffle(items))
        with replaced(module, WORDS=words, RNG=shuffler):
            size = _words_that_fit(module, job, LengthOracle(count, room), room)
            rows = []
            for index in range(number):
                report(index)
                rows.append(_common_row(module, job, index, size, count, room))
        return rows

    return make


def _common_prompt(module: Any, job: Job, size: int) -> tuple[str, list[str]]:
    example, text, answer = module.generate_input_output(size, job.context_tokens)
    return f"{example}\n{text}", answer


def _words_that_fit(module: Any, job: Job, count: Count, room: int) -> int:
    """RULER's search: as many words as leave the prompt with its answer in `room` tokens."""
    size, tokens = STEP_WORDS, 0
    while tokens < room:
        prompt, answer = _common_prompt(module, job, size)
        listed = " ".join(f"{i + 1}. {word}" for i, word in enumerate(answer))
        tokens = count(f"{prompt} {listed}")
        if tokens > room:
            size -= STEP_WORDS
            break
        size += STEP_WORDS
        if size > len(module.WORDS):
            return len(module.WORDS)
    if size < STEP_WORDS:
        raise job.too_short(job.context_tokens + tokens - room + 100)
    return size


def _common_row(module: Any, job: Job, index: int, size: int, count: Count, room: int) -> Row:
    for _ in range(_TRIES):
        prompt, answer = _common_prompt(module, job, size)
        if count(prompt) <= room:
            break
        if size > STEP_WORDS:
            size -= STEP_WORDS
    prefix = module.CONFIG["answer_prefix"]
    return {
        "index": index,
        "input": prompt[: prompt.rindex(prefix)].strip(),
        "outputs": answer,
        "prefix": prefix.strip(),
    }


def frequent_words(job: Job, count: Count) -> Source:
    """The three most frequent coded words.

    lm-eval does not keep room for the answer; called with the room that is left, it gives the bytes
    of RULER's main branch.
    """
    from lm_eval.tasks.ruler import fwe_utils as module

    from longspan.tasks.ruler_kinds import row_of, ticking, tokenizer_of

    def make(limit: int, seed: int, number: int, report: Report) -> list[Row]:
        room = limit - job.max_new_tokens
        smallest = 2 * count(module.TEMPLATE) + 100
        if smallest > room:
            raise job.too_short(job.context_tokens + smallest - room)
        with replaced(module, tqdm=ticking(report), SEED=seed):
            tokenizer = tokenizer_of(LengthOracle(count, room))
            made = module.sys_kwext(tokenizer, room, num_samples=number)
        return [row_of(each) for each in made]

    return make
