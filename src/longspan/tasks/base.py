"""What a task is: examples and scores. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from longspan.types import Example, Record

BORDER = "\ue000"
"""A private-use character that marks a place while a template is rendered; no model reads it."""


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that tasks use: `tokenizer(text).input_ids`; hashable
    by `fingerprint`. Where prompts go into a chat template, it has `chat_template`.
    """

    def __call__(self, text: str, *, add_special_tokens: bool = ...) -> Any:
        """An object with `input_ids`."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = ...) -> str:
        """The text of token ids."""


def rendered(tokenizer: Tokenizer, prompt: str) -> str:
    """`prompt` as the user's turn in the tokenizer's `chat_template`, up to where the answer
    begins: what models read, and what tasks measure. Models set `template_options`, such as
    enable_thinking, where the template is to know more.
    """
    apply: Any = tokenizer.apply_chat_template  # type: ignore[attr-defined]
    turns = [{"role": "user", "content": prompt}]
    options = getattr(tokenizer, "template_options", {})
    return str(apply(turns, tokenize=False, add_generation_prompt=True, **options))


def taken(examples: Iterable[Example], label: str) -> Sequence[Example]:
    """A task's examples, as many as they are asked for; ValueError for one that its own record,
    which holds JSON, would not be told to be of.
    """
    kept, seen = list(examples), set[str]()
    for each in kept:
        if not isinstance(each.id, str) or each.id in seen:
            raise ValueError(
                f"task: {label} has an example of the id {each.id!r}; right would be a text, and "
                "another for each example"
            )
        answers = each.references
        if not isinstance(answers, tuple) or not all(isinstance(text, str) for text in answers):
            raise ValueError(
                f"task: {label} has references = {answers!r:.60} in example {each.id}; right would "
                "be a tuple of texts"
            )
        seen.add(each.id)
    return kept


class Task(ABC):
    """The settings of a task; subclasses are `@settings` classes, registered by a yaml in
    conf/task.
    """

    version: ClassVar[int]
    """Rises when the data, the prompt or the score changes."""
    private: ClassVar[bool] = False
    """Whether its licence forbids to show or store its texts: nothing may print or log a prompt or
    an answer, records keep `stored`, and the token ids of an unfinished answer, which a killed run
    needs to go on, are removed from the disk as soon as it is recorded.
    """

    chooses: ClassVar[tuple[str, ...]] = ()
    """Settings that choose among the examples and their answers, or sum them up, and change no
    sample: they are not part of the fingerprint, so that shards can be put together.
    """

    @property
    def label(self) -> str:
        """The task's name in tables and folders; tells when the data is not the benchmark's own."""
        raise NotImplementedError(f"{type(self).__name__} must define label")

    @property
    def default_context_tokens(self) -> int | None:
        """The context where the user names none; None where the data decides."""
        return None

    @property
    def samples_per_example(self) -> int:
        """How often one example is answered (n_sampling); an answer is the same among how many."""
        return 1

    @abstractmethod
    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """`count` examples whose prompt and answer together fit in `context_tokens`; the same for
        the same arguments.

        None where the data decides. Raises ValueError where it cannot be done (a missing file, a
        prompt too long).
        """

    @abstractmethod
    def score(self, example: Example, text: str) -> float:
        """How right `text` is as the answer, 0..100."""

    def stored(self, example: Example, text: str) -> str:
        """What a record keeps of an answer, in one that `aggregate` reads: the text itself, but for
        a private task.
        """
        return text

    def aggregate(self, records: Sequence[Record]) -> Mapping[str, float]:
        """Further metrics over all records by name (avg@n, pass@k, by category); the mean score is
        always reported.
        """
        return {}

    def identity(self) -> Mapping[str, Any]:
        """What else identifies the data (file hashes, package versions); enters the fingerprint.

        JSON types only.
        """
        return {}
