"""A loss that makes keys good to summarise: what a cluster's mean key scores should tell its mass.

Large models' keys are redundant enough for that (RetroInfer, arXiv 2505.02922, section 3); those of
a small model that matches single tokens are not, unless it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from longspan_kernels.segmented_kmeans.reference import nearest, train

if TYPE_CHECKING:
    from nano_batch import Asking
    from nano_guide import Guide
    from torch import Tensor

SINK = 4
TOKENS_PER_CLUSTER = 16
RANGE = 20.0
"""Scores further than this above their mean cost something: 17 keep 99% on one of 262,144 keys."""
SHARP_LAYERS = 2
"""The first layers look back by position, with large scores, and are left alone."""
ROUNDS = 3


@dataclass
class Probe:
    """Looks at the queries of answers in every layer and adds up the loss."""

    asking: list[Asking]
    bias_BT: Tensor
    guide: Guide
    summaries: list[Tensor] = field(default_factory=list)
    ranges: list[Tensor] = field(default_factory=list)

    def note(self, layer: int, q_BHTD: Tensor, k_BGTD: Tensor) -> None:
        """Take in one layer; `q_BHTD` is scaled."""
        with torch.autocast(k_BGTD.device.type, enabled=False):
            self.guide.note(layer, q_BHTD, k_BGTD)
            self._note_rows(layer, q_BHTD, k_BGTD)

    def _note_rows(self, layer: int, q_BHTD: Tensor, k_BGTD: Tensor) -> None:
        for each in self.asking:
            q_HQD = q_BHTD[each.row][:, each.place_Q].float()
            k_GTD, bias_T = k_BGTD[each.row].float(), self.bias_BT[each.row]
            if layer >= SHARP_LAYERS:
                self.ranges.append(range_loss(q_HQD, k_GTD[:, : each.first]))
            if each.stop - SINK >= 8 * TOKENS_PER_CLUSTER:
                told = summary_loss(q_HQD, k_GTD, bias_T, each.place_Q, SINK, each.stop)
                self.summaries.append(told)

    def losses(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the summaries, of the range of the scores and of the guided attention."""
        zero = self.bias_BT.new_zeros(())
        summaries, ranges = (
            torch.stack(noted).mean() if noted else zero for noted in (self.summaries, self.ranges)
        )
        return summaries, ranges, self.guide.loss()


def range_loss(q_HQD: Tensor, k_GTD: Tensor) -> Tensor:
    """How far the greatest score of a query lies more than RANGE above its mean score.

    Sharper attention gains nothing, rounds off badly in bfloat16, never spreads over several equal
    matches and is what estimates of the scores by their moments fail on.
    """
    score_GRT = q_HQD.reshape(len(k_GTD), -1, k_GTD.shape[-1]) @ k_GTD.mT
    return (score_GRT.amax(-1) - score_GRT.mean(-1) - RANGE).relu().mean()


def summary_loss(
    q_HQD: Tensor, k_GTD: Tensor, bias_T: Tensor, places_Q: Tensor, first: int, stop: int
) -> Tensor:
    """Cross entropy between the attention that clusters of the keys in [first, stop) get and the
    softmax over the scores of their means; queries that attend elsewhere weigh less.
    """
    groups, length, width = k_GTD.shape
    q_GRD = q_HQD.reshape(groups, -1, width)
    with torch.no_grad():
        middle_GTD = k_GTD[:, first:stop]
        x_GTD = middle_GTD - middle_GTD.mean(1, keepdim=True)
        clusters = (stop - first) // TOKENS_PER_CLUSTER
        label_GT = nearest(x_GTD, train(x_GTD, clusters, ROUNDS))
        later_QT = torch.arange(length, device=bias_T.device) > places_Q[:, None]
        score_GRT = q_GRD @ k_GTD.mT + bias_T
        later_RT = later_QT.repeat(q_GRD.shape[1] // len(places_Q), 1)
        share_GRT = score_GRT.masked_fill(later_RT, float("-inf")).softmax(-1)[..., first:stop]
        index_GRT = label_GT[:, None].expand_as(share_GRT)
        mass_GRC = torch.zeros(*share_GRT.shape[:2], clusters, device=bias_T.device)
        mass_GRC.scatter_add_(2, index_GRT, share_GRT)
        size_GC = torch.zeros(groups, clusters, device=bias_T.device)
        size_GC.scatter_add_(1, label_GT, torch.ones_like(label_GT, dtype=torch.float32))
    sums_GCD = torch.zeros(groups, clusters, width, device=bias_T.device).scatter_add(
        1, label_GT[..., None].expand(-1, -1, width), k_GTD[:, first:stop]
    )
    centroid_GCD = sums_GCD / size_GC.clamp(min=1)[..., None]
    logit_GRC = (q_GRD @ centroid_GCD.mT).masked_fill(size_GC[:, None] == 0, -1e4)
    return -(mass_GRC * logit_GRC.log_softmax(-1)).sum(-1).mean()
