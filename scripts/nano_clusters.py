"""What makes keys good to cluster: a cluster's mean key should tell its mass, and some answers are
given with what RetroInfer reads of the haystack, and no more.

Large models' keys are redundant enough for that (RetroInfer, arXiv 2505.02922, section 3); those of
a small model that matches single tokens are not, unless it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
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
RETRIEVED, ESTIMATED = 0.018, 0.232
"""Shares of the clusters: the defaults of the method."""


@dataclass
class Probe:
    """Looks at the queries of answers in every layer and adds up the loss."""

    asking: list[Asking]
    bias_BT: Tensor
    guide: Guide
    sparse: bool
    """Whether these queries read by clusters, too; for sequences that are as long as they seem."""
    summaries: list[Tensor] = field(default_factory=list)
    ranges: list[Tensor] = field(default_factory=list)
    labels: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """By layer and row: the cluster of each key of the haystack, int64 [G, M]."""

    def note(self, layer: int, q_BHTD: Tensor, k_BGTD: Tensor) -> None:
        """Take in one layer; `q_BHTD` is scaled."""
        with torch.autocast(k_BGTD.device.type, enabled=False):
            self.guide.note(layer, q_BHTD, k_BGTD)
            for each in self.asking:
                q_HQD = q_BHTD[each.row][:, each.place_Q].float()
                self._note_row(layer, each, q_HQD, k_BGTD[each.row].float())

    def _note_row(self, layer: int, each: Asking, q_HQD: Tensor, k_GTD: Tensor) -> None:
        if layer >= SHARP_LAYERS:
            self.ranges.append(range_loss(q_HQD, k_GTD[:, : each.first]))
        if each.stop - SINK >= 8 * TOKENS_PER_CLUSTER:
            label_GM = clustered(k_GTD, SINK, each.stop)
            self.labels[layer, each.row] = label_GM
            bias_T = self.bias_BT[each.row]
            self.summaries.append(
                summary_loss(q_HQD, k_GTD, bias_T, each.place_Q, SINK, each.stop, label_GM)
            )

    def attended(
        self, layer: int, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, out_BHTD: Tensor
    ) -> Tensor:
        """The attention `out_BHTD`, where the queries looked at read by clusters if `sparse`."""
        if not self.sparse or layer < SHARP_LAYERS:
            return out_BHTD
        out_BHTD = out_BHTD.clone()
        with torch.autocast(k_BGTD.device.type, enabled=False):
            for each in self.asking:
                label_GM = self.labels.get((layer, each.row))
                if label_GM is not None:
                    k_GTD, v_GTD = k_BGTD[each.row].float(), v_BGTD[each.row].float()
                    q_HQD = q_BHTD[each.row][:, each.place_Q].float()
                    found_HQD = wave_attention(q_HQD, k_GTD, v_GTD, each.place_Q, SINK, label_GM)
                    out_BHTD[each.row][:, each.place_Q] = found_HQD.to(out_BHTD.dtype)
        return out_BHTD

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


@torch.no_grad()
def clustered(k_GTD: Tensor, first: int, stop: int) -> Tensor:
    """Clusters of the keys in [first, stop), int64 [G, stop - first]."""
    x_GTD = k_GTD[:, first:stop] - k_GTD[:, first:stop].mean(1, keepdim=True)
    return nearest(x_GTD, train(x_GTD, x_GTD.shape[1] // TOKENS_PER_CLUSTER, ROUNDS))


def means(x_GTD: Tensor, first: int, label_GM: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [G, C, D] and size [G, C] of each cluster of the rows from `first` on."""
    groups, members = label_GM.shape
    clusters, width = members // TOKENS_PER_CLUSTER, x_GTD.shape[-1]
    size_GC = x_GTD.new_zeros(groups, clusters)
    size_GC.scatter_add_(1, label_GM, torch.ones_like(label_GM, dtype=size_GC.dtype))
    sums_GCD = x_GTD.new_zeros(groups, clusters, width).scatter_add(
        1, label_GM[..., None].expand(-1, -1, width), x_GTD[:, first : first + members]
    )
    return sums_GCD / size_GC.clamp(min=1)[..., None], size_GC


def summary_loss(
    q_HQD: Tensor,
    k_GTD: Tensor,
    bias_T: Tensor,
    places_Q: Tensor,
    first: int,
    stop: int,
    label_GM: Tensor,
) -> Tensor:
    """Cross entropy between the attention that clusters of the keys in [first, stop) get and the
    softmax over the scores of their means; queries that attend elsewhere weigh less.
    """
    groups, length, width = k_GTD.shape
    q_GRD = q_HQD.reshape(groups, -1, width)
    centroid_GCD, size_GC = means(k_GTD, first, label_GM)
    with torch.no_grad():
        later_QT = torch.arange(length, device=bias_T.device) > places_Q[:, None]
        score_GRT = q_GRD @ k_GTD.mT + bias_T
        later_RT = later_QT.repeat(q_GRD.shape[1] // len(places_Q), 1)
        share_GRT = score_GRT.masked_fill(later_RT, float("-inf")).softmax(-1)[..., first:stop]
        mass_GRC = share_GRT.new_zeros(*share_GRT.shape[:2], size_GC.shape[1])
        mass_GRC.scatter_add_(2, label_GM[:, None].expand_as(share_GRT), share_GRT)
    logit_GRC = (q_GRD @ centroid_GCD.mT).masked_fill(size_GC[:, None] == 0, -1e4)
    return -(mass_GRC * logit_GRC.log_softmax(-1)).sum(-1).mean()


def wave_attention(
    q_HQD: Tensor,
    k_GTD: Tensor,
    v_GTD: Tensor,
    places_Q: Tensor,
    first: int,
    label_GM: Tensor,
    retrieved: float = RETRIEVED,
) -> Tensor:
    """Attention [H, Q, D] as RetroInfer reads the clustered keys, those from `first` on: the best
    clusters token by token, the next ones by their means, the others not at all.
    """
    (groups, length, width), members = k_GTD.shape, label_GM.shape[1]
    q_GRQD = q_HQD.reshape(groups, -1, len(places_Q), width)
    centroid_GCD, size_GC = means(k_GTD, first, label_GM)
    value_GCD, _ = means(v_GTD, first, label_GM)
    told_GRQC = q_GRQD @ centroid_GCD[:, None].mT
    told_GRQC = told_GRQC.masked_fill((size_GC == 0)[:, None, None], -1e9)
    with torch.no_grad():
        clusters = size_GC.shape[1]
        best, more = ceil(retrieved * clusters), ceil((retrieved + ESTIMATED) * clusters)
        vote_GQC = told_GRQC.softmax(-1).sum(1)
        rank_GQK = vote_GQC.topk(min(more, clusters), dim=-1).indices
        kept_GQC = torch.zeros_like(vote_GQC, dtype=torch.bool)
        kept_GQC.scatter_(2, rank_GQK[..., :best], True)
        stands_GQC = torch.zeros_like(kept_GQC).scatter_(2, rank_GQK[..., best:], True)
        at_GQM = label_GM[:, None].expand(-1, len(places_Q), -1)
        seen_GQT = torch.arange(length, device=k_GTD.device) <= places_Q[:, None]
        seen_GQT = seen_GQT.expand(groups, -1, -1).clone()
        seen_GQT[..., first : first + members] &= kept_GQC.gather(2, at_GQM)
    score_GRQT = (q_GRQD @ k_GTD[:, None].mT).masked_fill(~seen_GQT[:, None], -1e9)
    told_GRQC = told_GRQC + size_GC.clamp(min=1).log()[:, None, None]
    told_GRQC = told_GRQC.masked_fill(~stands_GQC[:, None], -1e9)
    share = torch.cat([score_GRQT, told_GRQC], dim=-1).softmax(-1)
    out_GRQD = share[..., :length] @ v_GTD[:, None] + share[..., length:] @ value_GCD[:, None]
    return out_GRQD.reshape(q_HQD.shape)
