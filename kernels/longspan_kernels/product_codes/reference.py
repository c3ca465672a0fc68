"""Product quantisation in plain torch, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan_kernels.types import Coded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.types import CodedRows, Sharing

BLOCK = 2**24
"""Distances held at once."""


def train(keys_GSD: Tensor, parts: int, clusters: int, rounds: int) -> Tensor:
    """float32 [G, P, C, E]: k-means over all of these keys."""
    part_NSE = _parts(keys_GSD, parts).flatten(0, 1)
    mean_N1E = part_NSE.mean(1, keepdim=True)  # squares of what is left lose fewer digits
    part_NSE = part_NSE - mean_N1E
    centroids_NCE = part_NSE[:, even(part_NSE.shape[1], clusters)]
    for _ in range(rounds):
        centroids_NCE = _moved(part_NSE, centroids_NCE)
    shape = (keys_GSD.shape[0], parts, *centroids_NCE.shape[1:])
    return (centroids_NCE + mean_N1E).reshape(shape)


def encode(keys_GTD: Tensor, centroids_GPCE: Tensor) -> Tensor:
    """uint8 [G, P, T]: the nearest centroid of each part."""
    groups, parts, clusters, _ = centroids_GPCE.shape
    mean_GP1E = centroids_GPCE.mean(2, keepdim=True)
    centroids_NCE = (centroids_GPCE - mean_GP1E).flatten(0, 1)
    size = _block(groups * parts, clusters)
    codes = [
        _nearest((_parts(some_GBD, parts) - mean_GP1E).flatten(0, 1), centroids_NCE).byte()
        for some_GBD in torch.split(keys_GTD, size, dim=1)
    ]
    return torch.cat(codes, dim=1).reshape(groups, parts, -1)


def decode(code_GPT: Tensor, centroids_GPCE: Tensor) -> Tensor:
    """float32 [G, T, D]: the keys that the codes stand for."""
    index_GPTE = code_GPT.long()[..., None].expand(-1, -1, -1, centroids_GPCE.shape[-1])
    return centroids_GPCE.gather(2, index_GPTE).transpose(1, 2).flatten(2)


def tables(q_HD: Tensor, centroids_GPCE: Tensor) -> Tensor:
    """float32 [G, P, C, R]: products of the queries of a group with its centroids."""
    groups, parts, _, size = centroids_GPCE.shape
    q_GRPE = q_HD.float().reshape(groups, -1, parts, size)
    return torch.einsum("grpe,gpce->gpcr", q_GRPE, centroids_GPCE)


def look_up(q_HD: Tensor, coded: Coded) -> Tensor:
    """float32 [G, R, T]: products of the queries with the keys that the codes stand for."""
    table_PGRC = tables(q_HD, coded.centroids_GPCE).permute(1, 0, 3, 2)
    heads = table_PGRC.shape[2]
    found_GRTs = (
        table_GRC.gather(2, code_GT.long()[:, None].expand(-1, heads, -1))
        for table_GRC, code_GT in zip(table_PGRC, coded.code_GPT.unbind(1), strict=True)
    )
    return torch.as_tensor(sum(found_GRTs))


def best_tokens(
    q_HD: Tensor, coded: Sequence[Coded], wanted: int, scale: float, share: Sharing
) -> Tensor:
    """int32 [N, K]: the numbers of the tokens of largest weight, best first."""
    score_GRT = torch.cat([look_up(q_HD, each) for each in coded], dim=2) * scale
    return _best(score_GRT, wanted, share)


def step_tokens(q_XD: Tensor, coded: CodedRows, most: int, scale: float, share: Sharing) -> Tensor:
    """int32 [N or X, K]: the numbers of the tokens of largest weight, best first, then of some that
    are not there. Waits for nothing.
    """
    centroids_NPCE, code_NPT, stop_BS = coded
    heads, books = len(code_NPT) // len(stop_BS), stop_BS.shape[1]
    number_T = torch.arange(code_NPT.shape[2], device=code_NPT.device)
    stop_NS = stop_BS.repeat_interleave(heads, dim=0, output_size=len(code_NPT))
    beyond_N1T = number_T >= stop_NS[:, -1:, None]
    book_NT = (number_T[:, None] >= stop_NS[:, None, :-1]).sum(-1)
    centroid_NPT = code_NPT + (book_NT * (centroids_NPCE.shape[2] // books))[:, None]
    there = Coded(centroids_NPCE, centroid_NPT.masked_fill(beyond_N1T, 0))
    score_NRT = look_up(q_XD, there) * scale
    return _best(score_NRT.masked_fill(beyond_N1T, float("-inf")), most, share)


def _best(score_GRT: Tensor, wanted: int, share: Sharing) -> Tensor:
    if share == "query_head":
        weight_NT = score_GRT.flatten(0, 1)
    else:  # the logarithm of the sum of weights, so that small ones still differ
        weight_NT = score_GRT.log_softmax(-1).logsumexp(1)
    return weight_NT.topk(wanted).indices.int()


def even(tokens: int, wanted: int) -> Tensor:
    """int64: `wanted` evenly spaced numbers below `tokens`, or all of them."""
    wanted = min(tokens, wanted)
    return torch.arange(wanted) * tokens // wanted


def _parts(keys_GTD: Tensor, parts: int) -> Tensor:
    """float32 [G, P, T, E]."""
    groups, tokens, _ = keys_GTD.shape
    return keys_GTD.float().reshape(groups, tokens, parts, -1).transpose(1, 2)


def _block(problems: int, clusters: int) -> int:
    return max(1, BLOCK // (problems * clusters))


def _nearest(part_NBE: Tensor, centroids_NCE: Tensor) -> Tensor:
    """int64 [N, B]; the square of the part itself is the same for all centroids."""
    square_N1C = centroids_NCE.square().sum(-1)[:, None]
    return torch.baddbmm(square_N1C, part_NBE, centroids_NCE.mT, alpha=-2).argmin(-1)


def _moved(part_NSE: Tensor, centroids_NCE: Tensor) -> Tensor:
    """Each centroid at the mean of the parts nearest to it, if there are any."""
    problems, clusters, _ = centroids_NCE.shape
    number_C = torch.arange(clusters, device=part_NSE.device)
    total_NCE = torch.zeros_like(centroids_NCE)
    count_NC = torch.zeros_like(total_NCE[..., 0])
    for some_NBE in torch.split(part_NSE, _block(problems, clusters), dim=1):
        # a product with ones and zeros: sums come in one order on every device
        member_NBC = (_nearest(some_NBE, centroids_NCE)[..., None] == number_C).float()
        total_NCE += member_NBC.mT @ some_NBE
        count_NC += member_NBC.sum(1)
    mean_NCE = total_NCE / count_NC.clamp(min=1)[..., None]
    return torch.where(count_NC[..., None] > 0, mean_NCE, centroids_NCE)
