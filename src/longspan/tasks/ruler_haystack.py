"""The prose that hides RULER's needles: our own, a file's, or the hub's; and where its sentences
end.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from longspan.tasks.files import read_json, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from longspan.tasks.ruler_job import Job, Splitter

_SPARE_WORDS = 1_000
"""lm-eval's search looks one step of 500 words beyond the context."""
_WINDOW_CHARS = 50_000
_TAIL_CHARS = 2_000
"""A sentence end further than this from the end of a text does not depend on what follows."""


def essay_words(job: Job) -> list[str]:
    """Enough words of the job's haystack to fill its context; a file's words repeat when they run
    out.
    """
    needed = job.context_tokens + _SPARE_WORDS
    if job.haystack == "synthetic":
        from longspan.tasks.haystack import synthetic_words

        return synthetic_words(job.seed, needed)
    words = _hub_words() if job.haystack == "hub" else re.split(r"\s+", essay_text(job.path))
    return words * (-(-needed // len(words)))


def _hub_words() -> list[str]:
    from longspan.tasks.ruler_words import import_prepare_niah

    try:
        return list(import_prepare_niah().get_haystack("essay"))
    except Exception as error:
        # datasets and huggingface_hub raise many kinds of errors without a network.
        raise ValueError(
            f"task.haystack=hub: the essays could not be fetched ({error}); use haystack=path "
            "with haystack_path=PaulGrahamEssays.json, or haystack=synthetic"
        ) from error


def essay_text(path: str | None) -> str:
    """The text of a .txt file, or of RULER's PaulGrahamEssays.json: {"text": ...}.

    Raises ValueError naming the field and the file.
    """
    if path is None:
        raise ValueError(
            "task.haystack_path=None: haystack=path needs a .txt file or PaulGrahamEssays.json"
        )
    if not path.endswith(".json"):
        text: object = read_text(path, "task.haystack_path")
    else:
        content = read_json(path, "task.haystack_path")
        text = content.get("text") if isinstance(content, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError(
            f"task.haystack_path={path}: no text in it; expected .txt or json with 'text'"
        )
    return text


def sentence_spans(text: str, splitter: Splitter) -> Iterator[tuple[int, int]]:
    """Start and end of every sentence, by Punkt: untrained (needs no data) or with nltk's English
    parameters.
    """
    from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTokenizer

    if splitter == "untrained":
        punkt: Any = PunktSentenceTokenizer()
    else:
        try:
            punkt = PunktTokenizer("english")
        except LookupError as error:
            raise ValueError(
                "task.splitter=punkt_tab: nltk's punkt_tab is not installed; run "
                "`python -m nltk.downloader punkt_tab` or use splitter=untrained"
            ) from error
    return iter(punkt.span_tokenize(text))


class PrefixSplitter:
    """Splits any prefix of one long text, which itself is split once and only as far as needed.

    By windows: nltk gives up on a text that takes it more than five seconds.
    """

    def __init__(self, words: Sequence[str], splitter: Splitter) -> None:
        self._text = " ".join(words).strip()
        self._splitter = splitter
        self._settled = 0
        self._starts: list[int] = []
        self._sentences: list[str] = []

    def __call__(self, text: str) -> list[str]:
        """The sentences of `text`, as if it had been split alone."""
        if not self._text.startswith(text):
            return self._alone(text)
        while self._settled < min(len(text), len(self._text)):
            self._extend(_WINDOW_CHARS)
        settled = max(bisect_right(self._starts, len(text) - _TAIL_CHARS) - 1, 0)
        start = self._starts[settled] if self._starts else 0
        return self._sentences[:settled] + self._alone(text[start:])

    def _extend(self, size: int) -> None:
        """Split the next `size` characters, or more where they hold no whole sentence."""
        window = self._text[self._settled : self._settled + size]
        last = self._settled + size >= len(self._text)
        spans = list(sentence_spans(window, self._splitter))
        kept = [span for span in spans if last or span[1] <= size - _TAIL_CHARS]
        if not kept and not last:
            return self._extend(2 * size)
        self._starts += [self._settled + start for start, _ in kept]
        self._sentences += [window[start:end] for start, end in kept]
        self._settled += len(window) if last else spans[len(kept)][0]
        return None

    def _alone(self, text: str) -> list[str]:
        return [text[start:end] for start, end in sentence_spans(text, self._splitter)]
