"""RULER's words for one needle, from lm-eval at run time."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING

from longspan.tasks.randomness import global_random
from longspan.tasks.ruler_kinds import ticking
from longspan.tasks.ruler_words import import_prepare_niah, replaced

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Wording:
    """Texts in which `{key}` and, in the needle, `{value}` are to be filled in."""

    introduction: str
    needle: str
    question: str
    prefix: str
    """The answer's beginning."""
    keys: Sequence[str]


@cache
def ruler_wording() -> Wording:
    """Of a needle whose key is words and whose value is a number."""
    module = import_prepare_niah()  # first: imported by lm-eval itself it tries a download
    from lm_eval.tasks.ruler import niah_utils

    silent = ticking(lambda _done: None)
    with global_random(0), redirect_stdout(io.StringIO()), replaced(module, tqdm=silent):
        (row,) = module.generate_samples(
            module.get_haystack("repeat"),
            lambda text: SimpleNamespace(input_ids=text.split()),
            max_seq_length=400,
            type_haystack="repeat",
            type_needle_k="words",
            type_needle_v="numbers",
            template=niah_utils.TEMPLATE,
            num_samples=1,
        )
    text, (value,) = row["input"], row["outputs"]
    pattern = re.escape(module.NEEDLE)
    for field, shape in (("type_needle_v", r"\w+"), ("key", r"(?P<key>\S+)"), ("value", value)):
        pattern = pattern.replace(re.escape(f"{{{field}}}"), shape)
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError("lm-eval's needle is not in its sample; another release of it is needed")
    key, lines = found["key"], text.split("\n")
    return Wording(
        introduction=f"{lines[0]}\n",
        needle=found[0].replace(key, "{key}").replace(value, "{value}"),
        question=lines[-1].replace(key, "{key}"),
        prefix=row["gen_prefix"].replace(key, "{key}"),
        keys=module.WORDS,
    )
