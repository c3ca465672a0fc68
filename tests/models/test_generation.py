"""The decoding loop: ends, stop strings, seeds, and the distribution that is drawn from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.models.dense import Dense, Load
from tests.models.test_exactness import prompts, stock
from tests.tiny_models import tiny, tiny_tokenizer

from longspan.models.generation import Sampling, Stream, generate

TOKENIZER = tiny_tokenizer()


class Script:
    """A session that answers what it is told to: row r says scripts[r]."""

    def __init__(self, scripts: list[list[int]], rows: list[int] | None = None) -> None:
        self.scripts = scripts
        self.rows = list(range(len(scripts))) if rows is None else rows
        self.given: list[list[int]] = [[] for _ in scripts] if rows is None else []

    def logits(self) -> torch.Tensor:
        logits_BV = torch.zeros(len(self.rows), 320)
        for at, row in enumerate(self.rows):
            logits_BV[at, self.scripts[row][len(self.given[row])]] = 1.0
        return logits_BV

    def decode(self, tokens: list[int]) -> torch.Tensor:
        for row, token in zip(self.rows, tokens, strict=True):
            self.given[row].append(token)
        return self.logits()

    def select(self, rows: list[int]) -> Script:
        part = Script(self.scripts, [self.rows[row] for row in rows])
        part.given = self.given
        return part


def answers(texts: list[str], streams: list[Stream], eos: bool = True, **options: Any) -> Script:
    scripts = [TOKENIZER(t, add_special_tokens=False).input_ids + [2] * 60 for t in texts]
    session = Script(scripts)
    sampling = Sampling(ignore_eos=not eos)
    list(
        generate(
            session,
            session.logits(),
            streams,
            tokenizer=TOKENIZER,
            eos_ids=frozenset({2}),
            sampling=sampling,
            **options,
        )
    )
    return session


def stream(limit: int = 50, **options: Any) -> Stream:
    return Stream(prompt_tokens=7, max_new_tokens=limit, **options)


def test_rows_end_each_in_its_own_way() -> None:
    streams = [stream(), stream(stop=("\n",)), stream(3)]
    session = answers(["the sky is blue", "green grass\nand the rest", "one two three"], streams)
    done = [s.generation(TOKENIZER) for s in streams]
    assert [g.finish for g in done] == ["eos", "stop", "length"]
    assert [g.text for g in done[:2]] == ["the sky is blue", "green grass"]
    assert done[0].tokens[-1] == 2
    assert len(done[2].tokens) == 3
    assert done[0].prompt_tokens == 7
    # the last token of an answer is never read
    assert [len(given) for given in session.given] == [len(g.tokens) - 1 for g in done]


def test_ignoring_eos_goes_on_to_the_length() -> None:
    one = stream(30)
    answers(["blue"], [one], eos=False)
    assert (one.finish, len(one.tokens)) == ("length", 30)
    assert one.text(TOKENIZER) == "blue"


@pytest.mark.parametrize("stop", ["sky", "y is b", "s is g", " blue.", "Tschüß 🙂"])
def test_a_stop_string_across_tokens(stop: str) -> None:
    text = "The grass is green and the sky is blue. Tschüß 🙂 and on"
    one = stream(60, stop=("never", stop))
    answers([text], [one])
    assert one.finish == "stop"
    assert one.text(TOKENIZER) == text[: text.index(stop)]


@given(st.text(max_size=30), st.text(min_size=1, max_size=3))
def test_stops_as_soon_as_the_text_holds_it(text: str, stop: str) -> None:
    one = stream(200, stop=(stop,))
    answers([text], [one])
    whole = TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False).input_ids)
    at = whole.find(stop, 0 if stop.strip() else len(whole) - len(whole.lstrip()))
    assert one.text(TOKENIZER) == (whole if at < 0 else whole[:at])
    assert (one.finish == "stop") == (at >= 0)


@pytest.mark.parametrize(
    ("text", "stop", "said"),
    [
        ("\nA walks home.\nand on", "\n", "\nA walks home."),
        ("\n \n A" + " " * 40 + "\nand on", "\n", "\n \n A" + " " * 40),
        ("\n\n", "\n", "\n\n"),
        ("\nQuestion: and on", "\nQuestion:", ""),
    ],
)
def test_a_line_break_does_not_end_what_has_not_begun(text: str, stop: str, said: str) -> None:
    one = stream(80, stop=(stop,))
    answers([text], [one])
    assert one.text(TOKENIZER) == said
    assert (one.finish == "stop") == (said != text)


def test_streams_come_step_by_step() -> None:
    scripts = [
        [*TOKENIZER(t, add_special_tokens=False).input_ids, 2] for t in ("blue", "sky is so")
    ]
    session = Script(scripts)
    steps = generate(
        session,
        session.logits(),
        [stream(key="a"), stream(key="b")],
        tokenizer=TOKENIZER,
        eos_ids=frozenset({2}),
        sampling=Sampling(),
    )
    grown = [[s.key for s in step] for step in steps]
    assert grown[0] == ["a", "b"]
    assert grown[-1] == ["b"]
    assert sum(len(keys) for keys in grown) == sum(map(len, scripts))


def test_greedy_equals_the_stock_model(load: Load) -> None:
    """Rows end at different lengths, so the batch shrinks on the way."""
    model = load("qwen2_sliding")
    session = model.session(Dense(), rows=3)
    streams = [stream(limit) for limit in (5, 20, 12)]
    logits_BV = session.prefill(prompts())
    for _ in generate(
        session, logits_BV, streams, tokenizer=TOKENIZER, eos_ids=frozenset(), sampling=Sampling()
    ):
        pass
    for prompt, one in zip(prompts(), streams, strict=True):
        assert one.tokens == stock(tiny("qwen2_sliding"), prompt, one.max_new_tokens)[0]


def sample(load: Load, rows: list[int], seed: int = 3) -> list[list[int]]:
    session = load("llama").session(Dense(), rows=len(rows))
    streams = [stream(12, key=f"example{row}/0") for row in rows]
    logits_BV = session.prefill([prompts()[row] for row in rows])
    sampling = Sampling(temperature=1.0, top_p=0.95)
    for _ in generate(
        session,
        logits_BV,
        streams,
        tokenizer=TOKENIZER,
        eos_ids=frozenset(),
        sampling=sampling,
        seed=seed,
    ):
        pass
    return [one.tokens for one in streams]


def test_a_begun_answer_goes_on_as_it_would_have(load: Load) -> None:
    """The session has read what the answer had before it was stopped."""
    whole = sample(load, [0])[0]
    session = load("llama").session(Dense())
    logits_BV = session.prefill([prompts()[0] + whole[:5]])
    one = stream(12, key="example0/0", tokens=whole[:5])
    for _ in generate(
        session,
        logits_BV,
        [one],
        tokenizer=TOKENIZER,
        eos_ids=frozenset(),
        sampling=Sampling(temperature=1.0, top_p=0.95),
        seed=3,
    ):
        pass
    assert one.tokens == whole


def test_samples_depend_on_seed_and_key_and_not_on_the_batch(load: Load) -> None:
    together = sample(load, [0, 1, 2])
    assert together == sample(load, [0, 1, 2])
    assert [together[2]] == sample(load, [2])
    assert together != sample(load, [0, 1, 2], seed=4)
    assert together[0] != together[1]
