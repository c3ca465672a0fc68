"""RULER's generators behind one signature: needles and variable tracking here, the others
beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, TypeAlias

from longspan.tasks.lengths import LengthOracle
from longspan.tasks.randomness import global_random
from longspan.tasks.ruler_job import Job, Row
from longspan.tasks.ruler_words import import_prepare_niah, replaced

Report: TypeAlias = Callable[[int], None]
Count: TypeAlias = Callable[[str], int]
Source: TypeAlias = Callable[[int, int, int, Report], list[Row]]
"""(limit on prompt and answer, seed, how many, report) -> rows; the caller seeds the global
generators.
"""


def source(job: Job, count: Count) -> Source:
    """The source for a job, its haystack or questions read."""
    from longspan.tasks import ruler_questions, ruler_wordlists

    kinds = {
        "niah": needles,
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


def needles(job: Job, count: Count) -> Source:
    """Needles in noise, in other needles, or in prose."""
    from longspan.tasks.haystack import haystack_sha256
    from longspan.tasks.ruler_haystack import PrefixSplitter, essay_words

    module = import_prepare_niah()
    from lm_eval.tasks.ruler import niah_utils

    spec = job.spec
    haystack: Any = module.get_haystack(spec.haystack) if not spec.needs_essay else essay_words(job)
    patches: dict[str, Any] = {}
    facts: dict[str, str] = {}
    if spec.needs_essay:
        facts["haystack_sha256"] = haystack_sha256(haystack)
        patches["cached_sent_tokenize"] = PrefixSplitter(haystack, job.splitter)

    def make(limit: int, seed: int, number: int, report: Report) -> list[Row]:
        oracle = LengthOracle(count, limit - job.max_new_tokens)
        with replaced(module, tqdm=ticking(report), **patches):
            made = module.generate_samples(
                haystack,
                tokenizer_of(oracle),
                max_seq_length=limit,
                type_haystack=spec.haystack,
                type_needle_k=spec.keys,
                type_needle_v=spec.values,
                template=niah_utils.TEMPLATE,
                num_samples=number,
                tokens_to_generate=job.max_new_tokens,
                num_needle_k=spec.num_keys,
                num_needle_v=spec.num_values,
                num_needle_q=spec.num_queries,
                random_seed=seed,
            )
        return [{**row_of(each), **facts} for each in made]

    return make


def variable_tracking(job: Job, count: Count) -> Source:
    """Chains of assignments in noise, after one solved example."""
    from lm_eval.tasks.ruler import vt_utils as module

    def make(limit: int, _seed: int, number: int, report: Report) -> list[Row]:
        plain = tokenizer_of(count)
        with replaced(module, tqdm=ticking(lambda _done: None)):
            example = module.sys_vartrack_w_noise_random(plain, 1, 500, incremental=5)[0]
        shown = count(f"{example['input']} {' '.join(example['outputs'])}\n\n")
        with global_random():
            smallest = count(module.generate_input_output(10, 1, 4)[0])
        # lm-eval would search without end for a prompt that is short enough.
        needed = shown + round(1.1 * smallest) + 32 + job.max_new_tokens
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
            )
        return [row_of(each) for each in made]

    return make
