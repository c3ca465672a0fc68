"""Distributions of the next token against each other."""

from __future__ import annotations

from math import isnan, log

import pytest
import torch

from longspan.measures.next_token import expectation


def test_it_is_the_divergence_from_full_attention() -> None:
    full_V = torch.tensor([0.5, 0.25, 0.25]).log()
    ours_V = torch.tensor([0.25, 0.25, 0.5]).log() + 3  # logits have no zero
    found = expectation(ours_V, full_V, 1)
    assert found["kl"] == pytest.approx(0.25 * log(2))
    assert found["agreement"] == 0
    assert found["nll"] == found["nll_full"] == pytest.approx(log(4))
    assert expectation(full_V, full_V, None)["agreement"] == 1
    assert isnan(expectation(full_V, full_V, None)["nll"])


@pytest.mark.parametrize("broken", ["ours", "full", "both"])
def test_what_is_no_number_is_no_agreement(broken: str) -> None:
    right_V, wrong_V = torch.zeros(3), torch.tensor([0.0, torch.nan, 1.0])
    ours_V = right_V if broken == "full" else wrong_V
    full_V = right_V if broken == "ours" else wrong_V
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        expectation(ours_V, full_V, 0)


def test_what_full_attention_rules_out_costs_nothing() -> None:
    full_V = torch.tensor([0.0, 0.0, -torch.inf])
    same = expectation(full_V, full_V, 0)
    assert same["kl"] == 0
    leaky = expectation(torch.zeros(3), full_V, 2)
    assert leaky["kl"] == pytest.approx(log(1.5))
    assert leaky["nll_full"] == torch.inf
