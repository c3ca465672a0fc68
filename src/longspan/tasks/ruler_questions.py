"""RULER's question answering over a local SQuAD v2 or HotpotQA file (neither is shipped)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.tasks.files import read_json
from longspan.tasks.lengths import LengthOracle
from longspan.tasks.references import references
from longspan.tasks.ruler_job import SHORT_TOKENS
from longspan.tasks.ruler_words import replaced

if TYPE_CHECKING:
    from longspan.tasks.ruler_job import Job, Row
    from longspan.tasks.ruler_kinds import Count, Report, Source

HOW_TO_GET = {
    "squad": "SQuAD v2's dev-v2.0.json (rajpurkar.github.io/SQuAD-explorer)",
    "hotpot": "HotpotQA's hotpot_dev_distractor_v1.json (hotpotqa.github.io)",
}


class Documents(list[str]):
    """The documents; notes when lm-eval shuffles them in place, which it does when it has no more
    to add.
    """

    exhausted = False

    def __setitem__(self, index: Any, value: Any) -> None:
        self.exhausted = True


def questions(job: Job, count: Count) -> Source:
    """Questions in file order over their own and other documents."""
    from lm_eval.tasks.ruler import qa_utils as module

    from longspan.tasks.ruler_kinds import row_of, ticking, tokenizer_of

    assert job.path is not None, "the task has seen to it"
    texts, asked = read_questions(job.path, job.spec.kind)
    if job.count > len(asked):
        raise ValueError(
            f"samples={job.count}: task.data={job.path} has {len(asked)} answerable questions"
        )
    for number, each in enumerate(asked[: job.count]):
        references(each["outputs"], "answer", f"task.data={job.path}, question {number}")

    def make(limit: int, seed: int, number: int, report: Report) -> list[Row]:
        documents = Documents(texts)
        oracle = LengthOracle(count, limit - job.max_new_tokens)
        with replaced(module, tqdm=ticking(report), SEED=seed):
            made = module.generate_samples(
                tokenizer_of(oracle),
                documents,
                asked,
                max_seq_length=limit,
                num_samples=number,
                tokens_to_generate=job.max_new_tokens,
                incremental=1 if job.context_tokens < SHORT_TOKENS else 10,
            )
        if documents.exhausted:
            raise ValueError(
                f"ctx={job.context_tokens}: all {len(texts)} documents of task.data={job.path} "
                "fit; use a smaller ctx or a larger file"
            )
        return [row_of(each) for each in made]

    return make


def read_questions(path: str, kind: str) -> tuple[list[str], list[dict[str, Any]]]:
    """(documents, questions) in the form lm-eval's generator takes; raises ValueError naming the
    file.
    """
    content = read_json(path, "task.data")
    try:
        return _squad(content) if kind == "squad" else _hotpot(content)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"task.data={path}: not in the format of {HOW_TO_GET[kind]} ({reason})"
        ) from error


def _squad(content: Any) -> tuple[list[str], list[dict[str, Any]]]:
    articles = [article["paragraphs"] for article in content["data"]]
    texts = sorted({paragraph["context"] for article in articles for paragraph in article})
    number = {text: index for index, text in enumerate(texts)}
    asked = []
    for article in articles:
        siblings = [number[paragraph["context"]] for paragraph in article]
        for paragraph in article:
            own = number[paragraph["context"]]
            others = [index for index in siblings if index != own]
            asked += [
                {
                    "query": question["question"],
                    "outputs": [answer["text"] for answer in question["answers"]],
                    "context": [own],
                    "more_context": others,
                }
                for question in paragraph["qas"]
                if not question["is_impossible"]
            ]
    return texts, asked


def _hotpot(content: Any) -> tuple[list[str], list[dict[str, Any]]]:
    def text_of(title: str, sentences: list[str]) -> str:
        return f"{title}\n{''.join(sentences)}"

    texts = sorted({text_of(*page) for question in content for page in question["context"]})
    number = {text: index for index, text in enumerate(texts)}
    asked = [
        {
            "query": question["question"],
            "outputs": [question["answer"]],
            "context": [number[text_of(*page)] for page in question["context"]],
        }
        for question in content
    ]
    return texts, asked
