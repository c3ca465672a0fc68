"""Score a model folder on RULER's synthetic tasks with full attention, greedily.

    python scripts/eval_nano.py --model src/longspan/models/nano --ctx 1024,4096 --count 50

Prints one line a task and length and appends it to `--out`. Prose tasks use the synthetic haystack.
qa_1 and qa_2 need a file of questions and are not run here. Evaluation seeds are >= 0.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

NIAH: Final[dict[str, dict[str, Any]]] = {
    "niah_single_1": {"type_haystack": "repeat"},
    "niah_single_2": {"type_haystack": "essay"},
    "niah_single_3": {"type_haystack": "essay", "type_needle_v": "uuids"},
    "niah_multikey_1": {"type_haystack": "essay", "num_needle_k": 4},
    "niah_multikey_2": {"type_haystack": "needle"},
    "niah_multikey_3": {
        "type_haystack": "needle",
        "type_needle_k": "uuids",
        "type_needle_v": "uuids",
    },
    "niah_multivalue": {"type_haystack": "essay", "num_needle_v": 4},
    "niah_multiquery": {"type_haystack": "essay", "num_needle_q": 4},
}
NEW_TOKENS: Final = {"vt": 30, "cwe": 120, "fwe": 50}
TASKS: Final = (*NIAH, "vt", "cwe", "fwe")


def make_samples(task: str, ctx: int, count: int, seed: int, folder: str) -> list[dict[str, Any]]:
    """Rows {input, outputs, gen_prefix} by the benchmark's own generators; run in a child."""
    import contextlib
    import io
    import os
    import random
    from types import SimpleNamespace

    import numpy as np
    from tokenizers import Tokenizer

    os.environ["LOCAL_RANK"] = "1"
    backend = Tokenizer.from_file(f"{folder}/tokenizer.json")
    count_tokens = lambda text: SimpleNamespace(input_ids=backend.encode(text).ids)  # noqa: E731
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - lm-eval draws from the global state
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if task in NIAH:
            return _niah(task, ctx, count, count_tokens)
        from lm_eval.tasks.ruler import cwe_utils, fwe_utils, vt_utils

        if task == "fwe":
            rows: list[dict[str, Any]] = fwe_utils.sys_kwext(
                tokenizer=count_tokens, max_seq_length=ctx - 50, num_samples=count
            )
            return rows
        if task == "cwe":
            return _cwe(cwe_utils, ctx, count, count_tokens)
        call = {"tokenizer": count_tokens}
        example = vt_utils.sys_vartrack_w_noise_random(
            **call, num_samples=1, max_seq_length=500, incremental=5
        )[0]
        return vt_utils.sys_vartrack_w_noise_random(
            **call, num_samples=count, max_seq_length=ctx, icl_example=example
        )


def _niah(task: str, ctx: int, count: int, count_tokens: Any) -> list[dict[str, Any]]:
    from lm_eval.tasks.ruler import niah_utils, prepare_niah
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    from longspan.tasks.haystack import synthetic_words

    prepare_niah.cached_sent_tokenize = PunktSentenceTokenizer().tokenize
    settings = {"type_needle_k": "words", "type_needle_v": "numbers", **NIAH[task]}
    kind = settings["type_haystack"]
    hay = synthetic_words(0, 2 * ctx) if kind == "essay" else prepare_niah.get_haystack(kind)
    rows: list[dict[str, Any]] = prepare_niah.generate_samples(
        hay,
        count_tokens,
        max_seq_length=ctx,
        template=niah_utils.TEMPLATE,
        num_samples=count,
        **settings,
    )
    return rows


def _cwe(module: Any, ctx: int, count: int, count_tokens: Any) -> list[dict[str, Any]]:
    """Sized with the one-shot example that the benchmark puts in front."""

    def build(words: int) -> tuple[str, list[str]]:
        example, text, answer = module.generate_input_output(words, ctx)
        return example + "\n" + text, answer

    words = 10
    while len(count_tokens(build(words + 10)[0]).input_ids) + 120 <= ctx:
        words += 10
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        text, answer = build(words)
        if len(count_tokens(text).input_ids) + 120 > ctx:
            continue
        prefix = module.CONFIG["answer_prefix"]
        cut = text.rindex(prefix)
        rows.append({"input": text[:cut], "gen_prefix": prefix.strip(), "outputs": answer})
    return rows


def score(text: str, references: list[str]) -> float:
    """Share of the references found in the text."""
    lowered = text.lower()
    return sum(str(reference).lower() in lowered for reference in references) / len(references)


def answers(model: Any, tokenizer: Any, row: dict[str, Any], new_tokens: int) -> tuple[str, int]:
    """Greedy answer and length of the prompt in tokens."""
    import torch

    text = row["input"].rstrip() + " " + row["gen_prefix"]
    ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
        )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True), ids.shape[1]


def evaluate(
    model: Any, tokenizer: Any, task: str, rows: list[dict[str, Any]], show: int
) -> dict[str, Any]:
    """Mean score in percent, half a 95% interval, longest prompt, seconds a sample."""
    scores, longest, begun = [], 0, time.monotonic()
    for index, row in enumerate(rows):
        answer, length = answers(model, tokenizer, row, NEW_TOKENS.get(task, 128))
        scores.append(score(answer, row["outputs"]))
        longest = max(longest, length)
        if index < show:
            print(repr(answer[:160]), row["outputs"])
    mean = sum(scores) / len(scores)
    spread = math.sqrt(sum((value - mean) ** 2 for value in scores) / len(scores))
    return {
        "count": len(scores),
        "score": round(100 * mean, 2),
        "error": round(196 * spread / math.sqrt(len(scores)), 2),
        "longest": longest,
        "seconds": round((time.monotonic() - begun) / len(scores), 2),
    }


def main() -> None:
    """Evaluate every task at every length."""
    parser = argparse.ArgumentParser(description="Score a model folder on RULER's tasks.")
    parser.add_argument("--model", default="src/longspan/models/nano")
    parser.add_argument("--ctx", default="1024,2048,4096")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/nano/eval.jsonl"))
    parser.add_argument("--show", type=int, default=0, help="print this many answers a task")
    options = parser.parse_args()
    if options.seed < 0:
        raise SystemExit(f"seed={options.seed}: evaluation seeds are 0 or more")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).eval()
    if torch.cuda.is_available():
        model.to("cuda")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for ctx in (int(item) for item in options.ctx.split(",")):
            for task in options.tasks.split(","):
                request = (task, ctx, options.count, options.seed, options.model)
                rows = pool.submit(make_samples, *request).result()
                line = {"task": task, "ctx": ctx}
                line |= evaluate(model, tokenizer, task, rows, options.show)
                print(json.dumps(line), flush=True)
                with options.out.open("a") as log:
                    log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
