"""LongBench's nine metrics by THUDM's rules: the best over the references; only the first line of
few-shot answers; code compared by difflib.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from difflib import SequenceMatcher
from functools import cache
from typing import TYPE_CHECKING, Any

from longspan.tasks.longbench_catalogue import FIRST_LINE, METRIC

if TYPE_CHECKING:
    from collections.abc import Sequence


def longbench_score(
    dataset: str, prediction: str, references: Sequence[str], classes: Sequence[str]
) -> float:
    """0..100; `classes` are all labels of a classification data set."""
    if dataset in FIRST_LINE:
        prediction = prediction.lstrip("\n").split("\n")[0]
    metric = METRIC[dataset]
    if metric == "code_sim":
        return 100 * max(code_similarity(prediction, reference) for reference in references)
    score = getattr(plain_metrics(), f"{metric}_score")
    with warnings.catch_warnings():
        # A SyntaxWarning or two of jieba's at its first use.
        warnings.simplefilter("ignore")
        scores = [score(prediction, reference, all_classes=classes) for reference in references]
    return 100 * float(max(0.0, *scores))


def code_similarity(prediction: str, reference: str) -> float:
    """0..1: difflib's ratio, rounded to a percent, of the first line that is no comment and no
    fence; leading newlines are dropped, a blank line among others counts as code.
    """
    code = ""
    for line in prediction.lstrip("\n").split("\n"):
        if not any(mark in line for mark in ("`", "#", "//")):
            code = line
            break
    if code == reference:
        return 1.0
    if not code or not reference:
        return 0.0
    return round(100 * SequenceMatcher(None, code, reference).ratio()) / 100


@cache
def plain_metrics() -> Any:
    """See answer_metrics. ValueError also where python-Levenshtein would change how it measures
    code.
    """
    if importlib.util.find_spec("Levenshtein") and importlib.util.find_spec("fuzzywuzzy"):
        raise ValueError(
            "python-Levenshtein is installed beside fuzzywuzzy, which then measures code by "
            "another algorithm, up to tens of points off LongBench's: "
            "pip uninstall Levenshtein python-Levenshtein"
        )
    return answer_metrics()


def answer_metrics() -> Any:
    """lm-eval's module of LongBench's metrics. ValueError where it or what it needs is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fuzzywuzzy recommends python-Levenshtein
            from lm_eval.tasks.longbench import metrics
    except ImportError as error:
        raise ValueError(
            f"scoring needs lm-eval's metrics of LongBench ({error}): pip install 'longspan[eval]'"
        ) from None
    logging.getLogger("jieba").setLevel(logging.WARNING)  # it tells of its dictionary's loading
    return metrics
