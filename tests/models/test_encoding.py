"""Prompts: the template, the prefix, and a border that never changes the tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import tiny_tokenizer

from longspan.models.encoding import Encoder
from longspan.tasks.lengths import count_tokens, style_tokens
from longspan.types import Example

if TYPE_CHECKING:
    from pathlib import Path

    from tests.models.dense import Load

PLAIN = tiny_tokenizer()
BARE = tiny_tokenizer(bos=False)
CHAT = tiny_tokenizer(chat=True)
words = st.text(st.sampled_from("The grass is green. \n\t🙂é</s>"), max_size=40)


def example(context: str, question: str, prefix: str = "", chat: bool = True) -> Example:
    return Example(
        id="1",
        context=context,
        question=question,
        references=("x",),
        max_new_tokens=4,
        prefix=prefix,
        chat=chat,
    )


class Slow:
    """A tokenizer without offsets."""

    is_fast = False
    chat_template = None

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        return self.tokenizer(text, add_special_tokens=add_special_tokens)


@given(words, words, words)
def test_raw_text_is_tokenised_as_a_whole(context: str, question: str, prefix: str) -> None:
    one = example(context, question, prefix)
    text = f"{(context + question).rstrip()} {prefix}" if prefix else context + question
    for tokenizer in (PLAIN, BARE):
        left, right = Encoder(tokenizer)(one)
        assert left + right == tokenizer(text).input_ids
        assert left or not right


@given(words, words, words)
def test_a_template_is_tokenised_as_a_whole(context: str, question: str, prefix: str) -> None:
    left, right = Encoder(CHAT)(example(context, question, prefix))
    text = f"<s><|user|>{(context + question).strip()}</s><|assistant|>{prefix}"
    assert left + right == CHAT(text, add_special_tokens=False).input_ids
    assert left[0] == 1


@pytest.mark.parametrize("tokenizer", [PLAIN, CHAT])
def test_the_border_is_where_the_question_starts(tokenizer: Any) -> None:
    one = example("The grass is green. The sky is blue.\n\n", "What is the sky?", "It is")
    left, right = Encoder(tokenizer)(one)
    assert PLAIN.decode(left, skip_special_tokens=True).endswith("The sky is blue.\n\n")
    assert PLAIN.decode(right, skip_special_tokens=True).startswith("What is the sky?")
    assert PLAIN.decode(right, skip_special_tokens=True).endswith("It is")


def test_a_token_across_the_border_opens_the_question() -> None:
    whole = PLAIN("The special magic number", add_special_tokens=False)
    left, right = Encoder(PLAIN)(example("The special magic nu", "mber"))
    assert left + right == [1, *whole.input_ids]
    assert PLAIN.decode(right).strip() == "number"


def test_no_template_where_the_example_asks_for_none() -> None:
    left, right = Encoder(CHAT)(example("The sky", " is", chat=False))
    assert left + right == CHAT("The sky is").input_ids


def test_thinking_reaches_the_template(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "thinking.jinja"
    file.write_text("{% if enable_thinking %}<think>{% endif %}{{ messages[0]['content'] }}")
    for thinking, text in ((True, "<think>blue"), (False, "blue"), (None, "blue")):
        model = load("llama", chat_template=str(file), thinking=thinking)
        left, right = model.encode(example("blue", ""))
        assert PLAIN.decode(left + right) == text


@pytest.mark.parametrize("thinking", [None, False])
@pytest.mark.parametrize("choice", ["auto", "none", "file"])
def test_tasks_measure_what_the_model_reads(
    load: Load, tmp_path: Path, choice: str, thinking: bool | None
) -> None:
    if choice == "file":
        file = tmp_path / "long.jinja"
        ending = "{% if enable_thinking is false %}<think></think>{% endif %}"
        file.write_text("The sky is blue. " * 9 + "{{ messages[0]['content'] }}" + ending)
        choice = str(file)
    model = load("llama", chat=True, chat_template=choice, thinking=thinking)
    left, right = model.encode(example("x", ""))
    inner, around = count_tokens(model.tokenizer, "x"), style_tokens(model.tokenizer, "auto")
    assert len(left + right) == inner + around


@given(words, words)
def test_a_tokenizer_without_offsets(context: str, question: str) -> None:
    left, right = Encoder(Slow(PLAIN))(example(context, question))
    assert left + right == PLAIN(context + question).input_ids
    assert left


def test_the_choices_of_the_settings(load: Load, tmp_path: Path) -> None:
    one = example("The sky ", "is", "It")
    plain, templated = PLAIN("The sky is It").input_ids, "<s><|user|>The sky is</s><|assistant|>It"

    def whole(**options: Any) -> list[int]:
        left, right = load("llama", **options).encode(one)
        return left + right

    assert whole() == plain
    assert whole(chat=True) == PLAIN(templated, add_special_tokens=False).input_ids
    assert whole(chat=True, chat_template="none") == plain
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages[0]['content'] }}!")
    assert PLAIN.decode(whole(chat_template=str(file))) == "The sky is!It"


@given(words, words)
def test_a_text_goes_on_as_it_is_tokenised_in_one(context: str, further: str) -> None:
    one = replace(example(context, "", chat=False), references=(further,), forced=True)
    for tokenizer in (PLAIN, BARE):
        encoder = Encoder(tokenizer)
        left, right = encoder(one)
        answer = encoder.answer(one)
        whole = tokenizer(context + further).input_ids
        assert (
            left + right + answer == whole
            or answer == tokenizer(further, add_special_tokens=False).input_ids
        )
        spaced = replace(one, references=(" The grass",), context="The sky")
        context_ids, _ = encoder(spaced)
        assert context_ids + encoder.answer(spaced) == tokenizer("The sky The grass").input_ids


def test_a_prompt_is_not_ended_by_its_tokenizer() -> None:
    from tokenizers.processors import TemplateProcessing

    ending = tiny_tokenizer()
    marks = [("<s>", 1), ("</s>", 2)]
    ending.backend_tokenizer.post_processor = TemplateProcessing("<s> $A </s>", None, marks)
    assert ending("The sky").input_ids[-1] == 2
    for one in (
        example("The sky", " is"),
        example("The sky</s>", ""),
        example("", ""),
        replace(example("The sky", "", chat=False), references=(" is",), forced=True),
    ):
        for tokenizer in (ending, Slow(ending)):
            closed, plain = Encoder(tokenizer, frozenset({2})), Encoder(PLAIN, frozenset({2}))
            assert [*map(list, closed(one))] == [*map(list, plain(one))]
            assert closed.answer(one) == plain.answer(one)


def test_the_reference_of_a_question_stands_behind_a_space() -> None:
    one = replace(example("The sky", "?"), references=("is", "blue"))
    assert Encoder(PLAIN).answer(one) == PLAIN(" is blue", add_special_tokens=False).input_ids
