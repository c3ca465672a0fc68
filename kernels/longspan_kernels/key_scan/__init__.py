"""The operation `key_scan`: the best keys of a query by int8 codes of them all; see README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from longspan_kernels.attention_graph.maps import score_maps
from longspan_kernels.dispatch import path
from longspan_kernels.key_scan import cpu, reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.attention_graph.options import Metric
    from longspan_kernels.dispatch import Backend

__all__ = ["Coordinates", "KeyCodes", "best_keys", "coordinates", "encode"]


class Coordinates(NamedTuple):
    """x = (key - mean) to_codes and y = query to_queries: y.x is about query.(key - mean), W the
    columns. All float32.
    """

    mean_GD: Tensor
    to_codes_GDW: Tensor
    to_queries_GDW: Tensor


class KeyCodes(NamedTuple):
    """T keys in codes: x is about code * step."""

    code_GTW: Tensor
    """int8."""
    step_GW: Tensor
    """float32."""


def coordinates(
    keys_GTD: Tensor, queries_GSD: Tensor | None, rank: int, metric: Metric
) -> Coordinates:
    """The `rank` columns in which the scores of the sampled queries are kept best (`queries`; their
    best approximation of that rank), or the keys (`keys`: their principal axes, as in Loki, arXiv
    2406.02542); a multiple of 32, the last ones zero.

    Raises ValueError where rank is not 1 to D.
    """
    groups, _, size = keys_GTD.shape
    if not 1 <= rank <= size:
        raise ValueError(f"rank is {rank}; it should be 1 to {size}, the head size")
    if queries_GSD is None:
        queries_GSD = keys_GTD.new_empty(groups, 0, size)
    maps = [
        score_maps(keys_TD.float().cpu(), queries_SD.float().cpu(), rank, metric)
        for keys_TD, queries_SD in zip(keys_GTD, queries_GSD, strict=True)
    ]
    return Coordinates(*(torch.stack(each).to(keys_GTD.device) for each in zip(*maps, strict=True)))


def encode(keys_GTD: Tensor, where: Coordinates) -> KeyCodes:
    """A step a column, the range of these keys by 127. ValueError on NaN or infinity."""
    if not bool(keys_GTD.isfinite().all()):
        raise ValueError("keys holds NaN or infinity; every value must be finite")
    codes, steps = [], []
    for keys_TD, mean_D, to_codes_DW in zip(
        keys_GTD, where.mean_GD, where.to_codes_GDW, strict=True
    ):
        x_TW = (keys_TD.float() - mean_D) @ to_codes_DW
        step_W = x_TW.abs().amax(0) / 127
        step_W = torch.where(step_W > 0, step_W, 1.0)
        codes.append((x_TW / step_W).round_().clamp_(-127, 127).to(torch.int8))
        steps.append(step_W)
    return KeyCodes(torch.stack(codes), torch.stack(steps))


def best_keys(
    q_HD: Tensor,
    coded: Sequence[KeyCodes],
    where: Coordinates,
    k: int,
    *,
    keys_GTDs: Sequence[Tensor] = (),
    candidates: int | None = None,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Tensor:
    """int32 [H, k]: the numbers of the keys of largest product with each query, best first, counted
    through all stretches; equal ones by falling number.

    keys_GTDs: the keys themselves, in stretches of their own; if given, the best `candidates`
    (default: k) by codes are ordered by their exact products. Threads do not change results.

    Raises ValueError on NaN or infinity in q, and where k or candidates do not fit.
    """
    tokens = sum(each.code_GTW.shape[1] for each in coded)
    candidates = k if candidates is None else candidates
    if not 1 <= k <= candidates <= tokens:
        raise ValueError(
            f"k is {k} and candidates {candidates}; right is 1 <= k <= candidates <= {tokens}, the"
            " keys in codes"
        )
    if not bool(q_HD.isfinite().all()):
        raise ValueError("q holds NaN or infinity; every value must be finite")
    if keys_GTDs and sum(keys_GTD.shape[1] for keys_GTD in keys_GTDs) != tokens:
        raise ValueError(
            f"keys has {sum(each.shape[1] for each in keys_GTDs)} tokens; it should have {tokens}"
        )
    q_HD = q_HD.float()
    groups, head_size, _ = where.to_queries_GDW.shape
    y_GRW = q_HD.reshape(groups, -1, head_size) @ where.to_queries_GDW
    weights = [(y_GRW * each.step_GW[:, None]).flatten(0, 1) for each in coded]
    codes = [each.code_GTW for each in coded]
    isa = path(backend, cpu.obstacle(q_HD, codes, keys_GTDs))
    if isa is None:
        return reference.best_keys(q_HD, weights, codes, k, candidates, keys_GTDs)
    return cpu.best_keys(q_HD, weights, codes, k, candidates, keys_GTDs, threads=threads, isa=isa)
