"""RULER's generators behind one signature: variable tracking here, the others beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, TypeAlias

from longspan.tasks.lengths import LengthOracle
from longspan.tasks.randomness import global_random
from longspan.tasks.ruler_job import SHORT_TOKENS, Job, Row
from longspan.tasks.ruler_words import replaced

Report: TypeAlias = Callable[[int], None]
Count: TypeAlias = Callable[[str], int]
Source: TypeAlias = Callable[[int, int, int, Report], list[Row]]
"""(limit on prompt and answer, seed, how many, report) -> rows; the caller seeds the global
generators.
"""


EXAMPLE_ANSWER_TOKENS = 30
"""What lm-eval leaves free behind the solved example of variable tracking."""


def source(job: Job, count: Count) -> Source:
    """The source for a job, its haystack or questions read."""
    from longspan.tasks import ruler_needles, ruler_questions, ruler_wordlists

    kinds = {
        "niah": ruler_needles.needles,
        "vt": variable_tracking,
        "cwe": ruler_wordlists.common_words,
        "fwe": ruler_wordlists.frequent_words,
        "squad": ruler_questions.questions,
        "hotpot": ruler_questions.questions,
    }
    return kinds[job.spec.kind](job, count)


def tokenizer_of(count: Count) -> Callable[[str], Any]:
    """What lm-eval takes for a tokenizer: it only asks `len(tokenizer(text).input_ids)`."""
    return lambda text: SimpleNamespace(input_ids=range(count(text)))


def ticking(report: Report) -> Callable[..., Iterator[Any]]:
    """Stands in for tqdm in lm-eval's modules: reports how many samples are done."""

    def tick(items: Iterable[Any], **_options: Any) -> Iterator[Any]:
        for done, item in enumerate(items):
            report(done)
            yield item

    return tick


def row_of(made: dict[str, Any]) -> Row:
    """Our row from lm-eval's."""
    return {
        "index": made["index"],
        "input": made["input"],
        "outputs": list(made["outputs"]),
        "prefix": made["gen_prefix"],
    }


def variable_tracking(job: Job, count: Count) -> Source:
    """Chains of assignments in noise, after one solved example."""
    from lm_eval.tasks.ruler import vt_utils as module

    def make(limit: int, _seed: int, number: int, report: Report) -> list[Row]:
        plain = tokenizer_of(count)
        with global_random():
            text, answer = module.generate_input_output(5, 1, 4, is_icl=True)
        # lm-eval would search without end for one that its 500 tokens do not hold, as with a
        # tokenizer of single letters.
        least = count(f"{text} {answer}") + EXAMPLE_ANSWER_TOKENS
        room = 500 if least <= 480 else _ample(least)
        with replaced(module, tqdm=ticking(lambda _done: None)):
            example = module.sys_vartrack_w_noise_random(plain, 1, room, incremental=5)[0]
        shown = count(f"{example['input']} {' '.join(example['outputs'])}\n\n")
        with global_random():
            smallest = count(module.generate_input_output(10, 1, 4)[0])
        # Nor would it find an end where no prompt is short enough.
        needed = shown + _ample(smallest) + job.max_new_tokens
        if needed > limit:
            raise job.too_short(job.context_tokens + needed - limit)
        oracle = LengthOracle(count, limit - job.max_new_tokens - shown)
        with replaced(module, tqdm=ticking(report)):
            made = module.sys_vartrack_w_noise_random(
                tokenizer_of(oracle),
                number,
                limit,
                icl_example=example,
                tokens_to_generate=job.max_new_tokens,
                incremental=5 if job.context_tokens < SHORT_TOKENS else 10,
            )
        return [row_of(each) for each in made]

    return make


def _ample(tokens: int) -> int:
    """For a text that is drawn anew, by the tokens of one such."""
    return round(1.1 * tokens) + 32
