"""What steps of fixed shape know of the steady zone before they search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tests.methods.cases import layer, sealed

from longspan.methods.retroinfer import RetroInfer
from longspan_kernels.merge import merge
from longspan_kernels.step_slots import zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from longspan.placement.base import PlacementName


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("placement", ["gpu", "wave_buffer"])
def test_the_log_sum_exp_of_the_steady_zone(
    placement: PlacementName, softcap: float | None
) -> None:
    given = layer(900, groups=2, heads=3, softcap=softcap)
    method = RetroInfer(update_tokens=100, local_tokens=16, placement=placement)
    states = [sealed(given, method, tokens) for tokens in (60, 800)]  # nothing is indexed of one
    static = method.static_layer(states, [900, 900])
    at_B = torch.tensor([59, 799])
    always = zone_runs(at_B, 4, Chosen(static.indexed_2B, *static.clusters.none))
    q_BHD = given.q_HTD[:, at_B].transpose(0, 1)
    near = static.pool.attend_near(q_BHD.flatten(0, 1), always, 100)
    found_BH = merge([near], stacked=True).lse.view(2, -1)
    for row, (start, stop, tokens) in enumerate(((0, 0, 60), (4, 784, 800))):
        keys_GTD = torch.cat([given.k_GTD[:, :start], given.k_GTD[:, stop:tokens]], 1)
        score_GRT = q_BHD[row].view(2, 3, -1) @ keys_GTD.mT * given.geometry.scale
        if softcap is not None:
            score_GRT = softcap * torch.tanh(score_GRT / softcap)
        torch.testing.assert_close(found_BH[row], score_GRT.logsumexp(-1).flatten())
