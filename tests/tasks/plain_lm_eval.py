"""lm-eval's RULER functions as they are, in a process of their own: what our driver must reproduce.

Reads {"ctx", "seed", "count", "squad", "hotpot"} from stdin and writes {"rows": {task: rows},
"words": digest of all keys} to stdout. Nothing of longspan is imported but the prose.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

os.environ["LOCAL_RANK"] = "1"  # no download attempt

NIAH: dict[str, dict[str, Any]] = {
    "niah_single_1": {"hay": "repeat"},
    "niah_single_2": {"hay": "essay"},
    "niah_single_3": {"hay": "essay", "v": "uuids"},
    "niah_multikey_1": {"hay": "essay", "num_needle_k": 4},
    "niah_multikey_2": {"hay": "needle"},
    "niah_multikey_3": {"hay": "needle", "k": "uuids", "v": "uuids"},
    "niah_multivalue": {"hay": "essay", "num_needle_v": 4},
    "niah_multiquery": {"hay": "essay", "num_needle_q": 4},
}


def tokenizer(text: str) -> Any:
    return SimpleNamespace(input_ids=text.split())


def niah(name: str, ctx: int, seed: int, count: int) -> list[dict[str, Any]]:
    from lm_eval.tasks.ruler import niah_utils, prepare_niah
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    from longspan.tasks.haystack import synthetic_words

    prepare_niah.sent_tokenize = PunktSentenceTokenizer().tokenize
    options = dict(NIAH[name])
    kind = options.pop("hay")
    haystack = (
        synthetic_words(seed, ctx + 1000) if kind == "essay" else prepare_niah.get_haystack(kind)
    )
    return list(
        prepare_niah.generate_samples(
            haystack,
            tokenizer,
            max_seq_length=ctx,
            type_haystack=kind,
            type_needle_k=options.pop("k", "words"),
            type_needle_v=options.pop("v", "numbers"),
            template=niah_utils.TEMPLATE,
            num_samples=count,
            random_seed=seed,
            **options,
        )
    )


def vt(ctx: int, count: int) -> list[dict[str, Any]]:
    from lm_eval.tasks.ruler.vt_utils import sys_vartrack_w_noise_random as generate

    example = generate(tokenizer, 1, 500, incremental=5)[0]
    return list(generate(tokenizer, count, ctx, icl_example=example))


def cwe(ctx: int, seed: int, count: int) -> list[dict[str, Any]]:
    """lm-eval's own loops, made to see the prompt with its example, and fresh shuffles."""
    from lm_eval.tasks.ruler import cwe_utils as module

    plain = module.generate_input_output

    def whole(number: int, length: int) -> tuple[str, str, list[str]]:
        example, text, answer = plain(number, length)
        return "", f"{example}\n{text}", answer

    module.WORDS = sorted(module.WORDS)
    random.Random(seed).shuffle(module.WORDS)
    module.RNG = SimpleNamespace(shuffle=lambda items: random.Random(seed).shuffle(items))
    module.generate_input_output = whole
    return list(module.sys_word_pair_random(count, ctx, tokenizer))


def fwe(ctx: int, seed: int, count: int) -> list[dict[str, Any]]:
    from lm_eval.tasks.ruler import fwe_utils as module

    module.SEED = seed
    return list(module.sys_kwext(tokenizer, ctx - 50, num_samples=count))


def questions(path: str, read: str, ctx: int, seed: int, count: int) -> list[dict[str, Any]]:
    from lm_eval.tasks.ruler import qa_utils as module

    with open(path) as stream:
        content = json.load(stream)
    module.download_json = lambda _url: content
    module.SEED = seed
    asked, documents = getattr(module, read)()
    return list(module.generate_samples(tokenizer, documents, asked, ctx, num_samples=count))


def main() -> None:
    request = json.load(sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr  # lm-eval prints
    ctx, seed, count = request["ctx"], request["seed"], request["count"]
    makers: dict[str, Any] = {
        name: (lambda name=name: niah(name, ctx, seed, count)) for name in NIAH
    }
    makers |= {
        "vt": lambda: vt(ctx, count),
        "cwe": lambda: cwe(ctx, seed, count),
        "fwe": lambda: fwe(ctx, seed, count),
        "qa_1": lambda: questions(request["squad"], "read_squad", ctx, seed, count),
        "qa_2": lambda: questions(request["hotpot"], "read_hotpotqa", ctx, seed, count),
    }
    rows = {}
    for name, make in makers.items():
        random.seed(seed)
        np.random.seed(seed)
        rows[name] = make()
    from lm_eval.tasks.ruler import prepare_niah

    digest = hashlib.sha256("\n".join(prepare_niah.WORDS).encode()).hexdigest()
    json.dump({"rows": rows, "words": digest}, answers)


if __name__ == "__main__":
    main()
