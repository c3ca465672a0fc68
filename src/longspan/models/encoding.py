"""From an example to token ids: the chat template, the answer's prefix, the border of context and
question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.tasks.base import BORDER, rendered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.types import Example


class Encoder:
    """Encodes examples with a Hugging Face tokenizer, in its chat template where it has one."""

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int] = frozenset()) -> None:
        self.tokenizer = tokenizer
        ids = tokenizer("a", add_special_tokens=True).input_ids
        self._ends = next((n for n, id_ in enumerate(reversed(ids)) if id_ not in eos_ids), 0)
        """How many tokens that end a text the tokenizer puts behind each: a prompt goes on."""

    def check(self) -> None:
        """ValueError where the template cannot be rendered or drops the prompt."""
        if self.tokenizer.chat_template is None:
            return
        try:
            text = rendered(self.tokenizer, BORDER)
        except Exception as error:  # a template raises what it likes
            raise ValueError(f"model.chat_template cannot be rendered: {error}") from error
        if BORDER not in text:
            raise ValueError("model.chat_template drops the user's message")

    def __call__(self, example: Example) -> tuple[list[int], list[int]]:
        """Ids of context and question; together exactly the ids of the whole prompt."""
        text, border, bare = self._text(example)
        return self._split(text, border, add_special_tokens=bare)

    def answer(self, example: Example) -> list[int]:
        """Ids of the reference answer, as Model.encode_answer wants them."""
        if not example.forced:
            return self._ids(" " + " ".join(example.references), add_special_tokens=False)
        text, _, bare = self._text(example)
        (further,) = example.references
        ids, whole = (self._ids(each, add_special_tokens=bare) for each in (text, text + further))
        if whole[: len(ids)] == ids:
            return whole[len(ids) :]
        return self._ids(further, add_special_tokens=False)  # a token would span the border

    def _text(self, example: Example) -> tuple[str, int, bool]:
        """The prompt, the place of its border, and whether special tokens are still to be added."""
        chat = example.chat and self.tokenizer.chat_template is not None
        return (*(self._chat(example) if chat else _raw(example)), not chat)

    def _chat(self, example: Example) -> tuple[str, int]:
        text = rendered(self.tokenizer, example.prompt)
        marked = rendered(self.tokenizer, f"{example.context}{BORDER}{example.question}")
        return text + example.prefix, _common_prefix(text, marked)

    def _split(
        self, text: str, border: int, *, add_special_tokens: bool
    ) -> tuple[list[int], list[int]]:
        """Tokenise once, so that the border never changes the prompt; a token across it opens the
        question.
        """
        if not self.tokenizer.is_fast:
            ids = self._ids(text, add_special_tokens)
            cut = _common_prefix(ids, self._ids(text[:border], add_special_tokens))
        else:
            coded = self.tokenizer(
                text, add_special_tokens=add_special_tokens, return_offsets_mapping=True
            )
            ids = self._open(coded.input_ids, add_special_tokens)
            ends = enumerate(end for _, end in coded.offset_mapping[: len(ids)])
            cut = next((i for i, end in ends if end > border), len(ids))
        cut = max(cut, min(1, len(ids)))
        return ids[:cut], ids[cut:]

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        coded = self.tokenizer(text, add_special_tokens=add_special_tokens)
        return self._open(coded.input_ids, add_special_tokens)

    def _open(self, ids: Sequence[int], add_special_tokens: bool) -> list[int]:
        """Without the tokens that would end it."""
        return list(ids[: len(ids) - self._ends] if add_special_tokens else ids)


def _raw(example: Example) -> tuple[str, int]:
    text = f"{example.prompt.rstrip()} {example.prefix}" if example.prefix else example.prompt
    return text, len(example.context)


def _common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    """Length of the common prefix, found by halves: prompts run to millions of characters."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
