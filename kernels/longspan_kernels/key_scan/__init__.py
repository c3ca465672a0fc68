"""The operation `key_scan`: the best keys of a query by int8 codes of them all; see README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch

from longspan_kernels.attention_graph.maps import COLUMNS, score_maps
from longspan_kernels.dispatch import path
from longspan_kernels.key_scan import cpu, reference
from longspan_kernels.key_scan.skew import skewed_maps
from longspan_kernels.on_gpu import triton_serves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan_kernels.dispatch import Backend

LARGEST = 1e30
"""Of keys, queries and weights: sums of their products stay within float32."""

Axes = Literal["queries", "keys", "skewed"]
"""What chooses the columns; see `coordinates`."""

__all__ = [
    "Axes",
    "Coordinates",
    "KeyCodes",
    "best_keys",
    "columns",
    "coordinates",
    "encode",
    "scores",
]


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


def columns(rank: int) -> int:
    """W, for codes of such a rank."""
    return rank + -rank % COLUMNS


def coordinates(
    keys_GTD: Tensor, queries_GSD: Tensor | None, rank: int, metric: Axes
) -> Coordinates:
    """The `rank` columns in which the scores of the sampled queries are kept best (`queries`; their
    best approximation of that rank), or the keys (`keys`: their principal axes, as in Loki, arXiv
    2406.02542), or those of `skewed_maps`, as in InfiniGen (`skewed`); filled up with zeros to a
    multiple of 32.

    Raises ValueError where rank is not 1 to D, and on numbers that are not finite or beyond 1e30.
    """
    groups, _, size = keys_GTD.shape
    if not 1 <= rank <= size:
        raise ValueError(f"rank is {rank}; it should be 1 to {size}, the head size")
    if metric not in get_args(Axes):
        raise ValueError(f"metric is {metric!r}; right is one of {', '.join(get_args(Axes))}")
    if queries_GSD is None:
        queries_GSD = keys_GTD.new_empty(groups, 0, size)
    check("keys", keys_GTD)
    check("queries", queries_GSD)
    found = []
    for keys_TD, queries_SD in zip(keys_GTD, queries_GSD, strict=True):
        given = keys_TD.float().cpu(), queries_SD.float().cpu(), rank
        maps = skewed_maps(*given) if metric == "skewed" else score_maps(*given, metric)
        # of keys that are all alike the maps know no unit; codes have steps of their own
        unit = maps.to_codes_DW.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
        found.append((maps.mean_D, maps.to_codes_DW / unit, maps.to_queries_DW * unit))
    return Coordinates(
        *(torch.stack(each).to(keys_GTD.device) for each in zip(*found, strict=True))
    )


def check(name: str, rows: Tensor) -> None:
    """ValueError where one of them is not finite or too large."""
    if rows.numel() and not bool(rows.abs().max() < LARGEST):  # nor is NaN
        raise ValueError(
            f"{name} holds NaN, infinity or more than {LARGEST:g}; every value must be below"
        )


def encode(keys_GTD: Tensor, where: Coordinates) -> KeyCodes:
    """A step a column, the range of these keys by 127. Raises ValueError as `coordinates`, and
    where the keys have another shape than those.
    """
    groups, _, size = keys_GTD.shape
    if (groups, size) != tuple(where.mean_GD.shape):
        raise ValueError(
            f"keys have shape {list(keys_GTD.shape)}; it should be {[*where.mean_GD.shape]} but for"
            " the tokens between"
        )
    check("keys", keys_GTD)
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

    Raises ValueError where k, candidates or a shape does not fit and, of tensors in host memory, on
    queries that are not finite or whose products with the codes are beyond 1e30.
    """
    groups, head_size, _ = where.to_queries_GDW.shape
    tokens = sum(each.code_GTW.shape[1] for each in coded)
    candidates = k if candidates is None else candidates
    if not 1 <= k <= candidates <= tokens:
        raise ValueError(
            f"k is {k} and candidates {candidates}; right is 1 <= k <= candidates <= {tokens}, the"
            " keys in codes"
        )
    for keys_GTD in keys_GTDs:
        if (keys_GTD.shape[0], keys_GTD.shape[2]) != (groups, head_size):
            raise ValueError(
                f"keys have shape {list(keys_GTD.shape)}; it should be [{groups}, T, {head_size}]"
            )
    if keys_GTDs and sum(keys_GTD.shape[1] for keys_GTD in keys_GTDs) != tokens:
        raise ValueError(
            f"keys has {sum(each.shape[1] for each in keys_GTDs)} tokens; it should have {tokens}"
        )
    weights = _weights(q_HD, coded, where)
    q_HD = q_HD.float()
    codes = [each.code_GTW for each in coded]
    if triton_serves(backend, codes, weights):
        from longspan_kernels.key_scan import triton

        return triton.best_keys(q_HD, weights, codes, k, candidates, keys_GTDs)
    isa = path(backend, cpu.obstacle(q_HD, codes, keys_GTDs))
    if isa is None:
        return reference.best_keys(q_HD, weights, codes, k, candidates, keys_GTDs)
    return cpu.best_keys(q_HD, weights, codes, k, candidates, keys_GTDs, threads=threads, isa=isa)


def scores(q_HD: Tensor, coded: Sequence[KeyCodes], where: Coordinates) -> Tensor:
    """float32 [H, T]: what `best_keys` ranks keys by, of every key, in plain torch on any device.

    Raises ValueError as `best_keys`.
    """
    weights = _weights(q_HD, coded, where)
    return reference.scores(weights, [each.code_GTW for each in coded])


def _weights(q_HD: Tensor, coded: Sequence[KeyCodes], where: Coordinates) -> list[Tensor]:
    """float32 [H, W] a stretch: of each column's codes."""
    groups, head_size, _ = where.to_queries_GDW.shape
    if q_HD.shape[1] != head_size or len(q_HD) % groups:
        raise ValueError(
            f"q has shape {list(q_HD.shape)}; it should be [a multiple of {groups}, {head_size}]"
        )
    y_GRW = q_HD.float().reshape(groups, -1, head_size) @ where.to_queries_GDW
    weights = [(y_GRW * each.step_GW[:, None]).flatten(0, 1) for each in coded]
    if q_HD.device.type == "cpu":  # a GPU would have to be waited for
        for weights_HW in weights:
            check("q times the codes' steps", weights_HW)
    return weights
