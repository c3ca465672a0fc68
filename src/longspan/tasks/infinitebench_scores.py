"""InfiniteBench's scores, by the rules of the authors' compute_scores.py.

They are lm-eval's functions but for three: its F1 drops English articles before the punctuation and
keeps Chinese quotation marks, its ROUGE stems words and reads all lines as one. That a name of
longdialogue_qa counts anywhere in the answer is the authors' rule since August 2024 (their issue
18); before, it had to be one of its words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longspan.tasks.longbench_catalogue import package_yaml
from longspan.tasks.longbench_metrics import answer_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

CHOICES: Final = ("code_debug", "longbook_choice_en")
"""Answered by the letter of one of four options."""
_F1: Final = ("longbook_qa_en", "longbook_qa_chn")


def infinitebench_score(
    dataset: str, prediction: str, references: Sequence[str], options: Sequence[str]
) -> float:
    """0..100, the best over the references; `options` are those of a data set of CHOICES."""
    if dataset in _F1:
        return 100 * max(_f1(dataset, prediction, reference) for reference in references)
    if dataset == "longbook_sum_en":
        return 100 * _rouge(prediction, references)
    prompt = package_yaml("infinitebench", f"infinitebench_{dataset}.yaml")
    function = str(prompt.get("process_results", "utils.process_results"))
    row = {"answer": list(references), "options": list(options)}
    return 100 * float(utility(function)(row, [prediction])["score"])


def check_scorable(datasets: Sequence[str]) -> None:
    """ValueError where a package that scores one of the data sets is missing."""
    if set(datasets) & set(_F1):
        answer_metrics()


def utility(name: str) -> Any:
    """A function of lm-eval's infinitebench/utils.py."""
    from lm_eval.tasks.infinitebench import utils

    return getattr(utils, name.removeprefix("utils."))


def _f1(dataset: str, prediction: str, reference: str) -> float:
    """Of words, in Chinese of characters, without punctuation."""
    metrics = answer_metrics()
    if dataset == "longbook_qa_en":
        return float(metrics.qa_f1_score(prediction, reference))
    texts = (prediction, reference)
    return float(metrics.f1_score(*(list(metrics.normalize_zh_answer(text)) for text in texts)))


def _rouge(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-Lsum over lines, words as they are written: what `evaluate` does by default."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeLsum"], use_stemmer=False)
    return float(scorer.score_multi(references, prediction)["rougeLsum"].fmeasure)
