"""The distribution that is drawn from, and the draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longspan.models.generation import Sampling, choose, row_generator
from longspan.models.sampling import probabilities


def test_draws_follow_the_distribution() -> None:
    logits_BV = torch.tensor([[2.0, 1.0, 0.0, -1.0, -9.0]]).expand(4000, -1)
    sampling = Sampling(temperature=0.7, top_k=3)
    drawn = choose(logits_BV, sampling, [row_generator(0, str(i)) for i in range(4000)])
    seen_V = torch.bincount(torch.tensor(drawn), minlength=5) / 4000
    right_V = probabilities(logits_BV[:1], 0.7, top_k=3)[0]
    assert (seen_V - right_V).abs().max() < 0.025
    assert seen_V[3:].sum() == 0


@given(
    st.integers(0, 10_000),
    st.sampled_from([0.3, 1.0, 1.7]),
    st.sampled_from([0, 1, 5, 400]),
    st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.02, 0.3, 1.0]),
)
def test_probabilities_equal_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits_BV = torch.randn(3, 40, generator=torch.Generator().manual_seed(seed)) * 2
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    right_BV = warpers(torch.zeros(3, 1, dtype=torch.long), logits_BV).softmax(-1)
    found_BV = probabilities(logits_BV, temperature, top_k, top_p, min_p)
    assert torch.allclose(found_BV, right_BV, atol=1e-6)


def test_a_token_without_weight_is_never_drawn() -> None:
    logits_BV = torch.tensor([[float("-inf"), 0.0, 0.0]])
    p_BV = probabilities(logits_BV, 1.0)
    assert p_BV[0, 0] == 0
    drawn = {
        choose(logits_BV, Sampling(temperature=1.0), [row_generator(0, str(i))])[0]
        for i in range(50)
    }
    assert drawn == {1, 2}


@pytest.mark.parametrize("temperature", [1e-38, 1e-60])
def test_a_temperature_near_0_takes_the_likeliest(temperature: float) -> None:
    logits_BV = torch.tensor([[7.0, 9.0, -3.0, float("-inf")], [-9.0, -8.0, -7.0, -6.0]])
    sampling = Sampling(temperature=temperature, top_p=0.9, min_p=0.1)
    assert choose(logits_BV, sampling, [row_generator(0, "")] * 2) == [1, 3]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_end_the_answer(temperature: float) -> None:
    logits_BV = torch.tensor([[0.0, 1.0], [float("nan"), 1.0]])
    with pytest.raises(FloatingPointError, match="not finite"):
        choose(logits_BV, Sampling(temperature=temperature), [row_generator(0, "")] * 2)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"min_p": 1.5}, {"topp": 1.0}]
)
def test_wrong_sampling_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
