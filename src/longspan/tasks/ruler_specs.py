"""The 13 tasks of RULER as parameters of its generators (arXiv 2404.06654, appendix B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RulerName = Literal[
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
]


@dataclass(frozen=True, slots=True)
class Spec:
    """What one task asks of its generator."""

    kind: Literal["niah", "vt", "cwe", "fwe", "squad", "hotpot"]
    max_new_tokens: int
    match: Literal["all", "any"] = "all"
    haystack: Literal["repeat", "essay", "needle"] = "repeat"
    keys: Literal["words", "uuids"] = "words"
    values: Literal["numbers", "uuids"] = "numbers"
    num_keys: int = 1
    num_values: int = 1
    num_queries: int = 1

    @property
    def needs_essay(self) -> bool:
        """Whether the haystack is prose that the benchmark does not ship."""
        return self.kind == "niah" and self.haystack == "essay"

    @property
    def needs_questions(self) -> bool:
        """Whether the task is made from a question-answering file."""
        return self.kind in ("squad", "hotpot")


SPECS: dict[RulerName, Spec] = {
    "niah_single_1": Spec("niah", 128),
    "niah_single_2": Spec("niah", 128, haystack="essay"),
    "niah_single_3": Spec("niah", 128, haystack="essay", values="uuids"),
    "niah_multikey_1": Spec("niah", 128, haystack="essay", num_keys=4),
    "niah_multikey_2": Spec("niah", 128, haystack="needle"),
    "niah_multikey_3": Spec("niah", 128, haystack="needle", keys="uuids", values="uuids"),
    "niah_multivalue": Spec("niah", 128, haystack="essay", num_values=4),
    "niah_multiquery": Spec("niah", 128, haystack="essay", num_queries=4),
    "vt": Spec("vt", 30),
    "cwe": Spec("cwe", 120),
    "fwe": Spec("fwe", 50),
    "qa_1": Spec("squad", 32, match="any"),
    "qa_2": Spec("hotpot", 32, match="any"),
}
