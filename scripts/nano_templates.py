"""Read the wording of the benchmark from lm-eval at run time; nothing of it is written here."""

from __future__ import annotations

import contextlib
import io
import os
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Templates:
    """Wording by kind. A niah entry is keyed by (value type, is plural)."""

    needle: str
    """With fields type_needle_v, key, value."""
    noise: str
    headers: dict[tuple[str, bool], str]
    questions: dict[tuple[str, bool], str]
    """With field query; question, a blank, then the answer prefix."""
    vt_header: str
    vt_question: str
    """With fields query, num_v."""
    cwe_header: str
    cwe_question: str
    fwe_header: str
    fwe_question: str
    cwe_words: tuple[str, ...]
    """What the lists of common words are drawn from."""

    def sentences(self) -> list[str]:
        """All wording, for the tokenizer to learn."""
        texts = [self.needle, self.noise, self.vt_header, self.vt_question]
        texts += [self.cwe_header, self.cwe_question, self.fwe_header, self.fwe_question]
        return texts + list(self.headers.values()) + list(self.questions.values())


def _split_niah(module: Any, kind: str, plural: bool) -> tuple[str, str]:
    count = 2 if plural else 1
    row = module.generate_samples(
        module.get_haystack("repeat"),
        lambda text: SimpleNamespace(input_ids=text.split()),
        max_seq_length=700,
        type_haystack="repeat",
        type_needle_k="words",
        type_needle_v=kind,
        template=_niah_template(),
        num_needle_k=count,
        num_needle_q=count,
        num_samples=1,
    )[0]
    text = row["input"]
    query = row["gen_prefix"].split(" for ", 1)[1].split(" mentioned", 1)[0]
    question = (text[text.rindex("\n") + 1 :] + " " + row["gen_prefix"]).replace(query, "{query}")
    return text[: text.index("\n")], question


def _niah_template() -> str:
    from lm_eval.tasks.ruler import niah_utils

    return str(niah_utils.TEMPLATE)


def _load() -> Templates:
    # The import of lm-eval's niah module would try a download on rank 0.
    os.environ["LOCAL_RANK"] = "1"
    random.seed(-1)
    from lm_eval.tasks.ruler import cwe_utils, fwe_utils, prepare_niah, vt_utils

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pairs = {
            (kind, plural): _split_niah(prepare_niah, kind, plural)
            for kind in ("numbers", "uuids")
            for plural in (False, True)
        }
    split = [module.TEMPLATE.split("{context}") for module in (vt_utils, cwe_utils, fwe_utils)]
    return Templates(
        needle=prepare_niah.get_haystack("needle"),
        noise=prepare_niah.get_haystack("repeat"),
        headers={key: pair[0] for key, pair in pairs.items()},
        questions={key: pair[1] for key, pair in pairs.items()},
        vt_header=split[0][0],
        vt_question=split[0][1].rstrip(),
        cwe_header=split[1][0],
        cwe_question=split[1][1].rstrip(),
        fwe_header=split[2][0],
        fwe_question=split[2][1].rstrip(),
        cwe_words=tuple(sorted(cwe_utils.WORDS)),
    )


def load_templates() -> Templates:
    """Load in a child process: the import needs 15 s and 1 GB that training must not keep."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_load).result()
