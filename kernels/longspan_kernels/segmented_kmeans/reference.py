"""Mean-centred spherical k-means within segments, in plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from longspan_kernels.segmented_kmeans.reference_seeds import seeds
from longspan_kernels.types import Clusters

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.segmented_kmeans.reference_seeds import Seeding

BLOCK = 1 << 24
"""Scores held at once while tokens are assigned (64 MB)."""


def bounds(total: int, parts: int) -> list[int]:
    """Where `parts` nearly equal stretches of `total` begin and end, `parts` + 1 numbers."""
    return [part * total // parts for part in range(parts + 1)]


def nearest(x_GTD: Tensor, centroids_GCD: Tensor) -> Tensor:
    """int64 [G, T]: the centroid of largest inner product with each token; ties go to the first."""
    rows = max(1, BLOCK // centroids_GCD[..., 0].numel())
    blocks = torch.split(x_GTD, rows, dim=1)
    return torch.cat([(x @ centroids_GCD.mT).argmax(-1) for x in blocks], dim=1)


def totals(x_GTD: Tensor, label_GT: Tensor, clusters: int) -> Tensor:
    """float32 [G, C, D]: sum of the tokens of each cluster."""
    groups, _, width = x_GTD.shape
    row_GT = label_GT + clusters * torch.arange(groups, device=label_GT.device)[:, None]
    sums = torch.zeros(groups * clusters, width, device=x_GTD.device)
    sums.index_add_(0, row_GT.flatten(), x_GTD.flatten(0, 1).float())
    return sums.view(groups, clusters, width)


def counts(label_GT: Tensor, clusters: int) -> Tensor:
    """int64 [G, C]: tokens of each cluster."""
    zeros = torch.zeros(label_GT.shape[0], clusters, dtype=torch.int64, device=label_GT.device)
    return zeros.scatter_add_(1, label_GT, torch.ones_like(label_GT))


def train(x_GTD: Tensor, clusters: int, rounds: int, seeding: Seeding = "even") -> Tensor:
    """Centroids [G, C, D] after `rounds` of assignment and normalised mean over one segment."""
    centroids_GCD = seeds(x_GTD, clusters, seeding)
    for _ in range(rounds):
        label_GT = nearest(x_GTD, centroids_GCD)
        filled_GC1 = counts(label_GT, clusters)[..., None] > 0
        mean_GCD = F.normalize(totals(x_GTD, label_GT, clusters), dim=-1)
        centroids_GCD = torch.where(filled_GC1, mean_GCD, centroids_GCD)
    return centroids_GCD


def describe(
    keys_GTD: Tensor, values_GTD: Tensor, mean_G1D: Tensor, label_GT: Tensor, clusters: int
) -> Clusters:
    """The clusters that the labels define: token order, sizes, plain means, spread."""
    groups, tokens, width = keys_GTD.shape
    size_GC = counts(label_GT, clusters)
    share_GC1 = 1.0 / size_GC.clamp(min=1)[..., None]
    sums_GCD = torch.zeros(groups, clusters, width, device=keys_GTD.device)
    values_GCD = torch.zeros_like(sums_GCD)
    rows = max(1, BLOCK // (groups * width))
    for begin in range(0, tokens, rows):
        block_GT = label_GT[:, begin : begin + rows]
        x_GTD = keys_GTD[:, begin : begin + rows].float() - mean_G1D
        sums_GCD += totals(x_GTD, block_GT, clusters)
        values_GCD += totals(values_GTD[:, begin : begin + rows], block_GT, clusters)
    centred_GCD = sums_GCD * share_GC1
    square_GC = torch.zeros(groups, clusters, device=keys_GTD.device)
    for begin in range(0, tokens, rows):
        block_GT = label_GT[:, begin : begin + rows]
        x_GTD = keys_GTD[:, begin : begin + rows].float() - mean_G1D
        x_GTD -= centred_GCD.gather(1, block_GT[..., None].expand(-1, -1, width))
        square_GC.scatter_add_(1, block_GT, x_GTD.square().sum(-1))
    return Clusters(
        order_GT=label_GT.argsort(dim=1, stable=True),
        start_GC=(size_GC.cumsum(1) - size_GC).int(),
        size_GC=size_GC.int(),
        centroids_GCD=centred_GCD + mean_G1D,
        values_GCD=values_GCD * share_GC1,
        spread_GC=square_GC * share_GC1[..., 0] / width,
    )


def check(keys_GTD: Tensor, values_GTD: Tensor, clusters: int, segments: int, rounds: int) -> None:
    """ValueError naming the argument that cannot be clustered."""
    if keys_GTD.shape != values_GTD.shape or keys_GTD.dim() != 3 or not keys_GTD.shape[1]:
        raise ValueError(
            f"keys have shape {list(keys_GTD.shape)} and values {list(values_GTD.shape)}; both"
            " should be [G, T, D] with T >= 1"
        )
    for name, value in (("clusters", clusters), ("segments", segments), ("iterations", rounds)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it should be at least 1")
    for name, rows_GTD in (("keys", keys_GTD), ("values", values_GTD)):
        for block in torch.split(rows_GTD, 1 << 16, dim=1):
            # of finite numbers no sum in float64 overflows, and no other sum is finite
            if not torch.isfinite(block.sum(dtype=torch.float64)):
                raise ValueError(f"{name} hold NaN or infinity; clustering needs finite {name}")


def segmented_kmeans(
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    clusters: int,
    segments: int = 1,
    iterations: int = 10,
    seeding: Seeding = "even",
    final: Literal["segment", "global"] = "segment",
) -> Clusters:
    """Cluster the keys of each KV head: `iterations` - 1 training rounds, one final assignment.

    Tokens and clusters are cut into `segments` nearly equal stretches; a token meets only the
    centroids of its own segment, in the final assignment too unless `final` is "global". Seeds are
    evenly spaced tokens, tokens `farthest` from one another by angle, or half and half (`mixed`).
    Clusters may come out empty, as they must where there are fewer tokens than clusters.
    RetroInfer, section 4.2.
    """
    check(keys_GTD, values_GTD, clusters, segments, iterations)
    tokens = keys_GTD.shape[1]
    segments = min(segments, clusters, tokens)
    token_bounds, cluster_bounds = bounds(tokens, segments), bounds(clusters, segments)
    mean_G1D = keys_GTD.mean(1, keepdim=True, dtype=torch.float32)
    trained: list[Tensor] = []
    labels: list[Tensor] = []
    for part in range(segments):
        begin, end = token_bounds[part : part + 2]
        low, high = cluster_bounds[part : part + 2]
        x_GTD = keys_GTD[:, begin:end].float() - mean_G1D
        trained.append(train(x_GTD, high - low, iterations - 1, seeding))
        if final == "segment":
            labels.append(nearest(x_GTD, trained[-1]) + low)
    if final == "global":
        centroids_GCD = torch.cat(trained, dim=1)
        for block in torch.split(keys_GTD, 8192, dim=1):
            labels.append(nearest(block.float() - mean_G1D, centroids_GCD))
    return describe(keys_GTD, values_GTD, mean_G1D, torch.cat(labels, dim=1), clusters)
