"""Estimated masses of clusters against masses of drawn ones."""

from __future__ import annotations

import pytest
import torch

from longspan_kernels.wave_decode.mass import spread_bias


@pytest.mark.parametrize("size", [4, 16, 64])
@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0, 4.0, 30.0])
def test_the_bias_is_that_of_drawn_gaussian_clusters(size: int, spread: float) -> None:
    """Scores of 0.3 to 16 deviations; half their variance alone would add 130 to the widest."""
    rng = torch.Generator().manual_seed(0)
    q_HD = 3.0 * torch.randn(1, 64, generator=rng)
    keys_CTD = spread**0.5 * torch.randn(2000, size, 64, generator=rng)
    keys_CTD = keys_CTD - keys_CTD.mean(1, keepdim=True)  # a centroid is the mean of its members
    drawn = torch.logsumexp(keys_CTD @ q_HD[0] / 8, dim=1).mean()
    (found,) = spread_bias(
        torch.full((1, 1), size).log(), torch.full((1, 1), spread), q_HD, scale=1 / 8
    ).flatten()
    sigma = spread**0.5 * float(q_HD.norm()) / 8
    # of 4 draws the largest lies 1.0 deviations up, the limit of many has 1.7; of 64, 2.3 and 2.9
    assert -0.05 < float(found - drawn) < 0.1 + 0.8 * sigma
    assert float(found) <= torch.tensor(size).log() + sigma**2 / 2 + 1e-4


def test_one_token_has_no_bias_however_long_the_query() -> None:
    bias_GC = spread_bias(torch.zeros(2, 3), torch.zeros(2, 3), 1e4 * torch.ones(4, 8), 1.0)
    assert torch.equal(bias_GC, torch.zeros(2, 3))
