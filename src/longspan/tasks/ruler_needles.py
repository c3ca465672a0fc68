"""RULER's eight needle tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.tasks.haystack import haystack_sha256
from longspan.tasks.lengths import LengthOracle
from longspan.tasks.randomness import global_random
from longspan.tasks.ruler_haystack import PrefixSplitter, essay_words
from longspan.tasks.ruler_job import SHORT_TOKENS
from longspan.tasks.ruler_words import import_prepare_niah, replaced

if TYPE_CHECKING:
    from longspan.tasks.ruler_job import Job, Row
    from longspan.tasks.ruler_kinds import Count, Report, Source

_NEEDLE_SPREAD_TOKENS = 8
"""By how much the tokens of a key or a value may differ from sample to sample."""


def needles(job: Job, count: Count) -> Source:
    """Needles in noise, in other needles, or in prose."""
    from longspan.tasks.ruler_kinds import row_of, ticking, tokenizer_of

    module = import_prepare_niah()
    essay = job.spec.needs_essay
    haystack: Any = essay_words(job) if essay else module.get_haystack(job.spec.haystack)
    facts = {"haystack_sha256": haystack_sha256(haystack)} if essay else {}
    splitter = PrefixSplitter(haystack, job.splitter) if essay else module.cached_sent_tokenize

    def make(limit: int, seed: int, number: int, report: Report) -> list[Row]:
        room = limit - job.max_new_tokens
        options = _options(job, seed)
        with replaced(module, tqdm=ticking(report), cached_sent_tokenize=splitter):
            hay = haystack
            # Redrawn samples are not RULER's bytes anyway, and its search takes minutes at 1m.
            redrawn = limit < job.context_tokens - job.overhead_tokens
            if essay and (redrawn or job.context_tokens < SHORT_TOKENS):
                hay = _words_that_fit(module, job, haystack, options, count, room)
            made = module.generate_samples(
                hay,
                tokenizer_of(LengthOracle(count, room)),
                max_seq_length=limit,
                num_samples=number,
                tokens_to_generate=job.max_new_tokens,
                **options,
            )
        return [{**row_of(each), **facts} for each in made]

    return make


def _options(job: Job, seed: int) -> dict[str, Any]:
    """What lm-eval's functions for one sample and for many take alike."""
    from lm_eval.tasks.ruler import niah_utils

    spec = job.spec
    return {
        "type_haystack": spec.haystack,
        "type_needle_k": spec.keys,
        "type_needle_v": spec.values,
        "template": niah_utils.TEMPLATE,
        # As many keys as are asked for: generate_samples sees to it, its part does not.
        "num_needle_k": max(spec.num_keys, spec.num_queries),
        "num_needle_v": spec.num_values,
        "num_needle_q": spec.num_queries,
        "random_seed": seed,
    }


def _words_that_fit(
    module: Any, job: Job, words: list[str], options: dict[str, Any], count: Count, room: int
) -> list[str]:
    """Prose for a prompt, cut to the word: lm-eval's steps of 500 words would leave it half
    empty.

    It then takes the whole haystack, as with any that is shorter than the context.
    """
    pieces = 2 * options["num_needle_k"] * options["num_needle_v"] + 2 * options["num_needle_q"]
    room -= _NEEDLE_SPREAD_TOKENS * pieces

    def fits(number: int) -> bool:
        with global_random():
            text, answers, _ = module.generate_input_output(number, words, **options)
        return count(f"{text} {' '.join(answers)}") <= room

    low, high = 0, len(words)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if low < 2 * options["num_needle_k"] * options["num_needle_v"]:
        raise job.too_short(job.context_tokens + 100)
    return words[:low]
